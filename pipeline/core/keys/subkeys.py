"""Sub-keys by HKDF-SHA256 (RFC 5869), with the standard library alone: who only verifies needs no numpy."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from pipeline.core.errors import EnvironmentProblem

SUBKEY_BYTES: Final = 32
_HASH_BYTES: Final = 32


def hkdf_extract(salt: bytes, material: bytes) -> bytes:
    """HKDF-Extract with SHA-256 (RFC 5869, section 2.2): 32 bytes; an empty salt is 32 zero bytes."""
    return hmac.new(salt or bytes(_HASH_BYTES), material, hashlib.sha256).digest()


def hkdf_expand(pseudorandom_key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869, section 2.3): `length` bytes, at most 8,160.

    Raises:
        EnvironmentProblem: a length that HKDF does not define.
    """
    if not 0 < length <= 255 * _HASH_BYTES:
        raise EnvironmentProblem(f"HKDF-SHA256 expands to 1 to {255 * _HASH_BYTES} bytes, not {length}")
    blocks, last = b"", b""
    for counter in range(1, -(-length // _HASH_BYTES) + 1):
        last = hmac.new(pseudorandom_key, last + info + bytes([counter]), hashlib.sha256).digest()
        blocks += last
    return blocks[:length]


def hkdf(material: bytes, info: bytes, *, salt: bytes = b"", length: int = SUBKEY_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869): extract, then expand."""
    return hkdf_expand(hkdf_extract(salt, material), info, length)
