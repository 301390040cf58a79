"""What must hold for the (epsilon, delta) statement of `private_teacher`: bounds by brute force, noise, price."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from condensation.private import moments, process_statistics
from condensation.private.accounting import centre_sensitivity, noise_multipliers, task_weights
from condensation.private.channels import PublicChannels, public_channels
from condensation.private.granular import ROOM
from condensation.private.moments import COUNT_WEIGHT, Standardiser, centre_parts, standardised, subject_shares
from condensation.private.process_statistics import row_clip, row_length, statistic_rows
from condensation.private.teacher import logistic, release, sums
from condensation.private.teacher.condenser import PrivateTeacher
from condensation.private.teacher.logistic import CONSTANT, GRADIENT_CLIP, ROUNDS, gradient_parts
from condensation.private.teacher.release import budget_shares, release_teacher, suspicion
from condensation.private.teacher.reliability import reliability_parts
from condensation.private.teacher.sums import LABEL_WEIGHT, label_parts
from pipeline.core.config import condense_table
from pipeline.core.digest import digest_array
from pipeline.core.errors import BudgetError, ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, ScoreItem, Task
from pipeline.sharing.policy.accounting import mismatch, recomputed_epsilon, unreserved

NAMES = ("hr", "creatinine", "vent", "age", "sex")
TRANSFORMS: tuple[dict[str, Any], ...] = (
    {"kind": "imputation", "public": True, "never_observed": {"hr": 80.0, "creatinine": 0.9, "vent": 0.0}},
    {
        "kind": "scaling",
        "public": True,
        "channels": list(NAMES),
        "low": [30, 0, 0, 15, 0],
        "high": [180, 8, 1, 95, 1],
        "units": ["/min", "mg/dL", "0 or 1", "years", "0 or 1"],
        "static": ["age", "sex"],
    },
)
SECRET = Secret(bytes(range(32)), "noise")
PAIRS_A_QUERY = 800


def cohort(n: int = 60, n_tasks: int = 2, seed: int = 0, **changed: Any) -> EncodedCohort:
    draws = np.random.default_rng(seed)
    labels = (draws.uniform(size=(n, n_tasks)) < 0.3).astype(np.float32)
    labels[draws.uniform(size=labels.shape) < 0.1] = np.nan
    features = draws.uniform(size=(n, 8, len(NAMES)))
    features[:, :, 3:] = features[:, :1, 3:].round()
    made = EncodedCohort(
        features=features.astype(np.float32),
        labels=labels,
        subject_index=(np.arange(n) // 2).astype(np.int32),
        split=np.zeros(n, np.int8),
        channels=NAMES,
        tasks=tuple(Task(f"task{i}") for i in range(n_tasks)),
        step_hours=1.0,
        transforms=TRANSFORMS,
        provenance=Provenance("test"),
    )
    return dataclasses.replace(made, **changed)


CHANNELS: PublicChannels = public_channels(NAMES, TRANSFORMS, 8, 1.0)
LISTED: PublicChannels = public_channels(
    NAMES,
    TRANSFORMS,
    8,
    1.0,
    (Task("listed", score_items=(
        ScoreItem(NAMES[0], "min", "whole"), ScoreItem(NAMES[0], "max", "second_half", "above"),
        ScoreItem(NAMES[1], "mean", "first_half", "below"), ScoreItem(NAMES[3]),
    )),),
)  # fmt: skip


class Watched:
    """A noise source whose questions, scales and draws are kept; silent, it draws none."""

    def __init__(self, *, silent: bool = False, secret: Secret = SECRET, named: str = "cohort") -> None:
        self.asked: list[tuple[dict[str, Any], float]] = []
        self.drawn: list[np.ndarray] = []
        self.reserved: list[tuple[dict[str, Any], list[Any]]] = []
        self._silent, self._source = silent, NoiseSource(secret, named)

    def reserve(self, query: dict[str, Any], events: Any) -> None:
        assert not self.asked, "something was drawn before it was reserved"
        self.reserved.append((query, list(events)))

    def discrete_normal(self, query: dict[str, Any], scale: int, shape: tuple[int, ...]) -> np.ndarray:
        self.asked.append((query, scale * float.fromhex(query["step"])))
        found = np.zeros(shape) if self._silent else self._source.discrete_normal(query, scale, shape)
        self.drawn.append(found / scale)
        return found


def released(encoded: EncodedCohort, epsilon: float = 1.0, **options: Any) -> tuple[Any, Watched]:
    noise = Watched(**options)
    found = release_teacher(encoded, epsilon=epsilon, delta=1e-6, noise=noise)  # type: ignore[arg-type]
    return found, noise


# --- sensitivity: the worst that a person can do ----------------------------------------------------------------------


def persons(n_tasks: int, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Series and labels of one person's stays: corners, jumps, alternation, values out of range, many stays."""
    draws = np.random.default_rng(seed)
    size = len(NAMES)
    for _ in range(count):
        stays = int(draws.choice([1, 1, 2, 3, 17]))
        shape = (stays, 8, size)
        kind = draws.integers(0, 7)
        if kind == 0:
            series = np.broadcast_to(draws.integers(0, 2, (stays, 1, size)), shape).astype(float)
        elif kind == 1:  # early against late
            early, late = draws.integers(0, 2, (2, stays, 1, size))
            series = np.where(np.arange(8)[:, None] < 4, early, late) * 1.0
        elif kind == 2:  # alternating: the largest deviation of a stay's own
            series = (np.arange(8)[:, None] + draws.integers(0, 2, (stays, 1, size))) % 2 * 1.0
        elif kind == 3:
            series = draws.integers(0, 2, shape).astype(float)
        elif kind == 4:
            series = draws.choice([-1e9, 1e9], shape)
        elif kind == 5:  # as if nothing was measured
            series = np.broadcast_to(np.nan_to_num(CHANNELS.linear(CHANNELS.start), nan=0.5), shape)
        else:
            series = draws.uniform(-0.5, 1.5, shape)
        yield series, draws.choice([0.0, 1.0, np.nan, 0.5, 7.0], (stays, n_tasks), p=[0.35, 0.4, 0.1, 0.1, 0.05])


