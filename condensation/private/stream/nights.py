"""A night of a stream: what its entrants add, and the set that all answers so far give.

What entrants add is seen by nobody but the ledger's folder; the set comes from noisy answers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from condensation.private.accounting import accountant_name
from condensation.private.moments import NOISE_LAW, PUBLIC_CONSTANTS
from condensation.private.stream.factor import running_sums
from condensation.private.stream.question import METHOD, about, question_of
from condensation.private.stream.terms import Added, Stream, nightly_answers
from condensation.private.teacher.samples import samples_from_teacher
from pipeline.core.digest import digest_array, digest_json
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.base import check_n_per_class
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort, PrivacyGuarantee, Provenance


@final
@dataclass(frozen=True)
class Entered:
    """What entered on a night, and the digest of all that entered up to it."""

    night: int
    increment: np.ndarray
    digest: str


@single_threaded
def increment_of_night(
    stream: Stream, night: int, entrants: EncodedCohort, before: Sequence[Added], noise: NoiseSource
) -> np.ndarray:
    """What tonight's entrants add, `(size,)`, at the weights of the night before; nobody is as good as anybody.

    Args:
        entrants: a stay each. before: all earlier nights.

    Raises:
        ConfigError: as `question_of`. BudgetError: nobody reserved the stream.
    """
    question = question_of(entrants)
    named = stream.question(about(entrants))
    answers = nightly_answers(stream, night - 1, question.size, before, noise, named)
    weights, taught = question.weights(answers, stream.window)[-1], question.teacher(answers, stream.window)
    return question.added(entrants.features, entrants.labels, weights, taught)


@single_threaded
def night_of_stream(
    stream: Stream,
    night: int,
    like: EncodedCohort,
    added: Sequence[Added],
    noise: NoiseSource,
    *,
    n_per_class: int,
    seed: int,
) -> CondensedSet:
    """The set of a night, from the answers up to it: post-processing, so any size and any old night are free.

    Args:
        like: says what the stays are; its rows are not read.
        added: all nights up to this one.

    Raises:
        ConfigError: n_per_class below 1, no night, or as `question_of`. BudgetError: nobody reserved the stream.
    """
    check_n_per_class(n_per_class)
    if night < 1:
        raise ConfigError("a night of a stream is counted from 1")
    question = question_of(like)
    named = stream.question(about(like))
    answers = nightly_answers(stream, night, question.size, added, noise, named)
    scale = stream.scale * float(np.linalg.norm(stream.factor[:night]))
    drawn = samples_from_teacher(
        question.channels,
        question.statistics(answers[-1]),
        question.teacher(answers, stream.window),
        question.event_shares(answers[-1], scale),
        question.reliability(answers, stream.factor, stream.scale, stream.window),
        kinds=question.kinds,
        n=2 * n_per_class,
        seed=seed,
    )
    return CondensedSet(
        **drawn.in_set(),
        channels=like.channels,
        tasks=like.tasks,
        step_hours=like.step_hours,
        transforms=like.transforms,
        method=METHOD,
        starts_from_records=False,
        guarantee=guarantee_of(stream, like),
        provenance=Provenance("condense", config={"n_per_class": n_per_class}, seed=seed),
    )


@single_threaded
def whole_stream(stream: Stream, nights: Sequence[EncodedCohort], noise: NoiseSource) -> np.ndarray:
    """The answers of a stream of which all entrants are known, a cohort a night: `(night, entry)`; for the audit.

    Raises:
        ConfigError: more nights than the horizon, or as `question_of`. BudgetError: nobody reserved the stream.
    """
    added: list[Added] = []
    digest = ""
    for number, entrants in enumerate(nights, start=1):
        increment = increment_of_night(stream, number, entrants, added, noise)
        digest = digest_json([digest, *map(digest_array, (increment, entrants.features, entrants.labels))])
        added.append(Entered(number, increment, digest))
    question = question_of(nights[0])
    return nightly_answers(stream, len(nights), question.size, added, noise, stream.question(about(nights[0])))


def suspicion(
    stream: Stream, known: Sequence[EncodedCohort], suspect: EncodedCohort, night: int
) -> Callable[[np.ndarray], float]:
    """How far a stay that entered on a night (from 0) moved all answers together, to who knows everybody else.

    For the audit. What `known` people added is taken off, at the weights that the answers tell; then the factor C,
    which leaves C x and independent noise; and that is held against what the suspect moves of C x (a matched filter, in
    which the differences of nights have the weights that they deserve).
    """
    question, rows = question_of(suspect), np.arange(len(known))
    root = np.where(rows[:, None] >= rows, stream.factor[np.abs(rows[:, None] - rows)], 0.0)

    def suspected(answers: np.ndarray) -> float:
        weights = question.weights(answers, stream.window)

        def added(one: EncodedCohort, t: int) -> np.ndarray:
            return question.added(one.features, one.labels, weights[t], question.teacher(answers[:t], stream.window))

        theirs = [added(one, t) for t, one in enumerate(known)]
        moved = root[:, night, None] * added(suspect, night)
        left = np.linalg.solve(root, answers - running_sums(np.stack(theirs), stream.window))
        return float((left * moved).sum()) / max(float(np.linalg.norm(moved)), 1e-12)

    return suspected


def guarantee_of(stream: Stream, encoded: EncodedCohort) -> PrivacyGuarantee:
    """Of all nights of the stream together: what one night's set claims is claimed for every night's."""
    asked = digest_json(dict(about(encoded)))[:16]
    return PrivacyGuarantee(
        epsilon=stream.epsilon,
        delta=stream.delta,
        unit=encoded.protected_unit,
        adjacency="add-or-remove-one",
        accountant=accountant_name(),
        events=tuple({**event, "noise_scale": stream.scale, "nights": stream.horizon} for event in stream.events),
        assumed_public=(
            *PUBLIC_CONSTANTS,
            f"the stream's terms and what it asks of a stay, {asked}; which night is which, and whether one was asked",
            NOISE_LAW,
        ),
    )
