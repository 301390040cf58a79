"""Room below the values of a raw table: low bits, decimals of labels, order; and the copy that has none."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from flows.stages.attacks.tables import audit
from pipeline.audit.run import attempt
from pipeline.audit.scene import TableScene
from pipeline.audit.tables.covert import HOW, CovertRoom, canonical
from pipeline.audit.tables.scene import Tables, tabular_scene
from pipeline.core.types import AttackResult


def table(n: int = 120, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    numbers = {f"x{place}": rng.normal(30, 4, n) for place in range(6)}
    return numbers | {"label": rng.uniform(size=n).astype(np.float32), "visits": rng.integers(0, 9, n)}


PLAIN = canonical(table())


def room(columns: dict[str, np.ndarray]) -> AttackResult:
    (found,) = attempt(TableScene("table", "0" * 64, columns), CovertRoom(), seed=0, level="screen")  # type: ignore[misc]
    return found


def test_the_canonical_copy_has_no_room() -> None:
    found = room(PLAIN)
    assert (found.high, found.powered, found.controls_held) == (0, True, True)
    assert HOW not in found.summary


def hidden_low_bits() -> dict[str, np.ndarray]:
    """Eight records' bits, or any others, under one column that reads the same."""
    bits = PLAIN["x5"].copy().view(np.uint64) ^ np.random.default_rng(2).integers(0, 2**16, len(PLAIN["x5"]), np.uint64)
    return PLAIN | {"x5": bits.view(np.float64)}


def swapped() -> dict[str, np.ndarray]:
    order = np.arange(120)
    order[[40, 41]] = order[[41, 40]]
    return {name: column[order] for name, column in PLAIN.items()}


@pytest.mark.parametrize(
    ("columns", "rooms"),
    [
        (hidden_low_bits(), 1),
        (swapped(), 1),
        (PLAIN | {"label": PLAIN["label"] + np.float32(1e-6)}, 1),
        (table(), 8),
    ],
    ids=["low bits", "two rows", "decimals of the label", "as numpy draws it"],
)
def test_room_is_named_and_blocks_without_an_accusation(columns: dict[str, np.ndarray], rooms: int) -> None:
    found = room(columns)
    assert (found.low, found.rate, found.high) == (0, 0, rooms)
    assert found.gates
    assert not found.powered
    assert found.controls_held
    assert HOW in found.summary


def test_full_low_bits_are_told_from_those_of_the_copy() -> None:
    told = room(hidden_low_bits()).detail
    assert told["columns"] == ["x5"]
    assert told["low_byte_bits"]["x5"] > 6


def test_a_policy_that_gates_calls_no_raw_table_tested() -> None:
    """The copy passes where the raw file, of nobody either, is inconclusive; the agreement accepts any."""
    real, holdout = pl.DataFrame(table(300, 3)), pl.DataFrame(table(300, 4))
    raw = audit(real, pl.DataFrame(table()), holdout)
    assert raw.decision.verdict == "INCONCLUSIVE"
    assert any("covert_room" in reason for verdict, reason in raw.decision.reasons if verdict == "INCONCLUSIVE")
    assert HOW in repr(raw)
    plain = audit(real, pl.DataFrame(PLAIN), holdout)
    assert not [r for verdict, r in plain.decision.reasons if verdict != "PASS" and "covert_room" in r]


def test_a_long_table_lies_by_person_and_time() -> None:
    rng = np.random.default_rng(5)

    def long(first: int) -> pl.DataFrame:
        rows = {"pid": np.repeat(np.arange(first, first + 120), 3), "hour": np.tile([0, 1, 2], 120)}
        return pl.DataFrame(rows | {"x": np.round(rng.normal(size=360), 1), "y": np.round(rng.normal(size=360), 1)})

    shared = long(1000).with_columns(pid=pl.int_range(360) // 3)
    scene = tabular_scene(Tables(long(2000), shared, long(3000), "pid", "hour"))
    assert room(dict(scene.raw.columns)).high == 0
    assert dataclasses.replace(scene.raw, columns={}).rows == 0
