"""Files under a passphrase: scrypt and ChaCha20-Poly1305, in a form that docs/keys.md defines with a test vector.

Not age's own passphrase files: age measures how much work this machine does in a second (half a GiB of memory and many
seconds on a busy one), and a much slower machine refuses to open the result. Here the work is fixed, and what may be
known of a key, its fingerprint above all, can be read without the passphrase.

The passphrase is never a command-line argument: other users of the machine read those. It comes from, in this order,
a file descriptor, an environment variable, or a prompt.
"""

from __future__ import annotations

import getpass
import os
import secrets
import sys
import threading
import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pipeline.core.errors import EnvironmentProblem

DESCRIPTOR_VARIABLE: Final = "DECOCT_PASSPHRASE_FD"
PASSPHRASE_VARIABLE: Final = "DECOCT_PASSPHRASE"
HEADER: Final = b"decoct-sealed v1\n"
SHORTEST: Final = 8
_SCRYPT: Final = {"length": 32, "n": 1 << 17, "r": 8, "p": 1}  # 128 MiB; fixed by the version, not read from the file
_SALT_BYTES: Final = 16
_NONCE: Final = bytes(12)  # every file has a key of its own


def seal(text: bytes, passphrase: str, clear: Mapping[str, str]) -> bytes:
    """`text` under the passphrase, with lines "name value" that anybody who has the file can read, and nobody change.

    Raises:
        EnvironmentProblem: a passphrase of fewer than eight characters.
    """
    if len(passphrase) < SHORTEST:
        raise EnvironmentProblem(f"a passphrase has at least {SHORTEST} characters")
    salt = secrets.token_bytes(_SALT_BYTES)
    head = HEADER + "".join(f"{name} {value}\n" for name, value in clear.items()).encode("ascii")
    head += f"salt {salt.hex()}\n".encode("ascii")
    sealed = bytes(_cipher(passphrase, salt).encrypt(_NONCE, text, head))
    return head + f"sealed {sealed.hex()}\n".encode("ascii")


def is_sealed(data: bytes) -> bool:
    """Whether a file's content is under a passphrase."""
    return data.startswith(HEADER)


def clear_facts(sealed: bytes) -> dict[str, str]:
    """The readable lines of a sealed file; only opening it proves them true."""
    lines = sealed[len(HEADER) :].decode("ascii", errors="replace").splitlines()
    return {name: value for name, _, value in (line.partition(" ") for line in lines) if name not in ("salt", "sealed")}


def unseal(sealed: bytes, source: str) -> bytes:
    """The inverse of `seal`, with the passphrase from `passphrase_at_hand`; `source` names the file.

    Raises:
        EnvironmentProblem: no passphrase can be had, it is wrong, or the file is damaged.
    """
    with _ONE_AT_A_TIME:
        if sealed not in _opened:
            _opened[sealed] = _decrypted(sealed, passphrase_at_hand(source), source)
        return _opened[sealed]


_opened: dict[bytes, bytes] = {}  # a run reads its keys many times: ask once, and pay for scrypt once
_ONE_AT_A_TIME: Final = threading.RLock()


def _decrypted(sealed: bytes, phrase: str, source: str) -> bytes:
    from cryptography.exceptions import InvalidTag

    head, _, body = sealed.rpartition(b"sealed ")
    try:
        salt = bytes.fromhex(head.splitlines()[-1].removeprefix(b"salt ").decode("ascii"))
        return bytes(_cipher(phrase, salt).decrypt(_NONCE, bytes.fromhex(body.decode("ascii")), head))
    except (InvalidTag, ValueError, IndexError):
        problem = f"{source} does not open: the passphrase is wrong, or the file is damaged"
    raise EnvironmentProblem(problem)


def _cipher(passphrase: str, salt: bytes) -> Any:
    """ChaCha20-Poly1305 under the passphrase, normalised so that every keyboard types the same bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    typed = unicodedata.normalize("NFC", passphrase).encode()
    return ChaCha20Poly1305(Scrypt(salt=salt, **_SCRYPT).derive(typed))


def passphrase_at_hand(source: str) -> str:
    """The passphrase of this process: from DECOCT_PASSPHRASE_FD, DECOCT_PASSPHRASE, or asked for at the terminal.

    Raises:
        EnvironmentProblem: there is none, and nobody who could be asked.
    """
    found = _given()
    if found is None and sys.stdin is not None and sys.stdin.isatty():
        found = getpass.getpass(f"Passphrase of {source}: ")
    if not found:
        raise EnvironmentProblem(
            f"{source} is under a passphrase, and none was given by {DESCRIPTOR_VARIABLE} or {PASSPHRASE_VARIABLE}"
        )
    return found


def new_passphrase(what: str) -> str:
    """A passphrase for a new file: from the surroundings, or asked for twice.

    Raises:
        EnvironmentProblem: there is none and nobody to ask, it is too short, or the two differ.
    """
    found = _given()
    if found is None:
        found = passphrase_at_hand(what)
        if getpass.getpass("Once more: ") != found:
            raise EnvironmentProblem("the two passphrases differ; nothing was written")
    if len(found) < SHORTEST:
        raise EnvironmentProblem(f"a passphrase has at least {SHORTEST} characters")
    return found


def _given() -> str | None:
    with _ONE_AT_A_TIME:  # of two threads that look for the variable, one would find it taken out
        return _from_surroundings()


@cache
def _from_surroundings() -> str | None:
    """Read once: a descriptor can only be read once, and the variable is taken out so that no child inherits it."""
    number = os.environ.pop(DESCRIPTOR_VARIABLE, None)
    variable = os.environ.pop(PASSPHRASE_VARIABLE, None)
    if number is None:
        return variable
    try:
        with os.fdopen(int(number), "r", encoding="utf-8") as stream:
            return stream.readline().rstrip("\n")
    except (ValueError, OSError):
        raise EnvironmentProblem(f"{DESCRIPTOR_VARIABLE} does not name a file descriptor that can be read") from None
