"""The ledger: reserved before drawn, composed over all about the same people, once per query, never rolled back."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant

from condensation.private.accounting import noise_multipliers
from condensation.private.condenser import samples_from_moments
from condensation.private.moments import CENTRE_SHARE, release_moments
from pipeline.core.errors import BudgetError, EnvironmentProblem
from pipeline.core.files.chained import Chain, found_chain, read_chain
from pipeline.core.files.seen import SEEN, accept
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger import (
    People,
    anchor,
    composed_epsilon,
    ledger_path,
    reserve,
    reserved_queries,
    spent_by_cohort,
    unrelated,
)
from pipeline.sharing.policy.opening import CLOCK
from pipeline.sharing.trust.log import append_log, log_path, read_log

BUDGET = Budget(3.0, 1e-5, 365)
GAUSS = ({"event": "GaussianDpEvent", "noise_multiplier": 5.0},)
EVERYBODY = People(tuple(f"p{number}" for number in range(300)), "subject")
SECRET = Secret(bytes(range(32)), "noise")


def ask(workspace: Path, query: str, people: People = EVERYBODY, events: Sequence[dict] = GAUSS, budget=BUDGET) -> None:
    reserve(workspace, query, events, people, budget, "house")


def exact(*multipliers: float, delta: float = BUDGET.delta) -> float:
    """The composition as dp-accounting gives it on a finer grid, one event after the other."""
    accountant = PLDAccountant(value_discretization_interval=1e-4)
    for multiplier in multipliers:
        accountant.compose(dp_accounting.GaussianDpEvent(multiplier))
    return float(accountant.get_epsilon(delta))


def cohort(tasks: tuple[str, ...], stays: int = 300) -> EncodedCohort:
    draws = np.random.default_rng(3)
    return EncodedCohort(
        features=draws.random((stays, 6, 2), dtype=np.float32),
        labels=(draws.random((stays, len(tasks))) < 0.3).astype(np.float32),
        subject_index=np.arange(stays, dtype=np.int32),
        split=np.zeros(stays, np.int8),
        channels=("heart_rate", "lactate"),
        tasks=tuple(Task(name) for name in tasks),
        step_hours=1.0,
        transforms=(
            {"kind": "subjects", "known": True, "public": True},
            {"kind": "public_ranges", "public": True},
        ),
        provenance=Provenance("test"),
    )


def source(workspace: Path, seen: EncodedCohort) -> NoiseSource:
    def ledger(query: str, events: Sequence[dict]) -> None:
        reserve(workspace, query, events, EVERYBODY, BUDGET, "house")

    return NoiseSource(SECRET, "cohort of " + ",".join(task.name for task in seen.tasks), ledger)


def test_sets_for_two_task_groups_add_up_and_one_release_of_moments_serves_them_all(tmp_path: Path) -> None:
    """Two releases: the sum, by dp-accounting, less than the naive one. One release, many sets: one price."""
    multipliers = noise_multipliers(1.0, 1e-6, (CENTRE_SHARE, 1 - CENTRE_SHARE))
    apart, together = tmp_path / "apart", tmp_path / "together"
    for tasks in (("died",), ("long_stay", "readmitted")):
        seen = cohort(tasks)
        release_moments(seen, epsilon=1.0, delta=1e-6, noise=source(apart, seen))
    (row,) = spent_by_cohort(apart, BUDGET)
    assert (row.queries, row.people, row.unit) == (2, 300, "subject")
    assert row.epsilon == pytest.approx(exact(*multipliers, *multipliers), rel=1e-3)
    assert row.epsilon < 2 * exact(*multipliers)
    assert row.left == pytest.approx(BUDGET.epsilon - row.epsilon)

    seen = cohort(("died", "long_stay", "readmitted"))
    moments = release_moments(seen, epsilon=1.0, delta=1e-6, noise=source(together, seen))
    sets = [samples_from_moments(moments, n_per_class=5, seed=seed) for seed in (0, 1)]
    assert not np.array_equal(sets[0].features, sets[1].features)
    (row,) = spent_by_cohort(together, BUDGET)
    assert row.queries == 1
    assert row.epsilon == pytest.approx(exact(*multipliers), rel=1e-3)


def test_the_same_query_draws_the_same_noise_and_costs_nothing_again(tmp_path: Path) -> None:
    seen = cohort(("died",))
    first, again = (release_moments(seen, epsilon=1.0, delta=1e-6, noise=source(tmp_path, seen)) for _ in range(2))
    assert np.array_equal(first.gram, again.gram)
    assert spent_by_cohort(tmp_path, BUDGET)[0].queries == 1
    release_moments(seen, epsilon=0.5, delta=1e-6, noise=source(tmp_path, seen))  # another sigma is another query
    assert spent_by_cohort(tmp_path, BUDGET)[0].queries == 2


def test_over_budget_nothing_is_drawn_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def keep_asking() -> None:
        while len(asked) < 20:
            ask(tmp_path, f"q{len(asked)}")
            asked.append("answered")

    with pytest.raises(BudgetError, match="above the 3 that policy house allows") as refused:
        keep_asking()
    assert refused.value.exit_code == 17
    number = len(asked)
    spent = spent_by_cohort(tmp_path, BUDGET)[0]
    assert spent.queries == number > 1
    assert exact(*[5.0] * number) <= BUDGET.epsilon < exact(*[5.0] * (number + 1))
    ask(tmp_path, "q0")  # what was paid for stays paid for
    drawn: list[object] = []
    monkeypatch.setattr("pipeline.core.keys.noise.keystream_discrete_normal", lambda *given: drawn.append(given))
    seen = cohort(("died",))
    before = ledger_path(tmp_path).read_bytes()
    with pytest.raises(BudgetError):
        release_moments(seen, epsilon=1.0, delta=1e-6, noise=source(tmp_path, seen))
    assert drawn == []
    assert ledger_path(tmp_path).read_bytes() == before


def test_a_reservation_is_on_the_disk_before_the_noise_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.core.keys.noise.keystream_discrete_normal", crash)
    seen = cohort(("died",))
    with pytest.raises(KeyboardInterrupt):
        release_moments(seen, epsilon=1.0, delta=1e-6, noise=source(tmp_path, seen))
    assert spent_by_cohort(tmp_path, BUDGET)[0].queries == 1


def test_noise_that_nobody_reserved_is_not_drawn(tmp_path: Path) -> None:
    noise = source(tmp_path, cohort(("died",)))
    with pytest.raises(BudgetError, match="without reserving"):
        noise.normal({"query": "mean"}, 1.0, (3,))
    with pytest.raises(BudgetError, match="without reserving"):
        noise.discrete_normal({"query": "mean"}, 8, (3,))
    noise.reserve({"query": "mean"}, GAUSS)
    noise.discrete_normal({"query": "mean", "part": 1}, 8, (3,))
    with pytest.raises(BudgetError, match="without reserving"):
        noise.uniform({"query": "median"}, (3,))


def test_overlapping_cohorts_add_up_for_the_people_in_both_and_only_for_them(tmp_path: Path) -> None:
    """A patient more makes a new cohort, and changes nothing for those who were there before."""
    some, others = People(EVERYBODY.ids[:200], "subject"), People(EVERYBODY.ids[200:], "subject")
    ask(tmp_path, "some", some)
    ask(tmp_path, "others", others)
    apart = {row.people: row.epsilon for row in spent_by_cohort(tmp_path, BUDGET)}
    assert apart[200] == apart[100] == pytest.approx(exact(5.0), rel=1e-3)
    ask(tmp_path, "one more", People((*some.ids, "somebody new"), "subject"))
    rows = {row.people: row.epsilon for row in spent_by_cohort(tmp_path, BUDGET)}
    assert rows[200] == rows[201] == pytest.approx(exact(5.0, 5.0), rel=1e-3)
    assert rows[100] == apart[100]


def test_lost_marks_count_as_everybody(tmp_path: Path) -> None:
    some, others = People(EVERYBODY.ids[:200], "subject"), People(EVERYBODY.ids[200:], "subject")
    ask(tmp_path, "some", some)
    for file in (tmp_path / "ledger" / "people").iterdir():
        file.unlink()
    ask(tmp_path, "others", others)
    rows = spent_by_cohort(tmp_path, BUDGET)
    assert all(row.epsilon == pytest.approx(exact(5.0, 5.0), rel=1e-3) for row in rows)


def test_queries_older_than_the_period_are_forgiven_but_not_forgotten(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.core.files.chained.now", lambda: "2020-01-01T00:00:00+00:00")
    ask(tmp_path, "old")
    monkeypatch.undo()
    for refused in (lambda: ask(tmp_path, "new"), lambda: spent_by_cohort(tmp_path, BUDGET)):
        with pytest.raises(BudgetError, match="earlier queries would be forgiven"):
            refused()
    append_log(tmp_path, CLOCK, {})  # somebody vouches for it
    ask(tmp_path, "new")
    (row,) = spent_by_cohort(tmp_path, BUDGET)
    assert (row.queries, row.epsilon) == (2, pytest.approx(exact(5.0), rel=1e-3))
    (row,) = spent_by_cohort(tmp_path, dataclasses.replace(BUDGET, period_days=36500))
    assert row.epsilon == pytest.approx(exact(5.0, 5.0), rel=1e-3)


def test_a_restored_backup_is_noticed(tmp_path: Path) -> None:
    ask(tmp_path, "first")
    ask(tmp_path, "second")
    old = ledger_path(tmp_path).read_bytes()
    ask(tmp_path, "third")
    new = ledger_path(tmp_path).read_bytes()
    ledger_path(tmp_path).write_bytes(old)
    for refused in (lambda: ask(tmp_path, "fourth"), lambda: spent_by_cohort(tmp_path, BUDGET)):
        with pytest.raises(BudgetError, match="a backup of one of the two was restored"):
            refused()
    ledger_path(tmp_path).unlink()
    with pytest.raises(BudgetError, match="backup"):
        ask(tmp_path, "fourth")
    ledger_path(tmp_path).write_bytes(new)
    ledger_path(tmp_path).chmod(0o600)
    log_path(tmp_path).unlink()
    with pytest.raises(BudgetError, match="backup"):
        ask(tmp_path, "fourth")


def crashing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, query: str) -> None:
    """The query is on the ledger, and the process is killed before it tells the log."""

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.sharing.policy.ledger.append_log", kill)
        with pytest.raises(Killed):
            ask(tmp_path, query)


def test_a_crash_between_ledger_and_log_is_healed_by_the_next_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing(monkeypatch, tmp_path, "first")
    assert set(reserved_queries(tmp_path)) == {"first"}
    crashing(monkeypatch, tmp_path, "first")  # nor may it be forgotten that the log has to be told
    ask(tmp_path, "second")
    assert read_log(tmp_path).entries[-1]["head"] == read_chain(ledger_path(tmp_path)).head
    crashing(monkeypatch, tmp_path, "third")
    ask(tmp_path, "third")
    assert read_log(tmp_path).entries[-1]["head"] == read_chain(ledger_path(tmp_path)).head
    assert spent_by_cohort(tmp_path, BUDGET)[0].queries == 3


def test_ledger_and_log_that_were_removed_together_are_missed(tmp_path: Path) -> None:
    """By the counter beside the noise key; and without that by what a release of the site's own has seen of the log."""
    ask(tmp_path, "first")
    manifest = tmp_path / "releases" / "site-set-v1" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"log": append_log(tmp_path, "propose", {}).plain()}))
    ask(tmp_path, "second")
    saved = {name: (tmp_path / name).read_bytes() for name in ("ledger/ledger.jsonl", "log/log.jsonl")}
    for folder in ("ledger", "log"):
        shutil.rmtree(tmp_path / folder)
    asking = (
        lambda: ask(tmp_path, "again"),
        lambda: spent_by_cohort(tmp_path, BUDGET),
        lambda: reserved_queries(tmp_path),
    )
    for seen_by in (
        "noise.seen has seen 3 lines of ledger/ledger.jsonl, and nothing",
        "site-set-v1 was made by another",
    ):
        for refused in asking:
            with pytest.raises(BudgetError, match=seen_by) as told:
                refused()
            assert "\n" not in str(told.value)
        (tmp_path / "keys" / SEEN).unlink(missing_ok=True)
    assert not list((tmp_path / "ledger").glob("people/*"))
    manifest.unlink()
    ask(tmp_path, "again")  # with keys and releases gone as well it is a workspace like any new one
    shutil.rmtree(tmp_path / "keys")
    for name, data in saved.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BudgetError, match=r"has seen nothing of ledger/ledger\.jsonl, and 3"):
        ask(tmp_path, "third")


