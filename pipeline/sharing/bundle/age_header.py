"""The head of an age file, read without a library: to how many keys is it encrypted? Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.core.errors import ReleaseRefused

VERSION: Final = b"age-encryption.org/v1"
SCHEME: Final = f"{VERSION.decode()} X25519"
_HEADER_BYTES: Final = 2**20  # some ten thousand recipients


def require_recipients(data: bytes, description: Mapping[str, Any]) -> None:
    """The age file opens for as many keys as the statement names, and for no passphrase or key of another kind.

    Whose keys they are, only the keys' owners can see.

    Raises:
        ReleaseRefused: no age file, or it has other recipients than the statement.
    """
    head = data[:_HEADER_BYTES].split(b"\n--- ", 1)[0].split(b"\n")
    stanzas = [line.split(b" ")[1] for line in head if line.startswith(b"-> ")]
    named = [stanza for stanza in stanzas if not stanza.endswith(b"-grease")]  # age puts in nonsense on purpose
    if head[0] != VERSION or set(named) - {b"X25519"} or len(named) != len(description["recipients"]):
        raise ReleaseRefused("the encrypted payload opens for others than the recipients that the statement names")
