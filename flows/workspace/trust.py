"""The trust root of a workspace's releases, for those who receive them."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.keys.custody.keyring import key_file, keys_of
from pipeline.core.keys.secrets import read_or_create_secret
from pipeline.sharing.trust.keys import author_signer, public_key, write_trust_root


def write_root(workspace: Path, file: Path, site: str, *, accept_non_production: bool, recipient: str = "") -> str:
    """Write the trust root that receivers of this workspace's releases keep; returns its key's id.

    `recipient` is the receiver's name: bundles addressed to others are refused.
    """
    key = public_key(author_signer(read_or_create_secret(key_file(keys_of(workspace), "author"), "author")), site)
    write_trust_root(file, [key], accept_non_production=accept_non_production, recipient=recipient)
    return key.keyid
