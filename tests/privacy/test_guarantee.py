"""The lines of docs/reference/guarantee.md, one test each: what must hold for (epsilon, delta) to be true."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from condensation.private import moments as moments_module
from condensation.private.accounting import centre_sensitivity, moment_sensitivity, task_weights
from condensation.private.condenser import PrivateMoments, samples_from_moments
from condensation.private.feature_map import LevelAndTrend
from condensation.private.moments import (
    centre_parts,
    moment_parts,
    release_moments,
    signed_labels,
    standardised,
    subject_shares,
)
from condensation.private.pooling import add_moments, noise_scale, pooled
from pipeline.core.digest import digest_array
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Moments, Provenance, Task

PUBLIC = {"kind": "scaling", "public": True}
SECRET = Secret(bytes(range(32)), "noise")
NOISE = NoiseSource(SECRET, "cohort one")


def cohort(n: int = 300, n_tasks: int = 2, seed: int = 0, transforms: tuple[dict[str, object], ...] = (PUBLIC,)):
    draws = np.random.default_rng(seed)
    labels = (draws.uniform(size=(n, n_tasks)) < 0.3).astype(np.float32)
    labels[draws.uniform(size=labels.shape) < 0.1] = np.nan
    features = draws.uniform(size=(n, 8, 3)) * 0.6 + 0.2 * np.nan_to_num(labels[:, :1])[:, :, None]
    return EncodedCohort(
        features=features.astype(np.float32),
        labels=labels,
        subject_index=(np.arange(n) // 2).astype(np.int32),
        split=np.zeros(n, np.int8),
        channels=("a", "b", "c"),
        tasks=tuple(Task(f"task{i}") for i in range(n_tasks)),
        step_hours=1.0,
        transforms=transforms,
        provenance=Provenance("test"),
    )


def release(encoded: EncodedCohort, noise: NoiseSource = NOISE, epsilon: float = 1.0, **options: float) -> Moments:
    return release_moments(encoded, epsilon=epsilon, delta=1e-6, noise=noise, **options)


# --- the noise is a secret, replayed for the same question and fresh for another -------------------------------------


def test_same_question_same_answer() -> None:
    first, again = release(cohort()), release(cohort())
    assert digest_array(first.gram) == digest_array(again.gram)
    assert digest_array(first.signed_sums) == digest_array(again.signed_sums)


def noise_in(encoded: EncodedCohort, noise: NoiseSource, **options: float) -> np.ndarray:
    """The count's error: the true count is known here."""
    true = len(np.unique(encoded.subject_index))
    return np.array([release(encoded, noise, **options).gram[0, 0] - true])


def test_other_cohort_secret_rows_epsilon_or_clip_meet_other_noise() -> None:
    base = cohort()
    changed = base.features.copy()
    changed[0, 0, 0] += 0.01
    seen = [
        noise_in(base, NOISE),
        noise_in(base, NoiseSource(SECRET, "cohort two")),
        noise_in(base, NoiseSource(Secret(bytes(32), "noise"), "cohort one")),
        noise_in(dataclasses.replace(base, features=changed), NOISE),
        noise_in(base.take(np.arange(2, 300)), NOISE),
        noise_in(base, NOISE, epsilon=1.5),
        noise_in(base, NOISE, clip_norm=0.8),
    ]
    assert len({float(found[0]) for found in seen}) == len(seen)
    # not the same draw at another scale either: dividing by the scale would align them
    assert abs(seen[0][0] / seen[5][0] - release(base).provenance.config["noise_scale"]) > 1e-6


def test_leaving_a_subject_out_never_reveals_the_subject_by_subtraction() -> None:
    base = cohort()
    difference = release(base).gram - release(base.take(np.arange(2, 300))).gram
    # one subject moves the gram by at most 1 + |x|^2 <= 1 + 3 / 4 + 3 in Frobenius norm: the noises did not cancel
    assert np.linalg.norm(difference) > 3 * 4.75


def test_an_answer_of_another_shape_meets_other_noise() -> None:
    long, short = (NOISE.discrete_normal("q", 1 << 30, shape) for shape in ((6,), (2, 3)))
    assert not np.any(long == short.ravel())


