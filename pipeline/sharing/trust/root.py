"""The signed trust root: whose keys count for what, agreed on by m of n root keys, versioned and expiring.

It reaches a receiver by another way than the bundles, and people compare its fingerprint. A new version replaces it
when it is the very next one and m of the *old* root keys signed it too (as in The Update Framework), so that one
stolen key changes nothing.
A key has one role: `author` signs releases, `approver` approves them, `root` signs roots and revocation lists. Authors
and approvers speak for one site. How many must approve, how old a revocation list may be and which policies count, by
their digests, is said here, by those who delegate, and never by a bundle. Imports: the standard library, rfc8785,
cryptography.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.core.errors import ReleaseRefused, UsageError
from pipeline.sharing.canonical import MAX_VERSION, canonical, folded, iso_date, read_canonical, sha256_hex
from pipeline.sharing.trust.dsse import Envelope, open_envelope, with_signature
from pipeline.sharing.trust.keys import ROLES, PublicKey, TrustRoot, public_key_from_hex

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # it lists no exports

FORMAT: Final = "decoct-trust-root/3"
KIND: Final = "application/vnd.decoct.trust-root+json"
MAX_BYTES: Final = 1 << 20
_KEYS: Final[Mapping[str, type]] = {
    "format": str,
    "version": int,
    "expires": str,
    "threshold": int,
    "keys": list,
    "min_approvals": int,
    "max_revocation_age_days": int,
    "policies": dict,
    "minimum_versions": dict,
}
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def draft_root(
    keys: Sequence[PublicKey],
    *,
    threshold: int,
    expires: datetime.date,
    policies: Mapping[str, str],
    min_approvals: int = TrustRoot.min_approvals,
    max_revocation_age_days: int = TrustRoot.max_revocation_age_days,
    version: int = 1,
    minimum_versions: Mapping[str, int] | None = None,
) -> bytes:
    """The bytes of a root that nobody has signed yet; `policies` is name -> digest of what may be released under.

    Raises:
        UsageError: it could never be trusted; the sentence says why.
    """
    content = {
        "format": FORMAT,
        "version": version,
        "expires": expires.isoformat(),
        "threshold": threshold,
        "keys": [
            {"keyid": key.keyid, "public": key.public, "name": key.name, "role": key.role, "site": key.site}
            for key in sorted(keys, key=lambda key: key.keyid)
        ],
        "min_approvals": min_approvals,
        "max_revocation_age_days": max_revocation_age_days,
        "policies": dict(policies),
        "minimum_versions": dict(minimum_versions or {}),
    }
    try:
        _parsed(content, "the root")
    except ReleaseRefused as problem:
        raise UsageError(str(problem)) from None
    return Envelope(KIND, canonical(content), {}).data()


def sign_root(data: bytes, signer: Signer, previous: TrustRoot | None = None) -> bytes:
    """The root with one signature more, by a root key of its own or of the `previous` version.

    Raises:
        ReleaseRefused: malformed. UsageError: the key is a root key of neither.
    """
    envelope = open_envelope(data, KIND, "the root")
    root = _parsed(read_canonical(envelope.payload, "the root"), "the root")
    signed = with_signature(envelope, signer)
    new = set(signed.signatures) - set(envelope.signatures)
    known = {key.keyid for each in (root, previous) if each is not None for key in each.keys if key.role == "root"}
    if not new <= known:
        raise UsageError("only a root key of this version or of the one before signs a root")
    return signed.data()


def fingerprint(data: bytes) -> str:
    """Hex SHA-256 of what the root says, whoever has signed it: what people compare, in groups of four."""
    digest = sha256_hex(open_envelope(data, KIND, "the root").payload)
    return " ".join(digest[place : place + 4] for place in range(0, len(digest), 4))


def parse_root(data: bytes, name: str) -> TrustRoot:
    """A root that enough of its own root keys have signed. Whether it has expired is asked where it is used.

    Raises:
        ReleaseRefused: malformed, or signed by too few.
    """
    envelope = open_envelope(data, KIND, name)
    root = _parsed(read_canonical(envelope.payload, name), name)
    require_root_signatures(envelope, root, name)
    return dataclasses.replace(root, digest=sha256_hex(envelope.payload))


def read_root(path: Path) -> bytes:
    """The bytes of a root's file, if it is not larger than a root can be.

    Raises:
        ReleaseRefused: absent, unreadable or too large.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ReleaseRefused(f"there is no trust root at {path}, so no signature can be trusted") from None
    except OSError:
        raise ReleaseRefused(f"trust root {path} cannot be read") from None
    if len(data) > MAX_BYTES:
        raise ReleaseRefused(f"trust root {path} is larger than {MAX_BYTES} bytes")
    return data


def require_successor(data: bytes, old: TrustRoot, name: str) -> TrustRoot:
    """The root in `data`, if it may replace `old`: the next version, that m of the old root keys have signed as well.

    Not a later one: what a version between has revoked or added would never have been seen (as in The Update
    Framework, whose clients take every version in turn).

    Raises:
        ReleaseRefused: as `parse_root`, or it may not.
    """
    root = parse_root(data, name)
    if root.version != old.version + 1:
        raise ReleaseRefused(
            f"{name} is version {root.version}, and version {old.version} was known before: "
            f"the next that counts is version {old.version + 1}"
        )
    try:
        require_root_signatures(open_envelope(data, KIND, name), old, name)
    except ReleaseRefused:
        raise ReleaseRefused(
            f"{name} is a new version that fewer than {old.threshold} of the root keys known before have signed: "
            "somebody may be replacing them"
        ) from None
    return root


