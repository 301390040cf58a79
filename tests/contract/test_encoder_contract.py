"""One suite over everything registered as an encoder, at default options and at extremes."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import tracemalloc
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import pytest

from pipeline.core.digest import canonical_json
from pipeline.core.errors import DataError
from pipeline.core.protocols import Encoder, FittedEncoder
from pipeline.core.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task

REGISTERED = {entry.name: entry for entry in entry_points(group="decoct.encoders")}
EXTREMES: dict[str, list[dict[str, Any]]] = {
    "identity": [{}],
    "quantum": [
        {},
        {"n_qubits": 1, "n_layers": 1},
        {"n_qubits": 2},
        {"n_qubits": 10, "n_layers": 3},
        {"template": "StronglyEntanglingLayers", "axis": "variables"},
        {"template": "RandomLayers", "embedding": "RX", "correlations": True, "stride": 2},
        {"template": "StronglyEntanglingLayers", "n_qubits": 6, "correlations": True, "embedding": "RZ"},
    ],
    "random_projection": [
        {},
        {"window": 1},
        {"axis": "variables"},
        {"axis": "variables", "n_components": 2},
        {"n_components": 1},
        {"window": 6, "distribution": "orthogonal", "n_components": 5},
        {"distribution": "rademacher"},
    ],
}
CASES = [
    pytest.param(name, options, id=f"{name}-{json.dumps(options)}")
    for name in REGISTERED
    for options in EXTREMES.get(name, [{}])
]
SHAPES = [(3, 48, 5), (1, 1, 1), (2, 3, 1), (4, 50, 7), (0, 48, 3), (1, 1, 9)]
KEY = Secret(bytes(range(32)), "encoder")
OTHER_KEY = Secret(bytes(range(1, 33)), "encoder")


def make(name: str, options: dict[str, Any]) -> Encoder:
    encoder = REGISTERED[name].load()(**options)
    assert isinstance(encoder, Encoder)
    return encoder


def cohort_of(shape: tuple[int, int, int]) -> EncodedCohort:
    stays, steps, channels = shape
    rng = np.random.default_rng(7)
    return EncodedCohort(
        features=rng.random((stays, steps, channels), dtype=np.float32),
        labels=rng.integers(0, 2, (stays, 1)).astype(np.float32),
        subject_index=np.arange(stays, dtype=np.int32),
        split=np.zeros(stays, np.int8),
        channels=tuple(f"channel_{index}" for index in range(channels)),
        tasks=(Task("death"),),
        step_hours=0.5,
        transforms=({"kind": "prepared", "public": True},),
        provenance=Provenance(stage="prepare"),
    )


def test_the_three_encoders_are_registered() -> None:
    assert {"identity", "quantum", "random_projection"} <= set(REGISTERED)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_encode_keeps_the_cohort_consistent(name: str, options: dict[str, Any], shape: tuple[int, int, int]) -> None:
    cohort = cohort_of(shape)
    fitted = make(name, options).fit(cohort, KEY)
    assert isinstance(fitted, FittedEncoder)
    encoded = fitted.encode(cohort)  # its constructor checks shapes and finiteness
    spec = fitted.public_spec()

    assert encoded.features.dtype == np.float32
    assert encoded.transforms == (*cohort.transforms, spec)
    assert len(set(encoded.channels)) == len(encoded.channels) == encoded.features.shape[2]
    added = spec.get("padded_steps", spec.get("padded_positions", 0)) if spec["axis"] == "time" else 0
    overlap = spec["window"] - spec.get("stride", spec["window"]) if spec["axis"] == "time" else 0
    hours = cohort.step_hours * (shape[1] + added - overlap)  # a window stands for `stride` steps
    assert encoded.step_hours * encoded.features.shape[1] == pytest.approx(hours)
    for untouched in ("labels", "subject_index", "split"):
        assert getattr(encoded, untouched) is getattr(cohort, untouched)
    assert encoded.tasks == cohort.tasks


@pytest.mark.parametrize(("name", "options"), CASES)
def test_public_spec_is_plain_named_and_public(name: str, options: dict[str, Any]) -> None:
    spec = make(name, options).fit(cohort_of((2, 10, 6)), KEY).public_spec()
    assert spec["kind"] == name
    assert spec["public"] is True
    assert json.loads(canonical_json(dict(spec))) == spec
    assert options.items() <= spec.items()
    assert spec["window"] >= 1
    assert spec["axis"] in ("time", "variables")


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_key_alone_decides(name: str, options: dict[str, Any]) -> None:
    encoder = make(name, options)
    cohort = cohort_of((5, 26, 9))
    fitted = encoder.fit(cohort, KEY)
    first = fitted.encode(cohort).features
    again = make(name, options).fit(cohort_of((1, 26, 9)), Secret(bytes(range(32)), "encoder")).encode(cohort).features
    assert first.tobytes() == again.tobytes()
    if fitted.public_spec()["key_fingerprint"] is None:
        return
    other = encoder.fit(cohort, OTHER_KEY)
    assert other.public_spec()["key_fingerprint"] != fitted.public_spec()["key_fingerprint"]
    if options == {"window": 1} or options.get("n_components") == 1 or options.get("distribution") == "rademacher":
        return  # so few bits of matrix that two keys may agree
    assert np.abs(other.encode(cohort).features - first).max() > 1e-3


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_stay_is_encoded_alone_exactly_as_among_others(name: str, options: dict[str, Any], dtype: Any) -> None:
    """Whatever the cutting into blocks, the same bits; and the input may be read-only and strided."""
    features = np.random.default_rng(1).random((300, 51, 45)).astype(dtype)  # more than one block
    fitted = make(name, options).fit(cohort_of((1, 51, 45)), KEY)
    whole = fitted.encode_array(features)
    assert whole.dtype == dtype
    for stay in (0, 123, 299):
        alone = fitted.encode_array(features[stay : stay + 1])
        np.testing.assert_array_equal(alone[0], whole[stay])
    strided = np.asfortranarray(features[::50])
    strided.setflags(write=False)
    np.testing.assert_allclose(fitted.encode_array(strided), whole[::50], atol=1e-6)
    assert not np.shares_memory(whole, features)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("shape", [(1500, 50, 45), (1, 70_000, 45), (9, 6, 60_000)], ids=str)
def test_memory_is_input_plus_output_plus_little(
    name: str, options: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    features = np.zeros(shape, np.float32)
    fitted = make(name, options).fit(cohort_of((1, 2, 2)), KEY)
    tracemalloc.start()
    encoded = fitted.encode_array(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= encoded.nbytes + 64 * 2**20


@pytest.mark.parametrize(("name", "options"), CASES)
def test_nothing_secret_is_shown_logged_or_pickled(
    name: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    cohort = cohort_of((2, 10, 6))
    with caplog.at_level(logging.DEBUG):
        fitted = make(name, options).fit(cohort, KEY)
        encoded = fitted.encode(cohort)
    shown = repr(fitted) + str(fitted) + repr(encoded) + json.dumps(fitted.public_spec()) + caplog.text
    assert KEY.reveal().hex() not in shown
    told = {name: value for name, value in fitted.public_spec().items() if name not in ("scheme", "embedding_range")}
    assert "." not in json.dumps(told)  # no float at all but those that are options, so no parameter
    assert "array" not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        if fitted.public_spec()["key_fingerprint"] is not None:
            with pytest.raises(TypeError, match="cannot be pickled"):
                leak(fitted)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_wrong_input_is_refused(name: str, options: dict[str, Any]) -> None:
    fitted = make(name, options).fit(cohort_of((2, 10, 6)), KEY)
    for wrong in (np.zeros((2, 3), np.float32), np.zeros((2, 3, 4), np.int64)):
        with pytest.raises(DataError, match="float32 or float64"):
            fitted.encode_array(wrong)
    if name != "identity":
        for shape in ((2, 11, 6), (2, 10, 7)):
            with pytest.raises(DataError, match="fit it again"):
                fitted.encode(cohort_of(shape))
