"""A stream's claim: what one person moves over all nights, its price, a game on real streams, and what replays."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pytest

from condensation.private.accounting import analytic_epsilon
from condensation.private.stream.factor import correlated, square_root_factor
from condensation.private.stream.terms import Stream, nightly_answers
from pipeline.core.errors import BudgetError, ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.sharing.policy.ledger import composed_epsilon

ABOUT = {"features": "test"}


@dataclass(frozen=True)
class Night:
    night: int
    increment: np.ndarray
    digest: str


def nights(increments: np.ndarray) -> list[Night]:
    """One entry a night; the digest names the content of the test, as the ledger's does in a run."""
    digests = [sha256(increments[: t + 1].tobytes()).hexdigest() for t in range(len(increments))]
    return [Night(t + 1, row, digest) for t, (row, digest) in enumerate(zip(increments, digests, strict=True))]


def source(number: int = 7) -> NoiseSource:
    return NoiseSource(Secret(number.to_bytes(32, "little"), "noise"), "stream")


def matrix(factor: np.ndarray) -> np.ndarray:
    rows, columns = np.indices((len(factor), len(factor)))
    return np.where(rows >= columns, factor[rows - columns], 0.0)


@pytest.mark.parametrize("window", [None, 13])
@pytest.mark.parametrize(("entries", "separation"), [(1, 1), (2, 5), (3, 4)])
def test_no_neighbouring_stream_moves_more_than_the_bound(window: int | None, entries: int, separation: int) -> None:
    """2,400 adversarial neighbours: any nights that the terms allow, vectors at the clip, aligned, opposed or not."""
    stream = Stream(
        horizon=40, epsilon=1.0, delta=1e-6, clip=0.7, entries=entries, separation=separation, window=window
    )
    draws, size, pairs = np.random.default_rng(entries), 5, 2400
    changed = np.zeros((pairs, stream.horizon, size))
    direction = draws.normal(size=(pairs, 1, size))
    for pair in range(pairs):
        free = list(range(stream.horizon)) if pair % 3 else [0, separation, 2 * separation]
        for _ in range(entries):
            if not free:
                break
            night = free[0] if not pair % 3 else int(draws.choice(free))
            vector = direction[pair, 0] if pair % 2 else draws.normal(size=size)
            sign = draws.choice([-1.0, 1.0]) if pair % 5 == 0 else 1.0
            changed[pair, night] = sign * stream.clip * vector / np.linalg.norm(vector)
            free = [one for one in free if abs(one - night) >= separation]
    moved = np.linalg.norm(np.einsum("ts,psd->ptd", matrix(stream.factor), changed), axis=(1, 2))
    assert moved.max() <= stream.sensitivity * (1 + 1e-12)
    if window is None or entries == 1:
        assert moved.max() == pytest.approx(stream.sensitivity)
    # the control: a bound that forgot the factor, or a person's second entry, would have been broken
    assert moved.max() > stream.clip * math.sqrt(entries) * 1.1


def test_the_price_is_that_of_one_gaussian_query() -> None:
    """A year under strict's budget: the ledger's price, the closed form and the claim are one number."""
    stream = Stream(horizon=365, epsilon=4.0, delta=1e-5, clip=1.0)
    price = composed_epsilon(stream.events, 1e-5)
    assert price == pytest.approx(analytic_epsilon(stream.multiplier, 1e-5), abs=1e-6)
    assert 3.999 < price <= 4.0
    # that multiplier is of C x + Z: the noise of each draw over what a person moves there
    norm = np.linalg.norm(matrix(square_root_factor(365))[:, 0])
    assert stream.scale / norm == pytest.approx(stream.multiplier, rel=2e-4)
    assert stream.scale / norm >= stream.multiplier * (1 + 5e-5)  # room for the grid


