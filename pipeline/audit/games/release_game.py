"""Is a release as private as it says? Canary subjects put into the very mechanism, everybody else known to the auditor.

A round: the mechanism is called on a cohort that the auditor made, and on the same cohort with a group of m identical
canary subjects added, under one made-up site secret; the auditor says which of the two answers holds the group. If the
mechanism is mu-Gaussian differentially private for one subject it is m mu for the group (Dong, Roth and Su, J. R. Stat.
Soc. B 2022, theorem 2.14), and no score is right more often than Phi(m mu / sqrt 2) (the area under the trade-off
curve). Rounds are independent, so the exact binomial bound on how often he is right bounds mu, and epsilon at the
claim's delta, from below (the Gaussian lower bound of Nasr et al., USENIX Security 2023, with one threshold fewer).

Groups make it affordable: to tell two noises apart takes about 1 / m^2 of the rounds that single canaries would. Two
releases under one secret share a round, so noise that comes again for another cohort is found too.

What it rests on: the claim is Gaussian (its events say so), the canaries are the auditor's. It says nothing of what is
not in the artefact, and a lower bound says nothing of what a better attack would find.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, final

import numpy as np
from scipy.stats import norm

from pipeline.audit.scene import Mechanism
from pipeline.audit.statistics import clopper_pearson, gaussian_epsilon, gaussian_mu
from pipeline.core.errors import DataError, DecoctError
from pipeline.core.seeds import child_seed
from pipeline.core.types import EncodedCohort, PrivacyGuarantee

ROUNDS: Final = 400  # with 300 the control (half the noise) was missed in about one audit of 20, now of 1,000
CONFIDENCE: Final = 0.99  # one-sided; an audit that blocks a correct release once in a hundred runs at most
GROUP_SHIFT: Final = 1.3  # of the claimed mechanism, in standard deviations: where a round tells most about the noise
N_OTHERS: Final = 1000  # subjects in the middle of the range, so that one group does not move the mechanism's scaling
AMPLIFIED: Final = 100  # copies from which the direction of a canary's effect is learnt
LEARNING_ROUNDS: Final = 60  # for each canary, and as many again for the one that is chosen
MANY_STAYS: Final = 20
FAR: Final = 100.0  # ranges beyond the range


@final
@dataclass(frozen=True)
class Played:
    """What the rounds refute: with `confidence`, the mechanism is not (e, delta)-private for any e below `epsilon`."""

    epsilon: float
    ceiling: float  # what these rounds would have refuted, had every one been won
    won: int
    rounds: int


@final
@dataclass(frozen=True)
class Game:
    """A whole audit of a mechanism, with its two controls and what it took."""

    found: Played
    planted: Played  # groups twice as large as declared, which is half the noise: must lie above the claim
    quiet: Played  # two releases without canaries: must be a coin
    claim: float
    delta: float
    canary: str
    score: str
    group: int
    releases: int

    @property
    def controls_held(self) -> bool:
        """Half the noise would have been seen, and nothing was seen where nothing is."""
        coin = clopper_pearson(self.quiet.won, self.quiet.rounds, 0.999)
        return self.planted.epsilon > self.claim and coin.low <= 0.5


def is_gaussian(guarantee: PrivacyGuarantee) -> bool:
    """True when every event behind the claim is a Gaussian query."""
    return bool(guarantee.events) and all(event.get("event") == "GaussianDpEvent" for event in guarantee.events)


def play(mechanism: Mechanism, *, seed: int, rounds: int = ROUNDS) -> Game:
    """Learn how canaries show, on releases of their own; then play the rounds with the canary that shows most.

    Raises:
        DataError: the claim is not Gaussian, rounds < 2, or no canary can be put into the mechanism.
    """
    if not is_gaussian(mechanism.guarantee):
        raise DataError("the game on releases needs a claim that rests on Gaussian queries")
    if rounds < 2:
        raise DataError("the game on releases needs two rounds at least")
    claim, delta = mechanism.guarantee.epsilon, mechanism.guarantee.delta
    group = max(1, round(GROUP_SHIFT / max(gaussian_mu(claim, delta), 1e-3)))
    caller = _Caller(mechanism, seed)
    name, scorers = _learn(caller)
    numbers = range(2 * LEARNING_ROUNDS, 2 * LEARNING_ROUNDS + rounds)
    without = caller.answers("", 0, numbers)
    inside = caller.answers(name, group, numbers)
    doubled = caller.answers(name, 2 * group, numbers)
    level = 1 - (1 - CONFIDENCE) / len(scorers)  # Bonferroni: every score is tried on the same rounds

    def best(first: np.ndarray, second: np.ndarray) -> tuple[Played, str]:
        tried = [(_bound(scorer(second), scorer(first), group, delta, level), key) for key, scorer in scorers.items()]
        return max(tried, key=lambda item: (item[0].epsilon, item[0].won))

    found, score = best(without, inside)
    half = rounds // 2
    return Game(
        found=found,
        planted=best(without, doubled)[0],
        quiet=best(without[:half], without[half : 2 * half])[0],
        claim=claim,
        delta=delta,
        canary=name,
        score=score,
        group=group,
        releases=caller.calls,
    )


def _bound(inside: np.ndarray, without: np.ndarray, group: int, delta: float, confidence: float) -> Played:
    """Ties are lost, so the share of rounds won never exceeds what the claim bounds."""
    won, rounds = int((inside > without).sum()), len(inside)
    return Played(
        epsilon=epsilon_of_rounds(won, rounds, group, delta, confidence),
        ceiling=epsilon_of_rounds(rounds, rounds, group, delta, confidence),
        won=won,
        rounds=rounds,
    )


def epsilon_of_rounds(won: int, rounds: int, group: int, delta: float, confidence: float) -> float:
    """The epsilon that so many rounds won refute, one subject's, at `delta`."""
    share = clopper_pearson(won, rounds, 2 * confidence - 1).low  # one-sided
    return gaussian_epsilon(max(0.0, math.sqrt(2) * float(norm.ppf(share)) / group), delta) if share > 0.5 else 0.0


