"""What a library that is not installed belongs to: a receiver's installation is small, and says so in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from pipeline.core.errors import NotInstalled

SITE: Final = "site"

EXTRA_OF: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            "attr",
            "cronsim",
            "dp_accounting",
            "fastapi",
            "great_expectations",
            "jinja2",
            "packaging",
            "pandas",
            "platformdirs",
            "polars",
            "prefect",
            "prometheus_client",
            "pyarrow",
            "pydantic",
            "scipy",
            "sklearn",
            "sqlalchemy",
            "threadpoolctl",
            "torch",
        ),
        SITE,
    ),
    "pennylane": "quantum",
    "obstore": "objects",
    "dask": "cluster",
    "distributed": "cluster",
    "lightgbm": "lightgbm",
    "fastexcel": "excel",
}
"""Import name -> the extra of pyproject.toml that installs it."""

OPTIONAL: Final = tuple(sorted(set(EXTRA_OF.values()) - {SITE}))
"""The extras that a site does without until it asks for what they are for."""


def not_installed(extra: str) -> NotInstalled:
    """The error that asks for an extra."""
    what = "the site installation" if extra == SITE else f"the extra {extra}"
    return NotInstalled(f"this needs {what}: pip install 'decoct[{extra}]'")


def explained(error: ImportError) -> ImportError:
    """`NotInstalled` for a missing library that an extra of ours installs; any other error as it is."""
    extra = EXTRA_OF.get((error.name or "").partition(".")[0])
    return error if extra is None or isinstance(error, NotInstalled) else not_installed(extra)


def require_site() -> None:
    """Before a site's work begins: nothing is written by an installation that could not end it.

    Raises:
        NotInstalled: a library of the extra `site` is missing.
    """
    if any(find_spec(name) is None for name, extra in EXTRA_OF.items() if extra == SITE):
        raise not_installed(SITE)