def test_another_version_of_the_query_meets_other_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """One noise on two answers cancels in their difference: no constant may change an answer and keep the noise."""
    drawn: list[list[np.ndarray]] = []

    class Spy:
        """Keeps the standardised noise of a release's two queries."""

        def reserve(self, query: object, events: object) -> None:
            """Nothing is on a ledger here."""

        def discrete_normal(self, query: object, scale: int, shape: tuple[int, ...]) -> np.ndarray:
            found = NOISE.discrete_normal(query, scale, shape)
            drawn[-1].append(found / scale)
            return found

    def draw() -> None:
        drawn.append([])
        release(cohort(n_tasks=3), Spy())

    draw()
    draw()
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])
    shifted = np.sqrt(2) * np.sqrt([0.6, 0.2, 0.2])  # the same sum of squares, hence the same sensitivity and scale
    changes = (
        (moments_module, "task_weights", lambda n_tasks, row_norm: shifted, (1,)),
        (moments_module, "SPREAD_FLOOR", 1e-9, (0, 1)),
        (moments_module, "COUNT_WEIGHT", 0.4, (0, 1)),
        (LevelAndTrend, "early_end", property(lambda self: 3), (0, 1)),
    )
    for owner, name, value, moved in changes:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            draw()
        for part in moved:
            assert not np.any(np.isclose(drawn[0][part], drawn[-1][part], rtol=1e-6)), (name, part)


def test_nothing_recorded_recomputes_the_noise() -> None:
    released = release(cohort())
    condensed = samples_from_moments(released, n_per_class=5, seed=11)
    published = json.dumps(
        [
            dict(released.feature_map),
            released.feature_map_digest,
            dict(released.provenance.config),
            dict(condensed.provenance.config),
            condensed.provenance.seed,
            dataclasses.asdict(released.guarantee),
        ]
    )
    for secret in (SECRET.reveal().hex(), SECRET.fingerprint, "cohort one", NOISE._cohort_digest):
        assert secret not in published
    # an attacker who knows the whole cohort and everything published, but not the secret, misses the noise
    for guess in (bytes(32), (11).to_bytes(32, "little")):
        attempt = release(cohort(), NoiseSource(Secret(guess, "noise"), "cohort one"))
        assert np.abs(attempt.gram - released.gram).max() > 1


def test_no_digest_of_the_patients_is_recorded() -> None:
    """A digest of the input would tell two neighbouring cohorts apart with certainty."""
    released = release(cohort())
    condensed = samples_from_moments(released, n_per_class=5, seed=0)
    assert released.provenance.parents == ()
    assert condensed.provenance.parents == ()
    other = release(cohort(seed=9))
    assert other.feature_map_digest == released.feature_map_digest
    assert set(other.provenance.config) == set(released.provenance.config)
    assert other.provenance.config == released.provenance.config


def test_the_seed_moves_samples_and_never_noise() -> None:
    released = release(cohort())
    one, two = (samples_from_moments(released, n_per_class=5, seed=seed) for seed in (1, 2))
    assert digest_array(one.features) != digest_array(two.features)
    condenser = PrivateMoments(epsilon=1.0, delta=1e-6)
    direct = condenser.condense(cohort(), n_per_class=5, seed=1, noise=NOISE)
    assert digest_array(direct.features) == digest_array(one.features)


SCRIPT = """
import numpy as np
from condensation.private.condenser import PrivateMoments
from pipeline.core.digest import digest_array
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task
x = np.random.default_rng(5).uniform(size=(90, 6, 2)).astype(np.float32)
encoded = EncodedCohort(x, (x[:, :1, 0] > 0.5).astype(np.float32), np.arange(90, dtype=np.int32),
    np.zeros(90, np.int8), ("a", "b"), (Task("t"),), 1.0, ({"kind": "scaling", "public": True},), Provenance("test"))
found = PrivateMoments().condense(encoded, n_per_class=4, seed=3, noise=NoiseSource(Secret(bytes(range(32)), "n"), "c"))
print(digest_array(found.features), digest_array(found.labels))
"""


