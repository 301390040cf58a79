"""A teacher that leaves with its set: what it says to a receiver, what a verifier refuses of it, what a pool does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from condensation.private.channels import public_channels
from condensation.private.stream.condenser import PrivateStream
from condensation.private.teacher.condenser import PrivateTeacher
from pipeline.core.codec import from_parts, to_parts, to_plain
from pipeline.core.errors import DataError, ReleaseRefused, UsageError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.risk import shifted, teacher_risks
from pipeline.core.types import Cohort, CondensedSet, EncodedCohort, Provenance, Split, StaticVariable, Task, Variable
from pipeline.ingest.cohort.scaling import prepare
from pipeline.report.answers import worth
from pipeline.sharing.bundle.payload import (
    data_description,
    guarantee_description,
    method_description,
    payload_arrays,
    payload_bytes,
)
from pipeline.sharing.bundle.payload_form import header, require_canonical
from pipeline.sharing.receive.pooling import pooled_beside
from pipeline.sharing.receive.received import Received
from pipeline.sharing.receive.verify import VerifiedBundle
from pipeline.sharing.trust.keys import PublicKey
from pipeline.validation.utility import TrainingSet, measure_utility

VARIABLES = (
    Variable("hr", "/min", 0, 300, 30, 180, 80, "mean"),
    Variable("creatinine", "mg/dL", 0, 50, 0, 8, 0.9, "last"),
    Variable("urine", "mL", 0, 5000, 0, 1000, 60, "sum"),
)
STATICS = (
    StaticVariable("age", "years", 0, 120, 15, 95, 60),
    StaticVariable("sex", "", 0, 1, 0, 1, 0, ((0, "f"), (1, "m"))),
)


def raw(n: int = 60, seed: int = 0) -> Cohort:
    """Stays in clinical units, most cells not measured; the event comes with a high last creatinine."""
    draws = np.random.default_rng(seed)
    level = draws.uniform(0.0, 1.0, (n, 1))
    values = np.stack(
        [60 + 80 * draws.uniform(size=(n, 8)), np.tile(0.5 + 6 * level, 8), 300 * draws.uniform(size=(n, 8))], axis=2
    )
    observed = draws.uniform(size=values.shape) < 0.6
    observed[:3, :, 2] = False
    labels = (draws.uniform(size=(n, 1)) < 0.05 + 0.4 * level**2).astype(np.float32)
    static = np.stack([draws.uniform(20, 90, n), draws.integers(0, 2, n)], axis=1).astype(np.float32)
    return Cohort(
        values=np.where(observed, values, np.nan).astype(np.float32),
        observed=observed,
        static=static,
        labels=labels,
        subject_ids=np.array([f"p{i}" for i in range(n)]),
        stay_ids=np.array([f"s{i}" for i in range(n)]),
        split=np.where(np.arange(n) % 2, Split.TRAIN, Split.HELD_OUT).astype(np.int8),
        variables=VARIABLES,
        static_variables=STATICS,
        tasks=(Task("death", "died in hospital"),),
        step_hours=1.0,
        provenance=Provenance("test"),
    )


def encoded(n: int = 60, seed: int = 0) -> EncodedCohort:
    return prepare(raw(n, seed))


@pytest.fixture(scope="module")
def made() -> CondensedSet:
    noise = NoiseSource(Secret(bytes(32), "noise"), "cohort")
    return PrivateTeacher(epsilon=50.0, delta=1e-6).condense(encoded(800), n_per_class=20, seed=0, noise=noise)


def manifest(made: CondensedSet, site: str = "A") -> dict[str, Any]:
    told = {
        "site": site,
        "name": "set",
        "version": 1,
        "release": method_description(made),
        "data": data_description(made),
        "guarantee": guarantee_description(made.guarantee),
        "files": {"payload.safetensors": {"sha256": f"of {site}"}},
        "encryption": None,
    }
    found: dict[str, Any] = json.loads(json.dumps(told))
    return found


def received(made: CondensedSet, site: str = "A") -> Received:
    key = PublicKey(keyid="k" * 64, public="p" * 64, name=site)
    return Received(VerifiedBundle(Path(site), manifest(made, site), {}, key), load(payload_bytes(made)))


# --- what it says -----------------------------------------------------------------------------------------------------


def test_a_receiver_scores_a_stay_in_clinical_units_as_the_site_would(made: CondensedSet) -> None:
    got, cohort = received(made), raw(50, seed=3)
    assert got.teacher is not None
    prepared = prepare(cohort).features
    static = np.concatenate([cohort.static[:, :1], cohort.static[:, 1:] == [[0.0, 1.0]]], axis=1)
    series = np.concatenate([cohort.values, np.repeat(static[:, None], 8, axis=1)], axis=2)
    mine = got.score(series, clinical=True)
    np.testing.assert_allclose(mine, got.score(prepared), atol=1e-5)
    levels = public_channels(made.channels, made.transforms, 8, 1.0).features(prepared)
    logits = levels @ got.teacher[:, 1:].T + got.teacher[:, 0]
    np.testing.assert_allclose(mine, 1 / (1 + np.exp(-np.clip(logits, -8, 8))), atol=1e-5)
    assert mine[:, 0].mean() == pytest.approx(float(encoded(800).labels.mean()), abs=0.08)


def test_the_samples_carry_the_teachers_labels_less_the_shift(made: CondensedSet) -> None:
    assert made.label_shift is not None
    risks = received(made).score(made.features)
    np.testing.assert_allclose(shifted(made.labels, made.label_shift), risks, atol=0.01)
    np.testing.assert_allclose(received(made).risk(made.labels[:, 0], "death"), risks[:, 0], atol=0.01)
    for wrong in (1.5, -0.1):  # log odds, say
        with pytest.raises(UsageError, match="from 0 to 1"):
            received(made).risk(np.array([0.5, wrong, np.nan]), "death")


def test_it_comes_back_from_store_and_bundle(made: CondensedSet) -> None:
    again, taken = from_parts(CondensedSet, *to_parts(made)), received(made).condensed_set()
    for other in (again, taken):
        np.testing.assert_array_equal(other.teacher, made.teacher)  # its numbers lie on the released grid
        np.testing.assert_array_equal(other.label_shift, made.label_shift)
        assert other.teacher_features == made.teacher_features


def test_a_streams_set_brings_a_teacher_too() -> None:
    noise = NoiseSource(Secret(bytes(32), "noise"), "cohort")
    night = PrivateStream(epsilon=50.0, horizon=4).condense(encoded(400), n_per_class=8, seed=0, noise=noise)
    require_canonical(payload_bytes(night), manifest(night))
    assert received(night).score(encoded(20, seed=1).features).shape == (20, 1)


def test_what_cannot_be_scored_is_refused(made: CondensedSet) -> None:
    got, series = received(made), np.zeros((2, 8, len(made.channels)))
    with pytest.raises(UsageError, match="8 steps"):
        got.score(series[:, :7])
    with pytest.raises(UsageError, match="missing"):
        got.score(np.where(np.arange(8)[:, None] == 3, np.nan, series))
    with pytest.raises(UsageError, match="sex:f is missing"):
        got.score(np.full_like(series, np.nan), clinical=True)
    bare = received(dataclasses.replace(made, teacher=None, teacher_features=None, label_shift=None))
    with pytest.raises(UsageError, match="no teacher came"):
        bare.score(series)
    with pytest.raises(UsageError, match="balanced"):
        bare.risk(np.zeros(2), "death")


def test_an_encoded_set_has_no_clinical_units(made: CondensedSet) -> None:
    other = dataclasses.replace(made, transforms=(*made.transforms, {"kind": "random_projection", "public": True}))
    with pytest.raises(UsageError, match="encoded"):
        received(other).score(np.zeros((1, 8, len(made.channels))), clinical=True)


# --- what is refused --------------------------------------------------------------------------------------------------


def written(arrays: dict[str, np.ndarray]) -> bytes:
    head = header({name: {"dtype": each.dtype.name, "shape": list(each.shape)} for name, each in arrays.items()})
    return head + b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "kind or version that is not known"),
        ({"kind": "other"}, "kind or version that is not known"),
        ({"version": True}, None),  # 1 == True: the same in JSON's eyes only
        ({"more": 1}, "missing or unknown keys"),
        ({"range": [1.0, 0.0]}, "a range that is none"),
        ({"range": [0.0, float("inf")]}, "a range that is none"),
        ({"range": [0.0]}, "a range that is none"),
        ({"late_start": 8}, "a step that the series do not have"),
        ({"late_start": -1}, "a step that the series do not have"),
        ({"late_start": 1.5}, "a step that the series do not have"),
        ({"log_slope": 0.0}, "a logarithm that is none"),
        ({"log_slope": "x"}, "a logarithm that is none"),
        ({"skewed": "hr"}, "does not list"),
        ({"skewed": ["hr", "hr"]}, "one twice"),
        ({"skewed": ["potassium"]}, "do not have"),
    ],
)
def test_a_description_that_nobody_can_score_by_is_refused(
    made: CondensedSet, change: dict[str, Any], sentence: str | None
) -> None:
    told = manifest(made)
    told["data"]["teacher"] |= change
    with pytest.raises(ReleaseRefused, match=sentence or "version"):
        require_canonical(payload_bytes(made), told)
    with pytest.raises(DataError, match=sentence or "version"):
        dataclasses.replace(made, teacher_features=told["data"]["teacher"])


def low_bit(found: dict[str, np.ndarray]) -> None:
    found["teacher"].view("<u8")[0, 1] ^= 1


def not_finite(found: dict[str, np.ndarray]) -> None:
    found["teacher"][0, 2] = np.nan


def infinite_shift(found: dict[str, np.ndarray]) -> None:
    found["label_shift"][0] = np.inf


def minus_zero(found: dict[str, np.ndarray]) -> None:
    found["label_shift"][0] = -0.0


def huge(found: dict[str, np.ndarray]) -> None:
    found["teacher"][0, 0] = 2.0**20


def one_column_less(found: dict[str, np.ndarray]) -> None:
    found["teacher"] = found["teacher"][:, 1:].copy()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (low_bit, "decimals below 2"),
        (minus_zero, "decimals below 2"),
        (huge, "too large"),
        (not_finite, "not finite"),
        (infinite_shift, "not finite"),
        (one_column_less, "other tasks or features"),
    ],
)
def test_numbers_that_say_more_than_they_mean_are_refused(
    made: CondensedSet, spoil: Callable[[dict[str, np.ndarray]], None], sentence: str
) -> None:
    found = {name: array.copy() for name, array in payload_arrays(made).items()}
    spoil(found)
    told = manifest(made)
    told["data"]["arrays"] = {name: {"dtype": a.dtype.name, "shape": list(a.shape)} for name, a in found.items()}
    with pytest.raises(ReleaseRefused, match=sentence):
        require_canonical(written(found), told)


def test_a_teacher_leaves_under_a_guarantee_and_with_its_description_alone(made: CondensedSet) -> None:
    require_canonical(payload_bytes(made), manifest(made))
    with pytest.raises(ReleaseRefused, match="no guarantee"):
        require_canonical(payload_bytes(made), {**manifest(made), "guarantee": None})
    told = manifest(made)
    del told["data"]["teacher"]
    with pytest.raises(ReleaseRefused, match="does not describe"):
        require_canonical(payload_bytes(made), told)
    for lacks in ({"guarantee": None}, {"teacher_features": None}, {"teacher": None}):
        with pytest.raises(DataError):
            dataclasses.replace(made, **lacks)  # type: ignore[arg-type]
    assert made.teacher is not None
    with pytest.raises(DataError, match="finite"):
        dataclasses.replace(made, teacher=made.teacher * np.nan)


# --- several sites, and what it is worth ------------------------------------------------------------------------------


def test_a_pools_teacher_is_the_mean_of_its_sites_or_none(made: CondensedSet) -> None:
    assert made.teacher is not None
    assert made.label_shift is not None
    other = dataclasses.replace(made, teacher=made.teacher + 1, label_shift=made.label_shift - 1)
    found, told = pooled_beside([received(made, "A"), received(other, "B")])
    np.testing.assert_allclose(found["teacher"], made.teacher + 0.5)
    np.testing.assert_allclose(found["label_shift"], made.label_shift - 0.5)
    assert "2 sites" in told
    assert made.teacher_features is not None
    elsewhere = dataclasses.replace(made, teacher_features={**made.teacher_features, "late_start": 2})
    found, told = pooled_beside([received(made, "A"), received(elsewhere, "B")])
    assert set(found) == {"label_shift"}
    assert "weigh other features" in told
    none = dataclasses.replace(made, teacher=None, teacher_features=None, label_shift=None)
    assert pooled_beside([received(made, "A"), received(none, "B")]) == ({}, "none: a bundle came without one")


def test_utility_corrects_the_balance_of_labels_and_scores_the_teacher(made: CondensedSet) -> None:
    test = encoded(1500, seed=5)
    asked: dict[str, Any] = {"models": ["logistic_regression"], "n_seeds": 1, "epochs": 1, "seed": 0, "n_bootstrap": 20}
    bare = TrainingSet("raw", made.features, made.labels, test)
    assert made.teacher is not None
    assert made.teacher_features is not None
    taught = teacher_risks(test.features, made.teacher, made.teacher_features, made.channels)
    told = dataclasses.replace(bare, label_shift=made.label_shift, teacher_risks=taught)
    before, after = (measure_utility({"set": one}, **asked) for one in (bare, told))

    def score(report: Any, name: str, model: str, metric: str) -> float:
        found = report.score(name, model, metric, "death")
        assert found is not None
        return float(found.mean)

    ranks = [score(report, "set", "logistic_regression", "auroc") for report in (before, after)]
    assert ranks[0] == pytest.approx(ranks[1], abs=1e-9)
    errors = [score(report, "set", "logistic_regression", "calibration_error") for report in (before, after)]
    assert errors[1] < 0.1 < errors[0] - 0.1
    assert score(after, "set's teacher", "teacher", "calibration_error") < 0.08
    assert score(after, "set's teacher", "teacher", "auroc") > 0.6
    assert before.score("set's teacher", "teacher", "auroc", "death") is None


def test_the_report_tells_the_teachers_calibration_beside_its_auroc(made: CondensedSet) -> None:
    test = encoded(600, seed=5)
    assert made.teacher is not None
    assert made.teacher_features is not None
    taught = teacher_risks(test.features, made.teacher, made.teacher_features, made.channels)
    for risks in (taught, None):
        one = TrainingSet("raw", made.features, made.labels, test, label_shift=made.label_shift, teacher_risks=risks)
        report = measure_utility(
            {"p": one}, models=["logistic_regression"], n_seeds=1, epochs=1, seed=0, n_bootstrap=20
        )
        what = {"release_kind": "condensed", "release_artefact": "p", "condensed": [{"name": "p", "soft_labels": True}]}
        found = worth(what | {"utility": to_plain(report)})
        lines = [line for line in found.more if line.startswith("its teacher model, used as it is: AUROC 0.")]
        assert len(lines) == (risks is not None)
        assert all("calibration error 0.0" in line for line in lines)
