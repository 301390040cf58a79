"""`decoct ledger`, `log` and `trust` as a person sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from pipeline.core.errors import EnvironmentProblem, UsageError
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger import People, reserve
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