@pytest.mark.parametrize(
    "damage", ["", "{}", "[]", '{"lines": "x", "head": ""}', "null", '{"ledger": [1]}', "[" * 9999]
)
def test_a_counter_that_cannot_be_read_stops_the_ledger(tmp_path: Path, damage: str) -> None:
    ask(tmp_path, "first")
    path = tmp_path / "keys" / SEEN
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(damage)
    with pytest.raises(EnvironmentProblem, match="counter"):
        ask(tmp_path, "second")
    path.unlink()
    with pytest.raises(BudgetError, match="has seen nothing"):
        ask(tmp_path, "second")  # it is written before the first line, so no crash leaves none


def test_a_ledger_restored_with_its_log_is_older_than_the_counter(tmp_path: Path) -> None:
    ask(tmp_path, "first")
    old = {name: (tmp_path / name).read_bytes() for name in ("ledger/ledger.jsonl", "log/log.jsonl")}
    ask(tmp_path, "second")
    for name, data in old.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BudgetError, match=r"has seen 3 lines of ledger/ledger\.jsonl, and 2 lines or others"):
        ask(tmp_path, "third")


def test_a_reservation_while_somebody_reads_is_no_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read between two of another process's files, the ledger looked shorter than its counter."""
    ask(tmp_path, "first")
    stale, true = [found_chain(ledger_path(tmp_path))], found_chain
    ask(tmp_path, "second")

    def read(path: Path) -> Chain:
        return stale.pop() if stale and path == ledger_path(tmp_path) else true(path)

    monkeypatch.setattr("pipeline.core.files.chained.found_chain", read)
    assert set(reserved_queries(tmp_path)) == {"first", "second"}
    assert not stale


