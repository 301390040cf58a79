"""Imputation and scaling by hand; what is public is said to be, and what looks at patients is not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.digest import canonical_json
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import Cohort, Provenance, StaticVariable, Task, Variable
from pipeline.ingest.cohort.scaling import prepare, to_clinical_units

N = np.nan
VARIABLES = (Variable("HR", "/min", 0, 300, 50, 150, 80), Variable("K", "mmol/L", 0, 20, 2, 6, 4))
STATICS = (
    StaticVariable("age", "years", 0, 120, 20, 100, 60),
    StaticVariable("unit", "code", 1, 2, 1, 2, 2, ((1, "x"), (2, "y"))),
)


def cohort(values: Any = None, static: Any = None, variables: tuple[Variable, ...] = VARIABLES) -> Cohort:
    series = np.array(
        values if values is not None else [[[N, 5], [100, N], [N, N]], [[60, N], [N, N], [170, 7]]], dtype=np.float32
    )
    stays = len(series)
    return Cohort(
        values=series,
        observed=np.isfinite(series),
        static=np.array(static if static is not None else [[40, 1], [N, N]], dtype=np.float32),
        labels=np.arange(stays, dtype=np.float32)[:, None] % 2,
        stay_ids=np.array([str(i) for i in range(stays)]),
        subject_ids=np.array([str(i) for i in range(stays)]),
        split=np.zeros(stays, dtype=np.int8),
        variables=variables,
        static_variables=STATICS,
        tasks=(Task("died"),),
        step_hours=1.0,
        provenance=Provenance("ingest"),
    )


def test_by_hand() -> None:
    """Before the first value the constant, then the last value; beyond the range the limit."""
    prepared = prepare(cohort())
    assert prepared.channels == ("HR", "K", "age", "unit:x", "unit:y")
    first = [[0.3, 0.75], [0.5, 0.75], [0.5, 0.75]]
    second = [[0.1, 0.5], [0.1, 0.5], [1.0, 1.0]]
    np.testing.assert_allclose(prepared.features[:, :, :2], [first, second], atol=1e-6)
    np.testing.assert_allclose(prepared.features[:, :, 2:], [[[0.25, 1, 0]] * 3, [[0.5, 0, 1]] * 3], atol=1e-6)
    assert prepared.features.dtype == np.float32
    assert prepared.is_public_transform


@pytest.mark.parametrize("mode", ["encode", "release"])
def test_masks_are_channels_on_request(mode: Any) -> None:
    source = cohort()
    prepared = prepare(source, observed=mode)
    assert prepared.channels[-2:] == ("observed:HR", "observed:K")
    np.testing.assert_array_equal(prepared.features[:, :, -2:], source.observed)
    np.testing.assert_array_equal(prepared.features[:, :, :-2], prepare(source).features)
    assert prepared.transforms[-1] == {
        "kind": "missingness",
        "mode": mode,
        "public": True,
        "channels": ["observed:HR", "observed:K"],
    }


def test_dropped_masks_are_recorded_and_the_old_word_means_encode() -> None:
    assert prepare(cohort()).transforms[-1] == {"kind": "missingness", "mode": "drop", "public": True, "channels": []}
    old = prepare(cohort(), observed="append")
    assert old.transforms[-1]["mode"] == old.provenance.config["observed"] == "encode"


def test_public_preparation_of_a_stay_depends_on_no_other_stay() -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random((20, 6, 2)) < 0.5, rng.uniform(0, 200, (20, 6, 2)), N)
    static = np.stack([rng.uniform(0, 120, 20), rng.integers(1, 3, 20)], axis=1)
    together = prepare(cohort(values, static))
    for stay in range(20):
        alone = prepare(cohort(values[[stay]], static[[stay]]))
        np.testing.assert_array_equal(alone.features[0], together.features[stay])
        assert alone.transforms == together.transforms


def test_training_quantiles_are_marked_and_use_training_stays_only() -> None:
    values = np.stack([np.linspace(60, 120, 100), np.linspace(3, 5, 100)], axis=1).reshape(10, 10, 2)
    source = cohort(values, np.full((10, 2), 1.0))
    source.split[8:] = 2
    prepared = prepare(source, scaling="train_quantiles")
    assert not prepared.is_public_transform
    scaling = prepared.transforms[1]
    assert scaling["low"][:2] == pytest.approx(np.quantile(values[:8].reshape(-1, 2), 0.005, axis=0))
    assert scaling["high"][:2] == pytest.approx(np.quantile(values[:8].reshape(-1, 2), 0.995, axis=0))
    assert scaling["low"][2] == 20


def test_quantiles_of_nothing_or_of_a_point_fall_back_to_the_public_range() -> None:
    values = np.full((4, 3, 2), N)
    values[:, 0, 0] = 90
    scaling = prepare(cohort(values, np.ones((4, 2))), scaling="train_quantiles").transforms[1]
    assert (scaling["low"][:2], scaling["high"][:2]) == ([50, 2], [150, 6])


def test_transforms_are_plain_json_with_constants_and_units() -> None:
    transforms = prepare(cohort(), observed="encode").transforms
    assert json.loads(canonical_json(list(transforms)))[1] == {
        "kind": "scaling",
        "method": "public_ranges",
        "public": True,
        "channels": ["HR", "K", "age", "unit:x", "unit:y", "observed:HR", "observed:K"],
        "low": [50, 2, 20, 0, 0, 0, 0],
        "high": [150, 6, 100, 1, 1, 1, 1],
        "units": ["/min", "mmol/L", "years", *["0 or 1"] * 4],
        "plausible_low": [0, 0, 0, 0, 0, 0, 0],
        "plausible_high": [300, 20, 120, 1, 1, 1, 1],
        "static": ["age", "unit:x", "unit:y"],
    }
    assert transforms[0]["never_observed"] == {"HR": 80, "K": 4, "age": 60, "unit": 2}


def test_back_to_clinical_units() -> None:
    source = cohort()
    prepared = prepare(source)
    clinical = to_clinical_units(prepared.features, prepared.channels, prepared.transforms)
    assert clinical[0, 1, 0] == pytest.approx(100)
    assert clinical[0, 0, 2] == pytest.approx(40)
    picked = to_clinical_units(prepared.features[:, :, [1]], ("K",), prepared.transforms)
    np.testing.assert_array_equal(picked[:, :, 0], clinical[:, :, 1])
    with pytest.raises(DataError, match="does not know 1 of 1 channels"):
        to_clinical_units(prepared.features[:, :, [1]], ("wire0",), prepared.transforms)
    with pytest.raises(DataError, match="record no scaling"):
        to_clinical_units(prepared.features, prepared.channels, ())


def test_unknown_choice() -> None:
    bad: Any = "z_score"
    with pytest.raises(ConfigError, match="prepare knows"):
        prepare(cohort(), scaling=bad)
    with pytest.raises(ConfigError, match="observed drop, encode and release"):
        prepare(cohort(), observed=bad)


@pytest.mark.parametrize("aggregation", ["mean", "last", "max", "min", "sum"])
def test_a_volume_is_passed_once_and_a_level_lasts(aggregation: Any) -> None:
    """Of a sum an hour without a record adds nothing; a stay without any record has the constant."""
    urine = Variable("U", "mL/h", 0, 5000, 0, 500, 70, aggregation=aggregation)
    source = cohort([[[N], [100], [N], [400], [N]], [[N]] * 5], variables=(urine,))
    prepared = prepare(source)
    first = [0, 100, 0, 400, 0] if aggregation == "sum" else [70, 100, 100, 400, 400]
    np.testing.assert_allclose(500 * prepared.features[:, :, 0], [first, [70] * 5], rtol=1e-6)
    assert prepared.transforms[0].get("not_carried") == (["U"] if aggregation == "sum" else None)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_the_total_of_a_volume_is_what_was_recorded(seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((6, steps, 1)) < 0.4, rng.uniform(0, 400, (6, steps, 1)), N)
    urine = Variable("U", "mL/h", 0, 5000, 0, 500, 70, aggregation="sum")
    source = cohort(values, [[40, 1]] * 6, (urine,))
    totals = 500 * prepare(source).features[:, :, 0].sum(axis=1)
    recorded = np.where(source.observed.any(axis=(1, 2)), np.nansum(source.values[:, :, 0], axis=1), 70 * steps)
    np.testing.assert_allclose(totals, recorded, rtol=1e-5, atol=1e-3)
