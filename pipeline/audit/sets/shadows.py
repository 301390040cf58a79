"""T6, full audit: condense again, many times, with and without a person, and learn what each person changes.

LiRA (Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022, arXiv 2112.03570), online: K
shadow sets are made from the members who are no targets and a fair coin's choice of the targets, half of whom are
members and half of the holdout. For each target the score of its record is normal with one mean when it was in and
another when it was out (one spread for all, because few shadows fix no spread of their own); the set that is to be
shared is judged by the ratio of the two likelihoods. Condensation is a function that is handed in.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from pipeline.audit.foreseen import Crowd
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene, Level, Recondense
from pipeline.audit.sets.distances import channel_scale
from pipeline.audit.sets.membership import FOUND, foreseen_of_halves, halves, judge
from pipeline.audit.sets.population import REFERENCE_SHARE, Asked, flattened, population_of, scores
from pipeline.audit.sets.reached import FPR, Reached
from pipeline.audit.sets.summary_table import one_each
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import AttackResult, ThreatModel

SHADOWS = 16
MAX_TARGETS = 1000  # of each kind
PREFIX = 16  # of the set's digest, in the names of shadow files

Run = Callable[[Callable[[int], np.ndarray], Iterable[int]], Iterable[np.ndarray]]
"""`map`, or that of a pool of workers: applies a function to the shadows' numbers, in order."""


@dataclass(frozen=True)
class Game:
    """Who is a target, whose records stay in every shadow, and the population that calibrates the scores."""

    targets: np.ndarray  # (target, step, channel)
    labels: np.ndarray
    subjects: np.ndarray
    is_member: np.ndarray  # (target,) bool
    base: tuple[np.ndarray, np.ndarray, np.ndarray]
    population: np.ndarray  # flattened
    scale: np.ndarray

    def asked(self) -> Asked:
        """The targets, for sets to be asked about."""
        return population_of(self.population).asked(flattened(self.targets, self.scale))


