"""Rows that failed, kept for the site with reason and place: it mends them in its source; nobody else sees them.

    workspace/quarantine/<run>/rows.parquet    reason, file, row, key, time, code, value: patients' data
    workspace/quarantine/<run>/counts.json     rows by reason, and how many of them are kept

Both are their owner's alone, and of the run's last reading. Whoever withdraws is purged by deleting the folder, or the
rows whose `key` is theirs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import polars as pl

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.owner import read_owner_file, write_owner_file

FOLDER: Final = "quarantine"
ROWS: Final = "rows.parquet"
COUNTS: Final = "counts.json"
QUARANTINE_SCHEMA: Final = {
    "reason": pl.String,
    "file": pl.String,
    "row": pl.Int64,  # of the rows below the header, from 1, malformed lines not counted; null where there is none
    "key": pl.String,
    "time": pl.String,
    "code": pl.String,
    "value": pl.String,
}
MOST_KEPT: Final = 10_000
"""Rows that a run's quarantine holds; of more, only the count is kept."""
_SHOWN: Final = 10  # fewer rows than this are told as such: a count of one is about one person


@final
@dataclass(frozen=True, eq=False, repr=False)
class Quarantine:
    """Copies of rows that failed (see `QUARANTINE_SCHEMA`), the first so many, and the count of all by reason."""

    frame: pl.DataFrame
    counts: Mapping[str, int]

    def __repr__(self) -> str:
        return f"Quarantine(<{self.frame.height}>)"

    def notes(self) -> tuple[str, ...]:
        """A sentence per reason, for the report."""
        return tuple(f"{told(rows)} rows were quarantined: {reason}" for reason, rows in sorted(self.counts.items()))

    def without(self, gone: Callable[[Sequence[str]], Sequence[bool]]) -> Quarantine:
        """Without the copies whose `key` is gone, or which have no key and so could be anybody's; counts stay."""
        keys = self.frame["key"]
        lost = keys.is_null() | pl.Series(list(gone(keys.fill_null("").to_list())), dtype=pl.Boolean)
        return Quarantine(self.frame.filter(~lost), self.counts)


def told(rows: int) -> str:
    """A count as reports may show it."""
    return str(rows) if rows >= _SHOWN else f"fewer than {_SHOWN}"


def write_quarantine(workspace: Path, run: str, quarantine: Quarantine | None) -> None:
    """Put the run's quarantine in the place of what its last reading left; None leaves nothing.

    Raises:
        EnvironmentProblem: the disk refuses.
    """
    folder = workspace / FOLDER / run
    try:
        for name in (COUNTS, ROWS):
            (folder / name).unlink(missing_ok=True)
        if quarantine is None:
            return
        for made in (folder.parent, folder):
            made.mkdir(parents=True, exist_ok=True, mode=0o700)
            made.chmod(0o700)
    except OSError as error:
        raise EnvironmentProblem(f"{folder} cannot be written: {error.strerror}") from None
    buffer = io.BytesIO()
    quarantine.frame.write_parquet(buffer)
    write_owner_file(folder / ROWS, buffer.getvalue(), "the quarantine")
    counts = {"rows": dict(sorted(quarantine.counts.items())), "kept": quarantine.frame.height}
    write_owner_file(folder / COUNTS, json.dumps(counts).encode(), "the quarantine's counts")


def quarantine_counts(workspace: Path, run: str) -> tuple[Path, dict[str, int], int] | None:
    """(the file of rows, rows by reason, how many are kept) of a run; None where nothing is quarantined.

    Raises:
        EnvironmentProblem: damaged, or open to others than its owner.
    """
    folder = workspace / FOLDER / run
    if not (folder / COUNTS).exists():
        return None
    try:
        counts = json.loads(read_owner_file(folder / COUNTS, "the quarantine's counts"))
        return folder / ROWS, {str(key): int(rows) for key, rows in counts["rows"].items()}, int(counts["kept"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EnvironmentProblem(f"{folder / COUNTS} is damaged; read the source again with decoct ingest") from None