def at(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """The machine's clock, so many days from now."""
    moment = datetime.now(tz=UTC) + timedelta(days=days)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return moment.astimezone(tz)

    monkeypatch.setattr("pipeline.core.files.chained.datetime", Clock)
    monkeypatch.setattr("pipeline.sharing.policy.opening.datetime", Clock)


@pytest.mark.parametrize(("days", "refused"), [(400, "forgiven"), (3650, "forgiven"), (-1, "in the future")])
def test_a_clock_that_leapt_or_went_back_gives_no_budget_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, refused: str
) -> None:
    for number in range(3):
        ask(tmp_path, f"q{number}")
    at(monkeypatch, days)
    for _ in range(2):  # also not once a line of the leapt time is in the log
        with pytest.raises(BudgetError, match=refused):
            ask(tmp_path, "more")
        append_log(tmp_path, "send", {})
    assert len(read_chain(ledger_path(tmp_path)).lines) == 4


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_at_any_write_of_a_reservation_loses_none(tmp_path: Path, before: bool) -> None:
    """kill -9 before, and after, each time that something reaches the disk: what was drawn is on the ledger, once."""
    for number in itertools.count(1):
        place = tmp_path / str(number)
        place.mkdir()
        ask(place, "earlier")
        if (child := os.fork()) == 0:
            synced, times = os.fsync, itertools.count(1)

            def last(handle: int, synced: Callable[[int], None] = synced, times: Any = times, at: int = number) -> None:
                if not before:
                    synced(handle)
                if next(times) == at:
                    os.kill(os.getpid(), signal.SIGKILL)

            os.fsync = last  # type: ignore[assignment]
            ask(place, "asked")
            (place / "drawn").touch()
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert set(reserved_queries(place)) >= {"earlier", *(["asked"] if (place / "drawn").exists() else [])}
        for query in ("asked", "asked", "later"):
            ask(place, query)
        assert [entry["query"] for entry in read_chain(ledger_path(place)).entries[1:]] == ["earlier", "asked", "later"]
        if not killed:
            break
    assert number > 10  # the counter beside the keys, marks, ledger, log, folders


