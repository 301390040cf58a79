"""Secrets: bytes that never show in a repr, a log, an error or an artefact, kept in files only their owner reads."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final, final

from pipeline.core.errors import EnvironmentProblem

SECRET_BYTES: Final = 32
_HEADER: Final = "decoct-secret v1"


@final
class Secret:
    """256 bits from the operating system; `repr`, `str`, pickle and equality give nothing away."""

    __slots__ = ("_material", "purpose")

    def __init__(self, material: bytes, purpose: str) -> None:
        if len(material) != SECRET_BYTES:
            raise EnvironmentProblem(f"a {purpose} secret must be {SECRET_BYTES} bytes long")
        self._material = material
        self.purpose = purpose

    def derive(self, label: str) -> bytes:
        """A 32-byte sub-key: HMAC-SHA256(secret, purpose || label); different labels are independent."""
        return hmac.new(self._material, f"{self.purpose}\0{label}".encode(), hashlib.sha256).digest()

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name the secret without helping to guess it (it holds 256 bits of entropy)."""
        return self.derive("fingerprint").hex()[:16]

    def reveal(self) -> bytes:
        """The bytes themselves; only key files and signing may ask."""
        return self._material

    def __repr__(self) -> str:
        return f"Secret(purpose={self.purpose!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret cannot be pickled: pass the path of its key file instead")


def new_secret(purpose: str) -> Secret:
    """A fresh secret from the operating system's CSPRNG."""
    return Secret(secrets.token_bytes(SECRET_BYTES), purpose)


def write_secret(path: Path, secret: Secret) -> None:
    """Write a key file readable by its owner only; refuses to overwrite one.

    Raises:
        EnvironmentProblem: the file exists already.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = f"{_HEADER}\npurpose {secret.purpose}\n{secret.reveal().hex()}\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise EnvironmentProblem(f"key file {path} exists already and is never overwritten") from None
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def read_secret(path: Path, purpose: str) -> Secret:
    """Read a key file.

    Raises:
        EnvironmentProblem: missing, readable by group or others, malformed, or made for another purpose.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise EnvironmentProblem(f"key file {path} not found; make one with: decoct keys new {purpose}") from None
    except (OSError, UnicodeDecodeError):
        raise EnvironmentProblem(f"key file {path} cannot be read") from None
    if stat.S_IMODE(mode) & 0o077:
        raise EnvironmentProblem(f"key file {path} is open to group or others; run: chmod 600 {path}")
    lines = text.splitlines()
    if len(lines) != 3 or lines[0] != _HEADER or lines[1] != f"purpose {purpose}":
        raise EnvironmentProblem(f"key file {path} is not a version 1 key for purpose {purpose!r}")
    try:
        return Secret(bytes.fromhex(lines[2]), purpose)
    except ValueError:
        raise EnvironmentProblem(f"key file {path} is damaged") from None


def read_or_create_secret(path: Path, purpose: str) -> Secret:
    """The key at `path`, made on first use."""
    if not path.exists():
        write_secret(path, new_secret(purpose))
    return read_secret(path, purpose)
