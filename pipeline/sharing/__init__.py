"""What leaves the site, and how the other side knows it is what was released: policy, gate, bundle, verify, receive.

Import the modules directly (`receive.verify`, ...): `verify` runs without numpy, torch or pydantic, so this
file imports nothing until it is asked for `load`, the one thing that receivers need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.sharing.receive.loading import load as load


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.sharing.receive.loading import load

    return load
