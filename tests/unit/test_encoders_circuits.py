"""Circuits without PennyLane against PennyLane: gates, every engine, every template and embedding."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import numpy as np
import pennylane as qml
import pytest
import torch

from encoders.circuits.engines import Engine, engine_for
from encoders.circuits.gates import (
    Embedding,
    Gate,
    Parameters,
    Template,
    circuit_gates,
    drawn_parameters,
    embedding_gates,
    unitary,
)
from encoders.circuits.pauli import expectation_words, observables
from encoders.circuits.polynomial import Sparse, factorised
from encoders.circuits.products import Bilinear, Statevector, bilinear, output_signs

TEMPLATES, EMBEDDINGS = get_args(Template), get_args(Embedding)


def drawn(template: Template, n_layers: int, n_qubits: int, draw: int) -> Parameters:
    return drawn_parameters(template, n_layers, n_qubits, bytes([draw] * 32))


def pennylane_template(template: Template, parameters: Parameters, n_qubits: int) -> Any:
    placed = {} if parameters.seed is None else {"seed": parameters.seed}
    return getattr(qml, template)(parameters.weights, wires=range(n_qubits), **placed)


def oracle(
    template: Template, embedding: Embedding, parameters: Parameters, angles: np.ndarray, correlations: bool
) -> np.ndarray:
    """PennyLane's expectations for angles (window, wire): (output, window)."""
    n_qubits = angles.shape[1]

    @qml.qnode(qml.device("default.qubit", wires=n_qubits))
    def circuit(values: np.ndarray) -> list[Any]:
        if embedding == "RZ":
            for wire in range(n_qubits):
                qml.Hadamard(wire)
        qml.AngleEmbedding(values, wires=range(n_qubits), rotation=embedding[1])
        pennylane_template(template, parameters, n_qubits)
        singles = [qml.PauliZ(wire) for wire in range(n_qubits)]
        pairs = [a @ b for a, b in itertools.combinations(singles, 2)] if correlations else []
        return [qml.expval(observable) for observable in singles + pairs]

    return np.stack([np.broadcast_to(np.asarray(output), len(angles)) for output in circuit(angles)])


def engines_of(gates: tuple[Gate, ...], n_qubits: int, correlations: bool, embedding: Embedding) -> dict[str, Engine]:
    """All that could be chosen, and the choice."""
    outputs = observables(n_qubits, correlations)
    words = expectation_words(gates, n_qubits, outputs, embedding, 4**n_qubits)
    assert words is not None
    matrix = unitary((*embedding_gates(embedding, n_qubits), *gates), n_qubits)
    signs = output_signs(outputs, n_qubits)
    return {
        "sparse": Sparse(tuple(factorised(terms, tuple(range(n_qubits))) for terms in words)),
        "bilinear": bilinear(matrix, signs, n_qubits // 2),
        "statevector": Statevector(matrix, signs),
        "chosen": engine_for(gates, n_qubits, correlations, embedding),
    }


def rows_of(engine: Engine, angles: np.ndarray) -> np.ndarray:
    return np.stack(list(engine.rows(angles.T.copy())))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("n_qubits", range(1, 9))
def test_gates_are_those_of_pennylanes_template(template: Template, n_qubits: int) -> None:
    """Gate by gate, angle by angle; `RandomLayers` over many seeds, as its gates are random."""
    for n_layers, draw in itertools.product((1, 2, 4), range(12 if template == "RandomLayers" else 1)):
        parameters = drawn(template, n_layers, n_qubits, draw)
        expected = []
        for whole in pennylane_template(template, parameters, n_qubits).decomposition():
            for gate in whole.decomposition() if whole.name == "Rot" else [whole]:
                expected.append((gate.name, tuple(gate.wires), float(gate.parameters[0]) if gate.parameters else 0.0))
        found = circuit_gates(template, n_qubits, parameters)
        assert [(gate.name, gate.wires, gate.angle) for gate in found] == expected


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("n_qubits", range(1, 7))
def test_every_engine_is_the_circuit(template: Template, embedding: Embedding, n_qubits: int) -> None:
    rng = np.random.default_rng(n_qubits)
    angles = rng.uniform(-4, 7, (9, n_qubits))
    for n_layers, correlations in ((1, True), (2, False), (2, True)):
        parameters = drawn(template, n_layers, n_qubits, n_layers + 2 * correlations)
        expected = oracle(template, embedding, parameters, angles, correlations)
        gates = circuit_gates(template, n_qubits, parameters)
        for name, engine in engines_of(gates, n_qubits, correlations, embedding).items():
            np.testing.assert_allclose(rows_of(engine, angles), expected, rtol=0, atol=1e-10, err_msg=name)
            tensor = torch.from_numpy(angles.T.copy())
            by_torch = torch.stack(list(engine.rows(tensor))).numpy()
            np.testing.assert_allclose(by_torch, expected, rtol=0, atol=1e-10, err_msg=name)
            single = rows_of(engine, angles.astype(np.float32))
            assert single.dtype == np.float32
            np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("template", "embedding", "n_qubits", "correlations", "kind"),
    [
        ("BasicEntanglerLayers", "RY", 8, True, Sparse),
        ("BasicEntanglerLayers", "RZ", 10, False, Sparse),
        ("RandomLayers", "RX", 10, True, Sparse),
        ("StronglyEntanglingLayers", "RY", 4, False, Bilinear),
        ("StronglyEntanglingLayers", "RX", 8, False, Bilinear),
        ("StronglyEntanglingLayers", "RZ", 8, True, Statevector),
        ("StronglyEntanglingLayers", "RY", 10, True, Statevector),
    ],
)
def test_many_qubits_and_the_choice_of_engine(
    template: Template, embedding: Embedding, n_qubits: int, correlations: bool, kind: type
) -> None:
    parameters = drawn(template, 2, n_qubits, 5)
    angles = np.random.default_rng(n_qubits).uniform(-1, 4, (3, n_qubits))
    engine = engine_for(circuit_gates(template, n_qubits, parameters), n_qubits, correlations, embedding)
    assert isinstance(engine, kind)
    expected = oracle(template, embedding, parameters, angles, correlations)
    np.testing.assert_allclose(rows_of(engine, angles), expected, rtol=0, atol=1e-10)


