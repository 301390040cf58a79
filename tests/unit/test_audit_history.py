"""The history: every audit kept, only the owner can read it, nothing about a person or a place in it."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from flows.workspace.history import table
from pipeline.audit.history import FILE_NAME, History, open_history
from pipeline.core.codec import record_digest
from pipeline.core.errors import EnvironmentProblem, UsageError
from pipeline.core.types import AttackResult, LeakageReport, NotRun, Provenance


def report(rate: float = 0.5, artefact: str = "private", digest: str = "a") -> LeakageReport:
    figure = AttackResult(
        attack="density_membership",
        threat_model="T6",
        artefact=artefact,
        statistic="auroc",
        rate=rate,
        low=rate - 0.02,
        high=rate + 0.02,
        n=900,
        control=None,
        positive_control=1.0,
        ceiling=1.0,
        gates=True,
        summary="s",
        controls_held=True,
        powered=True,
        held_back=False,
        p_value=None,
        detail={"roc": {"fpr": [0.1], "tpr": [0.2]}},
    )
    gap = NotRun("model_membership", "T7", artefact, "no model")
    return LeakageReport(artefact, digest * 64, (figure,), (gap,), True, Provenance("audit", seed=3, code_version="1"))


@pytest.fixture
def history(tmp_path: Path) -> History:
    return open_history(tmp_path / FILE_NAME)


def test_what_was_recorded_comes_back_as_it_was(history: History) -> None:
    at = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
    number = history.record([report(), report(artefact="rqe")], name="nightly", source="run", now=at)
    night = history.night(number)
    assert night.reports == (report(), report(artefact="rqe"))
    assert (night.name, night.source, night.recorded_at) == ("nightly", "run", "2026-03-01T02:00:00+00:00")
    with pytest.raises(UsageError, match="no audit 99"):
        history.night(99)


def test_nights_come_oldest_first_and_by_artefact(history: History) -> None:
    for rate in (0.50, 0.52, 0.60):
        history.record([report(rate), report(artefact="rqe")], name="nightly", source="run")
    assert [night.id for night in history.nights(last=2)] == [2, 3]
    rows = table(history.nights(artefact="private"))
    assert [row["since_last"] for row in rows] == ["first", "same", "worse"]
    assert {row["artefact"] for row in rows} == {"private"}
    assert rows[-1]["rate"] == 0.60


def test_the_last_accepted_release_is_remembered(history: History) -> None:
    assert history.accepted("private", name="nightly") == ()
    first, second = report(0.5), report(0.6, digest="b")
    for item in (first, second):
        history.record([item], name="nightly", source="run")
    history.accept(record_digest(first), "st-elsewhere-private-v1")
    assert history.accepted("private", name="nightly") == (first,)
    assert history.accepted("rqe", name="nightly") == ()
    assert history.accepted("private", name="nightly", besides="a" * 64) == ()  # a release is not compared with itself
    history.accept(record_digest(second), "st-elsewhere-private-v2")
    waiting = history.accepted("private", name="nightly", waiting=["st-elsewhere-private-v2"])
    assert waiting == (first,)  # nobody has approved the second yet
    assert history.accepted("private", name="weekly") == ()
    assert history.accepted("private", name="nightly") == (second,)


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    open_history(tmp_path / FILE_NAME).record([report()], name="n", source="run")
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    (tmp_path / FILE_NAME).chmod(0o640)
    with pytest.raises(EnvironmentProblem, match="chmod 600"):
        open_history(tmp_path / FILE_NAME)


def test_a_file_that_is_no_database_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch(mode=0o600)
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 100)
    with pytest.raises(EnvironmentProblem, match="audit history cannot be opened: DatabaseError"):
        open_history(tmp_path / FILE_NAME)


@pytest.mark.parametrize("url", ["nonsense://user:hunter2@host/db", "postgresql+nodriver://user:hunter2@host/db"])
def test_a_url_is_never_repeated(url: str) -> None:
    """It may hold a password."""
    with pytest.raises(EnvironmentProblem) as caught:
        open_history(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_tables_exist_in_postgresql_too(history: History) -> None:
    metadata = sa.MetaData()
    metadata.reflect(history._engine)
    told = [str(sa.schema.CreateTable(item).compile(dialect=postgresql.dialect())) for item in metadata.sorted_tables]
    assert len(told) == 4


def test_two_audits_of_the_same_are_the_same_bytes_in_it(history: History) -> None:
    for _ in range(2):
        history.record([report()], name="nightly", source="run")
    with history._engine.connect() as connection:
        texts = [row[0] for row in connection.execute(sa.text("select json from report"))]
    assert texts[0] == texts[1]
    assert len(texts) == 2


def test_an_audit_without_reports_is_kept_too(history: History) -> None:
    empty = dataclasses.replace(report(), results=(), not_run=())
    number = history.record([empty], name="nightly", source="run")
    assert history.night(number).reports == (empty,)


@pytest.mark.parametrize("moved", ["powered", "p_value", "held_back", "controls_held"])
def test_a_report_of_another_version_is_refused_in_one_sentence(tmp_path: Path, moved: str) -> None:
    """As earlier versions kept it, what a decision rests on among the things that are only shown; or as later ones."""
    for number, change in enumerate(
        (lambda row: row["detail"].update({moved: row.pop(moved)}), lambda row: row.update(x=1))
    ):
        place = tmp_path / f"{number}.sqlite"
        history = open_history(place)
        history.record([report()], name="run", source="run")
        with sqlite3.connect(place) as connection:
            (text,) = connection.execute("select json from report").fetchone()
            kept = json.loads(text)
            change(kept["results"][0])
            connection.execute("update report set json = ?", (json.dumps(kept),))
        with pytest.raises(EnvironmentProblem, match="kept by another version"):
            history.nights()
