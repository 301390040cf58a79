"""A stream on the ledger: one price for all nights, who entered when, and nothing that a kill or a restore undoes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest

from condensation.private.accounting import analytic_epsilon
from condensation.private.stream.terms import Stream, nightly_answers
from pipeline.core.errors import BudgetError
from pipeline.core.files import chained
from pipeline.core.files.chained import read_chain
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.sharing.policy import ledger, streams
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger import People, composed_epsilon, ledger_path, reserved_queries, spent_by_cohort
from pipeline.sharing.policy.streams import (
    Entered,
    StreamTerms,
    enter,
    frozen_nights,
    reserve_stream,
)

STRICT = Budget(4.0, 1e-5, 365)
YEAR = Stream(horizon=365, epsilon=3.0, delta=1e-5, clip=1.0)
ONE = ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},)
TERMS = StreamTerms(horizon=365, entries=1, separation=1, unit="subject")


def begin(workspace: Path, name: str = "stream", stream: Stream = YEAR, budget: Budget = STRICT) -> None:
    terms = StreamTerms(stream.horizon, stream.entries, stream.separation, "subject")
    reserve_stream(workspace, name, stream.events, terms, budget, "house")


def ones(admitted: Mapping[str, int]) -> np.ndarray:
    return np.array([len(admitted), sum(admitted.values())], np.float64)


def let_in(
    workspace: Path,
    night: int,
    waiting: Mapping[str, int],
    name: str = "stream",
    increment: Callable[[Mapping[str, int]], np.ndarray] = ones,
) -> Entered:
    return enter(workspace, name, night, waiting, STRICT, increment)


def spent(workspace: Path) -> dict[str, float]:
    return {row.cohort: row.epsilon for row in spent_by_cohort(workspace, STRICT)}


def people(*numbers: int) -> dict[str, int]:
    return {f"p{number}": 1 for number in numbers}


def test_a_stream_is_priced_once_for_whoever_entered_on_whichever_night(tmp_path: Path) -> None:
    begin(tmp_path)
    for night in range(1, 6):
        assert let_in(tmp_path, night, people(*range(10 * night))).people == 10
    (row,) = spent_by_cohort(tmp_path, STRICT)
    assert (row.cohort, row.people, row.nights, row.queries) == ("stream", 50, 5, 1)
    assert row.epsilon == pytest.approx(analytic_epsilon(YEAR.multiplier, 1e-5), abs=1e-6)
    assert row.epsilon <= YEAR.epsilon
    begin(tmp_path)  # another night's run finds it there
    assert len([line for line in read_chain(ledger_path(tmp_path)).entries if line["what"] == "stream"]) == 1
    assert [dict(event) for event in reserved_queries(tmp_path)["stream"]] == [dict(event) for event in YEAR.events]


def test_other_terms_are_another_stream(tmp_path: Path) -> None:
    """By the name, which holds horizon, clip, factor, noise and key; one name on other terms is refused."""
    noise = [
        NoiseSource(Secret(bytes([k]) * 32, "noise"), "stream", lambda name, _: names.append(name)) for k in (1, 2)
    ]
    names: list[str] = []
    streams = [YEAR, YEAR] + [
        Stream(**{**vars(YEAR), **changed})
        for changed in ({"horizon": 364}, {"clip": 0.9}, {"window": 30}, {"entries": 2}, {"epsilon": 2.9})
    ]
    for one in streams:
        noise[0].reserve(one.question({}), one.events)
    noise[0].reserve(YEAR.question({"features": "others"}), YEAR.events)
    noise[1].reserve(YEAR.question({}), YEAR.events)
    assert names[0] == names[1]
    assert len(set(names)) == len(names) - 1
    begin(tmp_path)
    with pytest.raises(BudgetError, match="on other terms"):
        reserve_stream(tmp_path, "stream", YEAR.events, StreamTerms(365, 2, 1, "subject"), STRICT, "house")
    with pytest.raises(BudgetError, match="nobody reserved this stream"):
        let_in(tmp_path, 1, people(1), "another")


def test_a_stream_above_the_budget_is_refused_before_anybody_enters(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"all nights of this stream come to epsilon 4.1.* above the 4 that policy"):
        begin(tmp_path, stream=Stream(horizon=365, epsilon=4.1, delta=1e-5, clip=1.0))
    assert reserved_queries(tmp_path) == {}


def test_nobody_enters_beyond_the_cap_or_too_soon(tmp_path: Path) -> None:
    """A second entry: too soon it waits, later it is the second stay, a third is left out for good and counted."""
    twice = Stream(horizon=100, epsilon=3.0, delta=1e-5, clip=1.0, entries=2, separation=30)
    begin(tmp_path, stream=twice)
    seen: list[Mapping[str, int]] = []

    def increment(admitted: Mapping[str, int]) -> np.ndarray:
        seen.append(dict(admitted))
        return ones(admitted)

    stays = {"a": 1, "b": 3}  # b has three stays already: one a night, thirty nights apart
    told = [let_in(tmp_path, night, stays, increment=increment) for night in (1, 2, 30, 31, 61)]
    assert seen == [{"a": 0, "b": 0}, {}, {}, {"b": 1}, {}]
    assert [one.too_soon for one in told] == [0, 1, 1, 0, 0]
    assert [one.beyond_cap for one in told] == [0, 0, 0, 0, 1]
    let_in(tmp_path, 62, {"a": 2}, increment=increment)
    assert seen[-1] == {"a": 1}
    (row,) = spent_by_cohort(tmp_path, STRICT)
    assert row.people == 2
    assert row.epsilon == pytest.approx(analytic_epsilon(twice.multiplier, 1e-5), abs=1e-6)  # two entries, one price


def test_a_night_is_frozen_whatever_is_corrected_later(tmp_path: Path) -> None:
    begin(tmp_path)
    let_in(tmp_path, 1, people(1, 2))
    let_in(tmp_path, 2, {})
    before = frozen_nights(tmp_path, "stream", 2)

    def corrected(_: Mapping[str, int]) -> np.ndarray:
        raise AssertionError("nobody is asked again")

    again = let_in(tmp_path, 1, people(1, 2, 3), increment=corrected)
    assert (again.again, again.people) == (True, 2)
    after = frozen_nights(tmp_path, "stream", 2)
    assert [(one.night, one.digest) for one in before] == [(one.night, one.digest) for one in after]
    assert after[0].increment.tolist() == [2.0, 0.0]
    assert after[0].digest != after[1].digest  # an empty night has noise of its own
    let_in(tmp_path, 5, people(3))  # nights 3 and 4: the machine was off
    assert frozen_nights(tmp_path, "stream", 365)[-1].night == 5
    with pytest.raises(BudgetError, match="night 4 was not asked in its time"):
        let_in(tmp_path, 4, people(4))
    with pytest.raises(BudgetError, match="night 366 lies outside the stream, which has 365 nights"):
        let_in(tmp_path, 366, people(4))


def test_lost_or_changed_increments_are_refused_never_made_again(tmp_path: Path) -> None:
    begin(tmp_path)
    let_in(tmp_path, 1, people(1, 2))
    (file,) = (tmp_path / "ledger" / "nights").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    data = file.read_bytes()
    file.unlink()
    for left in (None, data[:-16] + bytes(16)):
        if left is not None:
            file.write_bytes(left)
            file.chmod(0o600)
        with pytest.raises(BudgetError, match="what people added on night 1 is lost or was changed"):
            frozen_nights(tmp_path, "stream", 1)


def test_lost_marks_keep_everybody_out(tmp_path: Path) -> None:
    begin(tmp_path)
    let_in(tmp_path, 1, people(1, 2))
    for file in (tmp_path / "ledger" / "people").iterdir():
        file.unlink()
    told = let_in(tmp_path, 2, {**people(3), "p1": 2})
    assert (told.people, told.beyond_cap) == (0, 1)


def test_a_restored_ledger_is_noticed(tmp_path: Path) -> None:
    begin(tmp_path / "now")
    let_in(tmp_path / "now", 1, people(1))
    copytree(tmp_path / "now" / "ledger", tmp_path / "backup")
    let_in(tmp_path / "now", 2, people(2))
    rmtree(tmp_path / "now" / "ledger")
    copytree(tmp_path / "backup", tmp_path / "now" / "ledger")
    with pytest.raises(BudgetError, match="backup"):
        let_in(tmp_path / "now", 2, people(2, 3))


def test_what_else_a_person_gave_counts_with_the_stream_and_the_stream_with_it(tmp_path: Path) -> None:
    begin(tmp_path, stream=Stream(horizon=365, epsilon=3.5, delta=1e-5, clip=1.0))
    other = People(tuple(people(*range(5))), "subject")
    for query in range(8):
        ledger.reserve(tmp_path, f"q{query}", ONE, other, STRICT, "house")
    told = let_in(tmp_path, 1, people(*range(8)))
    assert (told.people, told.over_budget) == (3, 5)  # five gave too much elsewhere: left out, and counted

    def keep_asking() -> None:
        for query in range(20):
            ledger.reserve(tmp_path, f"r{query}", ONE, People(("p7",), "subject"), STRICT, "house")

    with pytest.raises(BudgetError, match="above the 4"):
        keep_asking()
    given = spent(tmp_path)["stream"]
    assert 3.5 < given <= 4.0


def test_a_killed_night_has_its_line_before_its_noise_and_goes_on(tmp_path: Path) -> None:
    """kill -9 while people add, between file and line, and after the line: the next run ends as if nothing had been."""
    begin(tmp_path)
    let_in(tmp_path, 1, people(1, 2))

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def added(admitted: Mapping[str, int]) -> np.ndarray:
        if where == "adding":
            die()
        return ones(admitted)

    for where, there in (("adding", False), ("line", False), ("log", True)):
        if (child := os.fork()) == 0:
            if where == "line":
                chained.Writer.append = die  # type: ignore[assignment, method-assign]
            if where == "log":
                streams.anchor = die
            let_in(tmp_path, 2, people(1, 3, 4), increment=added)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        assert (frozen_nights(tmp_path, "stream", 365)[-1].night == 2) == there
    again = let_in(tmp_path, 2, people(1, 3, 4, 5))
    assert (again.again, again.people) == (True, 2)
    assert [one.increment[0] for one in frozen_nights(tmp_path, "stream", 2)] == [2.0, 2.0]
    assert let_in(tmp_path, 3, people(5)).people == 1


def test_no_name_of_a_person_is_on_the_disk(tmp_path: Path) -> None:
    begin(tmp_path)
    let_in(tmp_path, 1, {"patient-4711": 1})
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"4711" in file.read_bytes()]


def test_a_year_of_nights(tmp_path: Path) -> None:
    """365 nights under strict's budget, none refused: readmissions, empty nights, a night without a run, an overlap.

    A second stream over the same people begins in the middle. Whoever is in the first and would come above the budget
    is left out of it; nobody's price is ever above the budget.
    """
    stream = Stream(horizon=365, epsilon=3.9, delta=1e-5, clip=2.0)
    begin(tmp_path, "first", stream)
    draws = np.random.default_rng(5)
    exact, entered, answers = np.zeros(2), 0, []
    noise = NoiseSource(Secret(bytes(32), "noise"), "first")
    for night in range(1, 366):
        if night == 100:
            continue  # the machine was off
        new = people(*range(entered, entered + int(draws.poisson(2)))) if night % 50 else {}
        back = {f"p{draws.integers(entered)}": 2} if entered and night % 7 == 0 else {}
        told = let_in(tmp_path, night, {**new, **back}, "first")
        assert (told.people, told.beyond_cap, told.over_budget) == (len(new), len(back), 0)
        entered += len(new)
        exact += [len(new), 0]
        if night in (90, 182, 365):
            frozen = frozen_nights(tmp_path, "first", night)
            answer = nightly_answers(stream, night, 2, frozen, noise, stream.question({}))
            answers.append((night, answer))
            assert np.abs(answer[-1] - exact).max() < 5 * stream.scale * np.linalg.norm(stream.factor[:night])
        if night == 200:
            begin(tmp_path, "second", Stream(horizon=365, epsilon=1.0, delta=1e-5, clip=1.0))
            both = let_in(tmp_path, 1, {**people(*range(entered)), "new": 1}, "second")
            assert (both.people, both.over_budget) == (1, entered)
    for night, answer in answers:  # asked again at the end of the year
        frozen = frozen_nights(tmp_path, "first", night)
        assert np.array_equal(nightly_answers(stream, night, 2, frozen, noise, stream.question({})), answer)
        assert np.array_equal(answers[-1][1][:night], answer)
    rows = {row.cohort: row for row in spent_by_cohort(tmp_path, STRICT)}
    assert (rows["first"].nights, rows["first"].people) == (364, entered)
    assert rows["first"].epsilon == pytest.approx(composed_epsilon(stream.events, 1e-5), abs=1e-9)
    assert max(row.epsilon for row in rows.values()) <= STRICT.epsilon