def test_the_last_night_of_a_year_as_accurate_as_one_release_costs_what_the_table_says() -> None:
    """Epsilon 3.25 at 1e-6 and 2.89 at 1e-5, where 365 releases of epsilon 1 come to 28.8."""
    one = Stream(horizon=1, epsilon=1.0, delta=1e-6, clip=1.0).multiplier
    worst = float(np.sum(square_root_factor(365) ** 2))
    assert analytic_epsilon(one / worst, 1e-6) == pytest.approx(3.25, abs=0.005)
    assert analytic_epsilon(one / worst, 1e-5) == pytest.approx(2.89, abs=0.005)
    assert analytic_epsilon(one / math.sqrt(365), 1e-5) == pytest.approx(28.8, abs=0.05)


def advantage(stream: Stream, games: int) -> tuple[float, float]:
    """P(says "in" | in) - e^epsilon P(says "in" | out) of the best adversary, and its standard error.

    She knows everything but whether one person's vector entered on night 2, sees all nights' answers, and says "in"
    where the likelihood ratio is above e^epsilon: no other rule has more.
    """
    root, person = matrix(stream.factor), np.zeros((stream.horizon, 2))
    person[1] = stream.clip * np.array([0.6, -0.8])
    shift = root @ person
    inverse = np.linalg.inv(root)
    scale = stream.scale
    said = np.zeros((2, games))
    for side, entered in enumerate((0.0 * person, person)):
        increments = np.tile(entered, (1, games))  # every two entries are a stream: all noise is independent
        answers = nightly_answers(
            stream, stream.horizon, 2 * games, nights(increments), source(1 + side), stream.question(ABOUT)
        ).reshape(stream.horizon, games, 2)
        whitened = np.einsum("ts,sgd->tgd", inverse, answers)
        ratio = (np.einsum("tgd,td->g", whitened, shift) - np.sum(shift**2) / 2) / scale**2
        said[side] = ratio > stream.epsilon
    out, inside = said.mean(axis=1)
    error = math.sqrt((inside * (1 - inside) + math.exp(2 * stream.epsilon) * out * (1 - out)) / games)
    return float(inside - math.exp(stream.epsilon) * out), error


def test_a_game_on_whole_streams_stays_inside_the_claim_and_breaks_half_the_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """4,000 streams a side. The claim is P(in) <= e^epsilon P(out) + delta, for whatever the adversary says."""
    stream = Stream(horizon=5, epsilon=0.5, delta=0.05, clip=0.3)
    gained, error = advantage(stream, 4000)
    assert gained - 3 * error <= stream.delta
    assert gained > stream.delta / 3  # the adversary is no straw man
    real = stream.multiplier
    monkeypatch.setattr(Stream, "multiplier", property(lambda _: real / 2))
    # the adversary adapts; the claim does not
    broken, error = advantage(stream, 4000)
    assert broken - 3 * error > stream.delta


def test_an_old_night_gives_its_old_answer_and_a_gap_is_a_night() -> None:
    stream = Stream(horizon=30, epsilon=1.0, delta=1e-6, clip=1.0)
    increments = np.random.default_rng(1).normal(size=(30, 3))
    listed = [one for one in nights(increments) if one.night not in (4, 5, 30)]
    question = stream.question(ABOUT)
    whole = nightly_answers(stream, 30, 3, listed, source(), question)
    for night in (1, 3, 5, 17):
        early = [one for one in listed if one.night <= night]
        assert np.array_equal(nightly_answers(stream, night, 3, early, source(), question), whole[:night])
    assert nightly_answers(stream, 0, 3, [], source(), question).shape == (0, 3)
    assert not np.array_equal(whole[3], whole[4])  # nobody entered: other noise, as on any night
    with pytest.raises(ConfigError, match="outside"):
        nightly_answers(stream, 31, 3, [], source(), question)


def test_no_two_streams_can_be_subtracted() -> None:
    """Other increments, from the first that differs, or other terms, another key or question: unrelated noise."""
    stream = Stream(horizon=6, epsilon=1.0, delta=1e-6, clip=1.0)
    zeros = np.zeros((6, 4))
    other = zeros.copy()
    other[3, 0] = 1e-9  # too little to see in a sum
    question = stream.question(ABOUT)
    first = nightly_answers(stream, 6, 4, nights(zeros), source(), question)
    second = nightly_answers(stream, 6, 4, nights(other), source(), question)
    assert np.array_equal(first[:3], second[:3])
    assert np.all(np.abs(first[3:] - second[3:]) > 1e-6)
    longer = dataclasses.replace(stream, horizon=7)
    for changed in (longer, dataclasses.replace(stream, clip=1.0001), dataclasses.replace(stream, window=3)):
        asked = changed.question(ABOUT)
        assert np.all(first != nightly_answers(changed, 6, 4, nights(zeros), source(), asked))
    assert np.all(first != nightly_answers(stream, 6, 4, nights(zeros), source(8), question))
    asked = stream.question({"features": "others"})
    assert np.all(first != nightly_answers(stream, 6, 4, nights(zeros), source(), asked))


