"""One suite over everything registered as an encoder, at default options and at extremes."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
import tracemalloc
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from encoders.windows import encoded_names
from pipeline.core.digest import canonical_json
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import Encoder, FittedEncoder
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
        {"key_scope": "per_channel"},
        {"shots": 64, "noise_sd": 0.05},
    ],
    "random_projection": [
        {},
        {"window": 1},
        {"axis": "variables"},
        {"axis": "variables", "n_components": 2},
        {"n_components": 1},
        {"window": 6, "distribution": "orthogonal", "n_components": 5},
        {"distribution": "rademacher"},
        {"stride": 1, "n_components": 1},
        {"window": 60, "stride": 7, "distribution": "sparse", "n_components": 9},
        {"axis": "variables", "window": 3, "stride": 2},
        {"axis": "record", "n_components": 1},
        {"key_scope": "per_channel", "stride": 2, "n_components": 2},
        {"noise_sd": 0.5},
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
NOISE = NoiseSource(Secret(bytes(32), "noise"), "digest of the cohort")
RELEASED = ("observed:a", "observed:b")
PUBLIC_NUMBERS = ("scheme", "embedding_range", "density", "noise", "leakage_bound")
IN_ANOTHER_PROCESS = """
import hashlib, json, sys
from importlib.metadata import entry_points
import numpy as np
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task
registered = {entry.name: entry for entry in entry_points(group="decoct.encoders")}
for name, options in json.load(sys.stdin):
    features = np.random.default_rng(7).random((30, 26, 9), dtype=np.float32)
    cohort = EncodedCohort(
        features, np.zeros((30, 1), np.float32), np.arange(30, dtype=np.int32), np.zeros(30, np.int8),
        tuple(f"channel_{i}" for i in range(9)), (Task("death"),), 0.5, (), Provenance(stage="prepare"))
    fitted = registered[name].load()(**options).fit(cohort, Secret(bytes(range(32)), "encoder"))
    print(hashlib.sha256(fitted.encode_array(features).tobytes()).hexdigest())
