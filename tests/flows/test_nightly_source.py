"""Nights over one source: unchanged ones read nothing; what breaks in the middle is one sentence and loses nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.run import execute
from flows.stages import source
from flows.stages.ingest import ingest
from flows.workspace.job import Job, new_job
from pipeline import store as store_module
from pipeline.core.config import parse_config
from pipeline.core.errors import EnvironmentProblem
from pipeline.ingest.kept import watermarks
from pipeline.ingest.sources import physionet2012
from pipeline.ingest.sources.embedded import DATA
from pipeline.store import Made, Store

STAYS = 60


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Embedded stays as text files, of which the clock says that they are two hours old."""
    root = tmp_path / "export"
    (root / "records").mkdir(parents=True)
    table = pl.read_parquet(DATA / "set-a.parquet").with_columns(pl.col("variable").cast(pl.String))
    ids = table["stay_id"].unique(maintain_order=True).head(STAYS)
    for (stay,), rows in table.filter(pl.col("stay_id").is_in(ids.implode())).group_by("stay_id", maintain_order=True):
        lines = [f"{m // 60:02d}:{m % 60:02d},{v},{x}" for m, v, x in rows.drop("stay_id").iter_rows()]
        (root / f"records/{stay}.txt").write_text("Time,Parameter,Value\n" + "\n".join(lines) + "\n")
    outcomes(root)
    now = time.time() + 7200
    monkeypatch.setattr(watermarks.time, "time", lambda: now)
    return root


def outcomes(root: Path) -> None:
    wanted = {path.stem for path in (root / "records").iterdir()}
    head, *rows = (DATA / "Outcomes-a.txt").read_text().splitlines()
    (root / "outcomes.txt").write_text("\n".join([head, *(r for r in rows if r.split(",")[0] in wanted)]) + "\n")


def job_of(root: Path, *, resume: bool = True, name: str = "nightly") -> Job:
    raw: dict[str, Any] = {
        "name": name,
        "workspace": str(root.parent / "work"),
        "source": {
            "kind": "physionet2012",
            "records": [str(root / "records")],
            "outcomes": [str(root / "outcomes.txt")],
        },
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"centroids": {"kind": "centroids", "input": "raw"}},
        "release": {"artefact": "raw", "kind": "encoded", "policy": "demo", "licence": "ODbL-1.0"},
    }
    config = parse_config(raw, "the test's configuration", root)
    return new_job(config, resume=resume)


def night(root: Path, *, resume: bool = True, name: str = "nightly") -> Made:
    made = execute(job_of(root, resume=resume, name=name), "ingest", ingest, ())
    assert made is not None
    return made


def test_an_unchanged_night_opens_no_record(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = night(export)

    def opened(*_: Any) -> bytes:
        raise AssertionError("a file was opened")

    with monkeypatch.context() as patched:
        patched.setattr(watermarks, "digest_file", opened)
        patched.setattr(Path, "read_bytes", lambda self: opened() if export in self.parents else _bytes(self))
        second = night(export)
    assert (second.reused, second.digests) == (True, first.digests)
    assert night(export, resume=False).digests == first.digests


def _bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read()


def test_correction_and_deletion_end_as_a_full_reading_does(export: Path, tmp_path: Path) -> None:
    night(export)
    paths = sorted((export / "records").iterdir())
    text = paths[3].read_text()
    paths[3].write_text(text.replace(",HR,", ",HR,1", 1))
    paths[7].unlink()
    outcomes(export)
    changed = night(export)
    assert not changed.reused
    job = job_of(export)
    assert night(export, resume=False, name="another").digests == changed.digests
    assert source.SourceState(job).marks.digest(paths[3])


def test_a_full_disk_is_one_sentence_and_the_next_night_ends_the_same(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = night(export, name="undisturbed")
    work = export.parent / "work"
    job = job_of(export)
    for digest in undisturbed.digests:
        folder = work / "store/objects" / digest[:2] / digest
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    def full(path: Path, _: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("write_synced", "_save_synced"):
        with monkeypatch.context() as patched:
            patched.setattr(store_module, name, full)
            with pytest.raises(
                EnvironmentProblem, match="stage ingest could not use the file system: the disk is full"
            ):
                execute(job, "ingest", ingest, ())
        assert list((work / "store/tmp").iterdir()) == []
        assert list(Store(work / "store").entries()) == []
    assert night(export).digests == undisturbed.digests


def test_a_source_that_goes_or_changes_while_it_is_read_stores_nothing(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse, paths = physionet2012._parse, sorted((export / "records").iterdir())
    kept = {path: path.read_bytes() for path in paths}

    def gone(*args: Any) -> pl.DataFrame:
        paths[0].unlink()
        return parse(*args)

    def written(*args: Any) -> pl.DataFrame:
        paths[0].write_bytes(kept[paths[0]] + b"47:59,HR,80\n")
        return parse(*args)

    for meanwhile, what in ((gone, "vanished"), (written, "changed")):
        with monkeypatch.context() as patched:
            patched.setattr(physionet2012, "_parse", meanwhile)
            with pytest.raises(EnvironmentProblem, match=f"a file {what} while the source was read") as told:
                night(export)
        assert EnvironmentProblem.exit_code == 15
        assert paths[0].stem not in str(told.value)
        assert list(Store(export.parent / "work/store").entries()) == []
        for path, data_ in kept.items():
            path.write_bytes(data_)
    assert night(export).reused is False


def test_a_clock_that_is_set_back_reads_again_and_ends_the_same(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = night(export)
    marks = export.parent / "work/store/marks/nightly.json"
    assert len(json.loads(marks.read_bytes())) == STAYS + 1
    path = min((export / "records").iterdir())
    path.write_bytes(path.read_bytes())  # touched, and the same
    past = time.time() - 30 * 86_400
    monkeypatch.setattr(watermarks.time, "time", lambda: past)
    assert night(export).digests == first.digests
    assert len(json.loads(marks.read_bytes())) == STAYS  # a file from the future is hashed again next time, too
    assert night(export).reused
