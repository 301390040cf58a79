"""T2: a guesser trained on a condensed set: does it know members better than people who are not in it?

The attacker knows all but one variable of a person and learns from the samples how that one follows from the others. A
rule that holds for everybody is what the set is for; what counts is the AUROC on members less that on the holdout
control. Beside it: the same guesser trained on the attacker's own population, without the set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from pipeline.audit.advantage import MIN_KIND, Shares, can_be_judged, guesser, other_people, shares
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import CondensedScene
from pipeline.audit.sets.linkage_inference import Secret, secrets_of
from pipeline.audit.sets.membership import halves
from pipeline.audit.sets.singling_out import planted, strangers, unsupported_people
from pipeline.audit.sets.summary_table import Table, Tables, tables
from pipeline.audit.statistics import CONTROL_LEVEL, Interval
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

STATISTIC = "auroc_excess"
POWERED_HALF_WIDTH = 0.10
PLANTED = 400  # members, and strangers, of which a set is made for the controls
FOUND = 0.2  # a guesser trained on members themselves must know them better by this much
MEMORY = 1.0  # standard deviations: how far the nearest sample counts, in the attack that remembers


@dataclass(frozen=True)
class _Guesses:
    """Scores and truth of one secret, of members and of the control."""

    members: tuple[np.ndarray, np.ndarray]
    control: tuple[np.ndarray, np.ndarray]

    def on(self, members: np.ndarray, control: np.ndarray) -> tuple[Shares, Shares] | None:
        """The AUROCs on these rows, or None where one kind of person is too rare."""
        pairs = ((self.members, members), (self.control, control))
        if not all(can_be_judged(truth[rows]) for (_, truth), rows in pairs):
            return None
        inside, outside = (shares(scores[rows], truth[rows]) for (scores, truth), rows in pairs)
        return inside, outside


def guesses(parts: Tables, samples: Table, members: Table) -> dict[str, _Guesses]:
    """Every label and static that is a yes or no, guessed by regression and by the nearest sample's value."""
    found = {}
    people = (members, parts.control)
    for secret in _yes_or_no(parts, samples):
        told = _yes(secret.values(samples))
        known = ~secret.hidden
        linear, nearest, truths = [], [], []
        for table in people:
            truth, yes = _yes(secret.values(table))
            asked = table.values[truth][:, known]
            learnt = samples.values[told[0]][:, known]
            linear.append(guesser(learnt, told[1], asked))
            nearest.append(_nearest_value(learnt, told[1], asked))
            truths.append(yes)
        for name, scores in (("regression", linear), ("nearest", nearest)):
            pairs = ((scores[0], truths[0]), (scores[1], truths[1]))
            found[f"{secret.name}, {name}"] = _Guesses(*pairs)
    return found


def _yes_or_no(parts: Tables, samples: Table) -> list[Secret]:
    """The secrets of which the samples hold enough of both kinds."""
    asked = (secret for secret in secrets_of(parts.columns, samples.labels.shape[1]) if secret.exact)
    return [secret for secret in asked if can_be_judged(_yes(secret.values(samples))[1])]


def _rarer(secret: Secret, table: Table) -> int:
    yes = _yes(secret.values(table))[1]
    return int(min(yes.sum(), len(yes) - yes.sum()))


def _yes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows where the secret is known, and there whether it is a yes."""
    known = np.isfinite(values.astype(np.float64))
    return known, values[known] > 0.5


def _nearest_value(learnt: np.ndarray, yes: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The secret of the samples, weighed by how near they are: the nearest first."""
    square = ((asked**2).sum(axis=1)[:, None] + (learnt**2).sum(axis=1)[None] - 2 * asked @ learnt.T) / MEMORY
    weight = np.exp(-0.5 * (square - square.min(axis=1, keepdims=True)))
    return np.asarray((weight @ yes) / weight.sum(axis=1))


@dataclass(frozen=True)
class _Reached:
    variant: str
    figure: Interval
    members: Shares
    control: Shares
    n: int
    low: float  # at the level at which a control is called broken


def reached(found: Mapping[str, _Guesses], rng: np.random.Generator) -> _Reached | None:
    """The secret with the largest excess on half of the people, reported on the other half; None without a secret."""
    judged = {}
    for name, item in found.items():
        inside, outside = (halves(len(scores), rng) for scores, _ in (item.members, item.control))
        chosen, told = item.on(inside.choose, outside.choose), item.on(inside.report, outside.report)
        if chosen is not None and told is not None:
            judged[name] = (other_people(*chosen).low, told, len(inside.report))
    if not judged:
        return None
    name = max(judged, key=lambda key: judged[key][0])
    _, (members, control), n = judged[name]
    figure = other_people(members, control)
    return _Reached(name, figure, members, control, n, other_people(members, control, CONTROL_LEVEL).low)


@final
@dataclass(frozen=True)
class AttributeInferenceFromSet:
    """AUROC on members in excess of that on others, of a guesser trained on the set."""

    name: ClassVar[str] = "attribute_inference_set"
    threat_model: ClassVar[ThreatModel] = "T2"
    scene_type: ClassVar[type] = CondensedScene

    def unsupported(self, scene: Any) -> str | None:
        """Too few samples or subjects, a single channel, or no attribute of which there are enough of both kinds."""
        if scene.members.shape[2] < 2:
            return "a known and a hidden variable need two channels"
        if (reason := unsupported_people(scene)) is not None:
            return reason
        parts = tables(scene, 0)
        people = (parts.control, planted(parts, 0, PLANTED), strangers(parts, 0, PLANTED))
        for secret in _yes_or_no(parts, parts.samples):
            if min(_rarer(secret, table) for table in people) >= 4 * MIN_KIND:
                return None
        return "there is no yes-or-no attribute of which set, members and holdout hold enough of both kinds"

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """One result, for the most exposed attribute."""
        parts = tables(scene, seed)

        def tried(name: str, samples: Table, members: Table) -> _Reached | None:
            return reached(guesses(parts, samples, members), generator(seed, "audit", self.name, name))

        leak = planted(parts, seed, PLANTED)
        found, positive = tried("set", parts.samples, parts.members), tried("planted", leak, leak)
        negative = tried("strangers", strangers(parts, seed, PLANTED), parts.members)
        without = tried("population", parts.population, parts.members)
        if found is None:
            return ()
        return (_result(scene, found, positive, negative, without),)


def _result(
    scene: CondensedScene,
    found: _Reached,
    positive: _Reached | None,
    negative: _Reached | None,
    without: _Reached | None,
) -> AttackResult:
    held = positive is not None and negative is not None and positive.figure.value >= FOUND and negative.low <= 0
    quiet, leaking = (None if arm is None else arm.figure.value for arm in (negative, positive))
    return result(
        scene,
        AttributeInferenceFromSet,
        Figure(
            STATISTIC,
            found.figure,
            n=found.n,
            powered=found.figure.half_width <= POWERED_HALF_WIDTH,
            gates=False,
            ceiling=1 - found.control.value,
        ),
        Controls(quiet, leaking, held),
        summary=f"A guesser trained on {scene.artefact} tells '{found.variant.rpartition(',')[0]}' of members with "
        f"AUROC {found.members.value:.2f} and of others with {found.control.value:.2f}: an excess of {found.figure} "
        f"(n = {found.n} members).",
        detail={
            "variant": found.variant,
            "auroc_members": round(found.members.value, 4),
            "auroc_control": round(found.control.value, 4),
            "auroc_without_the_set": None if without is None else round(without.members.value, 4),
        },
    )
