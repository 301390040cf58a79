"""When disk and budget end: rates of the last nights, held against what the ledger itself does when it is asked on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from flows.nights.forecast import FREE, SOON, WINDOW, Forecast, forecast
from flows.nights.night import read_record, run_night
from flows.nights.status import status, write_metrics
from pipeline.core.config import parse_config
from pipeline.core.errors import BudgetError, Held
from pipeline.core.files.chained import read_chain, writing
from pipeline.sharing.policy.ledger import Budget, People, reserve, still_covered

NOW = datetime.now(tz=UTC).replace(microsecond=0)
GIB = 2**30
PEOPLE = People(tuple(f"p{number}" for number in range(20)), "subject")
OTHERS = People(tuple(f"q{number}" for number in range(20)), "subject")


def of_disk(folder: Path, free: Sequence[tuple[float, float]], wanted: float = 2) -> Forecast:
    """The forecast from (days ago, GiB free) of each night."""
    record = folder / "nights" / "nights.jsonl"
    record.unlink(missing_ok=True)
    for kept in (folder / "keys").glob("*"):
        kept.unlink()
    with writing(record) as chain:
        for age, gib in free:
            ended = (NOW - timedelta(days=age)).isoformat(timespec="seconds")
            chain.append("night", {"ended": ended, FREE: int(gib * GIB)})
        chain.append("notice not delivered", {"night": "n"})
        chain.append("night", {"ended": NOW.isoformat(timespec="seconds")})  # of an earlier version: not said
    return forecast(folder, record, int(wanted * GIB), NOW)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=st.floats(0.05, 5), left=st.floats(1, 500), nights=st.integers(3, 29), odd=st.integers(0, 28))
def test_a_disk_that_fills_evenly_is_full_when_it_says(
    tmp_path: Path, rate: float, left: float, nights: int, odd: int
) -> None:
    free = [(float(age), 2 + left + rate * age) for age in range(nights, -1, -1)]
    found = of_disk(tmp_path, free)
    assert found.disk_full == pytest.approx(NOW.timestamp() + 86400 * left / rate, abs=60)
    assert found.soon(NOW) == (found.disk_full < (NOW + SOON).timestamp())
    if nights >= 8:  # one night on which somebody had filled it for an hour
        free[odd % nights] = (free[odd % nights][0], 0.1)
        assert of_disk(tmp_path, free).disk_full == pytest.approx(
            found.disk_full, rel=0.5, abs=0.5 * 86400 * left / rate
        )


@pytest.mark.parametrize(
    ("free", "told"),
    [
        ([], "too few"),
        ([(2, 50), (1, 40)], "too few"),
        ([(0.2, 50), (0.1, 40), (0, 30)], "too few"),
        ([(90, 50), (80, 40), (70, 30)], "too few"),  # long ago
        ([(2, 30), (1, 30), (0, 30)], "not filling"),
        ([(2, 30), (1, 35), (0, 40)], "not filling"),
    ],
)
def test_nothing_is_said_where_nothing_is_known(tmp_path: Path, free: list[tuple[float, float]], told: str) -> None:
    found = of_disk(tmp_path, free)
    assert (found.disk_full, found.soon(NOW)) == (None, False)
    assert told in found.told


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("others", [0, 3])
def test_the_budget_covers_as_many_queries_as_it_says_and_refuses_the_next(
    tmp_path: Path, before: int, others: int
) -> None:
    budget = Budget(3.0, 1e-5, 365)

    def ask(name: str, people: People = PEOPLE) -> None:
        reserve(tmp_path, name, [{"event": "GaussianDpEvent", "noise_multiplier": 4.0}], people, budget, "house")

    for number in range(others):
        ask(f"other {number}", OTHERS)
    for number in range(before):
        ask(f"before {number}")
    found = forecast(tmp_path, tmp_path / "none", 0, NOW + timedelta(days=before))
    covered = still_covered(tmp_path, budget, 365)
    assert 0 < covered < 365
    assert f"{covered} such queries more" in found.told
    apart = before / (before + others)
    assert found.budget_ends == pytest.approx((NOW + timedelta(days=apart * (covered + 1))).timestamp(), abs=86400)
    for number in range(covered):
        ask(f"after {number}")
    with pytest.raises(BudgetError):
        ask("one too many")
    assert still_covered(tmp_path, budget, 365) == 0


def test_a_budget_that_lasts_and_one_that_nobody_asks_of_end_never(tmp_path: Path) -> None:
    event = {"event": "GaussianDpEvent", "noise_multiplier": 40.0}
    reserve(tmp_path, "q", [event], PEOPLE, Budget(20.0, 1e-5, 365), "house")
    for later, told in ((timedelta(days=1), "lasts"), (WINDOW + timedelta(days=2), "nothing asked")):
        found = forecast(tmp_path, tmp_path / "none", 0, NOW + later)
        assert found.budget_ends is None
        assert told in found.told


def test_a_night_keeps_what_was_free_and_status_and_metrics_tell_what_ends(tmp_path: Path) -> None:
    tables: dict[str, Any] = {
        "name": "ward",
        "workspace": str(tmp_path / "work"),
        "source": {"kind": "embedded", "sets": ["a"]},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"private": {"kind": "private_moments"}},
        "release": {"artefact": "private", "policy": "strict", "licence": "ODbL-1.0"},
        "night": {"notify_on": "never"},
    }
    plan = parse_config(tables, "a test", tmp_path)

    def nothing_new(*_: object) -> None:
        raise Held("nothing new")

    run_night(plan, nothing_new)
    record = plan.workspace / "nights" / "nights.jsonl"
    assert read_chain(record).entries[0][FREE] > 0
    assert read_record(plan.workspace)[0].state == "held"
    event = {"event": "GaussianDpEvent", "noise_multiplier": 4.0}
    reserve(plan.workspace, "q", [event], PEOPLE, Budget(2.0, 1e-5, 365), "house")
    found = status(plan.workspace, now=datetime.now(tz=UTC))
    line = next(finding for finding in found.findings if finding.what == "forecast")
    assert line.level == "WARNING"
    assert "ends in" in line.told
    write_metrics(found, tmp_path / "m.prom")
    samples = {family.name for family in text_string_to_metric_families((tmp_path / "m.prom").read_text())}
    assert "decoct_privacy_budget_ends_timestamp_seconds" in samples
    assert "decoct_disk_full_timestamp_seconds" not in samples  # not known yet