@pytest.mark.parametrize(("horizon", "window"), [(60, None), (60, 1), (60, 7), (60, 60), (200, 9)])
def test_what_rounding_adds_is_bounded(horizon: int, window: int | None) -> None:
    """Draws that explain a neighbour's answers differ by C x and C^-1 e: the room holds for the worst e."""
    stream = Stream(horizon=horizon, epsilon=1.0, delta=1e-6, clip=1.0, window=window)
    assert np.linalg.norm(np.linalg.inv(matrix(stream.factor)), 2) ** 2 <= stream.spread_of_rounding


def test_a_neighbours_answers_are_explained_by_one_set_of_whole_draws() -> None:
    """The exact argument, carried out: solve for them night by night; they are as near as the bound says."""
    nights_, size, factor = 40, 3, square_root_factor(40)
    generator = np.random.default_rng(3)
    draws = np.rint(generator.normal(size=(nights_, size)) * 1e6)
    moved = np.zeros((nights_, size))
    moved[7] = np.rint([3e5, -2e5, 1e5])
    answers = np.array([np.rint(correlated(draws[: t + 1], factor)) for t in range(nights_)])
    others = np.zeros_like(draws)
    sums = np.cumsum(moved, axis=0)
    for t in range(nights_):
        others[t] = answers[t] - sums[t] - np.rint(correlated(others[: t + 1], factor))
        assert np.array_equal(np.rint(correlated(others[: t + 1], factor)) + sums[t], answers[t])
    off = np.linalg.norm(draws - others - matrix(factor) @ moved)
    assert 0 < off <= math.sqrt(2 * nights_ * size)


def test_answers_lie_on_one_grid_and_their_error_is_the_factors() -> None:
    """Exact sums leave no low bits, and the noise of night t has the norm of row t of C."""
    stream = Stream(horizon=12, epsilon=2.0, delta=1e-6, clip=1.0)
    increments = np.random.default_rng(2).normal(size=(12, 800))
    answers = nightly_answers(stream, 12, 800, nights(increments), source(), stream.question(ABOUT))
    step = 2.0 ** math.floor(math.log2(5e-5 / math.sqrt(2 * 12 * 800)))
    assert np.array_equal(np.rint(answers / step) * step, answers)
    rows = np.sqrt(np.cumsum(stream.factor**2)) * stream.scale
    errors = (answers - np.cumsum(increments, axis=0)).std(axis=1)
    assert np.allclose(errors / rows, 1.0, atol=0.1)


def test_noise_that_nobody_reserved_is_not_drawn() -> None:
    stream = Stream(horizon=3, epsilon=1.0, delta=1e-6, clip=1.0)
    question, asked = stream.question(ABOUT), list[str]()
    noise = NoiseSource(Secret(bytes(32), "noise"), "stream", lambda query, _: asked.append(query))
    with pytest.raises(BudgetError, match="without reserving"):
        nightly_answers(stream, 1, 2, [], noise, question)
    noise.reserve(question, stream.events)
    nightly_answers(stream, 3, 2, [], noise, question)
    assert len(set(asked)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        *({"horizon": 0}, {"horizon": 10**6}, {"entries": 0}, {"entries": 99}, {"separation": 0}),
        *({"window": 0}, {"window": 11}, {"clip": 0.0}, {"clip": math.inf}),
    ],
)
def test_terms_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Stream(**{"horizon": 10, "epsilon": 1.0, "delta": 1e-6, "clip": 1.0, **wrong})  # type: ignore[arg-type]