def test_the_two_matrix_engines_agree_on_ten_qubits() -> None:
    gates = circuit_gates("StronglyEntanglingLayers", 10, drawn("StronglyEntanglingLayers", 1, 10, 9))
    matrix, signs = unitary(gates, 10), output_signs(((0,), (3,), (2, 9)), 10)
    angles = np.random.default_rng(0).uniform(0, 3, (70, 10))
    first, second = (rows_of(engine, angles) for engine in (bilinear(matrix, signs, 6), Statevector(matrix, signs)))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ["sparse", "bilinear", "statevector"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_window_has_the_same_bits_among_any_others(engine: str, dtype: Any) -> None:
    gates = circuit_gates("StronglyEntanglingLayers", 5, drawn("StronglyEntanglingLayers", 2, 5, 1))
    chosen = engines_of(gates, 5, False, "RY")[engine]
    angles = np.random.default_rng(1).uniform(0, 3, (5000, 5)).astype(dtype)
    whole = rows_of(chosen, angles)
    for some in (slice(0, 1), slice(17, 18), slice(100, 2173), slice(4999, 5000)):
        np.testing.assert_array_equal(rows_of(chosen, angles[some]), whole[:, some])


def test_each_output_of_the_default_is_some_cosines_times_the_other_wires_sines() -> None:
    """The structure that makes the fast path fast, and the encoder weak; public, whatever the angles."""
    for n_qubits, n_layers in ((4, 2), (5, 3), (8, 2)):
        gates = circuit_gates("BasicEntanglerLayers", n_qubits, drawn("BasicEntanglerLayers", n_layers, n_qubits, 3))
        polynomials = expectation_words(gates, n_qubits, observables(n_qubits, False), "RY", 1000)
        assert polynomials is not None
        for words in polynomials:
            assert len({"".join("c" if symbol == "c" else "-" for symbol in word) for word in words}) == 1
        if (n_qubits, n_layers) == (4, 2):
            assert [len(words) for words in polynomials] == [2, 2, 4, 4]


def test_an_observable_that_spreads_is_given_up() -> None:
    gates = circuit_gates("StronglyEntanglingLayers", 6, drawn("StronglyEntanglingLayers", 2, 6, 3))
    assert expectation_words(gates, 6, observables(6, False), "RY", 50) is None


def test_no_circuit_shows_its_angles() -> None:
    parameters = drawn("RandomLayers", 2, 3, 3)
    gates = circuit_gates("RandomLayers", 3, parameters)
    shown = repr(parameters) + repr(gates)
    shown += "".join(repr(engine) + str(vars(engine).keys()) for engine in engines_of(gates, 3, True, "RX").values())
    assert "." not in shown.replace("...", "")
    assert str(parameters.seed) not in shown
