"""T5, full audit: two releases that differ by a few withdrawn subjects: who is gone?

The set that is to be shared is compared with sets that are condensed again, in the same way and with the same seed,
without a few members. Whoever holds both and somebody's record asks whether that record fits the first set better than
the second. The figure is the AUROC of that difference, of those who were withdrawn against those who stayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from scipy import stats

from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene, Level
from pipeline.audit.sets.distances import channel_scale
from pipeline.audit.sets.membership import FOUND, halves
from pipeline.audit.sets.population import REFERENCE_SHARE, Population, flattened, population_of, scores
from pipeline.audit.sets.shadows import kept
from pipeline.audit.sets.summary_table import one_each
from pipeline.audit.statistics import Interval, auroc
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

RELEASES = 8  # further releases, each without a group of its own
WITHDRAWN = 10  # subjects of a group
STAYED = 1000  # members who stay, among whom the withdrawn are looked for
OWN_SEED = 0  # asks to condense with the seed of the set itself
POWERED_HALF_WIDTH = 0.10


@dataclass(frozen=True)
class _Records:
    """Flattened records of those who stay and of each group, and the population."""

    stayed: np.ndarray
    groups: tuple[np.ndarray, ...]
    population: Population


def differences(before: np.ndarray, after: np.ndarray, records: _Records, group: int) -> dict[str, np.ndarray]:
    """How much better each record fits the first set, as ranks in (0, 1): the group's records, then those who stay."""
    asked = records.population.asked(np.concatenate([records.groups[group], records.stayed]))
    first, second = (scores(samples, asked) for samples in (before, after))
    changes = {name: first[name] - second[name] for name in first}
    return {name: stats.rankdata(change) / (len(change) + 1) for name, change in changes.items()}


@dataclass(frozen=True)
class _Reached:
    score: str
    figure: Interval
    n: int


def reached(tables: list[dict[str, np.ndarray]], n_gone: int, rng: np.random.Generator) -> _Reached:
    """The score and sign that do best on half of the releases, judged on the other half."""
    parts = halves(len(tables), rng)

    def figure(name: str, sign: float, which: np.ndarray) -> Interval:
        gone = np.concatenate([sign * tables[i][name][:n_gone] for i in which])
        stayed = np.concatenate([sign * tables[i][name][n_gone:] for i in which])
        return auroc(gone, stayed)

    pairs = [(name, sign) for name in tables[0] for sign in (1.0, -1.0)]
    name, sign = max(pairs, key=lambda pair: figure(pair[0], pair[1], parts.choose).value)
    told = figure(name, sign, parts.report)
    return _Reached(name if sign > 0 else f"{name}, reversed", told, n_gone * len(parts.report))


def _release_without(scene: CondensedScene, rows: np.ndarray) -> np.ndarray:
    """The set condensed again of all members but the subjects of these stays, with its own seed; kept on disk."""
    left = ~np.isin(scene.member_subjects, scene.member_subjects[rows])

    def make() -> np.ndarray:
        assert scene.recondense is not None  # `unsupported` was asked
        assert scene.member_labels is not None
        return scene.recondense(scene.members[left], scene.member_labels[left], scene.member_subjects[left], OWN_SEED)

    return kept(scene, b"without/" + np.packbits(left).tobytes(), make)


@final
@dataclass(frozen=True)
class SuccessiveReleases:
    """AUROC of "was withdrawn between two releases"."""

    name: ClassVar[str] = "successive_releases"
    threat_model: ClassVar[ThreatModel] = "T5"
    scene_type: ClassVar[type] = CondensedScene
    level: ClassVar[Level] = "full"
    n_releases: int = RELEASES
    withdrawn: int = WITHDRAWN

    def unsupported(self, scene: Any) -> str | None:
        """No way to condense again, or too few subjects."""
        if scene.recondense is None or scene.member_labels is None:
            return "no way to condense other stays in the same way was given"
        least = self.n_releases * self.withdrawn + 10 * MIN_SUBJECTS
        if len(np.unique(scene.member_subjects)) < least or len(np.unique(scene.holdout_subjects)) < 4 * MIN_SUBJECTS:
            return f"fewer than {least} members or {4 * MIN_SUBJECTS} others"
        return None

    def condensations(self) -> int:
        """How often it condenses again."""
        return self.n_releases

    def condense_again(self, scene: CondensedScene, seed: int, number: int) -> None:
        """One release without its group."""
        _release_without(scene, self._groups(scene, generator(seed, "audit", "successive releases"))[1][number])

    def _groups(self, scene: CondensedScene, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """One stay of every member in an order by chance, and the first groups of it, which are withdrawn."""
        order = one_each(scene.member_subjects, rng)
        return order, [order[i * self.withdrawn : (i + 1) * self.withdrawn] for i in range(self.n_releases)]

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """One result over all pairs of releases."""
        rng = generator(seed, "audit", "successive releases")
        scale = channel_scale(scene.holdout)
        order, groups = self._groups(scene, rng)
        stayed = order[self.n_releases * self.withdrawn :][:STAYED]
        others = one_each(scene.holdout_subjects, rng)
        population = others[: max(2 * MIN_SUBJECTS, int(REFERENCE_SHARE * len(others)))]
        records = _Records(
            flattened(scene.members[stayed], scale),
            tuple(flattened(scene.members[rows], scale) for rows in groups),
            population_of(flattened(scene.holdout[population], scale)),
        )
        before = flattened(scene.condensed.features, scale)
        found, planted, wrong = [], [], []
        for number, rows in enumerate(groups):
            after = flattened(_release_without(scene, rows), scale)
            found.append(differences(before, after, records, number))
            wrong.append(differences(before, after, records, (number + 1) % len(groups)))
            copies = np.concatenate([after, records.groups[number]])
            planted.append(differences(copies, after, records, number))
        return (self._result(scene, reached(found, self.withdrawn, rng), reached(planted, self.withdrawn, rng),
                             reached(wrong, self.withdrawn, rng)),)  # fmt: skip

    def _result(self, scene: CondensedScene, found: _Reached, positive: _Reached, wrong: _Reached) -> AttackResult:
        held = wrong.figure.at_most_a_coin and positive.figure.value >= FOUND
        return result(
            scene,
            self,
            Figure(
                "auroc", found.figure, n=found.n, powered=found.figure.half_width <= POWERED_HALF_WIDTH, gates=False
            ),
            Controls(wrong.figure.value, positive.figure.value, held),
            summary=f"Whoever holds {scene.artefact} and a later set without {self.withdrawn} of its subjects tells "
            f"these from those who stayed with AUROC {found.figure} (n = {found.n} withdrawn subjects).",
            detail={
                "score": found.score,
                "n_releases": self.n_releases,
                "withdrawn_each_time": self.withdrawn,
                "note": "shown and never deciding: an artefact is judged by itself, not by releases to come",
            },
        )
