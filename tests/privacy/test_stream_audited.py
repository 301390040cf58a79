"""A stream is attacked as one: canaries enter on one of its nights, and all nights' answers are read together."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from condensation.private.stream import terms
from condensation.private.stream.condenser import PrivateStream
from condensation.private.stream.nights import guarantee_of, whole_stream
from condensation.private.stream.question import question_of
from condensation.private.stream.terms import Stream
from flows.stages.attacks.mechanism import private_mechanism
from pipeline.audit.games import release_game
from pipeline.audit.games.release_game import Game, play
from pipeline.audit.scene import Mechanism
from pipeline.audit.statistics import gaussian_mu
from pipeline.core.config.condense import condense_table
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance, Task

NAMES = ("hr", "creatinine", "age")
TRANSFORMS: tuple[dict[str, Any], ...] = (
    {"kind": "imputation", "public": True, "never_observed": {"hr": 80.0, "creatinine": 0.9}},
    {
        "kind": "scaling",
        "public": True,
        "channels": list(NAMES),
        "low": [30, 0, 15],
        "high": [180, 8, 95],
        "units": ["/min", "mg/dL", "years"],
        "static": ["age"],
    },
)
EPSILON = 2.0


def nobody() -> EncodedCohort:
    """Columns, no stay."""
    return EncodedCohort(
        features=np.zeros((0, 12, len(NAMES)), np.float32),
        labels=np.zeros((0, 1), np.float32),
        subject_index=np.zeros(0, np.int32),
        split=np.zeros(0, np.int8),
        channels=NAMES,
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=TRANSFORMS,
        provenance=Provenance("test"),
    )


def mechanism() -> Mechanism:
    """As the audit gets it for a stream of a year."""
    encoded = nobody()
    table = condense_table("private_stream", epsilon=EPSILON, n_per_class=5)
    stream = PrivateStream(epsilon=EPSILON).stream
    samples = CondensedSet(
        features=encoded.features,
        labels=encoded.labels,
        channels=NAMES,
        tasks=encoded.tasks,
        step_hours=1.0,
        transforms=TRANSFORMS,
        method="private_stream",
        starts_from_records=False,
        guarantee=guarantee_of(stream, encoded),
        provenance=Provenance("test"),
    )
    found = private_mechanism(table, encoded, samples)
    assert found is not None
    return found


@functools.cache
def game(factor: float) -> Game:
    """The whole game; noise of the claim's scale times `factor`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release_game, "LEARNING_ROUNDS", 6)
        real = Stream.multiplier.fget  # type: ignore[attr-defined]  # of the property
        patch.setattr(Stream, "multiplier", property(lambda stream: factor * real(stream)))
        return play(mechanism(), seed=3, rounds=100)


def test_a_stream_stays_inside_its_claim_and_half_its_noise_would_have_been_seen() -> None:
    """The planted control doubles the group, which is half the noise."""
    found = game(1.0)
    assert found.claim == EPSILON
    assert found.found.epsilon <= EPSILON
    assert found.controls_held, found
    assert found.score in ("noisy numbers", "distance")


def test_a_stream_with_half_the_noise_is_refuted() -> None:
    assert game(0.5).found.epsilon > EPSILON


def people(n: int, seed: int) -> EncodedCohort:
    rng = np.random.default_rng(seed)
    return dataclasses.replace(
        nobody(),
        features=rng.uniform(size=(n, 12, len(NAMES))).astype(np.float32),
        labels=(rng.uniform(size=(n, 1)) < 0.3).astype(np.float32),
        subject_index=np.arange(n, dtype=np.int32),
        split=np.zeros(n, np.int8),
    )


def differenced(games: int) -> float:
    """Share of games in which the difference of two nights says on which of two streams somebody entered between."""
    stream = PrivateStream(epsilon=EPSILON, horizon=3).stream
    nights, somebody = [people(40, seed) for seed in range(3)], people(1, 9)
    more = [nights[0], people(41, 1), nights[2]]
    more[1].features[:40], more[1].labels[:40] = nights[1].features, nights[1].labels
    more[1].features[40], more[1].labels[40] = somebody.features[0], somebody.labels[0]
    question, won = question_of(somebody), 0
    for number in range(games):
        told = []
        for side, streamed in enumerate((nights, more)):
            noise = NoiseSource(Secret((2 * number + side).to_bytes(32, "little"), "noise"), "stream")
            answers = whole_stream(stream, streamed, noise)
            weights, taught = question.weights(answers)[1], question.teacher(answers[:1])
            left = answers[1] - answers[0] - question.added(nights[1].features, nights[1].labels, weights, taught)
            own = question.added(somebody.features, somebody.labels, weights, taught)
            told.append(float(left @ own) / float(np.linalg.norm(own)))
        won += told[1] > told[0]
    return won / games


def test_the_difference_of_two_nights_tells_no_more_than_the_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """And everything, where nights share their noise, each of them as noisy as it should be."""
    stream = PrivateStream(epsilon=EPSILON, horizon=3).stream
    bound, games = float(norm.cdf(gaussian_mu(EPSILON, stream.delta) / np.sqrt(2))), 60
    assert differenced(games) <= bound + 3 * np.sqrt(bound * (1 - bound) / games)
    monkeypatch.setattr(terms, "correlated", lambda draws, factor: draws[0])
    assert differenced(20) == 1.0
