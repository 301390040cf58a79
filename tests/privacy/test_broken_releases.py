"""The real mechanism, broken one way at a time, and the audit alone: it is handed the release and the claim, no hint.

Every fault leaves the claim of epsilon 1 as it is. The game on releases (pipeline/audit/games/release_game.py) must put
its lower bound above the claim for each, and below for the mechanism as it is. Its bound is wrong in at most 1 % of
audits; seeds are fixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from condensation.private import moments as mechanism_module
from condensation.private.feature_map import LevelAndTrend
from condensation.private.moments import release_moments
from pipeline.audit.games.release_game import Game, play
from pipeline.audit.scene import Mechanism
from pipeline.core.errors import DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Moments, Provenance, Task

CLAIM, DELTA = 1.0, 1e-6


def site(number: int) -> NoiseSource:
    return NoiseSource(Secret(number.to_bytes(32, "little"), "noise"), "the game")


class Other:
    """A noise source that stands in for the site's."""

    def __init__(self, number: int, factor: float = 1.0, salt: object = None, *, blind: bool = False) -> None:
        self.source, self.factor, self.salt, self.blind = site(number), factor, salt, blind

    def reserve(self, *_: object) -> None:
        """No ledger."""

    def discrete_normal(self, query: dict[str, object], scale: int, shape: tuple[int, ...]) -> np.ndarray:
        asked = {"part": query["part"]} if self.blind else {**query, "salt": self.salt}
        return self.factor * self.source.discrete_normal(asked, scale, shape)


def shape(n_tasks: int = 1, channels: int = 3) -> EncodedCohort:
    """No stay, only columns."""
    return EncodedCohort(
        features=np.zeros((0, 4, channels), np.float32),
        labels=np.zeros((0, n_tasks), np.float32),
        subject_index=np.zeros(0, np.int32),
        split=np.zeros(0, np.int8),
        channels=tuple(f"c{i}" for i in range(channels)),
        tasks=tuple(Task(f"t{i}") for i in range(n_tasks)),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def release(cohort: EncodedCohort, noise: object) -> Moments:
    """As shipped, without setting the number of threads anew at every call."""
    unlimited = release_moments.__wrapped__  # type: ignore[attr-defined]
    found: Moments = unlimited(cohort, epsilon=CLAIM, delta=DELTA, noise=noise)
    return found


def as_it_is(cohort: EncodedCohort, number: int) -> Moments:
    return release(cohort, Other(number))


def noise_halved(cohort: EncodedCohort, number: int) -> Moments:
    return release(cohort, Other(number, 0.5))


def noise_of_another_cohort(cohort: EncodedCohort, number: int) -> Moments:
    """The noise is keyed by the site's secret alone: the next night's other cohort meets the same."""
    return release(cohort, Other(number, blind=True))


def noise_of_a_constant(cohort: EncodedCohort, _: int) -> Moments:
    return release(cohort, Other(7, blind=True))


def four_steps_counted_as_one(cohort: EncodedCohort, number: int) -> Moments:
    """Four releases, each with the noise of a single one; what is used is their mean."""
    steps = [release(cohort, Other(number, salt=step)) for step in range(4)]
    return dataclasses.replace(
        steps[0],
        gram=np.mean([step.gram for step in steps], axis=0),
        signed_sums=np.mean([step.signed_sums for step in steps], axis=0),
        signed_counts=np.mean([step.signed_counts for step in steps], axis=0),
    )


def exact_count(cohort: EncodedCohort, number: int) -> Moments:
    found = release(cohort, Other(number))
    gram = found.gram.copy()
    gram[0, 0] = len(np.unique(cohort.subject_index))
    return dataclasses.replace(found, gram=gram)


def exact_count_in_the_provenance(cohort: EncodedCohort, number: int) -> Moments:
    found = release(cohort, Other(number))
    config = {**found.provenance.config, "n_stays": len(cohort.features)}
    return dataclasses.replace(found, provenance=dataclasses.replace(found.provenance, config=config))


def digest_of_the_cohort(cohort: EncodedCohort, number: int) -> Moments:
    found = release(cohort, Other(number))
    return dataclasses.replace(found, provenance=Provenance("moments", parents=(str(float(cohort.features.sum())),)))


def noise_scaled_by_the_data(cohort: EncodedCohort, number: int) -> Moments:
    """The noise is scaled to the rows that are there, not to the rows that may be."""
    spread = float(np.abs(cohort.features - 0.5).max())
    return release(cohort, Other(number, 0.01 + spread))


def rows_not_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanism_module, "clipped", lambda rows, norm: rows)


