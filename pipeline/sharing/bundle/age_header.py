"""The head of an age file, read without a library: to how many keys is it encrypted? Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.core.errors import ReleaseRefused

VERSION: Final = b"age-encryption.org/v1"
SCHEME: Final = f"{VERSION.decode()} X25519"
_HEADER_BYTES: Final = 2**20  # some ten thousand recipients; a head that goes on beyond it is not counted, so refused


def require_recipients(data: bytes, description: Mapping[str, Any]) -> None:
    """The age file opens for as many keys as the statement names, and for no passphrase or key of another kind.

    Whose keys they are, only the keys' owners can see.

    Raises:
        ReleaseRefused: no age file, or it has other recipients than the statement.
    """
    text, end, _ = data[:_HEADER_BYTES].partition(b"\n--- ")
    head = text.split(b"\n")
    stanzas = [line.split(b" ")[1] for line in head if line.startswith(b"-> ")]
    named = [stanza for stanza in stanzas if not stanza.endswith(b"-grease")]  # age puts one in, on purpose
    wanted = len(description["recipients"])
    if head[0] != VERSION or not end or {*named} != {b"X25519"} or len(named) != wanted or len(stanzas) > wanted + 1:
        raise ReleaseRefused("the encrypted payload opens for others than the recipients that the statement names")
