"""How long a stage of a night may take, which night is too late to begin, which is refused before anything is made."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.nights import notify, scheduled, shown
from flows.nights.night import Night
from flows.stages import decide
from flows.stopping import at_most
from flows.tasks import StageStopped, _disk_or_network
from flows.templates import commented_config
from flows.workspace.job import Job
from pipeline.core.config import Config, load_config
from pipeline.core.errors import EnvironmentProblem, ReleaseRefused, TookTooLong


@pytest.fixture
def plan(tmp_path: Path) -> Config:
    path = tmp_path / "night.toml"
    path.write_text(commented_config().replace('licence = ""', 'licence = "CC0-1.0"'), encoding="utf-8")
    return load_config(path)


def test_a_stage_that_takes_too_long_ends_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    real, before = signal.setitimer, signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(signal, "setitimer", lambda which, first, again=0.0: real(which, first / 6000, again / 6000))
    begin = time.monotonic()
    sentence = r"^audit was at work for 1 minutes, which is all that night\.stage_minutes"
    with pytest.raises(TookTooLong, match=sentence), at_most(1, "audit"):
        time.sleep(20)
    assert time.monotonic() - begin < 10
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with at_most(0, "audit"):
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_took_too_long_is_not_tried_again() -> None:
    def tried_again(error: EnvironmentProblem) -> bool:
        state = SimpleNamespace(data=StageStopped(error))
        return _disk_or_network(None, None, state)  # type: ignore[arg-type]

    assert tried_again(EnvironmentProblem("a share is away"))
    assert not tried_again(TookTooLong("audit was at work for 720 minutes"))


@pytest.mark.parametrize(
    ("late", "planned", "catch_up", "begun", "left_out"),
    [
        (timedelta(minutes=9), True, "skip", True, False),
        (timedelta(minutes=11), True, "skip", False, True),
        (timedelta(days=2), False, "skip", True, False),  # somebody asked for it
        (timedelta(days=2), True, "once", False, False),
        (timedelta(days=2), True, "once", True, True),
        (timedelta(hours=-3), True, "skip", True, False),
    ],
)
def test_a_night_that_is_too_late_is_left_out_and_nothing_is_cancelled(
    plan: Config,
    monkeypatch: pytest.MonkeyPatch,
    late: timedelta,
    planned: bool,
    catch_up: str,
    begun: bool,
    left_out: bool,
) -> None:
    run = SimpleNamespace(auto_scheduled=planned, expected_start_time=datetime.now(tz=UTC) - late)
    monkeypatch.setattr(scheduled, "FlowRunContext", SimpleNamespace(get=lambda: SimpleNamespace(flow_run=run)))
    monkeypatch.setattr(scheduled, "begun_since", lambda *_: begun)
    night = plan.night.model_copy(update={"catch_up": catch_up})
    assert (scheduled._too_late(plan.model_copy(update={"night": night})) is not None) == left_out


def test_a_night_refuses_what_the_gate_would_and_a_run_by_hand_goes_on(
    plan: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ReleaseRefused("nothing was drawn, as this run cannot end in a release")

    monkeypatch.setattr(decide, "require_releasable", refuse)
    monkeypatch.setattr(decide, "Known", SimpleNamespace(of=lambda _: None))
    monkeypatch.setattr(Job, "only", lambda *_: None)
    contents = {"new": "b", "released": "a"}
    monkeypatch.setattr(decide.accepted, "newest_content", lambda _: "a")
    monkeypatch.setattr(decide.accepted, "content_of", lambda _, cohort: contents[cohort])
    by_hand = Job(plan, plan.workspace, resume=True)
    night = Job(plan, plan.workspace, resume=True, night=True)
    decide.releasable(by_hand, "new")  # type: ignore[arg-type]
    decide.releasable(night, "released")  # type: ignore[arg-type]
    with pytest.raises(ReleaseRefused):
        decide.releasable(night, "new")  # type: ignore[arg-type]


def test_an_artifacts_key_is_one_configurations_in_letters_that_prefect_takes(plan: Config) -> None:
    names = ["icu", "icu-2", "icu_2", "icu__2", "icu-_2"]
    keys = [shown.key_of("night", plan.model_copy(update={"name": name})) for name in names]
    assert len(set(keys)) == len(names)
    assert keys[0] == "decoct-night-icu"
    assert not [key for key in keys if set(key) - set("abcdefghijklmnopqrstuvwxyz0123456789-")]


def test_an_audit_counts_as_long_as_it_took(plan: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ("ingest", "audit", "gate")
    night = Night("n", plan.name, "", "", "released", 0, "", "", {}, {"ingest": 2.0, "audit": 98.0}, 0.0, "", 0)
    monkeypatch.setattr(shown, "read_record", lambda _: ())
    assert shown._weights(plan, steps)["audit"] > 2 * shown._weights(plan, steps)["ingest"]
    monkeypatch.setattr(shown, "read_record", lambda _: (night,))
    assert shown._weights(plan, steps) == {"ingest": 2.0, "audit": 98.0, "gate": 0.1}


def test_a_secret_of_the_server_is_used_and_no_child_process_sees_it(
    plan: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(notify.WEBHOOK, raising=False)
    monkeypatch.setattr(notify, "_kept", {})
    assert notify._ways(plan.night, "", {}) == []
    notify.keep(notify.WEBHOOK, "https://token.example/")
    assert [name for name, _ in notify._ways(plan.night, "", {})] == ["webhook"]
    assert notify.WEBHOOK not in os.environ
