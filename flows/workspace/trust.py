"""The trust root of a workspace, for those who receive its releases: the small case, one holder of the root key."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pipeline.core.errors import UsageError
from pipeline.core.files.whole import put_whole
from pipeline.core.keys.custody.keyring import keys_of
from pipeline.core.keys.secrets import read_or_create_secret
from pipeline.sharing.receive.state import REVOCATIONS
from pipeline.sharing.roots import small_root
from pipeline.sharing.trust.keys import public_key, public_key_from_hex, role_signer
from pipeline.sharing.trust.revocation import draft_revocations, sign_revocations
from pipeline.sharing.trust.root import sign_root

ROOT: Final = "root.json"


def first_root(
    workspace: Path,
    file: Path,
    site: str,
    *,
    today: datetime.date,
    author: str = "",
    holder: str = "",
    approvers: Mapping[str, str] | None = None,
    policies: Sequence[str] = (),
    trial: bool = False,
    days: int = 365,
) -> Path:
    """Write a signed root, version 1, and where it asks for one an empty revocation list beside it; returns the root.

    The author's and the root's keys are the workspace's, made if they are missing; `approvers` is name -> public key.

    Raises:
        UsageError: the file exists, or the root could never be trusted. ConfigError: a policy cannot be read.
    """
    listed = file.parent / REVOCATIONS
    for path in (file,) if trial else (file, listed):
        if path.exists():
            raise UsageError(f"{path} exists already and is never overwritten; a root's next version is drafted")
    secrets = {role: read_or_create_secret(keys_of(workspace) / f"{role}.key", role) for role in ("author", "root")}
    signers = {role: role_signer(secret) for role, secret in secrets.items()}
    data = small_root(
        public_key(signers["author"], author or f"{site}, author", role="author", site=site),
        public_key(signers["root"], holder or f"{site}, root", role="root"),
        [public_key_from_hex(key, name, role="approver", site=site) for name, key in (approvers or {}).items()],
        today=today,
        days=days,
        policies=policies,
        trial=trial,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    if not trial:
        first = draft_revocations([], [], version=1, issued=today)
        put_whole(listed, sign_revocations(first, signers["root"]))
    put_whole(file, sign_root(data, signers["root"]))
    return file
