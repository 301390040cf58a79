"""Canonical bytes and SHA-256 digests: an artefact's id is the digest of what it says, nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """RFC 8785 canonical JSON of plain Python data; raises on NaN and infinity, which have no canonical form."""
    import rfc8785  # lazily: a bare GPU machine condenses without it

    return rfc8785.dumps(value)


def digest_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value))


def digest_array(array: np.ndarray) -> str:
    """Hex SHA-256 over dtype, shape and little-endian C-order bytes, so the id does not depend on memory layout."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    head = canonical_json([little.dtype.str, list(little.shape)])
    hasher = hashlib.sha256(head)
    hasher.update(little.data if little.size else b"")
    return hasher.hexdigest()


def digest_blocks(dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> str:
    """`digest_array` of the array whose rows come in `blocks`, which are never held together."""
    little = np.dtype(dtype).newbyteorder("<")
    hasher = hashlib.sha256(canonical_json([little.str, list(shape)]))
    for block in blocks:
        hasher.update(np.ascontiguousarray(block, dtype=little).data if block.size else b"")
    return hasher.hexdigest()


def digest_file(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in chunks."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()
