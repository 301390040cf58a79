"""Write the bundle: exactly the format's files, the same inputs giving the same bytes, whole or not at all."""

from __future__ import annotations

import datetime
import errno
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.codec import record_digest
from pipeline.core.errors import EnvironmentProblem, ReleaseRefused
from pipeline.core.files.whole import sync_folder, write_synced
from pipeline.sharing.bundle.card import card_html, card_markdown, licence_text
from pipeline.sharing.bundle.croissant import croissant_bytes
from pipeline.sharing.bundle.facts import ReleaseFacts, release_facts
from pipeline.sharing.bundle.facts import ReleaseNotes as ReleaseNotes  # callers speak of the writer's notes
from pipeline.sharing.bundle.facts import bundle_name as bundle_name  # likewise
from pipeline.sharing.bundle.facts import check_notes as check_notes  # likewise
from pipeline.sharing.bundle.manifest_form import check_manifest
from pipeline.sharing.bundle.payload import payload_bytes
from pipeline.sharing.bundle.payload_form import require_canonical
from pipeline.sharing.canonical import canonical, plain, sha256_hex
from pipeline.sharing.layout import (
    CARD_HTML,
    CARD_MARKDOWN,
    CROISSANT,
    ENVELOPE,
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
from pipeline.sharing.trust.log import Checkpoint
from pipeline.sharing.trust.signing import make_statement, sign_statement

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # it lists no exports

Scan = Callable[[Mapping[str, bytes]], None]
"""Looks at every byte that is about to be signed; raises to stop the release."""


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
    payload = payload_bytes(release.artefact) if type(release) is AuditedRelease else b""
    facts = release_facts(release, notes, issued, payload, log)
    target = folder / bundle_name(notes)
    if target.exists() or target.is_symlink():
        raise ReleaseRefused(f"{target} exists already; a release is never overwritten, count its version up")
    require_canonical(payload, facts.manifest)
    files = bundle_files(facts)
    seen = {**files, PAYLOAD: payload}  # whatever leaves encrypted is looked at before it is
    _check_nothing_internal(release, seen)
    scan(seen)
    statement = make_statement(files, {key: facts.manifest[key] for key in PREDICATE_KEYS})
    _write_folder(target, {**files, ENVELOPE: sign_statement(statement, signer)})
    return target


def bundle_files(facts: ReleaseFacts) -> dict[str, bytes]:
    """Name -> content of every file but the envelope: each is a rendering of the facts.

    Raises:
        ReleaseRefused: a file is larger than the format allows, or the manifest has not the one shape.
    """
    payload = payload_name(facts.manifest)
    files = {
        payload: facts.payload,
        LEAKAGE: canonical(facts.leakage),
        CARD_MARKDOWN: card_markdown(facts).encode(),
        CARD_HTML: card_html(facts).encode(),
        LICENCE: licence_text(facts).encode(),
        POLICY: canonical(facts.policy),
    }
    files[CROISSANT] = croissant_bytes(facts, _described(files), payload)
    manifest = {**facts.manifest, "files": _described(files)}
    check_manifest(plain(manifest), _described(files), [*files, MANIFEST])  # as whoever receives it will
    files[MANIFEST] = canonical(manifest)
    for name, data in files.items():
        if len(data) > size_limit(name):
            raise ReleaseRefused(f"{name} would have {len(data)} bytes, more than the format's {size_limit(name)}")
    return files


def _described(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {name: {"bytes": len(data), "sha256": sha256_hex(data)} for name, data in files.items()}


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