"""


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


def with_masks(shape: tuple[int, int, int]) -> EncodedCohort:
    """A cohort with two released mask channels, one of them not at the end."""
    cohort = cohort_of((shape[0], shape[1], shape[2] + 2))
    names = (*(f"channel_{index}" for index in range(shape[2] - 1)), RELEASED[0], "last", RELEASED[1])
    features = cohort.features.copy()
    features[:, :, [-3, -1]] = features[:, :, [-3, -1]] > 0.5
    told = {"kind": "missingness", "mode": "release", "public": True, "channels": list(RELEASED)}
    return dataclasses.replace(cohort, features=features, channels=names, transforms=(*cohort.transforms, told))


def is_noisy(fitted: FittedEncoder) -> bool:
    return fitted.public_spec()["noise"] != {"kind": "none"}


def test_the_three_encoders_are_registered() -> None:
    assert {"identity", "quantum", "random_projection"} <= set(REGISTERED)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_encode_keeps_the_cohort_consistent(name: str, options: dict[str, Any], shape: tuple[int, int, int]) -> None:
    cohort = cohort_of(shape)
    fitted = make(name, options).fit(cohort, KEY)
    assert isinstance(fitted, FittedEncoder)
    encoded = fitted.encode(cohort, NOISE)  # its constructor checks shapes and finiteness
    spec = fitted.public_spec()

    assert encoded.features.dtype == np.float32
    assert encoded.transforms == (*cohort.transforms, spec)
    assert len(set(encoded.channels)) == len(encoded.channels) == encoded.features.shape[2]
    if spec["axis"] == "time":  # every window stands for `stride` steps, the last one for all it holds
        overlap = spec["window"] - spec["stride"]
        steps = shape[1] + spec["padded_positions"] - overlap
    else:
        steps = shape[1]
    assert encoded.step_hours * encoded.features.shape[1] == pytest.approx(cohort.step_hours * steps)
    for untouched in ("labels", "subject_index", "split"):
        assert getattr(encoded, untouched) is getattr(cohort, untouched)
    assert encoded.tasks == cohort.tasks


@pytest.mark.parametrize(("name", "options"), CASES)
def test_public_spec_is_plain_named_and_public(name: str, options: dict[str, Any]) -> None:
    spec = make(name, options).fit(cohort_of((2, 10, 6)), KEY).public_spec()
    assert spec["kind"] == name
    assert spec["public"] is True
    assert json.loads(canonical_json(dict(spec))) == spec
    assert options.items() <= {**spec, **spec["noise"]}.items()
    assert 1 <= spec["stride"] <= spec["window"]
    assert spec["axis"] in ("time", "variables", "record")
    assert spec["padded_positions"] >= 0
    assert spec["leakage_bound"] is None or is_noisy(make(name, options).fit(cohort_of((2, 10, 6)), KEY))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_key_alone_decides(name: str, options: dict[str, Any]) -> None:
    encoder = make(name, options)
    cohort = cohort_of((5, 26, 9))
    fitted = encoder.fit(cohort, KEY)
    first = fitted.encode_array(cohort.features)
    again = make(name, options).fit(cohort_of((1, 26, 9)), Secret(bytes(range(32)), "encoder"))
    assert first.tobytes() == again.encode_array(cohort.features).tobytes()
    if fitted.public_spec()["key_fingerprint"] is None:
        return
    other = encoder.fit(cohort, OTHER_KEY)
    assert other.public_spec()["key_fingerprint"] != fitted.public_spec()["key_fingerprint"]
    if options == {"distribution": "rademacher"}:
        return  # 16 bits of matrix, with which two keys may agree
    assert np.abs(other.encode_array(cohort.features) - first).max() > 1e-3


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_stay_is_encoded_alone_exactly_as_among_others(name: str, options: dict[str, Any], dtype: Any) -> None:
    """Whatever the cutting into blocks, the same bits; and the input may be read-only and strided."""
    features = np.random.default_rng(1).random((300, 51, 45)).astype(dtype)  # more than one block of most
    fitted = make(name, options).fit(cohort_of((1, 51, 45)), KEY)
    whole = fitted.encode_array(features)
    assert whole.dtype == dtype
    assert not np.shares_memory(whole, features)
    for stay in (0, 123, 299):
        alone = fitted.encode_array(features[stay : stay + 1])
        np.testing.assert_array_equal(alone[0], whole[stay])
    strided = np.asfortranarray(features[::50])
    expected = fitted.encode_array(features[::50].copy())
    strided.setflags(write=False)
    np.testing.assert_allclose(fitted.encode_array(strided), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_number_of_threads_does_not_show(name: str, options: dict[str, Any], dtype: Any) -> None:
    features = np.random.default_rng(2).random((560, 48, 44)).astype(dtype)
    fitted = make(name, options).fit(cohort_of((1, 48, 44)), KEY)
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with threadpool_limits(limits=count, user_api="blas"):
                results.append(fitted.encode_array(features).tobytes())
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1]


def test_another_process_encodes_the_same_bytes() -> None:
    asked = [case.values for case in CASES]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    ran = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        input=json.dumps(asked),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    features = np.random.default_rng(7).random((30, 26, 9), dtype=np.float32)
    here = [
        hashlib.sha256(make(name, options).fit(cohort_of((1, 26, 9)), KEY).encode_array(features).tobytes())
        for name, options in asked
    ]
    assert ran.stdout.split() == [digest.hexdigest() for digest in here]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_noise_comes_from_the_source_and_from_nowhere_else(name: str, options: dict[str, Any]) -> None:
    cohort = cohort_of((40, 24, 9))
    fitted = make(name, options).fit(cohort, KEY)
    exact = fitted.encode_array(cohort.features)
    if not is_noisy(fitted):
        np.testing.assert_array_equal(fitted.encode(cohort).features, exact)
        return
    with pytest.raises(ConfigError, match="noise source"):
        fitted.encode(cohort)
    first = fitted.encode(cohort, NOISE).features
    assert fitted.encode(cohort, NOISE).features.tobytes() == first.tobytes()
    other = fitted.encode(cohort, NoiseSource(Secret(bytes(32), "noise"), "another cohort")).features
    elsewhere = fitted.encode(cohort, NoiseSource(Secret(bytes(range(32)), "noise"), "digest of the cohort")).features
    for noisy in (first, other, elsewhere):
        assert np.abs(noisy - exact).std() > 0.01
    for unrelated in (other, elsewhere):
        correlation = np.corrcoef((first - exact).ravel(), (unrelated - exact).ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(exact.size)  # 5 standard errors of the correlation of independent noise


@pytest.mark.parametrize(("name", "options"), CASES)
def test_released_masks_pass_unchanged_or_are_refused(name: str, options: dict[str, Any]) -> None:
    cohort = with_masks((6, 26, 9))
    masks = cohort.features[:, :, [-3, -1]]
    fitted = make(name, options).fit(cohort, KEY)
    spec = fitted.public_spec()
    square = spec["window"] == spec["stride"] == spec.get("n_components", spec["window"])
    if spec["axis"] == "record" or (spec["axis"] == "time" and (not square or spec.get("correlations"))):
        with pytest.raises(ConfigError, match="encode or drop them"):
            fitted.encode(cohort, NOISE)
        return
    encoded = fitted.encode(cohort, NOISE)
    found = encoded.features[:, :, [encoded.channels.index(channel) for channel in RELEASED]]
    np.testing.assert_array_equal(found[:, :26], masks)
    assert not found[:, 26:].any()  # steps that were filled up were not observed
    assert len(encoded_names(encoded)) == len(encoded.channels) - 2
    if name == "identity":
        return
    assert encoded.channels[-2:] == RELEASED
    plain = dataclasses.replace(
        cohort,
        features=np.delete(cohort.features, [8, 10], axis=2),
        channels=tuple(channel for channel in cohort.channels if channel not in RELEASED),
        transforms=(),
    )
    without = make(name, options).fit(plain, KEY).encode(plain, NOISE)
    np.testing.assert_array_equal(encoded.features[:, :, :-2], without.features)
    assert encoded.channels[:-2] == without.channels


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("shape", [(1500, 50, 45), (1, 70_000, 45), (9, 6, 60_000)], ids=str)
def test_memory_is_input_plus_output_plus_little(
    name: str, options: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    if options.get("key_scope") == "per_channel":
        shape = (shape[0], shape[1], min(shape[2], 500))  # a matrix for every channel takes its time
    features = np.zeros(shape, np.float32)
    fitted_to = (1, 2, shape[2]) if options.get("key_scope") == "per_channel" else (1, 2, 2)
    if options.get("axis") == "record":
        fitted_to = (1, *shape[1:])
    fitted = make(name, options).fit(cohort_of(fitted_to), KEY)
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
        encoded = fitted.encode(cohort, NOISE)
    shown = repr(fitted) + str(fitted) + repr(encoded) + json.dumps(fitted.public_spec()) + caplog.text
    assert KEY.reveal().hex() not in shown
    told = {field: value for field, value in fitted.public_spec().items() if field not in PUBLIC_NUMBERS}
    assert "." not in json.dumps(told)  # no float at all but those that are options, so no parameter
    for bound in (fitted.public_spec()["leakage_bound"] or {}).values():  # computed with the key, so in two digits
        assert not isinstance(bound, float) or bound == float(f"{bound:.1e}")
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
                fitted.encode(cohort_of(shape), NOISE)