# --- cohorts and canaries ---------------------------------------------------------------------------------------------


@final
@dataclass
class _Caller:
    """Calls the mechanism on made-up cohorts and counts the calls."""

    mechanism: Mechanism
    seed: int
    calls: int = 0

    def answers(self, canary: str, copies: int, numbers: Sequence[int]) -> np.ndarray:
        """Every number in the artefacts of one cohort under several secrets: `(release, number)`."""
        cohort = _cohort(self.mechanism, canary, copies)
        self.calls += len(numbers)
        return np.stack(
            [numbers_of(self.mechanism.release(cohort, child_seed(self.seed, "canaries", k))) for k in numbers]
        )


CANARIES: Final[Mapping[str, str]] = {
    "extreme": "every channel at the lower end of the range, then at the upper; every label 1",
    "beyond the range": "as extreme, but a hundred ranges outside it and with labels outside 0 to 1",
    "many stays": "the extreme stay twenty times, all of one subject",
}


def _cohort(mechanism: Mechanism, canary: str, copies: int) -> EncodedCohort:
    """Subjects in the middle of the range, every second with the event; then `copies` canary subjects."""
    shape = mechanism.shape
    steps, channels, tasks = shape.features.shape[1], len(shape.channels), len(shape.tasks)
    others = np.full((N_OTHERS, steps, channels), (mechanism.low + mechanism.high) / 2, np.float32)
    features, labels, stays = [others], [np.repeat([[0.0], [1.0]], N_OTHERS // 2, axis=0).repeat(tasks, axis=1)], 1
    subjects = [np.arange(N_OTHERS)]
    if copies:
        reach = FAR * (mechanism.high - mechanism.low) if canary == "beyond the range" else 0.0
        series = np.full((1, steps, channels), mechanism.high + reach, np.float32)
        series[:, : max(1, steps // 2)] = mechanism.low - reach
        if steps == 1:
            series[:] = mechanism.high + reach
        stays = MANY_STAYS if canary == "many stays" else 1
        features.append(np.repeat(series, copies * stays, axis=0))
        labels.append(np.full((copies * stays, tasks), FAR if canary == "beyond the range" else 1.0))
        subjects.append(N_OTHERS + np.repeat(np.arange(copies), stays))
    n = N_OTHERS + copies * stays * bool(copies)
    return dataclasses.replace(
        shape,
        features=np.concatenate(features),
        labels=np.concatenate(labels).astype(np.float32),
        subject_index=np.concatenate(subjects).astype(np.int32),
        split=np.zeros(n, np.int8),
    )


def numbers_of(artefact: object) -> np.ndarray:
    """Every number in a record, texts as a number of their digest: what its receiver can compute with, `(number,)`."""
    found: list[np.ndarray] = []

    def walk(value: Any) -> None:
        if isinstance(value, np.ndarray):
            found.append(np.asarray(value, dtype=np.float64).ravel())
        elif isinstance(value, str):
            found.append(np.array([int.from_bytes(sha256(value.encode()).digest()[:4], "little")], np.float64))
        elif isinstance(value, bool | int | float):
            found.append(np.array([value], np.float64))
        elif isinstance(value, Mapping):
            for key in sorted(value, key=str):
                walk(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                walk(item)
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                walk(getattr(value, field.name))

    walk(artefact)
    return np.concatenate(found) if found else np.zeros(0)


# --- learning what to look at -----------------------------------------------------------------------------------------

Scorer = Callable[[np.ndarray], np.ndarray]


def _learn(caller: _Caller) -> tuple[str, dict[str, Scorer]]:
    """The canary whose copies stand out most per copy, and its scores: linear in what varies, and in what does not.

    Raises:
        DataError: the mechanism refuses every canary.
    """
    numbers, more = range(LEARNING_ROUNDS), range(LEARNING_ROUNDS, 2 * LEARNING_ROUNDS)
    without = caller.answers("", 0, numbers)
    best: tuple[float, str, np.ndarray] | None = None
    for name in CANARIES:
        try:
            amplified = caller.answers(name, AMPLIFIED, numbers)
        except DecoctError:
            continue  # a mechanism may refuse what is outside its range or its bound of stays
        if amplified.shape != without.shape:
            continue
        shows, _ = _scorers(without, amplified)
        if best is None or shows > best[0]:
            best = shows, name, amplified
    if best is None:
        raise DataError("the mechanism takes none of the canaries")
    _, name, amplified = best
    without = np.concatenate([without, caller.answers("", 0, more)])
    amplified = np.concatenate([amplified, caller.answers(name, AMPLIFIED, more)])
    return name, _scorers(without, amplified)[1]


def _scorers(without: np.ndarray, amplified: np.ndarray) -> tuple[float, dict[str, Scorer]]:
    """How far the amplified group shifts the best score, in standard deviations; the scores.

    "noisy numbers": the linear discriminant with a diagonal covariance, over the numbers that vary without canaries (a
    number that stands in the artefact twice counts once); "distance": how far these lie from their usual place; "steady
    numbers": how many of those that never vary (an exact count, a digest, a scale) are not what they usually are.
    """
    mean, spread = without.mean(axis=0), without.std(axis=0, ddof=1)
    shift = amplified.mean(axis=0) - mean
    tolerance = 1e-9 * np.maximum(np.maximum(np.abs(mean), np.abs(shift)), 1e-300)
    noisy = spread > tolerance
    noisy[np.setdiff1d(np.arange(len(mean)), np.unique(without, axis=1, return_index=True)[1])] &= False
    steady = spread <= tolerance
    weight = shift[noisy] / spread[noisy] ** 2

    def linear(answers: np.ndarray) -> np.ndarray:
        return np.asarray((answers - mean)[:, noisy] @ weight)

    def distance(answers: np.ndarray) -> np.ndarray:
        return np.asarray((((answers - mean)[:, noisy] / spread[noisy]) ** 2).sum(axis=1))

    def changed(answers: np.ndarray) -> np.ndarray:
        return np.asarray((np.abs(answers - mean) > tolerance)[:, steady].sum(axis=1), np.float64)

    scorers: dict[str, Scorer] = {"steady numbers": changed}
    if noisy.any():
        scorers |= {"noisy numbers": linear, "distance": distance}
    shows = [0.0]
    for scorer in scorers.values():
        usual, raised = scorer(without), scorer(amplified)
        apart, noise = abs(float(raised.mean() - usual.mean())), float(usual.std(ddof=1))
        shows.append(apart / noise if noise > 0 else (math.inf if apart > 0 else 0.0))
    return max(shows), scorers
