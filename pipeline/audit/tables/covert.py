"""Where a raw table could carry more than it says: digits that nobody reads, and the order of its rows.

No test of randomness shows that such room is empty: a few records encrypted into low bits look like any noise. So the
table is held against the one form that has no room, its canonical copy: numbers of `DIGITS` significant digits, the
nearest number of their kind, rows sorted by their columns from left to right. What differs is room; a table with room
was not tested, because all other attacks look at values and not at what hides below them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np

from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import TableScene
from pipeline.audit.statistics import Interval
from pipeline.core.types import AttackResult, ThreatModel

DIGITS: Final = 4
HOW: Final = (
    f"round every number to {DIGITS} significant digits, sort the rows by their columns, and audit and share that file"
)


@final
@dataclass(frozen=True)
class CovertRoom:
    """Low bits, decimals and order of a raw table against its canonical copy."""

    name: ClassVar[str] = "covert_room"
    threat_model: ClassVar[ThreatModel] = "bytes"
    scene_type: ClassVar[type] = TableScene

    def unsupported(self, scene: TableScene) -> str | None:
        """A table of one row or none."""
        return None if scene.rows > 1 else "a table of fewer than two rows has neither order nor usual digits"

    def run(self, scene: TableScene, seed: int) -> tuple[AttackResult, ...]:
        """One result: how many columns, and whether the order, could carry something; none is known to."""
        columns = scene.columns
        plain = canonical(columns)
        loose, sorted_ = long_columns(columns), is_sorted(columns)
        rooms = len(loose) + (not sorted_)
        kept = _rooms(plain)
        planted = {name: _nudged(column) if column.dtype.kind == "f" else column for name, column in plain.items()}
        planted = {name: column[::-1] for name, column in planted.items()}
        due = sum(column.dtype.kind == "f" and bool(np.isfinite(column).any()) for column in plain.values())
        due += not is_sorted(planted)
        seen = _rooms(planted)
        told = f"{len(loose)} of its {len(columns)} columns have more than {DIGITS} digits"
        told += "" if sorted_ else (", and " if loose else ", but ") + "the order of its rows is free"
        advice = f" So the raw file was not tested: {HOW}." if rooms else ""
        return (
            result(
                scene,
                CovertRoom,
                Figure(
                    "count", Interval(0.0, 0.0, float(rooms)), n=scene.rows, powered=not rooms, gates=True, ceiling=None
                ),
                Controls(float(kept), float(seen), kept == 0 and seen == due),
                summary=f"Unused capacity in {scene.artefact}: {told}.{advice}",
                detail={
                    "columns": loose,
                    "rows_sorted": sorted_,
                    "low_byte_bits": {name: round(low_bits(columns[name]), 2) for name in loose},
                    "low_byte_bits_of_the_canonical_copy": {name: round(low_bits(plain[name]), 2) for name in loose},
                },
            ),
        )


def canonical(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The copy without room: numbers rounded, rows sorted by columns from left to right, gaps first."""
    short = {name: _short(column) for name, column in columns.items()}
    order = np.lexsort([_key(column) for column in [*short.values()][::-1]])
    return {name: column[order] for name, column in short.items()}


def long_columns(columns: Mapping[str, np.ndarray]) -> list[str]:
    """Columns of which some number has more than `DIGITS` significant digits, to the last bit."""
    return [name for name, column in columns.items() if not np.array_equal(_key(column), _key(_short(column)))]


def is_sorted(columns: Mapping[str, np.ndarray]) -> bool:
    """Whether no row comes before one that is to its left."""
    keys = [_key(column) for column in columns.values()]
    order = np.lexsort(keys[::-1])
    return all(np.array_equal(key, key[order]) for key in keys)


def low_bits(column: np.ndarray) -> float:
    """Entropy of the last byte of a column's numbers, in bits: 8 is full, up to what so few rows can show."""
    if column.dtype.kind != "f":
        return 0.0
    known = np.ascontiguousarray(column[np.isfinite(column)])
    low = known.view(f"u{column.dtype.itemsize}") & 0xFF
    shares = np.unique(low, return_counts=True)[1] / max(len(low), 1)
    return float(-(shares * np.log2(shares)).sum())


def _rooms(columns: Mapping[str, np.ndarray]) -> int:
    return len(long_columns(columns)) + (not is_sorted(columns))


def _short(column: np.ndarray) -> np.ndarray:
    """The numbers rounded; words come as codes (unsigned), which stay."""
    if column.dtype.kind not in "fi":
        return column
    values, place = np.unique(column, return_inverse=True)
    short = [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else value for value in values.tolist()]
    return np.asarray(np.array(short, dtype=np.float64).astype(column.dtype)[place])


def _key(column: np.ndarray) -> np.ndarray:
    """Ordered like the column, gaps first."""
    if column.dtype.kind != "f":
        return column
    return np.where(np.isnan(column), -np.inf, column)


def _nudged(column: np.ndarray) -> np.ndarray:
    return np.asarray(np.nextafter(column, column.dtype.type(np.inf)))
