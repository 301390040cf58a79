"""Is this bundle what people I trust released, whole, unaltered, approved, in force, and meant for me? Offline.

Needs the standard library, cryptography and rfc8785; loads neither numpy nor torch. Nothing in the folder is believed
before the signature over its digest is.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.bundle.age_header import require_recipients
from pipeline.sharing.bundle.manifest_form import check_manifest
from pipeline.sharing.bundle.payload_form import require_canonical
from pipeline.sharing.canonical import canonical, read_canonical, sha256_hex
from pipeline.sharing.layout import (
    ENCRYPTED_PAYLOAD,
    ENVELOPE,
    FORMAT,
    MANIFEST,
    PAYLOAD,
    PREDICATE_KEYS,
    signed_files,
    size_limit,
)
from pipeline.sharing.policy.reevaluation import require_policy_kept
from pipeline.sharing.receive.state import EMPTY, REVOCATIONS, STATE_FILE, check, check_root, load_state, memory_of
from pipeline.sharing.trust.keys import PublicKey, TrustRoot
from pipeline.sharing.trust.revocation import Revocations, load_revocations, require_fresh
from pipeline.sharing.trust.root import load_trust_root, read_root, require_in_force
from pipeline.sharing.trust.signing import open_statement, statement_digest


@final
@dataclass(frozen=True, repr=False)
class VerifiedBundle:
    """A bundle that passed every check. `files` are the very bytes that were checked: use them, not the folder."""

    path: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]
    signed_by: PublicKey
    approved_by: tuple[PublicKey, ...] = ()

    def __repr__(self) -> str:
        return f"VerifiedBundle({str(self.path)!r}, signed_by={self.signed_by.name!r})"

    @property
    def statement(self) -> str:
        """Hex SHA-256 of the signed statement, which names the release in logs and receipts."""
        return statement_digest(self.files[ENVELOPE])


def verify(
    bundle: Path,
    root: Path | TrustRoot,
    *,
    today: datetime.date,
    revocations: Path | Revocations | None = None,
    state: Path | None = None,
    recipient: str | None = None,
) -> VerifiedBundle:
    """Check a bundle folder against a trust root, and a revocation list where the root asks for one.

    `state` is the file in which the receiver remembers what it received; it is looked at, not written
    (`pipeline.sharing.receive.state.remember` writes it). None: of a root that is given by its path, the revocation
    list and the state beside it, where there are any. `recipient`: this receiver's name, for addressed bundles.

    Raises:
        ReleaseRefused: any check fails; one sentence says which.
    """
    if isinstance(root, TrustRoot):
        trusted, data = root, b""
    else:
        trusted, data = load_trust_root(root), read_root(root)
        state = state or memory_of(root) / STATE_FILE
        beside = root.parent / REVOCATIONS
        revocations = revocations or (beside if beside.exists() else None)
    known = EMPTY if state is None else load_state(state)
    check_root(known, trusted, data)
    revoked = load_revocations(revocations, trusted) if isinstance(revocations, Path) else revocations
    files = read_folder(bundle)
    manifest, author, approvers = verify_files(
        files, trusted, today=today, revocations=revoked, recipient=recipient or ""
    )
    found = VerifiedBundle(bundle, manifest, files, author, approvers)
    check(known, manifest, found.statement, revoked)
    return found


def verify_files(
    files: Mapping[str, bytes],
    root: TrustRoot,
    *,
    today: datetime.date,
    revocations: Revocations | None = None,
    proposal: bool = False,
    recipient: str = "",
    anybody: bool = False,
) -> tuple[dict[str, Any], PublicKey, tuple[PublicKey, ...]]:
    """Check a bundle's files, given as name -> content; returns the manifest, the author's key and the approvers'.

    A `proposal` is a bundle that waits for approvals: it needs none. `anybody` looks on behalf of every recipient: the
    site itself is none.

    Raises:
        ReleaseRefused: as `verify`.
    """
    if ENVELOPE not in files:
        raise ReleaseRefused(f"the bundle has no {ENVELOPE}, so nobody vouches for it")
    statement, signers = open_statement(files[ENVELOPE], root)
    predicate = statement["predicate"]
    if not isinstance(predicate, dict) or predicate.get("format") != FORMAT:
        raise ReleaseRefused(f"the bundle is of a format that this version does not know; it reads {FORMAT}")
    found = {name: sha256_hex(data) for name, data in files.items()}
    expected = signed_files(encrypted=bool(predicate.get("encryption")))
    _check_digests(found, statement["subject"], expected)
    manifest = read_canonical(files[MANIFEST], MANIFEST)
    sizes = {name: {"bytes": len(files[name]), "sha256": found[name]} for name in files}
    check_manifest(manifest, sizes, expected)
    if canonical(predicate) != canonical({key: manifest[key] for key in PREDICATE_KEYS}):  # 1 is not true
        raise ReleaseRefused(f"{MANIFEST} and the signed statement disagree")
    author, approvers = check_signers(signers, manifest["site"], revocations)
    _check_in_force(manifest, root, today)
    if manifest["recipients"] and not anybody and recipient not in manifest["recipients"]:
        raise ReleaseRefused("the bundle is addressed to other recipients than you: name yourself, if you are one")
    if manifest["encryption"]:
        require_recipients(files[ENCRYPTED_PAYLOAD], manifest["encryption"])
    require_policy_kept(files, manifest, root.policies)
    if not manifest["encryption"]:  # else whoever opens it looks
        require_canonical(files[PAYLOAD], manifest)
    if not proposal and len(approvers) < root.min_approvals:
        raise ReleaseRefused(
            f"the bundle is approved by {len(approvers)} people, and the trust root asks for {root.min_approvals}"
        )
    require_fresh(revocations, root.max_revocation_age_days, today)
    release = f"{manifest['site']}/{manifest['name']}/{manifest['version']}"
    if revocations is not None and release in revocations.releases:
        raise ReleaseRefused(f"the site withdrew {release}")
    return manifest, author, approvers


def check_signers(
    signers: Sequence[PublicKey], site: str, revocations: Revocations | None
) -> tuple[PublicKey, tuple[PublicKey, ...]]:
    """One author and any number of approvers, all of this site, different people, with keys that still stand.

    Raises:
        ReleaseRefused: another role signed, nobody approves his own, a key is revoked or speaks for another site.
    """
    for key in signers:
        if revocations is not None and key.keyid in revocations.keys:
            raise ReleaseRefused(f"the key of {key.name} is revoked, so it signs nothing")
        if key.role not in ("author", "approver"):
            raise ReleaseRefused(f"the key of {key.name} has the role {key.role}, which neither signs nor approves")
        if key.site != site:
            raise ReleaseRefused(f"the key of {key.name} speaks for {key.site}, not for {site}")
    authors = [key for key in signers if key.role == "author"]
    approvers = tuple(key for key in signers if key.role == "approver")
    if len(authors) != 1:
        raise ReleaseRefused(f"the bundle is signed by {len(authors)} authors, and by exactly one it must be")
    if authors[0].person in {key.person for key in approvers}:
        raise ReleaseRefused(f"{authors[0].name} approved a release of their own")
    if len({key.person for key in approvers}) != len(approvers):
        raise ReleaseRefused("somebody approved the bundle twice, with two keys")
    return authors[0], approvers


def read_folder(bundle: Path) -> dict[str, bytes]:
    """The content of a bundle folder, which must hold exactly the format's files, all of them regular.

    Raises:
        ReleaseRefused: not a folder, a link, something missing, extra, oversize or unreadable.
    """
    if bundle.is_symlink() or not bundle.is_dir():
        raise ReleaseRefused(f"{bundle} is not a bundle folder")
    try:
        with os.scandir(bundle) as entries:
            found = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    except OSError:
        raise ReleaseRefused(f"the bundle folder {bundle} cannot be read") from None
    expected = {*signed_files(encrypted=ENCRYPTED_PAYLOAD in found), ENVELOPE}
    if extra := sorted(set(found) - expected):
        raise ReleaseRefused(f"the bundle holds {len(extra)} files that the format does not know, such as {extra[0]!r}")
    if missing := sorted(expected - set(found)):
        raise ReleaseRefused(f"the bundle lacks {missing[0]}")
    if odd := sorted(name for name, regular in found.items() if not regular):
        raise ReleaseRefused(f"{odd[0]} is a link or something else that is not a regular file")
    return {name: _read(bundle / name, size_limit(name)) for name in sorted(expected)}


def _read(path: Path, limit: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        raise ReleaseRefused(f"{path.name} cannot be opened as a regular file") from None
    with os.fdopen(handle, "rb") as stream:
        info = os.fstat(stream.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise ReleaseRefused(f"{path.name} is not a regular file")
        if info.st_size > limit:
            raise ReleaseRefused(f"{path.name} is larger than the format's {limit} bytes")
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ReleaseRefused(f"{path.name} is larger than the format's {limit} bytes")
    return data


def _check_digests(found: Mapping[str, str], subjects: Any, expected: Sequence[str]) -> None:
    """The statement names every file of the format, in its order, nothing else, and each has the digest it says."""
    if set(found) != {*expected, ENVELOPE}:
        raise ReleaseRefused("the bundle does not hold exactly the format's files")
    listed = subjects if isinstance(subjects, list) else []
    names = [told.get("name") if isinstance(told, dict) else None for told in listed]
    if any(type(name) is str and (name in ("", ".", "..") or {*name} & {*"/\\\0"}) for name in names):
        raise ReleaseRefused("the signed statement names a file outside the bundle folder")
    if names != [*expected]:
        raise ReleaseRefused("the signed statement does not name exactly the format's files, in their order")
    for told, name in zip(listed, expected, strict=True):
        if told != {"name": name, "digest": {"sha256": found[name]}}:
            raise ReleaseRefused(f"{name} was altered after signing")


def _check_in_force(manifest: Mapping[str, Any], root: TrustRoot, today: datetime.date) -> None:
    issued, expires = (datetime.date.fromisoformat(manifest[key]) for key in ("issued", "expires"))
    require_in_force(root, today)
    if today < issued:
        raise ReleaseRefused(f"the bundle is dated {issued}, which is in the future")
    if today > expires:
        raise ReleaseRefused(f"the bundle expired on {expires}")
    least = root.minimum_versions.get(f"{manifest['site']}/{manifest['name']}", 0)
    if manifest["version"] < least:
        raise ReleaseRefused(f"version {manifest['version']} is older than {least}, the oldest the trust root accepts")
