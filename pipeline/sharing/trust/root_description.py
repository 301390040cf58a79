"""The TOML file from which a trust root is drafted: written by people, read by people, signed as canonical JSON.

threshold = 2
days = 365                  # until it expires
version = 1
accept_non_production = false
accepted_policies = []

[[keys]]
name = "Ann Author"
role = "author"             # author, approver or root
site = "St. Elsewhere"      # none for root
public = "<64 hex digits>"
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.core.errors import UsageError
from pipeline.sharing.trust.keys import PublicKey, public_key_from_hex
from pipeline.sharing.trust.root import draft_root

_KINDS: Final[Mapping[str, type]] = {
    "threshold": int,
    "days": int,
    "version": int,
    "accept_non_production": bool,
    "accepted_policies": list,
    "minimum_versions": dict,
    "keys": list,
}
_DEFAULTS: Final[Mapping[str, Any]] = {
    "version": 1,
    "accept_non_production": False,
    "accepted_policies": [],
    "minimum_versions": {},
}


def described_root(path: Path, today: datetime.date) -> bytes:
    """The unsigned root that the file describes.

    Raises:
        UsageError: unreadable, a key is unknown, missing or ill-typed, or the root could never be trusted.
    """
    try:
        raw = {**_DEFAULTS, **tomllib.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError):
        raise UsageError(f"{path} cannot be read as TOML") from None
    for key in {*raw, *_KINDS}:
        if key not in _KINDS or type(raw.get(key)) is not _KINDS[key]:
            raise UsageError(f"{path}: {key} is unknown, missing or of the wrong type")
    if not 1 <= raw["days"] <= 3660:
        raise UsageError(f"{path}: days must be between 1 and 3660")
    return draft_root(
        [_key(item, path) for item in raw["keys"]],
        threshold=raw["threshold"],
        expires=today + datetime.timedelta(days=raw["days"]),
        version=raw["version"],
        accepted_policies=raw["accepted_policies"],
        accept_non_production=raw["accept_non_production"],
        minimum_versions=raw["minimum_versions"],
    )


def _key(item: Any, path: Path) -> PublicKey:
    if not isinstance(item, dict) or not {"name", "role", "public"} <= set(item) <= {"name", "role", "public", "site"}:
        raise UsageError(f"{path}: every key has name, role and public, and a site unless it is a root key")
    told = {name: str(value) for name, value in item.items()}
    return public_key_from_hex(told["public"], told["name"], role=told["role"], site=told.get("site", ""))
