"""Pieces of a reading that has their rows already: in memory until they are written, the same rows at any time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import polars as pl
import pytest

from pipeline.ingest.kept import pieces as module
from pipeline.ingest.kept.pieces import Pieces
from pipeline.ingest.kept.watermarks import Watermarks


def frame(number: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"stay": [0, 1], "hours": [1.0, 2.0], "variable": ["a", "b"], "value": [float(number), 0.5]},
        schema_overrides={"stay": pl.UInt32},
    )


@pytest.mark.parametrize("packed_at", [1, 5, 1 << 20])
@pytest.mark.parametrize("held", [1, 4])
def test_passing_pieces_are_there_before_and_after_they_are_written(
    tmp_path: Path, packed_at: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PACK_ROWS", packed_at)
    monkeypatch.setattr(module, "_MOST_PACKS", held)
    marks = Watermarks(tmp_path / "marks.json")
    pieces = Pieces(tmp_path / "pieces", "v", marks)
    keys = [f"k{number}" for number in range(7)]
    for number, key in enumerate(keys):
        assert pieces.add([key], [2], [number], frame(number), passing=True) == [key]
        assert pieces.take([key]).equals(frame(number))
    wanted = ["k3", "k0", "k6", "k5", "k1"]
    expected = pl.concat([frame(int(key[1])) for key in wanted])
    assert pieces.take(wanted).equals(expected)
    pieces.finish("night")
    assert pieces.take(wanted).equals(expected)
    assert sum(block.height for block in pieces._blocks) == 0
    assert len(pieces._packs) <= held
    again = Pieces(tmp_path / "pieces", "v", marks)
    assert again.take(wanted).equals(expected)
    assert [again.facts(key) for key in keys] == list(range(7))


def test_facts_that_name_every_stay_take_about_the_room_of_their_text(tmp_path: Path) -> None:
    """An id of eight characters is eleven bytes of a list as written, and over sixty as a Python string."""
    n = 10_000
    tracemalloc.start()
    try:
        pieces = Pieces(tmp_path / "pieces", "v", Watermarks(tmp_path / "marks.json"))
        pieces.add(["k"], [2], [{"ids": [f"{number:08}" for number in range(n)]}], frame(0), passing=True)
        pieces.finish("night")
        again = Pieces(tmp_path / "pieces", "v", Watermarks(tmp_path / "marks.json"))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 2 * n * 20 + 20_000  # and what is not facts
    assert pieces.facts("k") == again.facts("k") == {"ids": [f"{number:08}" for number in range(n)]}
