"""Write the bundle: exactly the format's files, the same inputs giving the same bytes, whole or not at all.

What is published: accounted or public values, the policy's limits, and bounds rounded up. Exact audit and utility
figures, counts, seeds and the cohort's digest stay in the site's own report.
"""

from __future__ import annotations

import dataclasses
import datetime
import errno
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from pipeline.core.codec import record_digest
from pipeline.core.data_use import data_use_problem
from pipeline.core.errors import EnvironmentProblem, ReleaseRefused, UsageError
from pipeline.core.files.whole import sync_folder, write_synced
from pipeline.sharing.bundle.card import CardFacts, card_html, card_markdown, licence_text
from pipeline.sharing.bundle.croissant import croissant_bytes
from pipeline.sharing.bundle.encryption import encrypted, encryption_description
from pipeline.sharing.bundle.payload import data_description, guarantee_description, method_description, payload_bytes
from pipeline.sharing.bundle.rounding import leakage_verdicts, rounded_utility
from pipeline.sharing.canonical import canonical, plain, read_canonical, sha256_hex
from pipeline.sharing.layout import (
    CARD_HTML,
    CARD_MARKDOWN,
    CROISSANT,
    ENVELOPE,
    FORMAT,
    LEAKAGE,
    LICENCE,
    MANIFEST,
    PAYLOAD,
    POLICY,
    PREDICATE_KEYS,
    payload_name,
    size_limit,
)
from pipeline.sharing.policy.gate import AuditedRelease
from pipeline.sharing.policy.load import require_terms
from pipeline.sharing.trust.log import Checkpoint
from pipeline.sharing.trust.signing import make_statement, sign_statement

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # it lists no exports

Scan = Callable[[Mapping[str, bytes]], None]
"""Looks at every byte that is about to be signed; raises to stop the release."""

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
    intended_use: str = "Developing and comparing models; a model meant for care is to be validated on real data first."
    limits: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    recipient_keys: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> age key; encrypts the payload
    agreement: str = ""  # the data-use agreement's title or reference
    data_use: tuple[str, ...] = ()  # terms of the Data Use Ontology
    contact: str = ""


def bundle_name(notes: ReleaseNotes) -> str:
    """The folder's name: site-name-vN in lower-case letters, digits and hyphens."""
    words = (_ODD.sub("-", text.lower()).strip("-") for text in (notes.site, notes.name))
    return "-".join([*(word for word in words if word), f"v{notes.version}"])


def write_bundle(
    release: AuditedRelease,
    folder: Path,
    *,
    signer: Signer,
    notes: ReleaseNotes,
    issued: datetime.date,
    scan: Scan,
    log: Checkpoint | None = None,
) -> Path:
    """Write a bundle that its author has signed as a new folder inside `folder`; returns its path.

    `issued` is an argument, not the clock: with the same release, notes, key and checkpoint of the site's log the bytes
    are the same, unless the payload is encrypted, which draws a fresh key each time.

    Raises:
        ReleaseRefused: not an audited release, a bundle of that name exists, or the policy asks for recipients and an
            agreement, or recipients' keys, that the notes do not name. `scan` may raise its own.
        EnvironmentProblem: the files could not be written; nothing of them is left.
    """
    if type(release) is not AuditedRelease:
        raise ReleaseRefused("only a release that passed the gate is written")
    check_notes(release, notes)
    target = folder / bundle_name(notes)
    if target.exists() or target.is_symlink():
        raise ReleaseRefused(f"{target} exists already; a release is never overwritten, count its version up")
    plain = payload_bytes(release.artefact)
    files = bundle_files(release, notes, issued, plain, log)
    seen = {**files, PAYLOAD: plain}  # whatever leaves encrypted is looked at before it is
    _check_nothing_internal(release, seen)
    scan(seen)
    manifest = read_canonical(files[MANIFEST], MANIFEST)
    statement = make_statement(files, {key: manifest[key] for key in PREDICATE_KEYS})
    _write_folder(target, {**files, ENVELOPE: sign_statement(statement, signer)})
    return target