def test_no_person_moves_the_process_query_by_more_than_the_claim() -> None:
    clip = row_clip(CHANNELS)
    claim = centre_sensitivity(clip, 1.0, COUNT_WEIGHT * clip, 1.0)
    moved = []
    for series, _ in persons(1, PAIRS_A_QUERY, 1):
        rows = statistic_rows(CHANNELS, series)
        assert np.abs(rows).max() <= 1
        moved.append(np.linalg.norm(centre_parts(rows, subject_shares(np.zeros(len(rows))), clip, 1.0)))
    assert 0.7 * claim < max(moved) <= claim * (1 + 1e-9)


@pytest.mark.parametrize("known", [CHANNELS, LISTED], ids=["late levels", "score items"])
@pytest.mark.parametrize("n_tasks", [1, 3])
def test_no_person_moves_the_scale_query_by_more_than_the_claim(n_tasks: int, known: PublicChannels) -> None:
    clip = 0.75 * 0.5 * np.sqrt(known.n_features)
    weights = task_weights(n_tasks, LABEL_WEIGHT * clip)
    claim = np.hypot(centre_sensitivity(clip, 0.5, COUNT_WEIGHT * clip, 2.0), LABEL_WEIGHT * clip)
    moved = []
    for series, labels in persons(n_tasks, PAIRS_A_QUERY, 2):
        share = subject_shares(np.zeros(len(series)))
        features = known.features(series)
        assert np.abs(features).max() <= 0.5
        parts = centre_parts(features, share, clip, 2.0)
        moved.append(np.linalg.norm(np.concatenate([parts, label_parts(labels, share, weights)])))
    assert 0.97 * claim < max(moved) <= claim * (1 + 1e-9)


@pytest.mark.parametrize("known", [CHANNELS, LISTED], ids=["late levels", "score items"])
@pytest.mark.parametrize("n_tasks", [1, 3])
def test_no_person_moves_a_gradient_by_more_than_the_claim(n_tasks: int, known: PublicChannels) -> None:
    draws, weighed, moved = np.random.default_rng(5), task_weights(n_tasks, 1.0), []
    for series, labels in persons(n_tasks, PAIRS_A_QUERY, 3):
        scaler = Standardiser(draws.uniform(-0.5, 0.5, known.n_features), 10 ** draws.uniform(-3, 3, known.n_features))
        weights = draws.normal(size=(n_tasks, 1 + known.n_features)) * 10 ** draws.uniform(-2, 4)
        z = standardised(known.features(series), scaler, logistic.CLIP_NORM)
        z[:, 0] = CONSTANT
        moved.append(np.linalg.norm(gradient_parts(z, labels, weights, subject_shares(np.zeros(len(z))), weighed)))
    assert 0.99 * GRADIENT_CLIP < max(moved) <= GRADIENT_CLIP * (1 + 1e-9)


