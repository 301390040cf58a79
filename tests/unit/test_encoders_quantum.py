"""The quantum encoding against its definition (PennyLane), against hand calculation, and its stated weaknesses."""

from __future__ import annotations

import logging
import math
import subprocess
import sys

import numpy as np
import pytest

from encoders.circuit import evaluated, expectation_terms, factorised
from encoders.quantum import FittedQuantumEncoder, QuantumEncoder
from pipeline.core.errors import ConfigError
from pipeline.core.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance

KEY = Secret(bytes(range(32)), "encoder")
GOLDEN_ANGLES = [  # of KEY, 4 qubits, 2 layers
    [3.12573175625139, 3.31621154642253, 6.09814419269041, 0.07275100960762],
    [2.99943689401367, 1.03348313391184, 5.73176038863450, 0.19892184746099],
]


def cohort_of(features: np.ndarray) -> EncodedCohort:
    stays = len(features)
    return EncodedCohort(
        features=features.astype(np.float32),
        labels=np.zeros((stays, 0), np.float32),
        subject_index=np.arange(stays, dtype=np.int32),
        split=np.zeros(stays, np.int8),
        channels=tuple(f"c{index}" for index in range(features.shape[2])),
        tasks=(),
        step_hours=1.0,
        transforms=(),
        provenance=Provenance(stage="prepare"),
    )


def fit(key: Secret = KEY, **options: int) -> FittedQuantumEncoder:
    return QuantumEncoder(**options).fit(cohort_of(np.zeros((1, 48, 1))), key)


def oracle(angles: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """<Z_j> of PennyLane's own circuit: (window, qubit)."""
    import pennylane as qml

    n_qubits = angles.shape[1]

    @qml.qnode(qml.device("default.qubit", wires=n_qubits))
    def circuit(values: np.ndarray) -> list[object]:
        for wire in range(n_qubits):
            qml.RY(np.pi * values[:, wire], wires=wire)
        qml.BasicEntanglerLayers(angles, wires=range(n_qubits))
        return [qml.expval(qml.PauliZ(wire)) for wire in range(n_qubits)]

    return np.stack([np.asarray(output) for output in circuit(windows)], axis=1)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("n_qubits", range(1, 9))
def test_the_polynomials_are_the_circuit(n_qubits: int, n_layers: int) -> None:
    rng = np.random.default_rng([n_qubits, n_layers])
    windows = rng.uniform(-1.5, 1.5, (20, n_qubits))
    for _ in range(3):
        angles = rng.uniform(0, 2 * np.pi, (n_layers, n_qubits))
        planes = np.pi * windows.T.reshape(n_qubits, 20, 1, 1)
        terms = expectation_terms(angles)
        ours = [
            evaluated(factorised(t, tuple(range(n_qubits))), np.cos(planes), np.sin(planes))[:, 0, 0] for t in terms
        ]
        np.testing.assert_allclose(np.stack(ours, axis=1), oracle(angles, windows), rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"n_qubits": 1}, {"n_qubits": 2, "n_layers": 3}, {"n_qubits": 6}])
def test_the_encoder_is_the_circuit_window_by_window(options: dict[str, int]) -> None:
    """Cutting, order of steps and channels, padding with the last value; float64 and float32."""
    encoder = QuantumEncoder(**options)
    n_qubits = encoder.n_qubits
    features = np.random.default_rng(3).random((3, 2 * n_qubits + 1, 2))
    encoded = fit(**options).encode_array(features)
    padded = np.pad(features, ((0, 0), (0, n_qubits - 1), (0, 0)), mode="edge")
    angles = encoder.angles(KEY)
    for channel in range(2):
        windows = padded[:, :, channel].reshape(-1, n_qubits)
        expected = oracle(angles, windows).reshape(3, -1)
        np.testing.assert_allclose(encoded[:, :, channel], expected, rtol=0, atol=1e-10)
    single = fit(**options).encode_array(features.astype(np.float32))
    np.testing.assert_allclose(single, encoded, rtol=0, atol=2e-6)


def test_one_qubit_by_hand() -> None:
    """RX after RY on |0>: <Z> = cos(theta) cos(pi x)."""
    theta = float(QuantumEncoder(n_qubits=1, n_layers=1).angles(KEY)[0, 0])
    encoded = fit(n_qubits=1, n_layers=1).encode_array(np.array([[[0.0], [0.25], [1.0]]]))
    np.testing.assert_allclose(encoded.ravel(), math.cos(theta) * np.array([1, math.sqrt(0.5), -1]), atol=1e-15)


