"""`decoct audit-tables` as its callers meet it: verdict, files, history, the same bytes twice."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flows.stages.attacks.tables import TableAudit, audit_tables, enforce, write
from flows.workspace.history import history_of, remember
from pipeline.core.digest import canonical_json
from pipeline.core.errors import LeakageError
from pipeline.ingest.sources.embedded import DATA

COLUMNS = ("Age", "Weight", "HR", "Temp", "GCS", "BUN", "Creatinine", "Glucose")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Summaries of embedded stays: 200 real ones, 200 others, and 60 of the real ones moved a little."""
    place = tmp_path_factory.mktemp("tables")
    long = pl.read_parquet(DATA / "set-a.parquet").with_columns(pl.col("variable").cast(pl.String))
    stays = (
        long.filter(pl.col("variable").is_in(COLUMNS) & (pl.col("value") >= 0))
        .pivot(on="variable", index="stay_id", values="value", aggregate_function="mean")
        .select("stay_id", *COLUMNS)
        .sort("stay_id")
        .sample(400, shuffle=True, seed=1)
    )
    stays[:200].write_parquet(place / "real.parquet")
    stays[200:].write_parquet(place / "holdout.parquet")
    rng = np.random.default_rng(0)
    moved = (pl.col(name) + 0.02 * stays[name].std() * pl.Series(rng.normal(size=60)) for name in COLUMNS)
    stays[:60].drop("stay_id").with_columns(*moved).write_parquet(place / "noisy.parquet")
    return place


def audited(folder: Path) -> TableAudit:
    real, shared, holdout = (folder / f"{name}.parquet" for name in ("real", "noisy", "holdout"))
    return audit_tables(
        real, shared, holdout, name="noisy", policy="research", seed=5, subject_column="stay_id", time_column=None
    )


@pytest.fixture(scope="module")
def found(folder: Path) -> TableAudit:
    return audited(folder)


def test_noisy_copies_of_real_stays_fail_with_code_13(found: TableAudit) -> None:
    copies = next(row for row in found.report.results if (row.attack, row.statistic) == ("near_copies", "count"))
    assert copies.rate >= 50
    assert found.decision.verdict == "FAIL"
    with pytest.raises(LeakageError, match="FAIL under the limits of policy research: attack near_copies") as caught:
        enforce(found.decision)
    assert caught.value.exit_code == 13


def test_the_same_tables_and_seed_give_the_same_bytes(found: TableAudit, folder: Path, tmp_path: Path) -> None:
    again = audited(folder)
    assert canonical_json(found.data()) == canonical_json(again.data())
    first, second = write(found, tmp_path / "a"), write(again, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_is_written_is_the_owners_and_holds_no_id_and_no_path(
    found: TableAudit, folder: Path, tmp_path: Path
) -> None:
    for path in write(found, tmp_path / "out"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    remember(history_of(tmp_path / "out"), (found.report,), name="noisy", source="tables")
    ids = set(pl.read_parquet(folder / "real.parquet")["stay_id"].cast(pl.String).to_list())
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert str(folder).encode() not in content
        assert not ids & set(re.findall(r"(?<![\d.])1[34]\d{4}(?!\d)", content.decode("latin-1"))), path.name


def test_a_notebook_shows_the_page_in_a_frame_that_runs_nothing(found: TableAudit) -> None:
    shown = found._repr_html_()
    assert shown.startswith('<iframe sandbox=""')
    assert shown.count("<") == 2
    assert "leakage audit" in shown


def test_the_page_tells_and_asks_nothing_of_the_network(found: TableAudit, tmp_path: Path) -> None:
    page = write(found, tmp_path)[0].read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert not re.search(r"\banonym", page, re.IGNORECASE)
    for told in ("What each attacker reaches", "What risk remains", "WP216", "EDPB Opinion 28/2024", "45 CFR 164.514"):
        assert told in page
    assert json.loads((tmp_path / "audit.json").read_text())["decision"]["verdict"] == "FAIL"