@pytest.mark.parametrize("n_tasks", [1, 3])
def test_no_person_moves_the_counts_of_risks_by_more_than_one(n_tasks: int) -> None:
    draws, weighed, moved = np.random.default_rng(7), task_weights(n_tasks, 1.0), []
    for series, labels in persons(n_tasks, PAIRS_A_QUERY, 4):
        coefficients = draws.normal(size=(n_tasks, len(NAMES))) * 10 ** draws.uniform(-2, 4)
        taught = logistic.LogisticTeacher(coefficients, draws.normal(size=n_tasks) * 10 ** draws.uniform(-2, 2))
        logits, share = taught.unbounded(CHANNELS.features(series)), subject_shares(np.zeros(len(series)))
        moved.append(np.linalg.norm(reliability_parts(logits, labels, share, weighed)))
    assert 0.99 < max(moved) <= 1 + 1e-9


def test_a_person_adds_to_a_cohort_what_the_person_alone_would_add() -> None:
    """So bounds of a person alone are bounds of neighbouring cohorts."""
    base, rows = cohort(20), statistic_rows(CHANNELS, cohort(23).features)
    index = np.concatenate([base.subject_index, [99, 99, 99]])
    whole = centre_parts(rows, subject_shares(index), 1.0, 1.0)
    without = centre_parts(rows[:20], subject_shares(base.subject_index), 1.0, 1.0)
    alone = centre_parts(rows[20:], subject_shares(index[20:]), 1.0, 1.0)
    np.testing.assert_allclose(whole - without, alone, atol=1e-12)


def test_counting_every_stay_would_break_the_claims() -> None:
    """The positive control: without sharing a person's weight among the stays the bounds do not hold."""
    z = np.tile([[CONSTANT, 1.0]], (5, 1))
    labels, weights = np.ones((5, 1)), np.array([[0.0, -9.0]])
    assert np.linalg.norm(gradient_parts(z, labels, weights, np.ones(5), np.ones(1))) > GRADIENT_CLIP
    assert np.linalg.norm(gradient_parts(z, labels, weights, np.full(5, 0.2), np.ones(1))) <= GRADIENT_CLIP + 1e-12


@pytest.mark.parametrize("n_tasks", [1, 3])
def test_every_answer_has_the_noise_of_its_claim_whoever_is_there(n_tasks: int) -> None:
    base = cohort(n_tasks=n_tasks)
    multipliers = noise_multipliers(1.0, 1e-6, budget_shares())
    clip, row = 0.375 * np.sqrt(len(NAMES)), row_clip(CHANNELS)
    claims = [
        multipliers[0] * centre_sensitivity(row, 1.0, COUNT_WEIGHT * row, 1.0),
        multipliers[1] * np.hypot(centre_sensitivity(clip, 0.5, COUNT_WEIGHT * clip, 2.0), LABEL_WEIGHT * clip),
        *[multipliers[2] * np.sqrt(ROUNDS) * GRADIENT_CLIP] * ROUNDS,
        multipliers[3],
    ]
    for encoded in (base, base.take(np.arange(2, 60)), base.take(np.arange(0))):
        found, noise = released(encoded)
        scales = [scale for _, scale in noise.asked]
        wanted = np.array(claims) * (1 + ROOM)
        np.testing.assert_allclose(scales, wanted, rtol=1e-4)  # whole steps of the grid,
        assert (scales >= wanted).all()  # rounded up
        assert [event["noise_scale"] for event in found.guarantee.events] == [*scales[:3], scales[-1]]


