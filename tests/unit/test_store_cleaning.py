"""What goes from a store and what stays; what in it is damaged; a clean-up and a run keep out of each other's way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from flows.cli.keep.store import store_app
from flows.workspace.locks import workspace_lock
from flows.workspace.removing import cleaning
from flows.workspace.removing.cleaning import OLD_SECONDS, compact, damaged, rubbish
from flows.workspace.removing.graph import graph_of, last_uses
from flows.workspace.removing.purge import Plan, carry_out, pending
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.types import GateDecision, Grouping, ReleaseRecord
from pipeline.ingest.kept.pieces import Pieces, indexes
from pipeline.ingest.kept.watermarks import Watermarks
from pipeline.store import BEGINS, Made, Store

runner = CliRunner()


def decision(word: str) -> GateDecision:
    return GateDecision("PASS", word, "0" * 64, ())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "runs/nightly").mkdir(parents=True)
    return Store(tmp_path / "store", b"k" * 32)


def night(store: Store, word: str, run: str = "nightly", release: int = 0) -> list[Made]:
    """A run of three stages, each from the one before, and perhaps a release of the last."""
    store.used(run, BEGINS)
    made: list[Made] = []
    for stage in ("one", "two", "three"):
        key, parents = f"{stage}-{word}", tuple(item.first for item in made[-1:])
        found = store.once(
            key, lambda stage=stage: (decision(f"{stage} {word}"),), resume=True, stage=stage, parents=parents
        )  # type: ignore[misc]
        store.used(run, key)
        made.append(found)
    if release:
        record = ReleaseRecord(f"site-set-v{release}", "0" * 64, release)
        key = f"release-{release}"
        made.append(store.once(key, lambda: (record,), resume=True, stage="release", parents=(made[-1].first,)))
        store.used(run, key)
    return made


def there(store: Store) -> set[str]:
    return set(graph_of(store).kinds)


def digests(*nights: list[Made]) -> set[str]:
    return {digest for made in nights for item in made for digest in item.digests}


def test_the_last_runs_and_what_is_released_stay(store: Store, tmp_path: Path) -> None:
    nights = [night(store, str(number), release=number if number < 3 else 0) for number in range(1, 7)]
    for number in (1, 2):
        (tmp_path / f"releases/site-set-v{number}").mkdir(parents=True)
    before = there(store)
    found = rubbish(tmp_path, runs=2)
    assert found.kinds["GateDecision"][0] == 3 * 3  # nights 1, 3 and 4
    assert there(store) == before
    carry_out(tmp_path, found.plan)
    assert there(store) == digests(nights[1], nights[4], nights[5])
    assert set(graph_of(store).notes) == {f"{stage}-{n}" for stage in ("one", "two", "three") for n in (2, 5, 6)} | {
        "release-2"
    }
    assert night(store, "6")[2].reused
    assert not night(store, "3")[0].reused
    assert rubbish(tmp_path, runs=7).plan == Plan()


def test_a_store_of_before_keeps_what_a_note_names(store: Store, tmp_path: Path) -> None:
    kept = store.once("old note", lambda: (decision("kept"),), resume=True)
    orphan = store.put(Grouping(("a",), "m", ((0.0,),), "c", ((0.0,),), 1.0, (("a",),), (("a",),), 0.0, 1))
    found = rubbish(tmp_path, runs=1)
    assert (found.plan.notes, found.plan.objects) == ((), (orphan,))
    assert kept.first not in found.plan.objects


def test_runs_of_other_names_count_for_themselves(store: Store, tmp_path: Path) -> None:
    (tmp_path / "runs/weekly").mkdir()
    weekly = night(store, "w", run="weekly")
    nightly = [night(store, str(number)) for number in range(3)]
    gone = night(store, "x", run="deleted")
    carry_out(tmp_path, rubbish(tmp_path, runs=1).plan)
    assert there(store) == digests(weekly, nightly[-1])
    assert digests(gone).isdisjoint(there(store))
    assert set(last_uses(store, 1)) == {"nightly", "weekly"}


def test_only_old_leftovers_of_killed_writes_go(store: Store, tmp_path: Path) -> None:
    night(store, "1")
    staged = store.root / "tmp" / "tmpabc"
    staged.mkdir()
    (staged / "arrays.safetensors").write_bytes(b"half")
    draft = tmp_path / "runs/nightly/.report.html.0011.new"
    draft.write_text("half")
    plan = rubbish(tmp_path, runs=1).plan
    assert plan == Plan()
    old = rubbish(tmp_path, runs=1, now=time.time() + OLD_SECONDS + 60)
    assert old.kinds["left by killed writes"] == (2, 8)
    assert rubbish(tmp_path, runs=1, now=time.time() - 10 * OLD_SECONDS).plan == Plan()  # a clock that was set back
    carry_out(tmp_path, old.plan)
    assert not staged.exists()
    assert not draft.exists()


def read(tmp_path: Path, keys: list[str], run: str = "nightly") -> Pieces:
    """A reading of one row for every key."""
    pieces = Pieces(tmp_path / "store/pieces", "v", Watermarks())
    new = [key for key in keys if not pieces.has(pieces.key(key))]
    frame = pl.DataFrame({"hours": [float(len(key)) for key in new], "variable": new, "value": [1.0] * len(new)})
    pieces.add([pieces.key(key) for key in new], [1] * len(new), [None] * len(new), frame)
    taken = pieces.take([pieces.key(key) for key in keys])
    assert taken["variable"].to_list() == keys
    pieces.finish(run)
    return pieces


def test_pieces_that_no_run_uses_go_and_mostly_dead_packs_shrink(store: Store, tmp_path: Path) -> None:
    names = [f"file {number}" for number in range(10)]
    read(tmp_path, names)
    read(tmp_path, [*names[:2], "new"])
    folder = tmp_path / "store/pieces"
    assert sorted(len(index) for _, index in indexes(folder)) == [1, 10]
    assert rubbish(tmp_path, runs=1).plan == Plan()
    compact(tmp_path)
    found = rubbish(tmp_path, runs=1)
    assert found.kinds["kept of sources"][0] == 1  # the rows of the old pack
    carry_out(tmp_path, found.plan)
    assert sorted(len(index) for _, index in indexes(folder)) == [1, 2]
    assert read(tmp_path, [*names[:2], "new"]).parsed == 0
    assert read(tmp_path, ["other"]).parsed == 1
    carry_out(tmp_path, rubbish(tmp_path, runs=1).plan)
    assert sorted(len(index) for _, index in indexes(folder)) == [1]
    carry_out(tmp_path, rubbish(tmp_path, runs=1, pieces=True).plan)
    assert indexes(folder) == []


def test_what_is_damaged_is_named(store: Store, tmp_path: Path) -> None:
    made = night(store, "1")
    assert list(damaged(store)) == []
    path = store.root / "objects" / made[0].first[:2] / made[0].first / "meta.json"
    path.write_bytes(path.read_bytes().replace(b"PASS", b"FAIL"))
    (store.root / "index" / "broken").write_text("{")
    found = dict(damaged(store))
    assert set(found) == {made[0].first, "one-1", "broken"}
    assert "does not match its digest" in found[made[0].first]


def test_on_the_command_line(store: Store, tmp_path: Path) -> None:
    for number in range(3):
        night(store, str(number))
    before = there(store)
    out = ["--out", str(tmp_path)]
    told = runner.invoke(store_app, ["gc", "--runs", "1", *out])
    assert (told.exit_code, there(store)) == (0, before)
    assert "nothing was taken out: decoct store gc --yes does it" in told.output
    listed = json.loads(runner.invoke(store_app, ["list", "--json", *out]).output)
    assert listed["kinds"]["GateDecision"]["artefacts"] == 9
    done = json.loads(runner.invoke(store_app, ["gc", "--runs", "1", "--yes", "--json", *out]).output)
    assert (done["removed"], done["kinds"]["GateDecision"]["count"]) == (True, 6)
    assert len(there(store)) == 3
    assert runner.invoke(store_app, ["verify", *out]).output.startswith("3 artefacts are what their names say")
    next((store.root / "objects").glob("*/*/meta.json")).write_text("{}")
    assert isinstance(runner.invoke(store_app, ["verify", *out]).exception, EnvironmentProblem)


def test_while_a_run_is_on_nothing_is_taken_out(store: Store, tmp_path: Path) -> None:
    night(store, "1")
    with workspace_lock(tmp_path, "decoct run", shared=True):
        told = runner.invoke(store_app, ["gc", "--yes", "--out", str(tmp_path)])
    assert isinstance(told.exception, EnvironmentProblem)
    assert "in use by decoct run" in str(told.exception)


def test_a_disk_that_fails_in_the_middle_is_told_and_the_next_time_goes_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        night(store, str(number))
    rename: Callable[[Path, Path], Path] = Path.rename
    left = 2

    def failing(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(5, os.strerror(5))
        return rename(self, target)

    plan = rubbish(tmp_path, runs=1).plan
    with monkeypatch.context() as patched:
        patched.setattr(cleaning.Path, "rename", failing)
        with pytest.raises(EnvironmentProblem, match="the same command goes on from there"):
            carry_out(tmp_path, plan)
    assert pending(tmp_path) == plan
    assert all(store.made(path.name) is not None for path in (store.root / "index").iterdir())
    told = runner.invoke(store_app, ["gc", "--yes", "--runs", "1", "--out", str(tmp_path)])
    assert told.exit_code == 0
    assert (len(there(store)), pending(tmp_path)) == (3, Plan())
