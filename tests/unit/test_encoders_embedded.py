"""The encoders on real stays: shape, range, agreement with PennyLane, and what clinical scaling does to them."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from pipeline.core.secrets import Secret
from pipeline.core.types import EncodedCohort, Split
from pipeline.ingest.cohort import build_cohort
from pipeline.ingest.mapping import load_mapping
from pipeline.ingest.readers import read_source
from pipeline.ingest.scaling import prepare

KEY = Secret(bytes(range(32)), "encoder")


@pytest.fixture(scope="module")
def prepared() -> EncodedCohort:
    tables = read_source("embedded", sets=("a",), max_stays=150)
    split = np.full(150, Split.TRAIN, np.int8)
    cohort, _ = build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, split=split)
    return prepare(cohort)


def test_real_stays_are_encoded_in_shape_and_range(prepared: EncodedCohort, caplog: pytest.LogCaptureFixture) -> None:
    for encoder in (QuantumEncoder(), RandomProjectionEncoder(), RandomProjectionEncoder(axis="variables")):
        with caplog.at_level(logging.WARNING):
            encoded = encoder.fit(prepared, KEY).encode(prepared)
        assert not caplog.records  # prepared values lie in [0, 1]
        missing = (
            encoded.transforms[-1].get("padded_positions", 0) if encoded.transforms[-1]["axis"] == "variables" else 0
        )
        assert encoded.features.shape == (*prepared.features.shape[:2], prepared.features.shape[2] + missing)
    quantum = QuantumEncoder().fit(prepared, KEY).encode(prepared)
    assert np.abs(quantum.features).max() <= 1 + 1e-6
    assert quantum.is_public_transform


def test_real_windows_agree_with_the_circuit(prepared: EncodedCohort) -> None:
    import pennylane as qml

    angles = QuantumEncoder().parameters(KEY).weights

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
    ours = QuantumEncoder().fit(prepared, KEY).encode_array(stay)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)


def test_a_variable_scaled_to_the_middle_is_wiped_out(prepared: EncodedCohort) -> None:
    """Stated in docs/encoders.md: windows of exactly 1/2 (sodium 140 on 115 to 165) all encode to zero."""
    sodium = prepared.channels.index("Na")
    windows = prepared.features[:, :, sodium].reshape(150, 12, 4)
    middle = (windows == 0.5).all(axis=2)
    encoded = QuantumEncoder().fit(prepared, KEY).encode(prepared).features[:, :, sodium].reshape(150, 12, 4)
    assert middle.sum() > 20
    np.testing.assert_allclose(encoded[middle], 0, atol=1e-6)