def game(scene: CondensedScene, seed: int) -> Game:
    """Equally many members and people of the holdout as targets, one stay each."""
    rng = generator(seed, "audit", "shadows", "targets")
    people = rng.permutation(np.unique(scene.holdout_subjects))
    reference = np.isin(scene.holdout_subjects, people[: int(REFERENCE_SHARE * len(people))])
    scale = channel_scale(scene.holdout)
    inside = one_each(scene.member_subjects, rng)
    outside = np.flatnonzero(~reference)[one_each(scene.holdout_subjects[~reference], rng)]
    n = min(MAX_TARGETS, len(inside) // 2, len(outside))
    inside, outside = inside[:n], outside[:n]
    assert scene.member_labels is not None  # `unsupported` was asked
    assert scene.holdout_labels is not None
    rest = ~np.isin(scene.member_subjects, scene.member_subjects[inside])
    return Game(
        targets=np.concatenate([scene.members[inside], scene.holdout[outside]]),
        labels=np.concatenate([scene.member_labels[inside], scene.holdout_labels[outside]]),
        subjects=np.concatenate([scene.member_subjects[inside], scene.holdout_subjects[outside]]),
        is_member=np.arange(2 * n) < n,
        base=(scene.members[rest], scene.member_labels[rest], scene.member_subjects[rest]),
        population=flattened(scene.holdout[reference], scale),
        scale=scale,
    )


def coins(n_targets: int, n_shadows: int, seed: int) -> np.ndarray:
    """`(shadow, target)` bool: who is in. Every target is in half of the shadows, which ones is its own chance."""
    rng = generator(seed, "audit", "shadows", "coins")
    fair = np.arange(n_shadows)[:, None] < n_shadows // 2
    return rng.permuted(np.broadcast_to(fair, (n_shadows, n_targets)), axis=0)


def shadow_scores(
    scene: CondensedScene, play: Game, present: np.ndarray, recondense: Recondense, seed: int, run: Run = map
) -> dict[str, np.ndarray]:
    """Every score of every target in every shadow, `(shadow, target)`; shadows on disk are not made again."""
    asked = play.asked()

    def samples_of(number: int) -> np.ndarray:
        return cached(scene, play, present[number], number, recondense, seed)

    found: dict[str, list[np.ndarray]] = {}
    for samples in run(samples_of, range(len(present))):
        for name, score in scores(flattened(samples, play.scale), asked).items():
            found.setdefault(name, []).append(score)
    return {name: np.stack(rows) for name, rows in found.items()}


def cached(
    scene: CondensedScene, play: Game, present: np.ndarray, number: int, recondense: Recondense, seed: int
) -> np.ndarray:
    """The samples of one shadow, from the scene's folder if they are there; a file is written in one step."""
    series, labels, subjects = play.base
    rows = np.flatnonzero(present)
    own_seed = child_seed(seed, "audit", "shadow", number) >> 10

    def make() -> np.ndarray:
        return recondense(
            np.concatenate([series, play.targets[rows]]),
            np.concatenate([labels, play.labels[rows]]),
            np.concatenate([subjects, play.subjects[rows]]),
            own_seed,
        )

    return kept(scene, f"{own_seed}/".encode() + np.packbits(present).tobytes(), make)


def kept(scene: CondensedScene, asked: bytes, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What `make` gives for the scene's set and for what is `asked`; from the scene's folder if it was made before."""
    if scene.shadow_folder is None:
        return make()
    folder = Path(scene.shadow_folder)
    name = hashlib.sha256(f"{scene.artefact_digest}/".encode() + asked).hexdigest()[:24]
    path = folder / f"shadow-{scene.artefact_digest[:PREFIX]}-{name}.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False))
    samples = make()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = path.with_suffix(f".{os.getpid()}.new")
    with staged.open("wb") as file:
        np.save(file, samples, allow_pickle=False)
    staged.replace(path)
    return samples


def n_kept(scene: CondensedScene) -> int:
    """How many sets that were condensed again for this very set lie in the scene's folder."""
    if scene.shadow_folder is None:
        return 0
    return len(list(Path(scene.shadow_folder).glob(f"shadow-{scene.artefact_digest[:PREFIX]}-*.npy")))


def likelihood_ratios(asked: np.ndarray, shadow: np.ndarray, present: np.ndarray) -> np.ndarray:
    """log p(score | in) - log p(score | out), normal with a shared spread: `(target,)`.

    Args:
        asked: `(target,)` scores under the set that is to be shared; shadow, present: `(shadow, target)`.
    """
    n_in, n_out = present.sum(axis=0), (~present).sum(axis=0)
    mean_in = np.where(present, shadow, 0).sum(axis=0) / n_in
    mean_out = np.where(present, 0, shadow).sum(axis=0) / n_out
    left = np.where(present, shadow - mean_in, shadow - mean_out)
    spread = max(float((left**2).sum() / max(1, left.size - 2 * left.shape[1])), 1e-12)
    return np.asarray(((asked - mean_out) ** 2 - (asked - mean_in) ** 2) / (2 * spread))


def reached(
    play: Game, asked: Mapping[str, np.ndarray], shadow: Mapping[str, np.ndarray], present: np.ndarray, seed: int
) -> Reached:
    """What the ratios of all scores reach, score and threshold chosen on half of the targets."""
    ratios = {name: likelihood_ratios(asked[name], shadow[name], present) for name in asked}
    rng = generator(seed, "audit", "shadows", "halves")
    n = int(play.is_member.sum())
    inside = {name: ratio[play.is_member] for name, ratio in ratios.items()}
    outside = {name: ratio[~play.is_member] for name, ratio in ratios.items()}
    return judge(inside, outside, halves(n, rng), halves(len(play.targets) - n, rng))


@final
@dataclass(frozen=True)
class ShadowCondensation:
    """Membership of training subjects by likelihood ratios over shadow sets."""

    name: ClassVar[str] = "shadow_condensation"
    threat_model: ClassVar[ThreatModel] = "T6"
    scene_type: ClassVar[type] = CondensedScene
    level: ClassVar[Level] = "full"
    holds_back: ClassVar[bool] = False
    n_shadows: int = SHADOWS
    run_shadows: Run = map

    def unsupported(self, scene: CondensedScene) -> str | None:
        """No way to condense again, or too few subjects."""
        if scene.recondense is None or scene.member_labels is None or scene.holdout_labels is None:
            return "no way to condense other stays in the same way was given"
        return scene.lacks(subjects=10 * MIN_SUBJECTS)

    def foreseen(self, crowd: Crowd) -> Mapping[str, int]:
        """An AUROC and a share, of equally many members and others."""
        if not crowd.each(10 * MIN_SUBJECTS):
            return {}
        n = min(MAX_TARGETS, crowd.members // 2, crowd.others - int(REFERENCE_SHARE * crowd.others))
        return foreseen_of_halves(n, n, {"tpr_at_1pct_fpr": FPR})

    def condensations(self) -> int:
        """How often it condenses again."""
        return self.n_shadows

    def condense_again(self, scene: CondensedScene, seed: int, number: int) -> None:
        """One shadow."""
        assert scene.recondense is not None
        play = game(scene, seed)
        cached(scene, play, coins(len(play.targets), self.n_shadows, seed)[number], number, scene.recondense, seed)

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """Two results: AUROC and TPR at 1 % FPR, or at the smallest rate that n supports."""
        play = game(scene, seed)
        present = coins(len(play.targets), self.n_shadows, seed)
        asked = play.asked()

        def scored(samples: np.ndarray) -> dict[str, np.ndarray]:
            return scores(flattened(samples, play.scale), asked)

        assert scene.recondense is not None
        shadow = shadow_scores(scene, play, present, scene.recondense, seed, self.run_shadows)
        found = reached(play, scored(scene.condensed.features), shadow, present, seed)
        planted = [scored(play.targets[row]) for row in present]
        leak = {name: np.stack([table[name] for table in planted]) for name in shadow}
        positive = reached(play, scored(play.targets[play.is_member]), leak, present, seed)
        swapped = generator(seed, "audit", "shadows", "swapped").permutation(len(play.targets))
        other = {name: row[swapped] for name, row in scored(scene.condensed.features).items()}
        swapped_shadow = {name: rows[:, swapped] for name, rows in shadow.items()}
        negative = reached(play, other, swapped_shadow, present[:, swapped], seed)
        return _results(scene, found, positive, negative, self.n_shadows)


def _results(
    scene: CondensedScene, found: Reached, positive: Reached, negative: Reached, n_shadows: int
) -> tuple[AttackResult, ...]:
    held = positive.auroc.value >= FOUND and negative.names_nobody and negative.auroc.at_most_a_coin

    def told(figure: Figure, what: str, control: float, planted: float) -> AttackResult:
        return result(
            scene,
            ShadowCondensation,
            figure,
            Controls(control, planted, held),
            summary=f"Who condenses {n_shadows} times himself tells training subjects of {scene.artefact} from others: "
            f"{what} {figure.value} (n = {found.members} + {found.others} subjects).",
            detail={**found.facts(), **found.not_measurable(FPR), "n_shadows": n_shadows},
        )

    share = f"share named at {found.fpr:.1%} false alarms"
    return (
        told(found.ranked(None), "AUROC", negative.auroc.value, positive.auroc.value),
        told(found.named(gates=True), share, negative.tpr.value, positive.tpr.value),
    )
