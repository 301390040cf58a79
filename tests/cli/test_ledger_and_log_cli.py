"""`decoct ledger`, `log` and `trust` as a person sees them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from condensation.private.accounting import noise_multipliers
from condensation.private.stream.terms import Stream
from flows.cli.main import app
from pipeline.core.errors import EnvironmentProblem, UsageError
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger import People, composed_epsilon, reserve
from pipeline.sharing.policy.load import shipped_policies
from pipeline.sharing.policy.streams import StreamTerms, enter, reserve_stream
from pipeline.sharing.trust.log import log_path

EVENTS = ({"event": "GaussianDpEvent", "noise_multiplier": 5.0},)


def decoct(*words: object) -> str:
    answer = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_the_ledgers_table_shows_what_is_spent_and_left(tmp_path: Path) -> None:
    people = People(tuple(f"p{number}" for number in range(40)), "subject")
    reserve(tmp_path, "one", EVENTS, people, Budget(2.0, 1e-5, 365), "house")
    title, head, row, meaning = decoct("ledger", "--out", tmp_path).splitlines()
    assert title == "budget  epsilon 2 at delta 1e-05 for one person in 365 days"
    assert head.split() == ["cohort", "unit", "people", "queries", "last", "spent", "left"]
    cohort, unit, count, queries, _, spent, left = row.split()
    assert (len(cohort), unit, count, queries) == (12, "subject", "40", "1")
    assert float(spent) + float(left) == pytest.approx(2.0, abs=2e-3)
    assert meaning.startswith("spent: by the person in the cohort who gave most")
    assert decoct("ledger", "--policy", "strict", "--out", tmp_path).startswith("budget  epsilon 4 ")


def test_an_empty_workspace_has_no_budget_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing has been reserved"):
        decoct("ledger", "--out", tmp_path)
    assert "no private query" in decoct("ledger", "--policy", "strict", "--out", tmp_path)
    assert decoct("log", "show", "--out", tmp_path) == "the log is empty\n"


def test_the_log_is_shown_and_a_changed_line_is_named(tmp_path: Path) -> None:
    people = People(("p1",), "stay")
    for query in ("one", "two"):
        reserve(tmp_path, query, EVENTS, people, Budget(2.0, 1e-5, 365), "house")
    shown = decoct("log", "show", "--out", tmp_path).splitlines()
    assert [line.split()[0] for line in shown] == ["1", "2"]
    assert "the log is whole: 2 lines" in decoct("log", "verify", "--out", tmp_path)
    path = log_path(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"lines":2', b'"lines":3', 1))
    with pytest.raises(EnvironmentProblem, match="the chain breaks at line 2"):
        decoct("log", "verify", "--out", tmp_path)


def test_an_authors_key_is_not_made_as_an_approvers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="approver or root"):
        decoct("trust", "key", "author", tmp_path / "k.key")
    made = decoct("trust", "key", "approver", tmp_path / "k.key")
    assert made.splitlines()[0].startswith("approver ")
    assert (tmp_path / "k.key").stat().st_mode & 0o777 == 0o600
    secret = (tmp_path / "k.key").read_text().splitlines()[2]
    assert secret not in made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "threshold = 1\ndays = 0\nkeys = []\n",
        "threshold = 1\ndays = 30\nkeys = []\n",
        "threshold = 1\ndays = 30\nthreshhold = 2\nkeys = []\n",
        'threshold = 1\ndays = 30\n[[keys]]\nname = "R"\nrole = "root"\npublic = "zz"\n',
        'threshold = 1\ndays = 30\n[[keys]]\nname = "R"\nrole = "root"\n',
    ],
)
def test_a_root_that_is_described_wrongly_is_not_drafted(text: str, tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(UsageError):
        decoct("trust", "draft", tmp_path / "keys.toml", tmp_path / "root.json")
    assert not (tmp_path / "root.json").exists()


def test_the_plan_says_how_many_nights_a_budget_covers_and_what_a_stream_costs(tmp_path: Path) -> None:
    """Composed by the ledger's own accountant; strict covers 15 nights of 365, and all of them as a stream."""
    rows = {(row["policy"], row["nights"]): row for row in json.loads(decoct("ledger", "--plan", "--json"))["rows"]}
    assert {policy for policy, _ in rows} == set(shipped_policies())
    assert [rows[policy, 365]["admitted"] for policy in ("strict", "research", "agreement")] == [15, 49, 71]
    (one,) = noise_multipliers(1.0, 1e-6, (1.0,))
    for nights in (4, 15):
        apart = composed_epsilon([{"event": "GaussianDpEvent", "noise_multiplier": one}] * nights, 1e-5)
        assert rows["strict", nights]["apart"] == pytest.approx(apart, abs=1e-4)
    year = Stream(horizon=365, epsilon=rows["strict", 365]["stream"], delta=1e-5, clip=1.0)
    worst = float((year.factor**2).sum())
    assert year.multiplier * worst == pytest.approx(one, rel=1e-3)
    assert rows["strict", 365]["stream"] == pytest.approx(2.89, abs=0.005)
    lines = decoct("ledger", "--plan", "--policy", "strict", "--out", tmp_path).splitlines()
    assert lines[7].split() == ["strict", "4", "365", "28.81", "15", "2.89", "2", "1.39"]
    assert lines[-2] == ("strict: every night's set claims the price of all nights, so a stream above 2 is refused")
    assert lines[-1].endswith("before anything is spent, though the budget is 4")
    assert "before anything" not in decoct("ledger", "--plan", "--policy", "research")
    assert not list(tmp_path.iterdir())


def test_a_stream_is_told_below_the_ledgers_table(tmp_path: Path) -> None:
    year = Stream(horizon=365, epsilon=1.5, delta=1e-5, clip=1.0)
    budget = Budget(2.0, 1e-5, 365)
    reserve_stream(tmp_path, "ab" * 32, year.events, StreamTerms(365, 1, 1, "subject"), budget, "house")
    for night in (1, 2):
        enter(tmp_path, "ab" * 32, night, {f"p{night}": 1}, budget, lambda admitted: np.ones(len(admitted)))
    lines = decoct("ledger", "--out", tmp_path).splitlines()
    assert lines[2].split()[:4] == ["abababababab", "subject", "2", "1"]
    assert lines[-1] == "abababababab is a stream: 2 nights so far, one price for all of them"
