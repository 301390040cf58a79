"""The payload for named recipients alone: an age file (X25519, ChaCha20-Poly1305) that any of their identities opens.

Who the recipients are stands in the signed statement, so that nobody adds one unnoticed. What is encrypted is the
payload; manifest, card and audit stay readable for those who carry and check the bundle. Age draws a fresh file key
each time: an encrypted bundle is the one kind whose bytes differ from run to run. An age file does not say who made it;
the signature over it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import DataError, EnvironmentProblem, ReleaseRefused
from pipeline.core.keys.custody.institutions import read_identity, recipient_key
from pipeline.sharing.bundle.age_header import SCHEME


def encryption_description(keys: Mapping[str, str]) -> dict[str, Any] | None:
    """What the manifest says: the scheme, and each recipient's name with their age public key. None without keys.

    Raises:
        UsageError: a key is no age public key, or the secret half of one.
    """
    if not keys:
        return None
    return {"scheme": SCHEME, "recipients": {name: str(recipient_key(public)) for name, public in keys.items()}}


def encrypted(payload: bytes, description: Mapping[str, Any]) -> bytes:
    """The age file for the recipients that `description` names."""
    import pyrage

    to = [recipient_key(public) for _, public in sorted(description["recipients"].items())]
    return bytes(pyrage.encrypt(payload, to))


def decrypted(data: bytes, manifest: Mapping[str, Any], identity: Path | None) -> bytes:
    """The payload's content, by the receiver's identity.

    Raises:
        ReleaseRefused: no identity was given, it is not a recipient's, or the file is of an unknown scheme.
        EnvironmentProblem: the identity cannot be read.
        DataError: the file is signed, but is no age file that the named recipients can open.
    """
    import pyrage

    description = manifest["encryption"]
    names = "; ".join(sorted(description["recipients"]))
    if description["scheme"] != SCHEME:
        raise ReleaseRefused(f"the payload is encrypted by a scheme that this version does not know; it reads {SCHEME}")
    if identity is None:
        raise ReleaseRefused(f"the payload is encrypted to {names}; name your identity with --identity")
    if identity.is_dir():
        raise EnvironmentProblem(f"identity {identity} is a folder; name the file, such as keys/identity.age")
    mine = read_identity(identity)
    if str(mine.to_public()) not in description["recipients"].values():
        raise ReleaseRefused(f"the payload is encrypted to {names}, and the identity {identity.name} is none of theirs")
    try:
        return bytes(pyrage.decrypt(data, [mine]))
    except pyrage.DecryptError:
        pass
    raise DataError("the payload is signed, but does not open for a recipient that the statement names")
