"""Key files under a passphrase: an age file (scrypt, ChaCha20-Poly1305), so that the tool `age` opens it without us.

The passphrase is never a command-line argument: other users of the machine read those. It comes from, in this order,
a file descriptor, an environment variable, or a prompt.
"""

from __future__ import annotations

import getpass
import os
import sys
from functools import cache
from typing import Final

from pipeline.core.errors import EnvironmentProblem

DESCRIPTOR_VARIABLE: Final = "DECOCT_PASSPHRASE_FD"
PASSPHRASE_VARIABLE: Final = "DECOCT_PASSPHRASE"
SHORTEST: Final = 8


def seal(text: bytes, passphrase: str) -> bytes:
    """`text` as an armoured age file under the passphrase; costs about a second of scrypt, as it should.

    Raises:
        EnvironmentProblem: a passphrase of fewer than eight characters.
    """
    from pyrage import passphrase as age

    if len(passphrase) < SHORTEST:
        raise EnvironmentProblem(f"a passphrase has at least {SHORTEST} characters")
    return bytes(age.encrypt(text, passphrase, armored=True))


def unseal(sealed: bytes, source: str) -> bytes:
    """The inverse of `seal`, with the passphrase from `passphrase_at_hand`; `source` names the file.

    Raises:
        EnvironmentProblem: no passphrase can be had, it is wrong, or the file is damaged.
    """
    import pyrage

    phrase = passphrase_at_hand(source)
    problem = f"{source} does not open: the passphrase is wrong, or the file is damaged"
    try:
        return bytes(pyrage.passphrase.decrypt(sealed, phrase))
    except pyrage.DecryptError:
        raise EnvironmentProblem(problem) from None


def passphrase_at_hand(source: str, *, may_ask: bool = True) -> str:
    """The passphrase of this process: from DECOCT_PASSPHRASE_FD, DECOCT_PASSPHRASE, or asked for at the terminal.

    Raises:
        EnvironmentProblem: there is none, and nobody who could be asked.
    """
    found = _from_surroundings()
    if found is None and may_ask and sys.stdin is not None and sys.stdin.isatty():
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
    found = _from_surroundings()
    if found is None:
        found = passphrase_at_hand(what)
        if getpass.getpass("Once more: ") != found:
            raise EnvironmentProblem("the two passphrases differ; nothing was written")
    if len(found) < SHORTEST:
        raise EnvironmentProblem(f"a passphrase has at least {SHORTEST} characters")
    return found


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
