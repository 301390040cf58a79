"""From a proposal to a release: the author proposes, others approve, and what is published is what they all signed.

A proposal is a bundle folder that its author alone has signed. An approver adds a signature over the very same
statement, which holds the digest of every file and of the policy. Publishing verifies the whole as a receiver would and
then renames the folder, so that at any moment there is the proposal or the release, never half of one.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import EnvironmentProblem, ReleaseRefused
from pipeline.core.files.locked import locked
from pipeline.core.files.whole import put_whole, sync_folder
from pipeline.sharing.canonical import read_canonical
from pipeline.sharing.layout import ENVELOPE, MANIFEST, POLICY
from pipeline.sharing.receive.verify import check_signers, read_folder, verify_files
from pipeline.sharing.trust.keys import PublicKey, TrustRoot
from pipeline.sharing.trust.log import append_log
from pipeline.sharing.trust.revocation import Revocations
from pipeline.sharing.trust.signing import add_signature, open_statement, statement_digest

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # it lists no exports

Reviewed = Callable[[str], str]
"""A statement's digest -> the level of its review."""


def approve(
    proposal: Path,
    *,
    signer: CryptoSigner,
    root: TrustRoot,
    today: datetime.date,
    workspace: Path,
    revocations: Revocations | None,
    reviewed: Reviewed = lambda statement: "none",
) -> PublicKey:
    """Check a proposal, add the approver's signature to it, and log that; returns the approver's key.

    `reviewed`: by which level the approver has looked at the site's store before, for the log (`flows.watch.review`).

    Raises:
        ReleaseRefused: the proposal does not verify, or the key is no approver's, revoked, of another site, the
            author's own or there already.
        EnvironmentProblem: log or proposal cannot be written; the proposal is then as it was.
    """
    with locked(proposal.parent / ".lock"):  # of two approvers at once, neither signature is lost
        return _approved(proposal, signer, root, today, workspace, revocations, reviewed)


def _approved(
    proposal: Path,
    signer: CryptoSigner,
    root: TrustRoot,
    today: datetime.date,
    workspace: Path,
    revocations: Revocations | None,
    reviewed: Reviewed,
) -> PublicKey:
    files = read_folder(proposal)
    key = next((key for key in root.keys if key.keyid == signer.public_key.keyid), None)
    if key is None or key.role != "approver":
        held = "does not list it" if key is None else f"lists it as {key.role}"
        raise ReleaseRefused(f"this key approves nothing: the trust root {held}")
    # as each of the recipients will verify it; the site itself is none of them
    manifest, *_ = verify_files(files, root, today=today, revocations=revocations, proposal=True, anybody=True)
    _, signers = open_statement(files[ENVELOPE], root)
    if key.keyid in {each.keyid for each in signers}:
        raise ReleaseRefused(f"{key.name} has approved this release already")
    check_signers((*signers, key), manifest["site"], revocations)
    envelope = add_signature(files[ENVELOPE], signer)
    level = reviewed(statement_digest(envelope))
    _log(workspace, "approve", manifest, envelope, {"by": key.keyid, "review": level})
    try:  # what is staged lies beside the folder, not in it
        put_whole(proposal / ENVELOPE, envelope, staged_in=proposal.parent)
    except OSError as error:
        raise EnvironmentProblem(f"the proposal {proposal.name} could not be signed: {error.strerror}") from None
    return key


def publish(
    proposal: Path,
    releases: Path,
    *,
    root: TrustRoot,
    today: datetime.date,
    workspace: Path,
    revocations: Revocations | None,
) -> Path:
    """Verify an approved proposal as a receiver would, log it, and move it among the releases; returns its new place.

    Raises:
        ReleaseRefused: it does not verify, lacks approvals, or a release of that name exists.
        EnvironmentProblem: log or folder cannot be written; the proposal is then as it was.
    """
    with locked(proposal.parent / ".lock"):
        files = read_folder(proposal)
        manifest, *_ = verify_files(files, root, today=today, revocations=revocations, anybody=True)
        return _moved(proposal, releases, workspace, manifest, files[ENVELOPE])


def publish_unapproved(proposal: Path, releases: Path, *, workspace: Path) -> Path:
    """As `publish`, for the author, under a policy that asks for no approval.

    Raises:
        ReleaseRefused: the policy asks for one, or a release of that name exists. EnvironmentProblem: as `publish`.
    """
    files = read_folder(proposal)
    policy = read_canonical(files[POLICY], POLICY)
    if policy["approvals"] != 0:
        raise ReleaseRefused(f"policy {policy['name']} asks for {policy['approvals']} approvals")
    return _moved(proposal, releases, workspace, read_canonical(files[MANIFEST], MANIFEST), files[ENVELOPE])


def _moved(proposal: Path, releases: Path, workspace: Path, manifest: Mapping[str, Any], envelope: bytes) -> Path:
    target = releases / proposal.name
    if target.exists() or target.is_symlink():
        raise ReleaseRefused(f"{target} exists already; a release is never overwritten")
    _log(workspace, "publish", manifest, envelope, {})
    try:
        releases.mkdir(parents=True, exist_ok=True)
        proposal.rename(target)
        sync_folder(releases)
        sync_folder(proposal.parent)
    except OSError as error:
        raise EnvironmentProblem(f"{proposal.name} could not be moved to the releases: {error.strerror}") from None
    return target


def _log(workspace: Path, what: str, manifest: Mapping[str, Any], envelope: bytes, facts: Mapping[str, str]) -> None:
    release = {name: manifest[name] for name in ("site", "name", "version")}
    policy = {"policy": manifest["policy"]["digest"]}
    append_log(workspace, what, {**release, **policy, **facts, "statement": statement_digest(envelope)})