# --- the account ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.25, 1.0, 4.0])
def test_one_reservation_holds_all_queries_at_the_price_asked(epsilon: float) -> None:
    found, noise = released(cohort(), epsilon)
    ((query, events),) = noise.reserved
    assert all(query.items() <= asked.items() for asked, _ in noise.asked)
    assert len(noise.asked) == 3 + ROUNDS
    assert len({json.dumps(asked, sort_keys=True) for asked, _ in noise.asked}) == 3 + ROUNDS
    assert mismatch(epsilon, recomputed_epsilon(found.guarantee)) is None
    assert unreserved(found.guarantee, ["asked"], {"asked": events}) == ""
    spent = [1 / event["noise_multiplier"] ** 2 for event in found.guarantee.events]
    rounds = ROUNDS / (found.guarantee.events[2]["noise_multiplier"] * np.sqrt(ROUNDS)) ** 2
    assert rounds == pytest.approx(spent[2])
    assert found.guarantee.events[2]["rounds"] == ROUNDS


def test_what_the_ledger_refuses_is_not_drawn() -> None:
    def refuse(name: str, events: Any) -> None:
        raise BudgetError("no")

    with pytest.raises(BudgetError, match="no"):
        release_teacher(cohort(), epsilon=1.0, delta=1e-6, noise=NoiseSource(SECRET, "c", refuse))


def test_its_own_size_is_320_samples_and_others_keep_theirs() -> None:
    assert condense_table("private_teacher").n_per_class == 160
    assert condense_table("private_moments").n_per_class == 40


def test_any_size_and_seed_cost_nothing_more() -> None:
    asked: list[str] = []
    noise = NoiseSource(SECRET, "c", lambda name, events: asked.append(name))
    sets = [PrivateTeacher().condense(cohort(), n_per_class=n, seed=n, noise=noise) for n in (3, 8)]
    assert len(asked) == 2
    assert asked[0] == asked[1]
    assert sets[0].guarantee == sets[1].guarantee


def test_the_guarantee_names_what_it_assumes() -> None:
    found, _ = released(cohort())
    told = " ".join(found.guarantee.assumed_public)
    assert CHANNELS.digest()[:16] in told
    assert "process" in told
    assert found.guarantee.unit == "stay"  # the transforms name no subjects
    other = tuple({**step, "units": ["kg"] * 5} if step["kind"] == "scaling" else step for step in TRANSFORMS)
    assert released(cohort(transforms=other))[0].guarantee.assumed_public != found.guarantee.assumed_public


def test_a_transform_that_looked_at_patients_is_refused() -> None:
    looked = (*TRANSFORMS[:1], {**TRANSFORMS[1], "public": False})
    with pytest.raises(ConfigError, match="computed from patients"):
        released(cohort(transforms=looked))


# --- the noise --------------------------------------------------------------------------------------------------------


def test_same_question_same_answer_and_another_cohort_secret_row_or_budget_other_noise() -> None:
    base = cohort()
    first, noise = released(base)
    again, _ = released(base)
    assert digest_array(first.teacher.coefficients) == digest_array(again.teacher.coefficients)
    assert digest_array(first.statistics.level_mean) == digest_array(again.statistics.level_mean)
    changed = base.features.copy()
    changed[0, 0, 0] += 0.01
    labels = np.where(np.arange(len(base.labels))[:, None] == 0, 1 - base.labels, base.labels)
    others = [
        released(base, named="cohort two")[1],
        released(base, secret=Secret(bytes(32), "noise"))[1],
        released(dataclasses.replace(base, features=changed))[1],
        released(dataclasses.replace(base, labels=labels))[1],
        released(base.take(np.arange(2, 60)))[1],
        released(base, epsilon=1.5)[1],
    ]
    for other in others:
        for ours, theirs in zip(noise.drawn, other.drawn, strict=True):
            assert not np.any(np.isclose(ours, theirs, rtol=1e-6))


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (moments, "COUNT_WEIGHT", 0.4),
        (release, "COUNT_WEIGHT", 0.4),
        (sums, "LABEL_WEIGHT", 0.4),
        (process_statistics, "CLIP_SHARE", 0.3),
        (process_statistics, "TOLD_APART", 2.0),
        (release, "RELIABILITY_SHARE", 0.05),
        (logistic, "MOMENTUM", 0.7),
        (logistic, "CONSTANT", 0.4),
        (logistic, "GRADIENT_CLIP", 0.4),
        (logistic, "PRIOR_LOGIT", -1.0),
    ],
)
def test_a_later_versions_constant_meets_other_noise(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, value: float
) -> None:
    """One noise on two answers cancels in their difference: no constant may change an answer and keep the noise."""
    before = released(cohort())[1]
    monkeypatch.setattr(owner, name, value)
    after = released(cohort())[1]
    for ours, theirs in zip(before.drawn, after.drawn, strict=True):
        assert not np.any(np.isclose(ours, theirs, rtol=1e-6))


