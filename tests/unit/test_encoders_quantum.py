"""The quantum encoding of series against its definition (PennyLane), against hand calculation, and its weaknesses."""

from __future__ import annotations

import hashlib
import logging
import math
import pickle
import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pennylane as qml
import pytest
import torch
from threadpoolctl import threadpool_limits

from encoders.circuits.gates import Template, circuit_gates
from encoders.circuits.pauli import expectation_words, observables
from encoders.circuits.pennylane_backend import SEEDED
from encoders.quantum import FittedQuantumEncoder, QuantumEncoder
from pipeline.core.errors import ConfigError, DataError, EnvironmentProblem
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance

KEY = Secret(bytes(range(32)), "encoder")
SITE = Secret(bytes(range(1, 33)), "noise")
GOLDEN_ANGLES = [  # of KEY, default options
    [3.77570882034066, 4.05639857122744, 5.24111118270969, 2.17572497405354],
    [2.80306900207679, 4.61071679843576, 5.22877976591287, 4.97732541671421],
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


def fit(key: Secret = KEY, channels: int = 1, **options: Any) -> FittedQuantumEncoder:
    return QuantumEncoder(**options).fit(cohort_of(np.zeros((1, 48, channels))), key)


def oracle(encoder: QuantumEncoder, windows: np.ndarray, channel: str | None = None) -> np.ndarray:
    """PennyLane's own circuit, written as it would be by hand: (window, output)."""
    n_qubits = encoder.n_qubits
    drawn = encoder.parameters(KEY, channel)
    low, high = encoder.embedding_range

    @qml.qnode(qml.device("default.qubit", wires=n_qubits))
    def circuit(values: np.ndarray) -> list[object]:
        for wire in range(n_qubits):
            if encoder.embedding == "RZ":
                qml.Hadamard(wire)
            getattr(qml, encoder.embedding)(np.pi * (low + (high - low) * values[:, wire]), wires=wire)
        placed = {} if drawn.seed is None else {"seed": drawn.seed}
        getattr(qml, encoder.template)(drawn.weights, wires=range(n_qubits), **placed)
        singles = [qml.expval(qml.PauliZ(wire)) for wire in range(n_qubits)]
        pairs = [(j, k) for j in range(n_qubits) for k in range(j + 1, n_qubits)] if encoder.correlations else []
        return singles + [qml.expval(qml.PauliZ(j) @ qml.PauliZ(k)) for j, k in pairs]

    return np.stack([np.broadcast_to(np.asarray(output), len(windows)) for output in circuit(windows)], axis=1)


def expected_series(encoder: QuantumEncoder, features: np.ndarray) -> np.ndarray:
    """Windows cut by a loop, the last one filled with its last value, each encoded by PennyLane."""
    series = features if encoder.axis == "time" else features.transpose(0, 2, 1)
    width, stride = encoder.n_qubits, encoder.stride or encoder.n_qubits
    lanes = []
    for lane in range(series.shape[2]):
        rows, start = [], 0
        while start == 0 or start - stride + width < series.shape[1]:
            places = [min(place, series.shape[1] - 1) for place in range(start, start + width)]
            owner = f"c{lane}" if encoder.key_scope == "per_channel" else None
            rows.append(oracle(encoder, series[:, places, lane], owner))
            start += stride
        lanes.append(np.concatenate(rows, axis=1))
    encoded = np.stack(lanes, axis=2)
    return encoded if encoder.axis == "time" else encoded.transpose(0, 2, 1)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"n_qubits": 1},
    {"n_qubits": 2, "n_layers": 3},
    {"n_qubits": 6},
    {"template": "StronglyEntanglingLayers"},
    {"template": "RandomLayers", "embedding": "RX", "n_qubits": 5},
    {"embedding": "RZ", "stride": 1, "n_qubits": 3},
    {"axis": "variables", "stride": 2, "correlations": True},
    {"axis": "variables", "template": "StronglyEntanglingLayers", "embedding_range": (0.05, 0.45)},
    {"key_scope": "per_channel", "correlations": True, "n_qubits": 3},
    {"key_scope": "per_channel", "template": "StronglyEntanglingLayers", "stride": 2},
    {"n_qubits": 5, "correlations": True, "template": "StronglyEntanglingLayers", "embedding_range": (0.1, 1)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_encoder_is_the_circuit_window_by_window(options: dict[str, Any]) -> None:
    """Cutting, strides, order of outputs and channels, padding; float64, float32, tensors, single windows."""
    encoder = QuantumEncoder(**options)
    features = np.random.default_rng(3).random((3, 11, 3))
    fitted = encoder.fit(cohort_of(features), KEY)
    expected = expected_series(encoder, features)
    encoded = fitted.encode_array(features)
    np.testing.assert_allclose(encoded, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(fitted.encode_array(features.astype(np.float32)), expected, rtol=0, atol=5e-6)
    if encoder.axis == "time":
        first = fitted.window_map(features[:, : encoder.n_qubits, 1], channel=1)
        np.testing.assert_allclose(first, expected[:, : encoder.components, 1], rtol=0, atol=1e-10)
    spec = fitted.public_spec()
    assert encoded.shape[1 if encoder.axis == "time" else 2] == expected.shape[1 if encoder.axis == "time" else 2]
    assert options.items() <= {**spec, "embedding_range": tuple(spec["embedding_range"])}.items()


@pytest.mark.parametrize("options", [OPTIONS[0], *OPTIONS[5:8], OPTIONS[10]], ids=str)
@pytest.mark.parametrize("windows", [1, 7, 3_000])
def test_tensors_give_what_arrays_give(options: dict[str, Any], windows: int) -> None:
    """What runs on other devices, run on the CPU."""
    circuits = QuantumEncoder(**options).fit(cohort_of(np.zeros((0, 11, 3))), KEY).windows
    angles = np.random.default_rng(4).random((circuits.geometry.width, windows)) * math.pi
    for engine in circuits.engines:
        moved = [row.numpy() for row in engine.rows(torch.from_numpy(angles.copy()))]
        np.testing.assert_allclose(moved, list(engine.rows(angles.copy())), rtol=0, atol=1e-12)


def test_one_qubit_by_hand() -> None:
    """RX after RY on |0>: <Z> = cos(theta) cos(pi x)."""
    options: dict[str, Any] = {"n_qubits": 1, "n_layers": 1, "embedding_range": (0, 1)}
    theta = float(QuantumEncoder(**options).parameters(KEY).weights[0, 0])
    encoded = fit(**options).encode_array(np.array([[[0.0], [0.25], [1.0]]]))
    np.testing.assert_allclose(encoded.ravel(), math.cos(theta) * np.array([1, math.sqrt(0.5), -1]), atol=1e-15)


@pytest.mark.parametrize("template", ["BasicEntanglerLayers", "StronglyEntanglingLayers"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_change_no_bit(template: str, dtype: Any) -> None:
    fitted = fit(template=template, n_qubits=6, channels=44)
    features = np.random.default_rng(5).random((200, 48, 44)).astype(dtype)
    digests, before = set(), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                digests.add(fitted.encode_array(features).tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_four_known_windows_identify_the_default_encoder() -> None:
    """Stated in docs/encoders.md: without the key, four aligned windows give the map, by least squares."""
    rng = np.random.default_rng(5)
    other = circuit_gates("BasicEntanglerLayers", 4, QuantumEncoder().parameters(SITE))  # words are public
    polynomials = expectation_words(other, 4, observables(4, False), "RY", 100)
    assert polynomials is not None
    words = [tuple(terms) for terms in polynomials]
    known, unseen = rng.random((4, 4, 1)), rng.random((500, 4, 1))

    def monomials(windows: np.ndarray, output: int) -> np.ndarray:
        angles = np.pi / 2 * windows
        basis = {"1": np.ones_like(windows), "c": np.cos(angles), "s": np.sin(angles)}
        return np.stack([np.prod([basis[s][:, j, 0] for j, s in enumerate(w)], axis=0) for w in words[output]], axis=1)

    encode = fit().encode_array
    for output in range(4):
        solved = np.linalg.lstsq(monomials(known, output), encode(known)[:, output, 0])[0]
        np.testing.assert_allclose(monomials(unseen, output) @ solved, encode(unseen)[:, output, 0], atol=1e-6)


def test_the_middle_of_the_range_hides_its_neighbours_unless_the_range_avoids_it() -> None:
    """cos(pi / 2) = 0: a value of exactly 1/2 wipes out every output whose cosines it is among."""
    windows = np.random.default_rng(6).random((10, 4, 1))
    windows[:, :2] = 0.5
    np.testing.assert_allclose(fit(embedding_range=(0, 1)).encode_array(windows), 0, atol=1e-15)
    assert np.abs(fit().encode_array(windows)).max() > 0.05


def test_values_outside_the_unit_interval_alias_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    inside = np.random.default_rng(8).random((2, 48, 1))
    outside = inside.copy()
    outside[0, 0, 0] += 4  # a whole turn
    outside[1, 5, 0] *= -1  # <Z> of RY(-a) differs by the sines' sign only
    np.testing.assert_allclose(fit().encode_array(outside)[0], fit().encode_array(inside)[0], atol=1e-12)
    with caplog.at_level(logging.WARNING, logger="decoct"):
        fit().encode(cohort_of(inside))
        assert not caplog.records
        fit().encode(cohort_of(outside))
    assert "outside [0, 1]" in caplog.text


def test_every_option_that_shapes_a_window_gives_unrelated_angles() -> None:
    """Golden first: the same key must give the same encoder in every later version, or scheme v2 must become v3."""
    angles = QuantumEncoder().parameters(KEY).weights
    assert angles.shape == (2, 4)
    np.testing.assert_allclose(angles, GOLDEN_ANGLES, rtol=0, atol=1e-12)
    assert QuantumEncoder(template="RandomLayers").parameters(KEY).seed == 701043379
    others: list[dict[str, Any]] = [
        {},
        *({"n_layers": 3}, {"n_qubits": 5}, {"template": "StronglyEntanglingLayers"}, {"template": "RandomLayers"}),
        *({"embedding": "RX"}, {"embedding": "RZ"}, {"embedding_range": (0, 1)}, {"axis": "variables"}),
        *({"stride": 1}, {"correlations": True}),
    ]
    drawn = [QuantumEncoder(**options).parameters(KEY).weights.ravel() for options in others]
    drawn += [QuantumEncoder(key_scope="per_channel").parameters(KEY, name).weights.ravel() for name in ("hr", "map")]
    flat = np.concatenate(drawn)
    assert len(np.unique(flat)) == flat.size
    assert (flat > 0).all()
    assert (flat < 2 * np.pi).all()
    same: list[dict[str, Any]] = [{"shots": 5}, {"noise_sd": 0.1}, {"backend": "pennylane"}, {"stride": 4}]
    for options in same:
        np.testing.assert_array_equal(QuantumEncoder(**options).parameters(KEY).weights, angles)


def test_another_process_encodes_to_the_same_bytes() -> None:
    program = (
        "import hashlib, numpy as np\n"
        "from encoders.quantum import QuantumEncoder\n"
        "from pipeline.core.keys.secrets import Secret\n"
        "class Cohort: features = np.zeros((1, 48, 3)); channels = ('a', 'b', 'c'); transforms = ()\n"
        "key = Secret(bytes(range(32)), 'encoder')\n"
        "x = np.random.default_rng(2).random((50, 49, 3), dtype=np.float32)\n"
        "for template in ('BasicEntanglerLayers', 'StronglyEntanglingLayers', 'RandomLayers'):\n"
        "    fitted = QuantumEncoder(template=template).fit(Cohort, key)\n"
        "    print(hashlib.sha256(fitted.encode_array(x).tobytes()).hexdigest())\n"
        "import sys\n"
        "assert 'pennylane' not in sys.modules\n"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1"}
    ).stdout.split()
    features = np.random.default_rng(2).random((50, 49, 3), dtype=np.float32)
    assert elsewhere == [
        hashlib.sha256(fit(channels=3, template=template).encode_array(features).tobytes()).hexdigest()
        for template in get_args(Template)
    ]


def test_shots_and_noise_come_from_the_site_and_are_told() -> None:
    features = np.random.default_rng(9).random((4, 48, 2)).astype(np.float32)
    cohort, exact = cohort_of(features), fit(channels=2).encode_array(features)
    fitted = fit(channels=2, shots=100)
    assert fitted.public_spec()["noise"] == {"kind": "shots", "shots": 100}
    np.testing.assert_array_equal(fitted.encode_array(features), exact)
    with pytest.raises(ConfigError, match="noise source"):
        fitted.encode(cohort)
    noisy = fitted.encode(cohort, NoiseSource(SITE, "digest")).features
    np.testing.assert_array_equal(noisy, fitted.encode(cohort, NoiseSource(SITE, "digest")).features)
    grid = 100 * (noisy.astype(np.float64) + 1) / 2
    np.testing.assert_allclose(grid, np.rint(grid), atol=1e-4)
    assert 0 < np.abs(noisy - exact).max() < 0.8  # eight standard deviations of a mean of 100


def test_the_pennylane_backend_runs_the_same_circuits() -> None:
    features = np.random.default_rng(10).random((2, 5, 2))
    for options in OPTIONS[0], OPTIONS[4], OPTIONS[5], OPTIONS[7], OPTIONS[9]:
        for device in ("default.qubit", "lightning.qubit"):
            encoder = QuantumEncoder(**options, backend="pennylane", pennylane_device=device)
            fitted = encoder.fit(cohort_of(features), KEY)
            told: list[tuple[int, int]] = []
            found = fitted.encode_array(features, on_circuits=lambda done, total, told=told: told.append((done, total)))
            expected = QuantumEncoder(**options).fit(cohort_of(features), KEY).encode_array(features)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
            assert told[0][0] == 0
            assert told[-1][0] == told[-1][1] == told[0][1] == found.size // encoder.components
            spec = fitted.public_spec()
            assert (spec["backend"], spec["pennylane_device"]) == ("pennylane", device)


def test_a_devices_own_shots_are_independent_told_and_drawn_once() -> None:
    """Every output from runs of its own: mean zero error, and no covariance between the outputs of a window."""
    cohort = cohort_of(np.full((1, 2, 60), 0.3))
    fitted = QuantumEncoder(n_qubits=2, shots=50, backend="pennylane", embedding_range=(0.1, 0.4)).fit(cohort, KEY)
    assert fitted.public_spec()["noise"] == {"kind": "shots", "shots": 50, "shots_drawn_by": "device"}
    told: list[tuple[int, int]] = []
    source = NoiseSource(SITE, "digest")
    noisy = fitted.encode(cohort, source, on_circuits=lambda done, total: told.append((done, total))).features[0]
    assert told[0] == (0, 120)  # 60 windows, two outputs each
    assert told[-1] == (120, 120)
    exact = fitted.encode_array(cohort.features)[0]
    errors = noisy - exact
    sd = np.sqrt((1 - exact[:, 0].astype(np.float64) ** 2) / 50)
    assert (np.abs(errors.mean(axis=1)) <= 5 * sd / math.sqrt(60)).all()
    spread = errors.std(axis=1) / sd
    assert ((spread > 0.55) & (spread < 1.45)).all()  # sd of a sample sd at n = 60 is .092: five of them
    correlation = float(np.corrcoef(errors)[0, 1])
    assert abs(correlation) < 5 / math.sqrt(60)
    np.testing.assert_array_equal(fitted.encode(cohort, NoiseSource(SITE, "digest")).features[0], noisy)
    assert np.abs(fitted.encode(cohort, NoiseSource(SITE, "another")).features[0] - noisy).max() > 0
    with pytest.raises(ConfigError, match="noise source"):
        fitted.encode(cohort)


@pytest.mark.parametrize("device", SEEDED)
def test_encoding_again_on_a_device_is_no_second_look(device: str) -> None:
    """Case 15: the same bits again, and outcomes that differ between windows, outputs and channels all the same."""
    cohort = cohort_of(np.full((2, 4, 2), 0.3))
    options: dict[str, Any] = {"n_qubits": 2, "shots": 997, "key_scope": "per_channel", "axis": "time"}
    fitted = QuantumEncoder(**options, backend="pennylane", pennylane_device=device).fit(cohort, KEY)
    noisy, again = (fitted.encode(cohort, NoiseSource(SITE, "digest")).features for _ in range(2))
    np.testing.assert_array_equal(noisy, again)
    errors = noisy - QuantumEncoder(**options | {"shots": None}).fit(cohort, KEY).encode(cohort).features
    assert len(np.unique(errors.astype(np.float32))) > 0.8 * errors.size


def test_a_device_that_takes_no_seed_draws_no_shots() -> None:
    with pytest.raises(ConfigError, match=r"'qiskit\.remote' draws cannot be drawn again"):
        QuantumEncoder(shots=100, backend="pennylane", pennylane_device="qiskit.remote")
    QuantumEncoder(backend="pennylane", pennylane_device="qiskit.remote")


def test_a_device_that_is_not_there_is_named() -> None:
    features = np.zeros((1, 4, 1))
    with pytest.raises(ConfigError, match="'no such device'"):
        fit(backend="pennylane", pennylane_device="no such device").encode_array(features)
    for device in ("cuda:77", "abacus"):
        with pytest.raises(EnvironmentProblem, match=device):
            fit().encode_array(features, device=device)


def test_circuits_per_channel_belong_to_their_channels() -> None:
    features = np.random.default_rng(11).random((2, 8, 2))
    fitted = QuantumEncoder(key_scope="per_channel").fit(cohort_of(features), KEY)
    encoded = fitted.encode_array(np.repeat(features[:, :, :1], 2, axis=2))
    assert np.abs(encoded[:, :, 0] - encoded[:, :, 1]).max() > 1e-3
    with pytest.raises(DataError, match="2 channels"):
        fitted.encode_array(features[:, :, :1])
    renamed = EncodedCohort(**{**vars(cohort_of(features)), "channels": ("c1", "c0")})
    with pytest.raises(DataError, match="fit it again"):
        fitted.encode(renamed)


def test_a_fitted_encoder_keeps_its_circuit() -> None:
    fitted = fit(template="RandomLayers", shots=3)
    shown = repr(fitted) + repr(fitted.windows) + repr(fitted.parameters)
    assert str(fitted.parameters[0].seed) not in shown
    assert "array" not in shown
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(fitted)


@pytest.mark.parametrize(
    "options",
    [
        *({"n_qubits": 0}, {"n_qubits": 11}, {"n_layers": 0}, {"template": "Layers"}, {"embedding": "H"}),
        *({"embedding_range": (0.5, 0.5)}, {"embedding_range": (-0.1, 1)}, {"embedding_range": (0, 1.1)}),
        *({"axis": "record"}, {"stride": 0}, {"stride": 5}, {"shots": 0}, {"noise_sd": -1.0}, {"key_scope": "x"}),
        *({"backend": "qiskit"}, {"key_scope": "per_channel", "axis": "variables"}),
    ],
    ids=str,
)
def test_impossible_circuits_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        QuantumEncoder(**options)
