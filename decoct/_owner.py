"""Whether the import names that Decoct needs beside its own are Decoct's: other distributions are called like them.

Nothing of another package's is imported or run: looked at are the places where Python would find it.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

NAMES: Final = ("pipeline", "encoders", "condensation", "flows")
HOME: Final = Path(__file__).resolve().parents[1]
"""The checkout, or the site-packages folder into which the wheel was unpacked."""


def require_own_packages(home: Path = HOME) -> None:
    """Each of the names is a package beside this one, in the checkout or in the installation.

    In a site-packages folder, which many distributions share, its `__init__.py` must also be the file that Decoct's own
    list (RECORD) tells the digest of, and not what a distribution of the same name has written over it. A checkout,
    also one that is installed as editable, has no such list beside it.

    Raises:
        ImportError: a stranger owns one of the names; one sentence says which, and where it lies.
    """
    recorded = _recorded(home)
    for name in NAMES:
        found = _place(name)
        if found is None:
            raise ImportError(f"Decoct's package {name!r} is not beside it in {home}: install Decoct again")
        if found.resolve() != home / name:
            raise ImportError(
                f"another package owns the import name {name!r} ({found}), which Decoct needs: "
                "uninstall it, or take its folder off the path"
            )
        if name in recorded and recorded[name] != _digest(home / name / "__init__.py"):
            raise ImportError(
                f"another distribution has written its package {name!r} over Decoct's in {home}: "
                "uninstall it, then install Decoct again"
            )


def _place(name: str) -> Path | None:
    """The folder of a package, or the file of a module, that `import name` would take or has taken."""
    known = getattr(sys.modules.get(name), "__path__", None)
    if known:
        return Path(next(iter(known)))
    try:
        spec = find_spec(name)
    except ValueError:  # somebody put a module without a place into sys.modules
        return Path(f"<{name}>")
    if spec is None:
        return None
    places = [*(spec.submodule_search_locations or ()), spec.origin or f"<{name}>"]
    return Path(places[0])


def _recorded(home: Path) -> dict[str, str]:
    """Name -> SHA-256 of its `__init__.py` as the installed distribution lists it; empty in a checkout."""
    rows: dict[str, str] = {}
    for record in home.glob("decoct-*.dist-info/RECORD"):
        for line in record.read_text(encoding="utf-8").splitlines():
            file, _, rest = line.partition(",")
            name, _, file = file.partition("/")
            if name in NAMES and file == "__init__.py" and rest.startswith("sha256="):
                rows[name] = rest.partition(",")[0]
    return rows


def _digest(file: Path) -> str:
    """As RECORD writes it."""
    from base64 import urlsafe_b64encode
    from hashlib import sha256

    return "sha256=" + urlsafe_b64encode(sha256(file.read_bytes()).digest()).rstrip(b"=").decode()
