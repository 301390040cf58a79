"""What a release says, settled once: manifest, card, catalogue entry and audit page are renderings of it.

What is published: accounted or public values, the policy's limits, and bounds rounded up. Exact audit and utility
figures, counts, seeds and the cohort's digest stay in the site's own report, because `ReleaseFacts` has none.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import Any, Final, final

from pipeline.core.data_use import data_use_problem
from pipeline.core.errors import ReleaseRefused, UsageError
from pipeline.sharing.bundle.encryption import encrypted, encryption_description
from pipeline.sharing.bundle.payload import data_description, guarantee_description, method_description
from pipeline.sharing.bundle.rounding import leakage_verdicts, rounded_utility
from pipeline.sharing.canonical import plain, sha256_hex
from pipeline.sharing.layout import FORMAT
from pipeline.sharing.policy.gate import AuditedRelease
from pipeline.sharing.policy.load import require_terms
from pipeline.sharing.trust.log import Checkpoint

_ODD: Final = re.compile(r"[^a-z0-9]+")


@final
@dataclasses.dataclass(frozen=True)
class ReleaseNotes:
    """What people say about a release; everything else comes from the artefact and the gate.

    `version` counts a name's releases upwards, so that a receiver can refuse to go back to an older one.
    """

    name: str
    site: str
    version: int
    licence: str  # an SPDX identifier
    attribution: str = ""  # whose data the release derives from, in the words that their terms ask for
    intended_use: str = "Developing and comparing models; a model meant for care is to be validated on real data first."
    limits: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    recipient_keys: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> age key; encrypts the payload
    agreement: str = ""  # the data-use agreement's title or reference
    data_use: tuple[str, ...] = ()  # terms of the Data Use Ontology
    contact: str = ""


@final
@dataclasses.dataclass(frozen=True, repr=False)
class ReleaseFacts:
    """All that a bundle may say, and the payload as it leaves."""

    manifest: Mapping[str, Any]  # without the files' digests
    leakage: Mapping[str, Any]  # the content of leakage.json
    utility: tuple[tuple[str, float, float], ...]  # task, least, most: rounded, or empty
    policy: Mapping[str, Any]  # the content of policy.json
    intended_use: str
    limits: tuple[str, ...]
    agreement: str
    contact: str
    payload: bytes
    attribution: str = ""


def release_facts(
    release: AuditedRelease, notes: ReleaseNotes, issued: datetime.date, payload: bytes, log: Checkpoint | None = None
) -> ReleaseFacts:
    """The facts of a release whose payload is `payload`, which is encrypted here where the notes name keys.

    Raises:
        ReleaseRefused, UsageError: not a release of the gate's, or as `check_notes`.
    """
    if type(release) is not AuditedRelease:
        raise ReleaseRefused("only a release that passed the gate is written")
    check_notes(release, notes)
    encryption = encryption_description(notes.recipient_keys)
    leaves = payload if encryption is None else encrypted(payload, encryption)
    policy = release.policy
    manifest = {
        "format": FORMAT,
        "name": notes.name,
        "site": notes.site,
        "version": notes.version,
        "issued": issued.isoformat(),
        "expires": (issued + datetime.timedelta(days=policy.valid_days)).isoformat(),
        "licence": notes.licence,
        "data_use": notes.data_use,
        "recipients": notes.recipients,
        "encryption": encryption,
        "log": None if log is None else log.plain(),
        "release": method_description(release.artefact),
        "data": data_description(release.artefact),
        "guarantee": guarantee_description(getattr(release.artefact, "guarantee", None)),
        "policy": {"name": policy.name, "digest": policy.digest, "production": policy.production},
    }
    return ReleaseFacts(
        manifest=plain(manifest),
        leakage={**leakage_verdicts(release), "payload_sha256": sha256_hex(leaves)},
        utility=rounded_utility(release),
        policy=dataclasses.asdict(policy),
        intended_use=notes.intended_use,
        limits=notes.limits,
        agreement=notes.agreement,
        contact=notes.contact,
        payload=leaves,
        attribution=notes.attribution,
    )


def bundle_name(notes: ReleaseNotes) -> str:
    """The folder's name: site-name-vN in lower-case letters, digits and hyphens."""
    words = (_ODD.sub("-", text.lower()).strip("-") for text in (notes.site, notes.name))
    return "-".join([*(word for word in words if word), f"v{notes.version}"])


def check_notes(release: AuditedRelease, notes: ReleaseNotes) -> None:
    """What the policy and the format ask of a release's words.

    Raises:
        UsageError: a word is missing or does not fit. ReleaseRefused: the policy asks for recipients or encryption.
    """
    if notes.version < 1:
        raise UsageError("a release's version counts from 1")
    if not bundle_name(notes).removesuffix(f"v{notes.version}"):
        raise UsageError("a release needs a site or a name with at least one letter or digit")
    if not notes.licence.strip():
        raise UsageError("a release names its licence")
    _check_terms(notes)
    require_terms(release.policy, notes.recipients, notes.agreement, notes.recipient_keys)


def _check_terms(notes: ReleaseNotes) -> None:
    if problem := data_use_problem(notes.data_use, notes.agreement):
        raise UsageError(problem)
    if notes.recipient_keys and sorted(notes.recipient_keys) != sorted(set(notes.recipients)):
        raise UsageError("recipient_keys names each of the recipients, and nobody else")