def bundle_files(
    release: AuditedRelease, notes: ReleaseNotes, issued: datetime.date, payload: bytes, log: Checkpoint | None = None
) -> dict[str, bytes]:
    """Name -> content of every file but the envelope; `payload` as it is before it may be encrypted."""
    encryption = encryption_description(notes.recipient_keys)
    released = payload if encryption is None else encrypted(payload, encryption)
    leakage = {**leakage_verdicts(release), "payload_sha256": sha256_hex(released)}
    manifest = {
        "format": FORMAT,
        "name": notes.name,
        "site": notes.site,
        "version": notes.version,
        "issued": issued.isoformat(),
        "expires": (issued + datetime.timedelta(days=release.policy.valid_days)).isoformat(),
        "licence": notes.licence,
        "data_use": notes.data_use,
        "recipients": notes.recipients,
        "encryption": encryption,
        "log": None if log is None else log.plain(),
        "release": method_description(release.artefact),
        "data": data_description(release.artefact),
        "guarantee": guarantee_description(getattr(release.artefact, "guarantee", None)),
        "policy": {
            "name": release.policy.name,
            "digest": release.policy.digest,
            "production": release.policy.production,
        },
    }
    facts = CardFacts(
        manifest=plain(manifest),
        leakage=leakage,
        utility=rounded_utility(release),
        intended_use=notes.intended_use,
        limits=notes.limits,
        agreement=notes.agreement,
        contact=notes.contact,
    )
    name_of_payload = payload_name(manifest)
    files = {
        name_of_payload: released,
        LEAKAGE: canonical(leakage),
        CARD_MARKDOWN: card_markdown(facts).encode(),
        CARD_HTML: card_html(facts).encode(),
        LICENCE: licence_text(facts).encode(),
    }
    files[POLICY] = canonical(dataclasses.asdict(release.policy))
    files[CROISSANT] = croissant_bytes(facts, _described(files), name_of_payload)
    files[MANIFEST] = canonical({**manifest, "files": _described(files)})
    for name, data in files.items():
        if len(data) > size_limit(name):
            raise ReleaseRefused(f"{name} would have {len(data)} bytes, more than the format's {size_limit(name)}")
    return files


def _described(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {name: {"bytes": len(data), "sha256": sha256_hex(data)} for name, data in files.items()}


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


def _check_nothing_internal(release: AuditedRelease, files: Mapping[str, bytes]) -> None:
    """No digest that names the cohort or a store entry may be among the bytes, in hex or raw."""
    provenance = release.artefact.provenance
    internal = [*provenance.parents, record_digest(release.artefact)]
    internal += [parent for report in release.reports for parent in report.provenance.parents]
    needles = [digest.encode() for digest in internal if len(digest) >= 32]
    needles += [bytes.fromhex(digest) for digest in internal if re.fullmatch(r"[0-9a-f]{64}", digest)]
    for name, data in files.items():
        if any(needle in data for needle in needles):
            raise ReleaseRefused(f"{name} would hold a digest that names the site's own data")


def _write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write all files beside the target, sync, then rename: a reader sees the whole folder or none."""
    staged = target.parent / f".{target.name}.{secrets.token_hex(8)}.partial"
    renamed = False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.mkdir()
        for name, data in files.items():
            write_synced(staged / name, data)
        sync_folder(staged)
        staged.rename(target)
        renamed = True
        sync_folder(target.parent)
    except OSError as error:
        shutil.rmtree(target if renamed else staged, ignore_errors=True)
        if target.exists() and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise ReleaseRefused(f"{target} exists already; a release is never overwritten") from None
        what = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or type(error).__name__)
        raise EnvironmentProblem(f"the bundle {target.name} could not be written: {what}") from None
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
