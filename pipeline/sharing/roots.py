"""Trust roots to be signed: of several people, from a TOML file that they write, or of one site with one holder.

threshold = 2                   # people with root keys who must sign
days = 365                      # until it expires
version = 1
min_approvals = 1
max_revocation_age_days = 30
policies = ["strict"]           # shipped policies by name, a site's own by its file; their digests are written

[[keys]]
name = "Ann Author"
role = "author"                 # author, approver or root
site = "St. Elsewhere"          # none for root
public = "<64 hex digits>"

What is left out of the last four settings is as strict as `TrustRoot`'s defaults, and accepts the shipped policies that
are for production. Standard library, rfc8785 and cryptography.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.core.errors import UsageError
from pipeline.sharing.policy.load import load_policy, shipped_digests
from pipeline.sharing.trust.keys import PublicKey, TrustRoot, public_key_from_hex
from pipeline.sharing.trust.root import draft_root

_KINDS: Final[Mapping[str, type]] = {
    "threshold": int,
    "days": int,
    "version": int,
    "min_approvals": int,
    "max_revocation_age_days": int,
    "policies": list,
    "minimum_versions": dict,
    "keys": list,
}
_DEFAULTS: Final[Mapping[str, Any]] = {
    "version": 1,
    "min_approvals": TrustRoot.min_approvals,
    "max_revocation_age_days": TrustRoot.max_revocation_age_days,
    "policies": [],
    "minimum_versions": {},
}


def described_root(path: Path, today: datetime.date) -> bytes:
    """The unsigned root that the file describes.

    Raises:
        UsageError: unreadable, a key is unknown, missing or ill-typed, or the root could never be trusted.
        ConfigError: a policy in it cannot be read.
    """
    try:
        raw = {**_DEFAULTS, **tomllib.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError):
        raise UsageError(f"{path} cannot be read as TOML") from None
    for key in {*raw, *_KINDS}:
        if key not in _KINDS or type(raw.get(key)) is not _KINDS[key]:
            raise UsageError(f"{path}: {key} is unknown, missing or of the wrong type")
    if not all(type(item) is str for item in raw["policies"]):
        raise UsageError(f"{path}: policies are shipped policies' names or policy files")
    return draft_root(
        [_key(item, path) for item in raw["keys"]],
        threshold=raw["threshold"],
        expires=_expiry(today, raw["days"]),
        version=raw["version"],
        min_approvals=raw["min_approvals"],
        max_revocation_age_days=raw["max_revocation_age_days"],
        policies=policy_digests([_beside(path, item) for item in raw["policies"]]),
        minimum_versions=raw["minimum_versions"],
    )


def small_root(
    author: PublicKey,
    holder: PublicKey,
    approvers: Sequence[PublicKey],
    *,
    today: datetime.date,
    days: int,
    policies: Sequence[str] = (),
    trial: bool = False,
) -> bytes:
    """The unsigned root of one site: an author, its approvers, and one person who holds the root key.

    `trial`: for trying out. It asks for no approval and no revocation list, and accepts the shipped policies that are
    not for production unless `policies` names others.

    Raises:
        UsageError: the root could never be trusted; without an approver that is so unless it is a `trial`.
        ConfigError: a policy cannot be read.
    """
    return draft_root(
        [author, holder, *approvers],
        threshold=1,
        expires=_expiry(today, days),
        min_approvals=0 if trial else TrustRoot.min_approvals,
        max_revocation_age_days=0 if trial else TrustRoot.max_revocation_age_days,
        policies=policy_digests(policies, production=not trial),
    )


def policy_digests(policies: Sequence[str | Path], *, production: bool = True) -> dict[str, str]:
    """Name -> digest of these policies, shipped ones by name or files; of none: the shipped ones that are (not) for
    production.

    Raises:
        ConfigError: one cannot be read. UsageError: two of them bear one name.
    """
    if not policies:
        return shipped_digests(production=production)
    read = [load_policy(each) for each in policies]
    digests = {policy.name: policy.digest for policy in read}
    if len(digests) != len({policy.digest for policy in read}):
        raise UsageError("a trust root pins one policy for each name, and two of these bear one name")
    return digests


def _beside(path: Path, policy: str) -> str | Path:
    """A policy's file is looked for beside the description that names it."""
    return path.parent / policy if policy.endswith(".toml") else policy


def _expiry(today: datetime.date, days: int) -> datetime.date:
    if not 1 <= days <= 3660:
        raise UsageError("a trust root expires after 1 to 3660 days")
    return today + datetime.timedelta(days=days)


def _key(item: Any, path: Path) -> PublicKey:
    if not isinstance(item, dict) or not {"name", "role", "public"} <= set(item) <= {"name", "role", "public", "site"}:
        raise UsageError(f"{path}: every key has name, role and public, and a site unless it is a root key")
    told = {name: str(value) for name, value in item.items()}
    return public_key_from_hex(told["public"], told["name"], role=told["role"], site=told.get("site", ""))