def require_in_force(root: TrustRoot, today: datetime.date) -> None:
    """The root says until when it holds, and it is not later.

    Raises:
        ReleaseRefused: it does not, or it is.
    """
    if not root.expires:
        raise ReleaseRefused("the trust root does not say until when it holds")
    if today > datetime.date.fromisoformat(root.expires):
        raise ReleaseRefused(f"the trust root expired on {root.expires}: get the next version")


def require_root_signatures(envelope: Envelope, root: TrustRoot, name: str) -> None:
    """Enough different people have signed with root keys of `root`.

    Raises:
        ReleaseRefused: too few.
    """
    signed = {key.person for key in root.keys if key.role == "root" and envelope.holds(key.keyid, key.public)}
    if root.threshold < 1 or len(signed) < root.threshold:
        raise ReleaseRefused(
            f"{name} is signed by {len(signed)} of its root keys' holders, and {max(root.threshold, 1)} are needed"
        )


def _parsed(raw: Mapping[str, Any], name: str) -> TrustRoot:
    if raw.get("format") != FORMAT:  # first: an older or newer root is named as such
        raise ReleaseRefused(f"{name} is of a format that this version does not know; it reads {FORMAT}")
    if set(raw) != set(_KEYS) or any(type(raw[key]) is not kind for key, kind in _KEYS.items()):
        raise ReleaseRefused(f"{name} has missing or unknown keys, or values of the wrong type")
    try:
        expires = iso_date(raw["expires"])
    except ValueError:
        raise ReleaseRefused(f"{name} expires on a date that is not one") from None
    root = TrustRoot(
        keys=tuple(_key(item, name) for item in raw["keys"]),
        min_approvals=raw["min_approvals"],
        max_revocation_age_days=raw["max_revocation_age_days"],
        policies=raw["policies"],
        minimum_versions=raw["minimum_versions"],
        version=raw["version"],
        expires=expires.isoformat(),
        threshold=raw["threshold"],
    )
    if broken := _broken(root):
        raise ReleaseRefused(f"{name} {broken}")
    return root


def _broken(root: TrustRoot) -> str:
    """The first rule that the root breaks, in words; empty = none."""
    holders, authors, approvers = (
        {key.person for key in root.keys if key.role == role} for role in ("root", "author", "approver")
    )
    keyids = [key.keyid for key in root.keys]
    sites = {key.site for key in root.keys if key.site}
    rules = {
        "must list each key once, for one role, sorted by keyid": keyids == sorted(set(keyids)),
        "needs a version of at least 1, and a threshold of 1 to the number of people who hold its root keys": (
            1 <= root.version <= MAX_VERSION and 1 <= root.threshold <= len(holders)
        ),
        "could be signed by its authors alone: somebody else must hold a root key": (
            len(holders & authors) < root.threshold
        ),
        "asks for more approvals than there are approvers who are no authors, or for less than none": (
            0 <= root.min_approvals <= len(approvers - authors)
        ),
        "must give max_revocation_age_days between 0 and 3660": 0 <= root.max_revocation_age_days <= 3660,
        "names two sites that a reader cannot tell apart": len({*map(folded, sites)}) == len(sites),
        "must pin at least one policy by its name and its SHA-256; a name alone says nothing": bool(root.policies)
        and all(type(digest) is str and _DIGEST.fullmatch(digest) for digest in root.policies.values()),
        "names a site that begins with another's name and a slash, so that site/name has two readings": not any(
            one.startswith(f"{other}/") for one in sites for other in sites
        ),
        "must give minimum_versions as whole numbers": all(
            type(least) is int for least in root.minimum_versions.values()
        ),
        "has names with characters that cannot be seen": all(
            text.isprintable() for text in (*sites, *root.minimum_versions, *(key.name for key in root.keys))
        ),
    }
    return next((rule for rule, kept in rules.items() if not kept), "")


def _key(item: Any, name: str) -> PublicKey:
    if not isinstance(item, dict) or set(item) != {"keyid", "public", "name", "role", "site"}:
        raise ReleaseRefused(f"{name}: every key has keyid, public, name, role and site, and nothing else")
    if not all(type(value) is str for value in item.values()) or item["role"] not in ROLES or not folded(item["name"]):
        raise ReleaseRefused(f"{name}: every key names its holder and one role, of {', '.join(ROLES)}")
    if (item["role"] == "root") != (item["site"] == ""):
        raise ReleaseRefused(f"{name}: authors and approvers speak for one site, root keys for none")
    try:
        key = public_key_from_hex(item["public"], item["name"], role=item["role"], site=item["site"])
    except (UsageError, ValueError):
        raise ReleaseRefused(f"{name}: a public key is not an Ed25519 key in hex") from None
    if key.keyid != item["keyid"]:
        raise ReleaseRefused(f"{name}: the keyid of {key.name} does not belong to its public key")
    return key


def load_trust_root(path: Path) -> TrustRoot:
    """Read a trust root that its root keys signed.

    Raises:
        ReleaseRefused: absent, malformed, of another format, or signed by too few.
    """
    return parse_root(read_root(path), f"trust root {path}")
