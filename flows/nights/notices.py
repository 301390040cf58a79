"""The notice of a night: what is told of it elsewhere, under the site's signature, and read back where it arrived.

Marks, names, versions and sentences of ours, and what is left of the budget; nothing of a patient, no digest but the
policy's. A notice is canonical JSON on one line. Its `signatures` are a DSSE envelope's, over the canonical JSON of all
its other fields: whoever only reads it needs no envelope, and whoever opens it as one trusts every byte.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from flows.environment import code_version
from flows.watch.releases import epsilon_left
from flows.workspace.job import Job, key_path, marks_of
from pipeline.core.config import Config
from pipeline.core.errors import DecoctError, ReleaseRefused
from pipeline.core.keys.secrets import read_secret
from pipeline.core.redaction import outward
from pipeline.core.types import GateDecision
from pipeline.sharing.canonical import canonical, is_printable, read_canonical
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.trust.dsse import Envelope, open_envelope, with_signature
from pipeline.sharing.trust.keys import PURPOSE, TrustRoot, author_signer

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # it lists no exports

T = TypeVar("T")

SCHEMA: Final = "decoct/night/3"
KIND: Final = "application/vnd.decoct.night+json"
MAX_BYTES: Final = 1 << 16
TOLD: Final = ("night", "run", "started", "ended", "state", "exit_code", "sentence", "release", "version")
STATES: Final = frozenset({"released", "proposed", "unchanged", "held", "refused", "failed", "interrupted", "killed"})
_WORDS: Final = ("night", "run", "state", "sentence", "release", "site", "decoct", "policy", "policy_digest", "verdict")
_TIMES: Final = ("started", "ended", "last_good")
_FORM: Final[Mapping[str, tuple[type, ...]]] = {
    "schema": (str,),
    **dict.fromkeys((*_WORDS, *_TIMES), (str,)),
    **dict.fromkeys(("exit_code", "version"), (int,)),
    **dict.fromkeys(("epsilon_left", "epsilon_budget"), (int, float, type(None))),
    "marks": (dict,),
}

Marks = Mapping[str, Sequence[str]]
"""Of what each stage made, by its label (`flows.workspace.job.marks_of`)."""


def notice(night: Mapping[str, Any], marks: Marks, about: Mapping[str, Any], signer: Signer | None) -> dict[str, Any]:
    """The fields `TOLD` of a night's record, its marks and what `about` says; without a signer, nobody vouches."""
    told = {name: night[name] for name in TOLD} | {"sentence": outward(str(night["sentence"]))}
    told = {"schema": SCHEMA, **told, **about, "marks": {label: list(found) for label, found in marks.items()}}
    if signer is None:
        return {**told, "signatures": []}
    signed = with_signature(Envelope(KIND, canonical(told), {}), signer).data()
    return {**told, "signatures": json.loads(signed)["signatures"]}


def told_of(config: Config, night: Mapping[str, Any], last_good: str) -> dict[str, Any]:
    """The notice of a night of this workspace; what cannot be read is left empty, as the end is told all the same."""
    workspace, digests = config.workspace, night["digests"]
    job = Job(config, workspace, resume=True)
    policy = _if_it_can(lambda: load_policy(config.release.policy), None)
    left = _if_it_can(lambda: epsilon_left(workspace), None)
    about = {
        "site": config.release.site,
        "decoct": code_version(),
        "policy": "" if policy is None else policy.name,
        "policy_digest": "" if policy is None else policy.digest,
        "verdict": _if_it_can(lambda: str(job.store.get(digests["decide"][0], GateDecision).verdict), ""),
        "last_good": last_good,
        "epsilon_left": None if left is None else math.floor(10 * left[0]) / 10,
        "epsilon_budget": None if left is None else left[1],
    }
    marks: dict[str, list[str]] = _if_it_can(lambda: _marks(config, digests), {})
    path = key_path(workspace, PURPOSE)  # never made here: a key that no trust root lists vouches for nothing
    signer = _if_it_can(lambda: author_signer(read_secret(path, PURPOSE)), None) if path.exists() else None
    return notice(night, marks, about, signer)


def read_notice(data: bytes, root: TrustRoot, revoked: frozenset[str], now: datetime) -> dict[str, Any]:
    """What a site says of a night, if the site's own key says it.

    Raises:
        ReleaseRefused: malformed, altered, unsigned, signed by a key that does not speak for the site, or from later.
    """
    if len(data) > MAX_BYTES:
        raise ReleaseRefused(f"it is larger than {MAX_BYTES} bytes")
    told = read_canonical(data.removesuffix(b"\n"), "it")
    if told.get("schema") != SCHEMA:
        raise ReleaseRefused(f"it is no notice that this version knows; it reads {SCHEMA}")
    signatures = told.pop("signatures", None)
    payload = base64.b64encode(canonical(told)).decode("ascii")
    envelope = open_envelope(canonical({"payload": payload, "payloadType": KIND, "signatures": signatures}), KIND, "it")
    if not envelope.signatures:
        raise ReleaseRefused("it is not signed")
    authors = {key.keyid: key for key in root.keys if key.role == PURPOSE and key.site == told.get("site")}
    for keyid in envelope.signatures:
        if keyid in revoked:
            raise ReleaseRefused("it is signed by a key that is revoked")
        if keyid not in authors or not envelope.holds(keyid, authors[keyid].public):
            raise ReleaseRefused("it was altered, or is not signed by an author's key of its site in the trust root")
    _require_form(told)
    if datetime.fromisoformat(told["ended"]) > now:
        raise ReleaseRefused("it says that the night ended in the future")
    return told


def _require_form(told: Mapping[str, Any]) -> None:
    right = set(told) == set(_FORM) and all(type(told[name]) in kinds for name, kinds in _FORM.items())
    if not right or not is_printable(dict(told)) or told["state"] not in STATES or not _are_times(told):
        raise ReleaseRefused("it has missing or unknown fields, or values of the wrong form")


def _are_times(told: Mapping[str, Any]) -> bool:
    """In their one spelling, so that they compare as they are; only a last good night may be none."""
    try:
        return all(
            datetime.fromisoformat(told[name]).astimezone(UTC).isoformat(timespec="seconds") == told[name]
            for name in _TIMES
            if told[name] or name != "last_good"
        )
    except (ValueError, OverflowError):
        return False


def _marks(config: Config, digests: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    mark = marks_of(config.workspace)
    return {label: [mark(digest) for digest in found] for label, found in digests.items()}


def _if_it_can(read: Callable[[], T], otherwise: T) -> T:
    with suppress(DecoctError, OSError, LookupError):
        return read()
    return otherwise
