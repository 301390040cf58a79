"""Attacks that somebody else wrote: bounded by the family's rule as any, and never a pass when they break."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.audit.bytes.scan import ByteScan
from pipeline.audit.multiplicity import holm
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.run import audit
from pipeline.audit.scene import BytesScene, Scene
from pipeline.audit.statistics import Interval
from pipeline.core.errors import DataError, EnvironmentProblem
from pipeline.core.types import AttackResult, LeakageReport
from pipeline.sharing.policy.gate import judge_audit
from pipeline.sharing.policy.load import load_policy

SCENE = BytesScene("bundle", "0" * 64, {"a.txt": b"nothing"}, identifiers=("132539", "132540"))
POLICY = dataclasses.replace(
    load_policy("strict"), required={"condensed": ("byte_scan",)}, threat_models={"condensed": ("bytes",)}
)
AT_REST = Figure("auroc", Interval(0.5, 0.45, 0.55), n=1000, powered=True, gates=True, p_value=0.4)


@dataclasses.dataclass(frozen=True)
class Guest:
    gives: Callable[[Guest], Any]

    name: ClassVar[str] = "guest"
    threat_model: ClassVar[Any] = "bytes"
    scene_type: ClassVar[type] = BytesScene

    def unsupported(self, scene: Scene) -> str | None:
        return None

    def run(self, scene: Scene, seed: int) -> Any:
        return self.gives(self)


def one(figure: Figure = AT_REST, held: bool = True, **changes: Any) -> Callable[[Guest], tuple[AttackResult, ...]]:
    def gives(guest: Guest) -> tuple[AttackResult, ...]:
        made = result(SCENE, guest, figure, Controls(0.5, 1.0, held), "A guest looked.", {})
        return (dataclasses.replace(made, **changes),)

    return gives


def audited(gives: Callable[[Guest], Any]) -> LeakageReport:
    (report,) = audit([SCENE], seed=0, attacks=(ByteScan(), Guest(gives)))
    return report


def test_a_guest_that_finds_nothing_stops_nothing_and_is_of_the_family() -> None:
    report = audited(one())
    assert judge_audit(POLICY, "condensed", [report]).verdict == "PASS"
    family = [item for item in report.results if item.gates]
    assert family[-1].attack == "guest"
    assert family[-1].p_value_of_the_family == holm([1.0] * (len(family) - 1) + [0.4])[-1]


def test_a_guest_that_finds_a_leak_stops_the_release() -> None:
    found = dataclasses.replace(AT_REST, value=Interval(0.9, 0.8, 1.0), p_value=1e-9)
    assert judge_audit(POLICY, "condensed", [audited(one(found))]).verdict == "FAIL"


def raises(error: BaseException) -> Callable[[Guest], Any]:
    def gives(guest: Guest) -> Any:
        raise error

    return gives


@pytest.mark.parametrize(
    "gives",
    [
        raises(KeyError("patient 132539")),
        raises(DataError("the guest does not like it")),
        raises(ZeroDivisionError()),
        lambda guest: None,
        lambda guest: list(one()(guest)),
        lambda guest: ({"rate": 0.0},),
        one(attack="byte_scan"),  # in the name of an attack that the policy asks for
        one(artefact="another"),
        one(threat_model="T9"),
        one(powered="yes"),
        one(controls_held=1),
        one(gates=None),
        one(held_back="no"),
        one(p_value=float("nan")),
        one(p_value=1.5),
        one(p_value="0.5"),
        one(rate="0.5"),
        one(n=None),
        one(statistic=7),
        one(detail=[1]),
    ],
)
def test_a_guest_that_breaks_or_gives_something_else_is_inconclusive(gives: Callable[[Guest], Any]) -> None:
    report = audited(gives)
    (failed,) = report.not_run
    assert failed.failed
    assert not report.controls_held
    assert "132539" not in failed.reason
    decision = judge_audit(POLICY, "condensed", [report])
    assert decision.verdict == "INCONCLUSIVE"
    assert any("attack guest on bundle failed" in reason for _, reason in decision.reasons)


@pytest.mark.parametrize(
    "gives",
    [
        one(held=False),
        one(rate=float("nan")),
        one(high=float("inf")),
        one(low=float("nan")),
        one(dataclasses.replace(AT_REST, statistic="guestimate", value=Interval(0.0, 0.0, 0.0))),
        one(dataclasses.replace(AT_REST, n=3)),
    ],
    ids=["controls", "rate", "high", "low", "statistic", "few"],
)
def test_a_guest_whose_figure_says_nothing_is_inconclusive(gives: Callable[[Guest], Any]) -> None:
    assert judge_audit(POLICY, "condensed", [audited(gives)]).verdict == "INCONCLUSIVE"


def test_a_guest_that_is_silent_is_said_not_to_have_run() -> None:
    (silent,) = audited(lambda guest: ()).not_run
    assert (silent.attack, silent.failed) == ("guest", False)


def test_what_the_machine_does_stops_the_audit() -> None:
    """Not kept as the attack's word: the next run may have the memory."""
    for error in (EnvironmentProblem("no disk"), OSError(), MemoryError()):
        with pytest.raises(type(error)):
            audited(raises(error))


def test_numpys_flags_and_numbers_are_kept_as_pythons() -> None:
    report = audited(one(powered=np.True_, rate=np.float32(0.5), n=np.int64(1000)))
    assert (type(report.results[-1].powered), type(report.results[-1].rate)) == (bool, float)
    assert type(report.results[-1].n) is int
