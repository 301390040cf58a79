"""The revocation list: keys that no longer sign, releases that are withdrawn; dated, counted, signed by m of n roots.

A list says what is revoked up to its date and nothing about the time since. So the root says how old a receiver's list
may be, and an older one decides nothing: the release is refused as INCONCLUSIVE, not accepted in doubt. Imports: the
standard library, rfc8785, cryptography.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from pipeline.core.errors import ReleaseRefused, UsageError
from pipeline.sharing.canonical import MAX_VERSION, canonical, is_spelt, iso_date, read_canonical
from pipeline.sharing.trust.dsse import Envelope, open_envelope, with_signature
from pipeline.sharing.trust.keys import TrustRoot
from pipeline.sharing.trust.root import MAX_BYTES, require_root_signatures

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # it lists no exports

FORMAT: Final = "decoct-revocations/1"
KIND: Final = "application/vnd.decoct.revocations+json"
_NAME: Final = "the revocation list"
_KEYID: Final = re.compile(r"[0-9a-f]{64}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,15}")


@final
@dataclass(frozen=True)
class Revocations:
    """What is revoked on `issued`; `releases` are "site/name/version"."""

    version: int
    issued: datetime.date
    keys: frozenset[str]
    releases: frozenset[str]


def draft_revocations(keys: Sequence[str], releases: Sequence[str], *, version: int, issued: datetime.date) -> bytes:
    """The bytes of a list that nobody has signed yet; `keys` are key ids.

    Raises:
        UsageError: it could not be read back.
    """
    content = {
        "format": FORMAT,
        "version": version,
        "issued": issued.isoformat(),
        "keys": sorted(set(keys)),
        "releases": sorted(set(releases)),
    }
    try:
        _parsed(content)
    except ReleaseRefused as problem:
        raise UsageError(str(problem)) from None
    return Envelope(KIND, canonical(content), {}).data()


def sign_revocations(data: bytes, signer: Signer) -> bytes:
    """The list with one signature more. Raises ReleaseRefused when malformed."""
    return with_signature(open_envelope(data, KIND, _NAME), signer).data()


def load_revocations(path: Path, root: TrustRoot) -> Revocations:
    """Read a list that enough root keys have signed.

    Raises:
        ReleaseRefused: absent, malformed, or signed by too few.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError:
        raise ReleaseRefused(f"there is no revocation list that can be read at {path}") from None
    if len(data) > MAX_BYTES:
        raise ReleaseRefused(f"revocation list {path} is larger than {MAX_BYTES} bytes")
    return parse_revocations(data, root)


def parse_revocations(data: bytes, root: TrustRoot) -> Revocations:
    """As `load_revocations`, from bytes."""
    envelope = open_envelope(data, KIND, _NAME)
    require_root_signatures(envelope, root, _NAME)
    return _parsed(read_canonical(envelope.payload, _NAME))


def require_fresh(revocations: Revocations | None, max_days: int, today: datetime.date) -> None:
    """There is a list no older than `max_days`; 0 = none is asked for.

    Raises:
        ReleaseRefused: there is none, it is too old, or it is dated in the future.
    """
    if revocations is not None and revocations.issued > today:
        raise ReleaseRefused(f"the revocation list is dated {revocations.issued}, which is in the future")
    if max_days == 0:
        return
    if revocations is None:
        raise ReleaseRefused(
            "INCONCLUSIVE: the trust root asks for a revocation list, and none was given; without one nobody can say "
            "whether the release is still valid"
        )
    age = (today - revocations.issued).days
    if age > max_days:
        raise ReleaseRefused(
            f"INCONCLUSIVE: the revocation list is {age} days old and the trust root allows {max_days}; get a newer one"
        )


def _parsed(raw: Any) -> Revocations:
    kinds = {"format": str, "version": int, "issued": str, "keys": list, "releases": list}
    if raw.get("format") != FORMAT:
        raise ReleaseRefused(f"{_NAME} is of a format that this version does not know; it reads {FORMAT}")
    if set(raw) != set(kinds) or any(type(raw[key]) is not kind for key, kind in kinds.items()):
        raise ReleaseRefused(f"{_NAME} has missing or unknown keys, or values of the wrong type")
    named = all(type(key) is str and _KEYID.fullmatch(key) for key in raw["keys"]) and all(
        map(_is_release, raw["releases"])
    )
    if not 1 <= raw["version"] <= MAX_VERSION or not named:  # a misspelt one would revoke nothing
        raise ReleaseRefused(f"{_NAME} needs a version of at least 1, key ids, and releases as site/name/version")
    try:
        issued = iso_date(raw["issued"])
    except ValueError:
        raise ReleaseRefused(f"{_NAME} is dated on a day that is none") from None
    return Revocations(raw["version"], issued, frozenset(raw["keys"]), frozenset(raw["releases"]))


def _is_release(text: Any) -> bool:
    """site/name/version, as a manifest spells them."""
    parts = text.rsplit("/", 2) if type(text) is str else []
    return len(parts) == 3 and all(map(is_spelt, parts)) and _VERSION.fullmatch(parts[2]) is not None