def test_each_output_is_some_cosines_times_the_other_wires_sines() -> None:
    """The structure that makes the fast path fast, and the encoder weak; public, whatever the angles."""
    for n_qubits, n_layers in ((4, 2), (5, 3), (8, 2)):
        angles = np.random.default_rng(n_qubits).uniform(0, 2 * np.pi, (n_layers, n_qubits))
        for words in expectation_terms(angles):
            masks = {"".join("c" if symbol == "c" else "-" for symbol in word) for word in words}
            assert len(masks) == 1
    assert [len(words) for words in expectation_terms(np.full((2, 4), 0.3))] == [2, 2, 4, 4]


def test_four_known_windows_identify_the_default_encoder() -> None:
    """Stated in docs/encoders.md: without the key, four aligned windows give the map, by least squares."""
    rng = np.random.default_rng(5)
    words = [tuple(terms) for terms in expectation_terms(np.full((2, 4), 0.3))]  # public: the same for every key
    known, unseen = rng.random((4, 4, 1)), rng.random((500, 4, 1))

    def monomials(windows: np.ndarray, output: int) -> np.ndarray:
        basis = {"1": np.ones_like(windows), "c": np.cos(np.pi * windows), "s": np.sin(np.pi * windows)}
        return np.stack([np.prod([basis[s][:, j, 0] for j, s in enumerate(w)], axis=0) for w in words[output]], axis=1)

    encode = fit().encode_array
    for output in range(4):
        solved = np.linalg.lstsq(monomials(known, output), encode(known)[:, output, 0])[0]
        np.testing.assert_allclose(monomials(unseen, output) @ solved, encode(unseen)[:, output, 0], atol=1e-6)


def test_the_middle_of_the_range_hides_its_neighbours() -> None:
    """cos(pi / 2) = 0: a value of exactly 1/2 wipes out every output whose cosines it is among."""
    windows = np.random.default_rng(6).random((10, 4, 1))
    windows[:, :2] = 0.5
    np.testing.assert_allclose(fit().encode_array(windows), 0, atol=1e-15)


def test_values_outside_the_unit_interval_alias_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    inside = np.random.default_rng(8).random((2, 48, 1))
    outside = inside.copy()
    outside[0, 0, 0] += 2
    outside[1, 5, 0] *= -1  # <Z> of RY(-a) differs by the sines' sign only
    np.testing.assert_allclose(fit().encode_array(outside)[0], fit().encode_array(inside)[0], atol=1e-12)
    with caplog.at_level(logging.WARNING, logger="decoct"):
        fit().encode(cohort_of(inside))
        assert not caplog.records
        fit().encode(cohort_of(outside))
    assert [record.getMessage().split(" of ")[0] for record in caplog.records] == ["2.08 %"]  # 2 of 96


def test_range_and_distinctness() -> None:
    encoded = fit().encode_array(np.random.default_rng(9).random((200, 48, 3)))
    assert np.abs(encoded).max() <= 1 + 1e-12
    assert len(np.unique(encoded.reshape(200, -1).round(9), axis=0)) == 200


def test_angles_come_from_the_key_for_this_circuit() -> None:
    """Golden: the same key must give the same encoder in every later version, or scheme v1 must become v2."""
    angles = QuantumEncoder().angles(KEY)
    assert angles.shape == (2, 4)
    np.testing.assert_allclose(angles, GOLDEN_ANGLES, rtol=0, atol=1e-12)
    flat = np.concatenate([QuantumEncoder(n_qubits=n, n_layers=layers).angles(KEY).ravel()
                           for n, layers in ((4, 2), (4, 3), (5, 2))])  # fmt: skip
    assert len(np.unique(flat)) == flat.size  # another circuit shares no angle
    assert (flat > 0).all()
    assert (flat < 2 * np.pi).all()


def test_another_process_encodes_to_the_same_bytes() -> None:
    program = (
        "import hashlib, numpy as np\n"
        "from encoders.quantum import QuantumEncoder\n"
        "from pipeline.core.secrets import Secret\n"
        "class Cohort: features = np.zeros((1, 48, 3))\n"
        "fitted = QuantumEncoder().fit(Cohort, Secret(bytes(range(32)), 'encoder'))\n"
        "x = np.random.default_rng(2).random((50, 49, 3), dtype=np.float32)\n"
        "print(hashlib.sha256(fitted.encode_array(x).tobytes()).hexdigest())\n"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_impossible_circuits_are_refused() -> None:
    for options in ({"n_qubits": 0}, {"n_qubits": 11}, {"n_layers": 0}, {"template": "RandomLayers"}):
        with pytest.raises(ConfigError):
            QuantumEncoder(**options)