def test_a_clock_that_went_on_as_clocks_do_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a long pause in which nothing would be forgiven."""
    short = Budget(3.0, 1e-5, 60)
    for days in (0, 50, 100, 150):
        at(monkeypatch, days)
        ask(tmp_path, f"after {days}", budget=short)
    assert spent_by_cohort(tmp_path, short)[0].epsilon == pytest.approx(exact(5.0, 5.0), rel=1e-3)
    at(monkeypatch, 350)
    assert spent_by_cohort(tmp_path, Budget(3.0, 1e-5, 3650))[0].queries == 4


def test_the_same_people_under_new_ids_are_no_other_people_unnoticed(tmp_path: Path) -> None:
    assert unrelated(tmp_path, EVERYBODY) == ""  # the first cohort is related to nobody
    ask(tmp_path, "first")
    renamed = People(tuple(f"x{number}" for number in range(300)), "subject")
    code = unrelated(tmp_path, renamed)
    assert len(code) == 12
    assert code != unrelated(tmp_path, People(renamed.ids[:-1], "subject")) != ""
    assert unrelated(tmp_path, People((*renamed.ids, "p7"), "subject")) == unrelated(tmp_path, EVERYBODY) == ""
    ask(tmp_path, "theirs", renamed)
    assert unrelated(tmp_path, renamed) == unrelated(tmp_path, EVERYBODY) == ""
    for file in (tmp_path / "ledger" / "people").iterdir():
        file.unlink()
    assert unrelated(tmp_path, People(("z",), "subject")) == ""  # lost marks: everybody counts as having been there


def test_a_torn_last_line_was_never_acknowledged(tmp_path: Path) -> None:
    ask(tmp_path, "first")
    whole = ledger_path(tmp_path).read_bytes()
    with ledger_path(tmp_path).open("ab") as stream:
        stream.write(b'{"what":"reserve","quer')
    assert spent_by_cohort(tmp_path, BUDGET)[0].queries == 1
    ask(tmp_path, "second")
    assert ledger_path(tmp_path).read_bytes().startswith(whole)
    assert spent_by_cohort(tmp_path, BUDGET)[0].queries == 2


def test_a_changed_line_and_an_open_file_are_refused(tmp_path: Path) -> None:
    ask(tmp_path, "first")
    ask(tmp_path, "second")
    path = ledger_path(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes().replace(b'"noise_multiplier":5.0', b'"noise_multiplier":9.0', 1))
    with pytest.raises(EnvironmentProblem, match="the chain breaks at line 3"):
        ask(tmp_path, "third")
    path.chmod(0o644)
    with pytest.raises(EnvironmentProblem, match="open to group or others"):
        ask(tmp_path, "third")


def test_no_name_of_a_person_is_on_the_disk(tmp_path: Path) -> None:
    ask(tmp_path, "first", People(("patient-4711", "patient-4712"), "subject"))
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert b"patient-47" not in file.read_bytes()


@pytest.mark.parametrize(
    "event",
    [
        {"event": "GaussianDpEvent"},
        {"event": "GaussianDpEvent", "noise_multiplier": 0.0},
        {"event": "GaussianDpEvent", "noise_multiplier": float("nan")},
        {"event": "GaussianDpEvent", "noise_multiplier": True},
        {"event": "NoOpDpEvent", "noise_multiplier": 1.0},
        {},
    ],
)
def test_what_has_no_price_is_not_drawn(event: dict, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="prices Gaussian and Laplace"):
        ask(tmp_path, "first", events=(event,))
    assert composed_epsilon((), 1e-6) == 0


def _many(workspace: str, worker: int) -> None:
    for number in range(5):
        ask(Path(workspace), f"w{worker} q{number}", budget=Budget(100.0, 1e-5, 365))


def test_processes_at_once_lose_no_reservation(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(_many, [(str(tmp_path), worker) for worker in range(2)])
    entries = read_chain(ledger_path(tmp_path)).entries
    assert len({json.dumps(entry["query"]) for entry in entries if entry["what"] == "reserve"}) == 10
    assert spent_by_cohort(tmp_path, BUDGET)[0].queries == 10


def rewritten(workspace: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The ledger's last line changed, by somebody who may write everything, the counter and the log among it."""
    path = ledger_path(workspace)
    lines = path.read_bytes().splitlines()
    entry = json.loads(lines[-1])
    change(entry)
    path.write_bytes(b"\n".join([*lines[:-1], json.dumps(entry, sort_keys=True, separators=(",", ":")).encode(), b""]))
    accept(workspace / "keys", "ledger/ledger.jsonl", found_chain(path).state)
    anchor(workspace, found_chain(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(what="reserve/2"),
        lambda entry: entry.update(what=""),
        lambda entry: entry.update(twice=True),
        lambda entry: entry.pop("events"),
        lambda entry: entry.pop("budget"),
    ],
)
def test_a_line_of_another_version_is_not_passed_over(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """What an older version does not know, it counted for nothing."""
    ask(tmp_path, "first")
    rewritten(tmp_path, change)
    with pytest.raises(BudgetError, match="of a kind that this version does not know"):
        ask(tmp_path, "second")
    with pytest.raises(BudgetError, match="line 2 of "):
        spent_by_cohort(tmp_path, BUDGET)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'{"', b'{ "', 1),
        lambda line: line.replace(b'"what":"reserve"', b'"what":"reserve","what":"begin"'),
        lambda line: line.replace(b'"noise_multiplier":5.0', b'"noise_multiplier":NaN'),
        lambda line: line + b" ",
        lambda line: re.sub(rb'"when":"[^"]*"', b'"when":"2026-01-01"', line),
        lambda line: re.sub(rb'"when":"[^"]*"', b'"when":null', line),
        lambda line: line.replace(b'"what":"reserve"', b'"what":1'),
    ],
)
def test_a_line_in_a_second_spelling_breaks_the_chain(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    ask(tmp_path, "first")
    first, last = ledger_path(tmp_path).read_bytes().splitlines()
    assert change(last) != last
    ledger_path(tmp_path).write_bytes(first + b"\n" + change(last) + b"\n")
    with pytest.raises(EnvironmentProblem, match="the chain breaks at line 2"):
        ask(tmp_path, "second")
