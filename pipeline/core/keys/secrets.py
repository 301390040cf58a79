"""Secrets: bytes that never show in a repr, a log, an error or an artefact, kept in files only their owner reads.

docs/keys.md defines sub-keys and key files.
"""

from __future__ import annotations

import secrets
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, final

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files import seen
from pipeline.core.files.owner import read_owner_file, write_owner_file
from pipeline.core.keys.passphrase import is_sealed, seal, unseal
from pipeline.core.keys.subkeys import hkdf

SECRET_BYTES: Final = 32
_REPLACEABLE: Final = frozenset({"store"})  # without it every stage is done again, and nothing else happens
_A_KEY: Final = "a key"
_HEADER: Final = "decoct-secret v2"


@final
class Secret:
    """256 bits from the operating system; `repr`, `str`, pickle and equality give nothing away.

    `made` is an ISO date, or empty where no file tells it.
    """

    __slots__ = ("_material", "made", "purpose")

    def __init__(self, material: bytes, purpose: str, made: str = "") -> None:
        if len(material) != SECRET_BYTES:
            raise EnvironmentProblem(f"a {purpose} secret must be {SECRET_BYTES} bytes long")
        self._material = material
        self.purpose = purpose
        self.made = made

    def derive(self, label: str) -> bytes:
        """A 32-byte sub-key; different labels and purposes are independent.

        HKDF-SHA256 (RFC 5869), no salt, info = "decoct/2", purpose and label, separated by zero bytes.
        """
        return hkdf(self._material, f"decoct/2\0{self.purpose}\0{label}".encode())

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name the secret without helping to guess it (it holds 256 bits of entropy)."""
        return self.derive("fingerprint").hex()[:16]

    def reveal(self) -> bytes:
        """The bytes themselves; only key files, custody and signing may ask."""
        return self._material

    def __repr__(self) -> str:
        return f"Secret(purpose={self.purpose!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret cannot be pickled: pass the path of its key file instead")


def new_secret(purpose: str) -> Secret:
    """A fresh secret from the operating system's CSPRNG, made today."""
    return Secret(secrets.token_bytes(SECRET_BYTES), purpose, made=datetime.now(tz=UTC).date().isoformat())


def key_text(secret: Secret) -> bytes:
    """A key file's content."""
    named = f"purpose {secret.purpose}\n{secret.reveal().hex()}\nfingerprint {secret.fingerprint}"
    return f"{_HEADER}\n{named}\nmade {secret.made}\n".encode("ascii")


def secret_from_text(text: bytes, purpose: str, source: str) -> Secret:
    """The inverse of `key_text`; `source` names the file in errors.

    Raises:
        EnvironmentProblem: malformed, damaged, of an unknown version, or made for another purpose.
    """
    lines = text.decode("ascii", errors="replace").splitlines()
    if lines[:2] != [_HEADER, f"purpose {purpose}"]:
        raise EnvironmentProblem(f"{source} is not a version 2 key for purpose {purpose!r}")
    try:
        _, _, digits, fingerprint, day = lines
        secret = Secret(bytes.fromhex(digits), purpose, _made(day))
    except (ValueError, EnvironmentProblem):
        raise EnvironmentProblem(f"{source} is damaged") from None
    if fingerprint != f"fingerprint {secret.fingerprint}":
        raise EnvironmentProblem(f"{source} is damaged: it does not have the fingerprint that it names")
    return secret


def _made(line: str) -> str:
    """The date of a line "made DATE", or nothing of "made "."""
    word, day = line.split(" ")
    if word != "made" or (day and date.fromisoformat(day).isoformat() != day):
        raise ValueError
    return day


def write_secret(path: Path, secret: Secret, passphrase: str | None = None, *, noted: bool = True) -> None:
    """Write a key file readable by its owner only, under a passphrase if one is given; refuses to overwrite one.

    That there is a key of this name in a workspace is `noted`, so that none is made in its place once it is gone.

    Raises:
        EnvironmentProblem: the file exists already or cannot be written.
    """
    text = key_text(secret)
    if passphrase is not None:
        clear = {"purpose": secret.purpose, "fingerprint": secret.fingerprint, "made": secret.made}
        text = seal(text, passphrase, clear)
    write_owner_file(path, text, "key file")
    if (
        noted
        and _is_noted(path)
        and key_state(path) not in seen.states(path.parent).get(seen.name_of(path.parent, path), ())
    ):
        seen.accept(path.parent, seen.name_of(path.parent, path), key_state(path))


def require_never_made(path: Path) -> None:
    """A key may be made here: there has been none, or somebody has said that it is lost.

    Raises:
        Lost: there was one, and it is gone.
    """
    if _is_noted(path) and not path.exists():
        seen.checked(path.parent, seen.name_of(path.parent, path), lambda: path, key_state)


def key_state(path: Path) -> str:
    """What is noted of a key file: that there is one. Whether it is the right one, who uses it finds out."""
    return f"{_A_KEY} {path.name}" if path.exists() else seen.NOTHING


def _is_noted(path: Path) -> bool:
    return path.parent.name == "keys" and not path.name.startswith(".") and path.stem not in _REPLACEABLE


def read_secret(path: Path, purpose: str) -> Secret:
    """Read a key file; one under a passphrase asks for it (`pipeline.core.keys.passphrase`).

    Raises:
        EnvironmentProblem: missing, readable by group or others, malformed, made for another purpose, or its
            passphrase is wrong or cannot be had.
    """
    text = read_owner_file(path, "key file", f"; make one with: decoct keys new {purpose}")
    source = f"key file {path}"
    if is_sealed(text):
        text = unseal(text, source)
    return secret_from_text(text, purpose, source)


def read_or_create_secret(path: Path, purpose: str, *, noted: bool = True) -> Secret:
    """The key at `path`, made on first use; of several processes that start together one makes it and all read it.

    Raises:
        Lost: it was made before and is gone. EnvironmentProblem: as `read_secret`, or the disk refuses.
    """
    if not path.exists():
        try:
            if noted:
                require_never_made(path)
            write_secret(path, new_secret(purpose), noted=noted)
        except EnvironmentProblem:
            if not path.exists():
                raise
    return read_secret(path, purpose)
