"""Giving the encoder's key to another institution: age files (X25519, ChaCha20-Poly1305), logged.

An age file says nothing about who made it. What ties a shared key to its sender, and a public key to its institution,
are the two comparisons by telephone: of the public key before, of the fingerprint after.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, final

from pipeline.core.digest import digest_bytes
from pipeline.core.errors import EnvironmentProblem, UsageError
from pipeline.core.files.owner import read_owner_file, write_owner_file
from pipeline.core.keys.custody.keyring import key_file, replace_key
from pipeline.core.keys.custody.log import append_log, read_log
from pipeline.core.keys.passphrase import clear_facts, is_sealed, seal, unseal
from pipeline.core.keys.secrets import key_text, read_secret, secret_from_text, write_secret

SHARED_PURPOSE: Final = "encoder"
IDENTITY_FILE: Final = "identity.age"
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")


@final
@dataclass(frozen=True)
class Shared:
    """What was given to whom."""

    fingerprint: str
    institution: str
    recipient: str  # the institution's public key
    file: Path
    file_sha256: str
    log_head: str


@final
@dataclass(frozen=True)
class Imported:
    """The key that is now this site's; `retired` is the fingerprint of the one that made way, or empty."""

    fingerprint: str
    path: Path
    was_there: bool
    retired: str = ""


def new_identity(keys: Path, passphrase: str | None = None) -> str:
    """Make this site's age identity, log it, and return its public key; never overwrites one.

    Raises:
        EnvironmentProblem: there is one already.
    """
    from pyrage import x25519

    identity = x25519.Identity.generate()
    public = str(identity.to_public())
    made = datetime.now(tz=UTC).isoformat(timespec="seconds")
    text = f"# created: {made}\n# public key: {public}\n{identity}\n".encode("ascii")
    read_log(keys)
    write_owner_file(
        keys / IDENTITY_FILE, text if passphrase is None else seal(text, passphrase, {"identity": public}), "identity"
    )
    append_log(keys, "identity", {"recipient": public})
    return public


def public_identity(keys: Path) -> str:
    """The public key of this site's identity, empty if there is none; never asks for a passphrase.

    Raises:
        EnvironmentProblem: the identity is damaged or open to others.
    """
    path = keys / IDENTITY_FILE
    if not path.exists():
        return ""
    data = read_owner_file(path, "identity")
    return clear_facts(data).get("identity", "") if is_sealed(data) else str(read_identity(path).to_public())


def share_key(keys: Path, purpose: str, institution: str, recipient: str, file: Path) -> Shared:
    """Encrypt the encoder's key to an institution's age public key in a new file; the log's line is written first.

    Raises:
        UsageError: another key than the encoder's, a name or public key that is none, or a public key that the log
            knows as another institution's.
        EnvironmentProblem: the file exists, the key cannot be read, or the log is broken.
    """
    if purpose != SHARED_PURPOSE:
        key_file(keys, purpose)
        raise UsageError(f"the {purpose} key is this site's alone and is never shared; only the encoder's key is")
    if not _NAME.fullmatch(institution) or not institution.strip():
        raise UsageError("an institution's name has 1 to 200 characters, and no control characters")
    to = recipient_key(recipient)
    recipient = str(to)
    for entry in read_log(keys).entries:
        if entry["what"] == "share" and entry["recipient"] == recipient and entry["institution"] != institution:
            raise UsageError(f"the log knows this public key as another institution's (line {entry['line']})")
    if file.exists():
        raise EnvironmentProblem(f"shared key {file} exists already and is never overwritten")
    secret = read_secret(key_file(keys, purpose), purpose)
    import pyrage

    data = bytes(pyrage.encrypt(key_text(secret), [to], armored=True))
    facts = {
        "purpose": purpose,
        "fingerprint": secret.fingerprint,
        "institution": institution,
        "recipient": recipient,
        "file_sha256": digest_bytes(data),
    }
    head = append_log(keys, "share", facts)
    write_owner_file(file, data, "shared key")
    return Shared(secret.fingerprint, institution, recipient, file, digest_bytes(data), head)


def import_key(
    keys: Path, file: Path, *, fingerprint: str = "", retire: bool = False, passphrase: str | None = None
) -> Imported:
    """Decrypt a key that was shared with this site and make it the encoder's key.

    Args:
        fingerprint: what the sender told; the import is refused if the key has another.
        retire: move a different key that is there to the retired ones, instead of refusing.

    Raises:
        EnvironmentProblem: no identity, a file that is not for it or is damaged, another fingerprint, or another key
            in place.
    """
    secret = secret_from_text(_decrypted(keys, file), SHARED_PURPOSE, f"shared key {file}")
    if fingerprint and fingerprint != secret.fingerprint:
        raise EnvironmentProblem(
            f"shared key {file} has the fingerprint {secret.fingerprint}, not {fingerprint}: it is not the sender's, "
            f"and nothing was imported"
        )
    path = key_file(keys, SHARED_PURPOSE)
    if not path.exists():
        read_log(keys)
        write_secret(path, secret, passphrase)
        append_log(keys, "import", {"purpose": SHARED_PURPOSE, "fingerprint": secret.fingerprint})
        return Imported(secret.fingerprint, path, was_there=False)
    present = read_secret(path, SHARED_PURPOSE)
    if present.fingerprint == secret.fingerprint:
        return Imported(present.fingerprint, path, was_there=True)
    if not retire:
        raise EnvironmentProblem(
            f"key file {path} holds another key ({present.fingerprint}) and is not replaced by {secret.fingerprint}; "
            f"with --retire it is moved to the retired keys, and what it encoded cannot be mixed with the new"
        )
    replace_key(keys, present, secret, "import", passphrase)
    return Imported(secret.fingerprint, path, was_there=False, retired=present.fingerprint)


def recipient_key(public: str) -> Any:
    """The age recipient of a public key (`age1...`).

    Raises:
        UsageError: it is none, or the secret half of an identity.
    """
    import pyrage

    if public.startswith("AGE-SECRET-KEY-"):
        raise UsageError("that is the secret half of an identity: it must never leave its site; make a new identity")
    try:
        return pyrage.x25519.Recipient.from_str(public)
    except pyrage.RecipientError:
        raise UsageError("the recipient's public key is not an age public key (age1...)") from None


def _decrypted(keys: Path, file: Path) -> bytes:
    """The shared file's content, by this site's identity."""
    import pyrage

    try:
        data = file.read_bytes()
    except OSError as error:
        raise EnvironmentProblem(f"shared key {file} cannot be read: {error.strerror}") from None
    identity = read_identity(keys / IDENTITY_FILE)
    try:
        return bytes(pyrage.decrypt(data, [identity]))
    except pyrage.DecryptError:
        problem = f"shared key {file} does not open: it is damaged, or was made for another identity than this site's"
    raise EnvironmentProblem(problem)


def read_identity(path: Path) -> Any:
    """The age identity in this 0600 file; asks for its passphrase if it has one.

    Raises:
        EnvironmentProblem: absent, damaged or open to others.
    """
    import pyrage

    text = read_owner_file(path, "identity", "; make one with: decoct keys identity")
    if is_sealed(text):
        text = unseal(text, f"identity {path}")
    lines = [line for line in text.decode("ascii", errors="replace").splitlines() if line and line[0] != "#"]
    try:
        return pyrage.x25519.Identity.from_str("".join(lines))
    except pyrage.IdentityError:
        problem = f"identity {path} is damaged"
    raise EnvironmentProblem(problem)