def stays_and_not_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanism_module, "subject_shares", lambda subjects: np.ones(len(subjects)))


def labels_not_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanism_module, "signed_labels", lambda labels: 2.0 * labels.astype(np.float64) - 1.0)


def task_sums_forgotten_in_the_sensitivity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gram's sensitivity alone scales the noise of both, and ten tasks ride along at full weight."""
    monkeypatch.setattr(mechanism_module, "moment_sensitivity", lambda row_norm, weights: row_norm**2)
    monkeypatch.setattr(mechanism_module, "task_weights", lambda n_tasks, row_norm: np.full(n_tasks, row_norm))


def neither_range_nor_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    def features(self: LevelAndTrend, series: np.ndarray) -> np.ndarray:
        late, early = series[:, self.late_start :].mean(axis=1), series[:, : self.early_end].mean(axis=1)
        return np.concatenate([late - (self.low + self.high) / 2, early - late], axis=1).astype(np.float64)

    monkeypatch.setattr(LevelAndTrend, "features", features)
    rows_not_clipped(monkeypatch)


def audited(run: Callable[[EncodedCohort, int], Moments], columns: EncodedCohort, seed: int, rounds: int) -> Game:
    with threadpool_limits(1):
        return play(Mechanism(run, columns, as_it_is(columns, 0).guarantee), seed=seed, rounds=rounds)


RUNS: Sequence[tuple[Callable[[EncodedCohort, int], Moments], int]] = (
    (noise_halved, 200),
    (four_steps_counted_as_one, 200),
    (noise_of_another_cohort, 60),
    (noise_of_a_constant, 60),
    (exact_count, 60),
    (exact_count_in_the_provenance, 60),
    (digest_of_the_cohort, 60),
    (noise_scaled_by_the_data, 60),
)
PATCHES: Sequence[tuple[Callable[[pytest.MonkeyPatch], None], int]] = (
    (rows_not_clipped, 1),
    (stays_and_not_subjects, 1),
    (labels_not_bounded, 1),
    (neither_range_nor_norm, 1),
    (task_sums_forgotten_in_the_sensitivity, 10),
)


@pytest.mark.parametrize(("run", "rounds"), RUNS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_run_is_caught(run: Callable[[EncodedCohort, int], Moments], rounds: int) -> None:
    found = audited(run, shape(), 1, rounds)
    assert found.found.ceiling > CLAIM
    assert found.found.epsilon > CLAIM


@pytest.mark.parametrize(("patch", "tasks"), PATCHES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_part_is_caught(
    patch: Callable[[pytest.MonkeyPatch], None], tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch)
    assert audited(as_it_is, shape(tasks), 1, 60).found.epsilon > CLAIM


@pytest.mark.parametrize("seed", range(2))
def test_the_mechanism_as_it_is_stays_below_its_claim(seed: int) -> None:
    found = audited(as_it_is, shape(2), seed, 200)
    assert 0.2 < found.found.epsilon <= CLAIM < found.found.ceiling
    assert found.controls_held
    assert found.planted.epsilon > CLAIM  # half the noise would have been seen


def test_the_same_seed_plays_the_same_game() -> None:
    assert audited(as_it_is, shape(), 3, 10) == audited(as_it_is, shape(), 3, 10)


def test_a_claim_that_is_not_gaussian_is_refused() -> None:
    guarantee = dataclasses.replace(as_it_is(shape(), 0).guarantee, events=({"event": "LaplaceDpEvent"},))
    with pytest.raises(DataError, match="Gaussian"):
        play(Mechanism(as_it_is, shape(), guarantee), seed=0)
