"""How an attack says what it found: one call, in which nothing that a decision rests on can be left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Final, get_args

import numpy as np

from pipeline.audit.statistics import Interval
from pipeline.core.types import AttackResult, Json, ThreatModel

if TYPE_CHECKING:
    from pipeline.audit.scene import LeakageAttack, Scene


NUMBERS: Final = ("rate", "low", "high", "control", "positive_control", "ceiling", "p_value")
MAY_LACK: Final = ("control", "positive_control", "ceiling", "p_value")
FLAGS: Final = ("gates", "controls_held", "powered", "held_back")


@dataclass(frozen=True)
class Figure:
    """A statistic's value over `n` observations and what it may be used for; the words are those of `AttackResult`.

    A value without an interval is one of which nothing was estimated, such as a count.
    """

    statistic: str
    value: Interval | float
    n: int
    powered: bool
    gates: bool
    ceiling: float | None = 1.0
    p_value: float | None = None
    held_back: bool = False


@dataclass(frozen=True)
class Controls:
    """What the same attack reached where nothing leaks and where a leak was planted, and whether both are as due."""

    negative: float | None
    positive: float | None
    held: bool


def result(
    scene: Scene,
    attack: LeakageAttack | type[LeakageAttack],
    figure: Figure,
    controls: Controls,
    summary: str,
    detail: Json,
    threat_model: ThreatModel | None = None,
) -> AttackResult:
    """The result of an attack on a scene, told in one sentence; `threat_model` None = the attack's own."""
    value = figure.value if isinstance(figure.value, Interval) else Interval(*(figure.value,) * 3)
    return AttackResult(
        attack=attack.name,
        threat_model=threat_model or attack.threat_model,
        artefact=scene.artefact,
        statistic=figure.statistic,
        rate=value.value,
        low=value.low,
        high=value.high,
        n=figure.n,
        control=controls.negative,
        positive_control=controls.positive,
        ceiling=figure.ceiling,
        gates=figure.gates,
        summary=summary,
        controls_held=bool(controls.held),
        powered=bool(figure.powered),
        held_back=figure.held_back,
        p_value=figure.p_value,
        detail=detail,
    )


def unsound(found: object, attack: LeakageAttack, scene: Scene) -> str | None:
    """Why what an attack gave is not its results on the scene, or None; whether a figure is a number the gate says."""
    if not isinstance(found, tuple) or not all(isinstance(item, AttackResult) for item in found):
        return "it gave something else than a tuple of results"
    for item in found:
        if (item.attack, item.artefact) != (attack.name, scene.artefact):
            return "it gave a result in the name of another attack or artefact"
        if item.threat_model not in get_args(ThreatModel):
            return "it gave a result under no threat model"
        if not all(isinstance(getattr(item, name), bool | np.bool_) for name in FLAGS):
            return f"it gave something else than true or false for one of {', '.join(FLAGS)}"
        told = {name: getattr(item, name) for name in NUMBERS}
        numbers = [value for name, value in told.items() if not (value is None and name in MAY_LACK)]
        if not all(isinstance(value, Real) for value in (*numbers, item.n)):
            return "it gave something else than a number for a figure"
        if not (isinstance(item.statistic, str) and isinstance(item.summary, str) and isinstance(item.detail, Mapping)):
            return "it gave something else than words for its statistic, sentence or detail"
        if item.p_value is not None and not 0 <= item.p_value <= 1:
            return "it gave a p-value outside 0 to 1"
    return None
