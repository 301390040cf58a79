"""Keyed marks: who was asked, without a name; a set per cohort, in a file under its digest, beside the ledger."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.chained import Chain
from pipeline.core.files.owner import read_owner_file, write_owner_file

MARK_BYTES: Final = 8  # two of 100,000 people share a mark with probability 3e-10, and are then counted as one


def mark_of(ledger: Chain, name: str) -> int:
    """The mark of a person: HMAC-SHA256 under the ledger's salt, cut to 8 bytes."""
    salt = bytes.fromhex(ledger.entries[0]["salt"])
    return int.from_bytes(hmac.digest(salt, name.encode(), "sha256")[:MARK_BYTES], "little")


def marks_of(ledger: Chain, ids: Iterable[str]) -> np.ndarray:
    """Sorted uint64 marks of people."""
    return np.unique(np.array([mark_of(ledger, name) for name in ids], np.uint64))


def keep_marks(folder: Path, marks: np.ndarray) -> str:
    """Write the marks under their digest, unless they are there; returns the digest, which names the cohort.

    Raises:
        EnvironmentProblem: the disk refuses.
    """
    data = marks.astype("<u8").tobytes()
    name = sha256(data).hexdigest()
    if not _path(folder, name).exists():
        try:
            write_owner_file(_path(folder, name), data, "the ledger's list of marks")
        except EnvironmentProblem:
            if not _path(folder, name).exists():
                raise
    return name


def read_marks(folder: Path, cohorts: Sequence[str]) -> np.ndarray | None:
    """The marks of cohorts, joined; None where one is gone or damaged: it then counts as overlapping with everybody."""
    found = [np.zeros(0, "<u8")]
    for cohort in cohorts:
        try:
            data = read_owner_file(_path(folder, cohort), "the ledger's list of marks")
        except EnvironmentProblem:
            return None
        if sha256(data).hexdigest() != cohort:
            return None
        found.append(np.frombuffer(data, "<u8"))
    return np.unique(np.concatenate(found)) if len(cohorts) > 1 else found[-1]  # a file's marks are sorted


def _path(folder: Path, cohort: str) -> Path:
    return folder / "people" / f"{cohort}.marks"