def test_nothing_recorded_recomputes_the_noise_or_counts_the_patients() -> None:
    made = PrivateTeacher().condense(cohort(61), n_per_class=3, seed=0, noise=NoiseSource(SECRET, "cohort one"))
    told = json.dumps([dict(made.provenance.config), dataclasses.asdict(made.guarantee)])  # type: ignore[call-overload]
    for secret in (SECRET.reveal().hex(), SECRET.fingerprint, "cohort one", digest_array(cohort(61).features)):
        assert secret not in told
    assert made.provenance.parents == ()
    other = PrivateTeacher().condense(cohort(40, seed=9), n_per_class=3, seed=0, noise=NoiseSource(SECRET, "two"))
    assert (other.provenance.config, other.guarantee) == (made.provenance.config, made.guarantee)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_cohorts_and_one_class_neither_fail_nor_change_shape(n: int) -> None:
    for value in (0.0, 1.0, np.nan):
        encoded = cohort(4).take(np.arange(n))
        encoded = dataclasses.replace(encoded, labels=np.full_like(encoded.labels, value))
        made = PrivateTeacher().condense(encoded, n_per_class=2, seed=0, noise=NoiseSource(SECRET, "c"))
        assert made.features.shape == (4, 8, len(NAMES))
        assert np.isfinite(made.labels).all()


def test_blocks_of_stays_give_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = released(cohort())
    monkeypatch.setattr(moments, "CHUNK_STAYS", 7)
    monkeypatch.setattr(moments, "HELD_BYTES", 0)
    pieces, _ = released(cohort())
    assert digest_array(pieces.teacher.coefficients) == digest_array(whole.teacher.coefficients)
    assert digest_array(pieces.statistics.own_sd) == digest_array(whole.statistics.own_sd)


def test_an_attacker_who_knows_everybody_else_counts_the_rest_without_noise() -> None:
    """What the audit's game plays with: without noise the suspect is found as often as there, with noise in between."""
    whole, suspect = cohort(41), cohort(41).take(np.array([40]))
    known = whole.take(np.arange(40))
    for encoded, there in ((whole, 1.0), (known, 0.0)):
        found = released(encoded, silent=True)[0]
        suspected = suspicion(known, suspect)
        assert suspected(found.answers) == pytest.approx((there, there), abs=1e-3)
        for noisy in suspected(released(encoded)[0].answers):
            assert abs(noisy - there) > 0.01


def test_a_shipped_teacher_and_label_shift_are_made_of_what_the_game_sees() -> None:
    """Nothing but the noisy answers and public facts: so the game on the answers is one on the teacher's numbers."""
    encoded = cohort()
    found, _ = released(encoded)
    answers, kinds = found.answers, [task.kind for task in encoded.tasks]
    scaler = answers.scale.standardiser(CHANNELS, CHANNELS.half_range)
    starts = logistic.starting_logits(kinds)
    weights = logistic.descend(lambda number, _: answers.gradients[number], answers.scale.count, starts, len(NAMES))
    taught = logistic.linear_teacher(weights, scaler.centre, scaler.gain)
    np.testing.assert_array_equal(taught.numbers, found.teacher.numbers)
    weighed = task_weights(2, LABEL_WEIGHT * moments.RAW_CLIP_SHARE * CHANNELS.half_range * np.sqrt(len(NAMES)))
    known = answers.scale.beside.reshape(-1, 2) / weighed[:, None]
    shares = logistic.shares_of_events(known, kinds, answers.scale.scale / weighed)
    np.testing.assert_array_equal(shares, found.event_shares)
    assert found.reliability is answers.reliability


def test_row_length_is_that_of_the_rows() -> None:
    assert statistic_rows(CHANNELS, cohort().features).shape == (60, row_length(CHANNELS))
