"""The encoders on real stays: shape, range, agreement with PennyLane, and what clinical scaling does to them."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
from sklearn.random_projection import GaussianRandomProjection

from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from encoders.windows import Axis
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import Cohort, EncodedCohort, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source

KEY = Secret(bytes(range(32)), "encoder")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    tables = read_source("embedded", sets=("a",), max_stays=150)
    split = np.full(150, Split.TRAIN, np.int8)
    return build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, split=split)[0]


@pytest.fixture(scope="module")
def prepared(cohort: Cohort) -> EncodedCohort:
    return prepare(cohort)


def test_real_stays_are_encoded_in_shape_and_range(prepared: EncodedCohort, caplog: pytest.LogCaptureFixture) -> None:
    for encoder in (QuantumEncoder(), RandomProjectionEncoder(), RandomProjectionEncoder(axis="variables")):
        with caplog.at_level(logging.WARNING):
            encoded = encoder.fit(prepared, KEY).encode(prepared)
        assert not caplog.records  # prepared values lie in [0, 1]
        spec = encoded.transforms[-1]
        missing = spec["padded_positions"] if spec["axis"] == "variables" else 0
        assert encoded.features.shape == (*prepared.features.shape[:2], prepared.features.shape[2] + missing)
    quantum = QuantumEncoder().fit(prepared, KEY).encode(prepared)
    assert np.abs(quantum.features).max() <= 1 + 1e-6
    assert quantum.is_public_transform


def test_real_windows_agree_with_the_circuit(prepared: EncodedCohort) -> None:
    import pennylane as qml

    published = QuantumEncoder(embedding_range=(0, 1))
    angles = published.parameters(KEY).weights

    @qml.qnode(qml.device("default.qubit", wires=4))
    def circuit(values: np.ndarray) -> list[object]:
        for wire in range(4):
            qml.RY(np.pi * values[:, wire], wires=wire)
        qml.BasicEntanglerLayers(angles, wires=range(4))
        return [qml.expval(qml.PauliZ(wire)) for wire in range(4)]

    stay = prepared.features[:1].astype(np.float64)
    windows = stay.reshape(12, 4, -1).transpose(0, 2, 1).reshape(-1, 4)
    expected = np.stack([np.asarray(output) for output in circuit(windows)], axis=1)
    expected = expected.reshape(12, -1, 4).transpose(0, 2, 1).reshape(1, 48, -1)
    ours = published.fit(prepared, KEY).encode_array(stay)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)


def test_a_variable_scaled_to_the_middle_is_wiped_out(prepared: EncodedCohort) -> None:
    """Stated in docs/encoders.md: as published, windows of 1/2 (sodium 140 on 115 to 165) encode to zero."""
    sodium = prepared.channels.index("Na")
    windows = prepared.features[:, :, sodium].reshape(150, 12, 4)
    middle = (windows == 0.5).all(axis=2)
    assert middle.sum() > 20

    def encoded(encoder: QuantumEncoder) -> np.ndarray:
        features = encoder.fit(prepared, KEY).encode(prepared).features
        return np.asarray(features[:, :, sodium].reshape(150, 12, 4)[middle])

    np.testing.assert_allclose(encoded(QuantumEncoder(embedding_range=(0, 1))), 0, atol=1e-6)
    assert np.abs(encoded(QuantumEncoder())).max() > 0.05


@pytest.mark.parametrize(("axis", "n_components"), [("time", 3), ("variables", 3), ("record", 64)])
def test_real_windows_agree_with_scikit_learn(prepared: EncodedCohort, axis: Axis, n_components: int) -> None:
    series = prepared.features[:, :, :44]
    alone = dataclasses.replace(prepared, features=series, channels=prepared.channels[:44])
    fitted = RandomProjectionEncoder(axis=axis, n_components=n_components).fit(alone, KEY)
    geometry = fitted.geometry
    rows = geometry.lanes(series).reshape(150, -1, geometry.width, series.size // 150 // geometry.positions(48, 44))
    rows = rows.transpose(0, 3, 1, 2).reshape(-1, geometry.width)
    theirs = GaussianRandomProjection(n_components).fit(rows)
    theirs.components_ = fitted.weights[0].astype(np.float32)
    ours = geometry.slots(fitted.encode(alone).features, n_components).transpose(0, 3, 1, 2).reshape(-1, n_components)
    np.testing.assert_allclose(ours, theirs.transform(rows), rtol=0, atol=2e-5)


def test_released_masks_of_real_stays_leave_as_they_are(cohort: Cohort, prepared: EncodedCohort) -> None:
    released = prepare(cohort, observed="release")
    for encoder in (QuantumEncoder(), RandomProjectionEncoder(), RandomProjectionEncoder(axis="variables")):
        encoded = encoder.fit(released, KEY).encode(released)
        without = encoder.fit(prepared, KEY).encode(prepared)
        masks = [name for name in encoded.channels if name.startswith("observed:")]
        assert encoded.channels == (*without.channels, *masks)
        np.testing.assert_array_equal(encoded.features[:, :, : len(without.channels)], without.features)
        np.testing.assert_array_equal(encoded.features[:, :, len(without.channels) :], cohort.observed)
    encoded_too = prepare(cohort, observed="encode")
    hidden = RandomProjectionEncoder().fit(encoded_too, KEY).encode(encoded_too)
    mask = hidden.features[:, :, hidden.channels.index(masks[0])]
    assert len(np.unique(mask)) > 2  # no longer 0 or 1