def test_two_processes_make_the_same_bytes() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].split()) == 2


# --- nothing touches patients before the account ---------------------------------------------------------------------


def test_a_transform_that_looked_at_patients_is_refused() -> None:
    with pytest.raises(ConfigError, match="train_quantiles") as refusal:
        release(cohort(transforms=({"kind": "train_quantiles", "public": False},)))
    assert refusal.value.exit_code == 10


def test_true_counts_are_hidden_too() -> None:
    """Class sizes come out noisy: on average over secrets right, in a release never exact."""
    encoded = cohort(n_tasks=1)
    true = float(subject_shares(encoded.subject_index) @ signed_labels(encoded.labels)[:, 0])
    found = np.array(
        [release(encoded, NoiseSource(Secret(bytes([k]) * 32, "noise"), "c")).signed_counts[0] for k in range(40)]
    )
    assert np.all(np.abs(found - true) > 0)
    scale = release(encoded).provenance.config["noise_scale"] / task_weights(1, np.sqrt(2))[0]
    assert abs(found.mean() - true) < 4 * scale / np.sqrt(40)
    assert scale > 5


@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_cohorts_neither_fail_nor_change_shape(n: int) -> None:
    """Raising on an empty class or cohort would itself be an unaccounted answer."""
    condensed = samples_from_moments(release(cohort(4).take(np.arange(n))), n_per_class=3, seed=0)
    assert condensed.features.shape == (6, 8, 3)
    assert np.isfinite(condensed.labels).all()


def test_one_class_only_neither_fails_nor_changes_shape() -> None:
    encoded = cohort(50)
    for value in (0.0, 1.0, np.nan):
        labels = np.full_like(encoded.labels, value)
        condensed = samples_from_moments(release(dataclasses.replace(encoded, labels=labels)), n_per_class=3, seed=0)
        assert condensed.features.shape == (6, 8, 3)


def test_drawing_samples_sees_the_moments_alone() -> None:
    """The same moments from any hands give the same samples: no patient, secret or noise source can be passed."""
    import inspect

    assert list(inspect.signature(samples_from_moments).parameters) == ["moments", "n_per_class", "seed", "hard_labels"]
    released = release(cohort())
    copied = dataclasses.replace(released, gram=released.gram.copy())
    one, two = (samples_from_moments(m, n_per_class=4, seed=0) for m in (released, copied))
    assert digest_array(one.features) == digest_array(two.features)


# --- sensitivity: the worst a subject can do --------------------------------------------------------------------------


