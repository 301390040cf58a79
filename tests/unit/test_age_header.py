"""An encrypted payload opens for as many keys as the statement names."""

from __future__ import annotations

import pyrage
import pytest

from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.bundle.age_header import SCHEME, require_recipients

KEYS = [pyrage.x25519.Identity.generate().to_public() for _ in range(3)]


def described(count: int) -> dict[str, object]:
    return {"scheme": SCHEME, "recipients": {f"Hospital {place}": str(KEYS[place]) for place in range(count)}}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_as_named(count: int) -> None:
    for _ in range(5):  # age puts nonsense stanzas in at random
        require_recipients(pyrage.encrypt(b"-> X25519 in the payload", KEYS[:count]), described(count))


@pytest.mark.parametrize(
    "data",
    [
        pyrage.encrypt(b"x", KEYS[:2]),
        pyrage.passphrase.encrypt(b"x", "open sesame"),
        b"",
        b"-> ",
        b"age-encryption.org/v1\n-> ssh-ed25519 abc\nabc\n--- mac",
        b"age-encryption.org/v1\n-> X25519 a\nb\n-> x-grease\n" + b"A" * 2**20 + b"\n-> X25519 hidden\nb\n--- mac",
        b"age-encryption.org/v1\n-> X25519 a\nb\n" + b"-> x-grease\nAAAA\n" * 2 + b"--- mac",
        b"age-encryption.org/v1\n-> X25519 a\nb\n",
    ],
    ids=[
        *("one more", "a passphrase", "empty", "no age file", "another kind of key"),
        *("one more after what is read", "two stanzas of nonsense", "no end"),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ReleaseRefused, match="others than the recipients"):
        require_recipients(data, described(1))