def worst_subjects(n_tasks: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Series and labels of one subject's stays: extremes, out-of-range values, many stays, missing labels."""
    draws = np.random.default_rng(7)
    subjects = []
    for stays in (1, 2, 5, 60):
        for series in (
            np.ones((stays, 8, 3)),
            np.zeros((stays, 8, 3)),
            np.full((stays, 8, 3), 1e9),
            np.concatenate([np.ones((stays, 4, 3)), np.zeros((stays, 4, 3))], axis=1),
            draws.integers(0, 2, (stays, 8, 3)).astype(float),
        ):
            for labels in (
                np.ones((stays, n_tasks)),
                np.zeros((stays, n_tasks)),
                np.full((stays, n_tasks), np.nan),
                draws.choice([0.0, 1.0, np.nan], (stays, n_tasks)),
            ):
                subjects.append((series, labels))
    return subjects


@pytest.mark.parametrize("n_tasks", [1, 3])
@pytest.mark.parametrize("clip", [0.5, 1.0, 3.0])
def test_no_subject_moves_query_two_by_more_than_the_claim(n_tasks: int, clip: float) -> None:
    base = cohort(40, n_tasks)
    phi = LevelAndTrend(8, 3, 0.0, 1.0)
    row_norm = np.sqrt(1 + clip**2)
    weights = task_weights(n_tasks, row_norm)
    claim = moment_sensitivity(row_norm, weights.tolist())
    scaler = moments_module.Standardiser(np.linspace(-0.3, 0.3, 6), np.linspace(0.2, 2.0, 6))

    def answer(series: np.ndarray, labels: np.ndarray, subjects: np.ndarray) -> np.ndarray:
        z = standardised(phi.features(series), scaler, clip)
        return moment_parts(z, subject_shares(subjects), signed_labels(labels), weights)

    without = answer(base.features, base.labels, base.subject_index)
    largest = 0.0
    for series, labels in worst_subjects(n_tasks):
        joined = np.concatenate([base.subject_index, np.full(len(series), 999)])
        moved = answer(np.concatenate([base.features, series]), np.concatenate([base.labels, labels]), joined)
        largest = max(largest, float(np.linalg.norm(moved - without)))
    assert largest <= claim * (1 + 1e-9)
    assert largest > 0.99 * claim or clip == 3.0  # the claim is tight where rows reach the clip norm


def test_no_subject_moves_query_one_by_more_than_the_claim() -> None:
    base = cohort(40)
    phi = LevelAndTrend(8, 3, 0.0, 1.0)
    clip, width = 0.9, 2 * phi.half_range
    claim = centre_sensitivity(clip, width, moments_module.COUNT_WEIGHT * clip, 1 / width)

    def answer(series: np.ndarray, subjects: np.ndarray) -> np.ndarray:
        return centre_parts(phi.features(series), subject_shares(subjects), clip, 1 / width)

    without = answer(base.features, base.subject_index)
    for series, _ in worst_subjects(2):
        joined = np.concatenate([base.subject_index, np.full(len(series), 999)])
        moved = answer(np.concatenate([base.features, series]), joined) - without
        assert np.linalg.norm(moved) <= claim * (1 + 1e-9)


def test_counting_every_stay_would_break_the_claim() -> None:
    """The positive control of the two tests above: without averaging a subject's stays they must fail."""
    z = np.tile(np.array([[1.0, 1.0]]), (5, 1))
    weights = task_weights(1, np.sqrt(2))
    claim = moment_sensitivity(np.sqrt(2), weights.tolist())
    signs = np.ones((5, 1))
    assert np.linalg.norm(moment_parts(z, np.ones(5), signs, weights)) > claim
    assert np.linalg.norm(moment_parts(z, np.full(5, 0.2), signs, weights)) <= claim * (1 + 1e-12)


class Silence:
    """No noise: what is left are the exact sums, so that their weights can be looked at. Keeps the queries' labels."""

    def __init__(self) -> None:
        self.labels: list[dict[str, Any]] = []
        self.scales: list[float] = []

    def reserve(self, query: object, events: object) -> None:
        """Nothing is on a ledger here."""

    def discrete_normal(self, query: dict[str, Any], scale: int, shape: tuple[int, ...]) -> np.ndarray:
        self.labels.append(query)
        self.scales.append(scale)
        return np.zeros(shape)


@pytest.mark.parametrize("copies", [1, 2, 7])
def test_a_subjects_stays_weigh_as_one_subject(copies: int) -> None:
    """However often a subject came, both queries count one person: with the same stay again and again, exactly."""
    base = cohort(60)
    base = dataclasses.replace(base, subject_index=np.arange(60, dtype=np.int32))
    rows = np.concatenate([np.arange(60), np.full(copies, 59)])
    often = release(base.take(rows), Silence())
    once = release(base, Silence())
    np.testing.assert_allclose(often.gram, once.gram, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(often.signed_sums, once.signed_sums, rtol=1e-9, atol=1e-12)


def test_a_subject_of_both_outcomes_counts_once_in_all() -> None:
    """No parallel composition over classes: one who died in the second stay pays in one joint query, half and half."""
    base = cohort(60, n_tasks=1)
    both = dataclasses.replace(base, subject_index=np.arange(60, dtype=np.int32) // 2, labels=base.labels.copy())
    both.labels[58:, 0] = [0.0, 1.0]
    with_them, without = release(both, Silence()), release(both.take(np.arange(58)), Silence())
    assert with_them.gram[0, 0] - without.gram[0, 0] == pytest.approx(1.0)
    assert with_them.signed_counts[0] - without.signed_counts[0] == pytest.approx(0.0, abs=1e-9)


def test_means_are_noisy_sums_over_a_noisy_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of the first query moves its centre: were the true number of subjects used, it could not."""
    centres = []
    real = moments_module._ask_moments

    def spy(rows: Any, share: Any, signs: Any, scaler: Any, *rest: Any) -> Any:
        centres.append(scaler.centre)
        return real(rows, share, signs, scaler, *rest)

    class CountOnly(Silence):
        def reserve(self, query: object, events: object) -> None:
            """Nothing is on a ledger here."""

        def discrete_normal(self, query: dict[str, Any], scale: int, shape: tuple[int, ...]) -> np.ndarray:
            noise = super().discrete_normal(query, scale, shape)
            if query["part"] == "centre":
                noise[0] = 20.0 / float.fromhex(query["step"])
            return noise

    monkeypatch.setattr(moments_module, "_ask_moments", spy)
    exact, shifted = release(cohort(), Silence()), release(cohort(), CountOnly())
    assert exact.gram[0, 0] == shifted.gram[0, 0] == pytest.approx(150.0)
    clip = moments_module.RAW_CLIP_SHARE * 0.5 * np.sqrt(6)
    asked = 150.0 + 20.0 / (moments_module.COUNT_WEIGHT * clip)
    np.testing.assert_allclose(centres[1], centres[0] * 150.0 / asked, atol=2e-6)
    one, two = (samples_from_moments(m, n_per_class=3, seed=0) for m in (exact, dataclasses.replace(exact)))
    moved = exact.gram.copy()
    moved[0, 0] += 30.0  # and the means of the samples follow the noisy count of the second
    other = samples_from_moments(dataclasses.replace(exact, gram=moved), n_per_class=3, seed=0)
    assert digest_array(one.features) == digest_array(two.features) != digest_array(other.features)


NEIGHBOURS = {
    "one of many": (np.arange(300), np.arange(2, 300)),
    "the only event": (np.arange(40), np.arange(38)),
    "the last subject there is": (np.arange(2), np.arange(0)),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_what_is_published_of_neighbours_differs_in_noisy_arrays_only(name: str) -> None:
    """Add or remove one subject, an emptied class or cohort included: every other field is equal to the letter."""
    base = cohort(300, n_tasks=1)
    if name == "the only event":
        base = base.take(np.arange(40))
        base = dataclasses.replace(base, labels=np.zeros_like(base.labels))
        base.labels[38:] = 1.0
    larger, smaller = (release(base.take(rows)) for rows in NEIGHBOURS[name])
    for field in dataclasses.fields(Moments):
        one, two = getattr(larger, field.name), getattr(smaller, field.name)
        if isinstance(one, np.ndarray):
            assert one.shape == two.shape
            assert not np.any(np.isclose(one, two, rtol=1e-9)), field.name  # nothing of one noise is in the other
        else:
            assert one == two, field.name
    sets = [samples_from_moments(m, n_per_class=3, seed=0) for m in (larger, smaller)]
    assert sets[0].features.shape == sets[1].features.shape
    assert sets[0].guarantee == sets[1].guarantee
    assert sets[0].provenance == sets[1].provenance


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_the_noise_has_the_same_scale_for_neighbours(name: str) -> None:
    """A scale that followed the data would tell of it: the scale is that of the public bound, whoever is there."""
    base = cohort(300, n_tasks=1)
    spies = [Silence(), Silence()]
    for spy, rows in zip(spies, NEIGHBOURS[name], strict=True):
        release(base.take(rows), spy)
    assert spies[0].scales == spies[1].scales
    assert len(spies[0].scales) == 2


def test_the_label_of_the_noise_covers_everything_the_answer_depends_on() -> None:
    """Each of these changes the answer or its meaning, and each changes the label of both draws."""

    def labels(encoded: EncodedCohort, **options: Any) -> list[str]:
        spy = Silence()
        release(encoded, spy, **options)
        assert len(spy.labels) == 2
        return [json.dumps(label, sort_keys=True) for label in spy.labels]

    base = cohort()
    one_value = base.features.copy()
    one_value[7, 2, 1] += 0.25
    one_label = base.labels.copy()
    one_label[3, 1] = 1.0 - np.nan_to_num(one_label[3, 1])
    replaced = dataclasses.replace
    others = {
        "a value": labels(replaced(base, features=one_value)),
        "a label": labels(replaced(base, labels=one_label)),
        "who is one subject": labels(replaced(base, subject_index=np.arange(300, dtype=np.int32))),
        "the order": labels(base.take(np.arange(300)[::-1])),
        "a subject less": labels(base.take(np.arange(2, 300))),
        "the channels' names": labels(replaced(base, channels=("a", "b", "d"))),
        "the tasks' names": labels(replaced(base, tasks=(Task("task0"), Task("other")))),
        "a transform": labels(replaced(base, transforms=(PUBLIC, {"kind": "identity", "public": True}))),
        "the range": labels(replaced(base, transforms=({**PUBLIC, "range": [0.0, 2.0]},))),
        "the steps": labels(replaced(base, features=base.features[:, :6])),
        "epsilon": labels(base, epsilon=1.01),
        "clip norm": labels(base, clip_norm=1.01),
    }
    same = labels(base)
    assert labels(base) == same
    for name, found in others.items():
        assert found[0] != same[0], name
        assert found[1] != same[1], name
    assert len({found[1] for found in others.values()}) == len(others)


def test_subject_shares_sum_to_one_per_subject() -> None:
    index = np.array([4, 4, 7, 4, 9, 9])
    np.testing.assert_allclose(subject_shares(index), [1 / 3, 1 / 3, 1, 1 / 3, 1 / 2, 1 / 2])
    assert subject_shares(np.zeros(0, np.int32)).shape == (0,)


# --- the statement and its sums over sites ----------------------------------------------------------------------------


def test_the_guarantee_says_all_that_is_needed() -> None:
    guarantee = release(cohort()).guarantee
    assert (guarantee.epsilon, guarantee.delta, guarantee.adjacency) == (1.0, 1e-6, "add-or-remove-one")
    assert "dp-accounting" in guarantee.accountant
    spent = sum(event["noise_multiplier"] ** -2 for event in guarantee.events)
    assert spent == pytest.approx(4.2247**-2, rel=1e-4)
    text = " ".join(guarantee.assumed_public)
    for word in ("ranges", "feature map", "clip", "transform", "split", "discrete Gaussian"):
        assert word in text


def test_the_unit_is_the_stay_where_subjects_are_unknown() -> None:
    known = {"kind": "subjects", "known": True, "public": True}
    assert release(cohort(transforms=(PUBLIC, known))).guarantee.unit == "subject"
    assert release(cohort()).guarantee.unit == "stay"  # silence is no statement
    unknown = {"kind": "subjects", "known": False, "public": True}
    assert release(cohort(transforms=(PUBLIC, unknown))).guarantee.unit == "stay"
    assert release(cohort(transforms=(PUBLIC, unknown, known))).guarantee.unit == "stay"


def test_two_sites_add_up_as_if_pooled() -> None:
    one, two = cohort(seed=1), cohort(seed=2)
    first = release(one, NoiseSource(SECRET, "site one"), epsilon=1.0)
    second = release(two, NoiseSource(Secret(bytes(32), "noise"), "site two"), epsilon=2.0)
    both = add_moments(first, second)
    np.testing.assert_allclose(both.gram, first.gram + second.gram)
    np.testing.assert_allclose(both.signed_sums, first.signed_sums + second.signed_sums)
    scales = [m.guarantee.events[1]["noise_scale"] for m in (first, second)]
    assert noise_scale(both.guarantee) == pytest.approx(np.hypot(*scales))
    assert noise_scale(add_moments(both, first).guarantee) == pytest.approx(np.hypot(np.hypot(*scales), scales[0]))
    assert both.guarantee.epsilon == 2.0  # per patient, at disjoint sites
    assert any("disjoint" in line for line in both.guarantee.assumed_public)
    assert samples_from_moments(both, n_per_class=3, seed=0).guarantee.epsilon == 2.0


def test_sites_with_little_noise_sum_to_the_pooled_release() -> None:
    """At an epsilon without visible noise the sum and the pooled release agree: only sums were exchanged."""
    one, two = cohort(seed=1), cohort(seed=2)
    pooled = dataclasses.replace(
        one,
        features=np.concatenate([one.features, two.features]),
        labels=np.concatenate([one.labels, two.labels]),
        subject_index=np.concatenate([one.subject_index, two.subject_index + 1000]),
        split=np.concatenate([one.split, two.split]),
    )
    options = {"epsilon": 100.0, "clip_norm": 3.0}
    both = add_moments(release(one, **options), release(two, NoiseSource(SECRET, "site two"), **options))
    whole = release(pooled, NoiseSource(SECRET, "pooled"), **options)
    count = len(np.unique(pooled.subject_index))
    np.testing.assert_allclose(both.gram / count, whole.gram / count, atol=0.02)
    assert both.gram[0, 0] == pytest.approx(count, rel=0.01)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"clip_norm": 0.7}, "feature maps differ in clip_norm"),
        ({"transforms": ({"kind": "scaling", "public": True, "low": [1.0]},)}, "scaling transforms differ in low"),
        ({"transforms": (PUBLIC, {"kind": "subjects", "known": True, "public": True})}, "per stay, the other per subj"),
        ({"transforms": (PUBLIC, {"kind": "subjects", "known": False, "public": True})}, "done to the records before"),
        ({"n_tasks": 1}, "tasks task0, task1, the other task0$"),
        ({"n_steps": 6}, "8 steps of 1 h, the other 6 of 1 h"),
        ({"channels": ("a", "c", "b")}, "channels"),
    ],
)
def test_sites_that_differ_do_not_add_up(change: dict[str, Any], sentence: str) -> None:
    clip = {"clip_norm": change["clip_norm"]} if "clip_norm" in change else {}
    made = {name: change[name] for name in ("transforms", "n_tasks") if name in change}
    other = cohort(seed=3, **made)
    other = dataclasses.replace(
        other,
        features=other.features[:, : change.get("n_steps", 8)],
        channels=change.get("channels", other.channels),
    )
    first = release(cohort())
    with pytest.raises(DataError, match=sentence):
        add_moments(first, release(other, **clip))
    with pytest.raises(DataError, match=sentence if change != {"n_tasks": 1} else "task"):
        pooled([first, release(cohort(seed=4)), release(other, **clip)])


def test_moments_without_a_guarantee_do_not_add_up() -> None:
    first = release(cohort())
    with pytest.raises(DataError, match="guarantee"):
        add_moments(first, dataclasses.replace(release(cohort()), guarantee=None))
    with pytest.raises(DataError, match="no moments"):
        pooled([])


def test_the_sum_tells_each_sites_own_price() -> None:
    sites = [
        release(cohort(seed=k), NoiseSource(SECRET, f"site {k}"), epsilon=epsilon)
        for k, epsilon in enumerate((0.5, 2.0, 1.0))
    ]
    total = pooled(sites)
    (event,) = total.guarantee.events
    assert [site["epsilon"] for site in event["sites"]] == [0.5, 2.0, 1.0]
    assert [site["delta"] for site in event["sites"]] == [1e-6] * 3
    assert [list(site["events"]) for site in event["sites"]] == [list(site.guarantee.events) for site in sites]
    again = add_moments(sites[0], add_moments(sites[1], sites[2]))  # the order of adding does not matter
    assert again.guarantee == total.guarantee
    np.testing.assert_allclose(again.gram, total.gram)
    assert pooled(sites[:1]) is sites[0]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_every_test_that_the_page_names_is_there() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "reference" / "guarantee.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    defined = {
        name
        for file in (root / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 20
    assert named <= defined, named - defined
    for file in re.findall(r"`(tests/[\w/]+\.py)`", page):
        assert (root / file).exists(), file
