"""How fast the encoders are, beside their peers in the same run: `python benchmarks/encoding.py [--quick]`.

Claims, on an array of PhysioNet 2012's size (8,000 stays x 48 steps x 44 channels; uniform values: nothing here depends
on them). Windows per second of the thread's own CPU time, as the wall clock of a shared machine measures the
neighbours; one thread for everybody. Every round times each contestant once, every other round in reverse order; a
ratio is taken within a round, and the median over rounds with its range is reported.

* quantum encoder, 4 qubits, 2 layers, against PennyLane's QNode called per window and called with a batch of windows
  (both on a sample of the windows, extrapolated: their time is proportional to it), and against a floor: sine and
  cosine of the input plus one product [n, 81] @ [81, 4] in the same precision, the 81 monomials and all output buffers
  given for nothing. (The encoder needs no 81 monomials, so it can be faster; sine and cosine alone stand beside it.)
* the same with strongly entangling layers, and with 8 and 10 qubits, against PennyLane's QNode with a batch of windows
  (batches in which it does well here); ours on fewer stays, as told.
* random projection against scikit-learn's `GaussianRandomProjection.transform` on the same array: windows of variables,
  where both see the array as it lies; and windows of time, where scikit-learn needs the array rearranged (both with and
  without counting that).
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pennylane as qml
import scipy
import sklearn
import torch
from reference import machine
from sklearn.random_projection import GaussianRandomProjection
from threadpoolctl import threadpool_limits

from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance

SHAPE, QUICK_SHAPE = (8000, 48, 44), (800, 48, 44)
WIDTH, LAYERS = 4, 2
KEY = Secret(bytes(range(32)), "encoder")  # a benchmark's key is no secret
SEED = 0
PUBLISHED = (0.0, 1.0)  # the embedding of [Enc], whose angles pi x need no offset in the peers' circuits either
BARS = {
    "quantum float32 / QNode per window": 20_000,
    "quantum float32 / best batched QNode": 25,
    "quantum float32 / floor": 0.5,
    "quantum float64 / QNode per window": 20_000,
    "quantum float64 / best batched QNode": 25,
    "quantum float64 / floor": 0.5,
    "projection over variables / scikit-learn": 1.0,
    "projection over time / scikit-learn, rearranged beforehand": 1.0,
}


OTHER_CIRCUITS = {  # name -> (template, qubits, stays in a full run, windows in PennyLane's batch)
    "strongly entangling, 4 qubits": ("StronglyEntanglingLayers", 4, 2000, 1 << 12),
    "basic entangler, 8 qubits": ("BasicEntanglerLayers", 8, 2000, 1 << 9),
    "strongly entangling, 8 qubits": ("StronglyEntanglingLayers", 8, 200, 1 << 9),
    "basic entangler, 10 qubits": ("BasicEntanglerLayers", 10, 2000, 1 << 7),
    "strongly entangling, 10 qubits": ("StronglyEntanglingLayers", 10, 30, 1 << 7),
}


def qnode(interface: str, template: str = "BasicEntanglerLayers", n_qubits: int = WIDTH) -> Any:
    """PennyLane's circuit; values are `(wire,)` or `(window, wire)`."""
    device = qml.device("default.qubit", wires=n_qubits)

    @qml.qnode(device, interface=interface, diff_method=None)
    def circuit(values: Any, angles: Any) -> Any:
        for wire in range(n_qubits):
            qml.RY(np.pi * values[..., wire], wires=wire)
        getattr(qml, template)(angles, wires=range(n_qubits))
        return [qml.expval(qml.PauliZ(wire)) for wire in range(n_qubits)]

    return circuit


def other_circuits(features: np.ndarray) -> dict[str, tuple[int, Callable[[], object]]]:
    """As `contestants`, for other templates and more qubits."""
    stays = len(features)
    found: dict[str, tuple[int, Callable[[], object]]] = {}
    for name, (template, n_qubits, n_stays, batch) in OTHER_CIRCUITS.items():
        some = np.ascontiguousarray(features[: max(1, n_stays * stays // SHAPE[0]), : 48 - 48 % n_qubits])
        encoder = QuantumEncoder(n_qubits=n_qubits, n_layers=LAYERS, template=template, embedding_range=PUBLISHED)  # type: ignore[arg-type]  # one of the templates
        fitted = encoder.fit(empty_cohort(*some.shape[1:]), KEY)
        n_windows = some.size // n_qubits
        for array in (some, some.astype(np.float64)):
            found[f"{name}, {array.dtype}"] = (n_windows, functools.partial(fitted.encode_array, array))
        windows = some.transpose(0, 2, 1).reshape(-1, n_qubits)
        angles = encoder.parameters(KEY).weights
        for interface in ("numpy", "torch"):
            circuit = qnode(interface, template, n_qubits)
            found[f"{name}, batched QNode, {interface}"] = batched(
                circuit, interface, windows, angles, np.float64, batch
            )
    return found


def contestants(features: np.ndarray, n_calls: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name -> (windows it handles, what to time)."""
    stays, steps, channels = features.shape
    n_windows = stays * steps // WIDTH * channels
    cohort = empty_cohort(steps, channels)
    quantum = QuantumEncoder(n_qubits=WIDTH, n_layers=LAYERS, embedding_range=PUBLISHED).fit(cohort, KEY)
    angles = QuantumEncoder(n_qubits=WIDTH, n_layers=LAYERS, embedding_range=PUBLISHED).parameters(KEY).weights
    windows = np.ascontiguousarray(features.reshape(stays, -1, WIDTH, channels).transpose(0, 1, 3, 2)).reshape(-1, 4)
    double = features.astype(np.float64)
    found: dict[str, tuple[int, Callable[[], object]]] = {
        "quantum float32": (n_windows, lambda: quantum.encode_array(features)),
        "quantum float64": (n_windows, lambda: quantum.encode_array(double)),
    }

    single = qnode("numpy")
    sample = windows[:n_calls].astype(np.float64)
    found["QNode per window"] = (n_calls, lambda: [single(window, angles) for window in sample])
    for interface in ("numpy", "torch"):
        for precision, batch in ((np.float64, 1 << 12), (np.float64, 1 << 15), (np.float32, 1 << 15)):
            found[f"batched QNode, {interface} {np.dtype(precision)}, {batch}"] = batched(
                qnode(interface), interface, windows, angles, precision, batch
            )
    for array in (features, double[: stays // 4]):  # 81 monomials in float64 of all stays would be 2.7 GB
        found |= floors(array)
    found |= other_circuits(features)

    over_time = RandomProjectionEncoder().fit(cohort, KEY)
    over_variables = RandomProjectionEncoder(axis="variables").fit(cohort, KEY)
    peer = GaussianRandomProjection(n_components=WIDTH, random_state=SEED).fit(windows[:10])
    found["projection over time"] = (n_windows, lambda: over_time.encode_array(features))
    found["projection over variables"] = (n_windows, lambda: over_variables.encode_array(features))
    found["scikit-learn over variables"] = (n_windows, lambda: peer.transform(features.reshape(-1, WIDTH)))
    found["scikit-learn over time, rearranged beforehand"] = (n_windows, lambda: peer.transform(windows))
    found["scikit-learn over time, rearranging counted"] = (
        n_windows,
        lambda: peer.transform(features.reshape(stays, -1, WIDTH, channels).transpose(0, 1, 3, 2).reshape(-1, WIDTH)),
    )
    return found


def floors(array: np.ndarray) -> dict[str, tuple[int, Callable[[], object]]]:
    """Sine and cosine of every value, and one product of given monomials, in the array's precision."""
    rng = np.random.default_rng(SEED)
    n_windows, kind = array.size // WIDTH, array.dtype.name
    monomials = rng.random((n_windows, 3**WIDTH), dtype=array.dtype.type)
    matrix = rng.random((3**WIDTH, WIDTH), dtype=array.dtype.type)
    sine, cosine, product = np.empty_like(array), np.empty_like(array), np.empty((n_windows, WIDTH), array.dtype)
    torch_in, torch_monomials, torch_matrix = map(torch.from_numpy, (array, monomials, matrix))
    torch_sine, torch_cosine, torch_product = map(torch.from_numpy, (sine, cosine, product))

    def numpy_trigonometry() -> None:
        np.sin(array, out=sine)
        np.cos(array, out=cosine)

    def numpy_floor() -> None:
        numpy_trigonometry()
        np.matmul(monomials, matrix, out=product)

    def torch_trigonometry() -> None:
        torch.sin(torch_in, out=torch_sine)
        torch.cos(torch_in, out=torch_cosine)

    def torch_floor() -> None:
        torch_trigonometry()
        torch.matmul(torch_monomials, torch_matrix, out=torch_product)

    return {
        f"sine and cosine alone, numpy {kind}": (n_windows, numpy_trigonometry),
        f"sine and cosine alone, torch {kind}": (n_windows, torch_trigonometry),
        f"floor {kind}, numpy": (n_windows, numpy_floor),
        f"floor {kind}, torch": (n_windows, torch_floor),
    }


def batched(
    circuit: Any, interface: str, windows: np.ndarray, angles: np.ndarray, precision: Any, batch: int
) -> tuple[int, Callable[[], object]]:
    """PennyLane's broadcasting over a batch of windows."""
    values: Any = windows[:batch].astype(precision)
    weights: Any = angles.astype(precision)
    if interface == "torch":
        values, weights = torch.from_numpy(values), torch.from_numpy(weights)
    return len(values), lambda: circuit(values, weights)


def empty_cohort(steps: int, channels: int) -> EncodedCohort:
    """No stays: a fit needs the shape only."""
    return EncodedCohort(
        features=np.zeros((0, steps, channels), np.float32),
        labels=np.zeros((0, 0), np.float32),
        subject_index=np.zeros(0, np.int32),
        split=np.zeros(0, np.int8),
        channels=tuple(f"c{index}" for index in range(channels)),
        tasks=(),
        step_hours=1.0,
        transforms=(),
        provenance=Provenance(stage="prepare"),
    )


def spread(values: list[float]) -> dict[str, float | int]:
    """Median and range over rounds, to four significant digits."""
    rounded = [float(f"{value:.4g}") for value in (statistics.median(values), min(values), max(values))]
    return {"median": rounded[0], "min": rounded[1], "max": rounded[2], "n": len(values)}


def ratios_of(rates: dict[str, list[float]]) -> dict[str, list[float]]:
    """The claims, round by round; a peer with several forms counts with its best of that round."""

    def best(prefix: str) -> list[float]:
        forms = (values for name, values in rates.items() if name.startswith(prefix))
        return [max(values) for values in zip(*forms, strict=True)]

    def against(ours: str, peer: list[float]) -> list[float]:
        return [a / b for a, b in zip(rates[ours], peer, strict=True)]

    ratios = {}
    for precision in ("float32", "float64"):
        ours = f"quantum {precision}"
        ratios[f"{ours} / QNode per window"] = against(ours, rates["QNode per window"])
        ratios[f"{ours} / best batched QNode"] = against(ours, best("batched QNode"))
        ratios[f"{ours} / floor"] = against(ours, best(f"floor {precision}"))
        for circuit in OTHER_CIRCUITS:
            other = f"{circuit}, {precision}"
            ratios[f"{other} / best batched QNode"] = against(other, best(f"{circuit}, batched QNode"))
    ratios["projection over variables / scikit-learn"] = against(
        "projection over variables", rates["scikit-learn over variables"]
    )
    for how in ("rearranged beforehand", "rearranging counted"):
        ratios[f"projection over time / scikit-learn, {how}"] = against(
            "projection over time", rates[f"scikit-learn over time, {how}"]
        )
    return ratios


def memory_beside_output(features: np.ndarray) -> dict[str, float]:
    """MiB allocated at the peak beyond input and output, as numpy reports it to tracemalloc."""
    cohort = empty_cohort(*features.shape[1:])
    held = {}
    encoders: dict[str, Any] = {
        "quantum": QuantumEncoder(),
        "quantum, strongly entangling": QuantumEncoder(template="StronglyEntanglingLayers"),
        "quantum, strongly entangling, correlations": QuantumEncoder(
            template="StronglyEntanglingLayers", correlations=True
        ),
        "projection": RandomProjectionEncoder(),
    }
    for name, encoder in encoders.items():
        fitted = encoder.fit(cohort, KEY)
        for kind, array in (("", features), (", 46 steps (padded)", features[:, :46])):
            tracemalloc.start()
            output = fitted.encode_array(array)
            held[f"{name}{kind}"] = round((tracemalloc.get_traced_memory()[1] - output.nbytes) / 2**20, 2)
            tracemalloc.stop()
    return held


def disagreement(features: np.ndarray, template: str, n_qubits: int, stays: int) -> float:
    """Largest difference to PennyLane over all windows of some stays, float64."""
    encoder = QuantumEncoder(n_qubits=n_qubits, n_layers=LAYERS, template=template, embedding_range=PUBLISHED)  # type: ignore[arg-type]  # one of the templates
    some = features[:stays, : 48 - 48 % n_qubits].astype(np.float64)
    windows = some.reshape(-1, n_qubits, some.shape[2]).transpose(0, 2, 1).reshape(-1, n_qubits)
    expected = np.stack(qnode("numpy", template, n_qubits)(windows, encoder.parameters(KEY).weights), axis=1)
    ours = encoder.fit(empty_cohort(*some.shape[1:]), KEY).encode_array(some)
    ours = ours.reshape(-1, n_qubits, some.shape[2]).transpose(0, 2, 1).reshape(-1, n_qubits)
    return float(np.abs(ours - expected).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the array, three rounds")
    parser.add_argument("--out", type=Path, help="file for the JSON (benchmarks/results/encoding.json unless quick)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)
    shape, rounds, n_calls = (QUICK_SHAPE, 3, 50) if arguments.quick else (SHAPE, 15, 200)
    features = np.random.default_rng(SEED).random(shape, dtype=np.float32)

    timed = contestants(features, n_calls)
    for _, call in timed.values():
        call()  # warm up
    rates: dict[str, list[float]] = {name: [] for name in timed}
    for index in range(rounds):
        for name in list(timed)[:: -1 if index % 2 else 1]:
            n_windows, call = timed[name]
            start = time.thread_time()
            call()
            rates[name].append(n_windows / (time.thread_time() - start))
    del timed

    ratios = {name: spread(values) for name, values in ratios_of(rates).items()}
    result = {
        "benchmark": "encoding",
        "machine": {
            **machine(np, scipy, torch, sklearn, qml),
            "threads_used": 1,
            "clock": "CPU time of the thread",
        },
        "seed": SEED,
        "array": {"shape": list(shape), "windows": shape[0] * shape[1] // WIDTH * shape[2]},
        "sampled": {"QNode per window": n_calls, "batched QNode": "the batch in the name"},
        "windows_per_second": {name: spread(values) for name, values in rates.items()},
        "ratios": ratios,
        "bars": {name: {"bar": bar, "met": ratios[name]["median"] >= bar} for name, bar in BARS.items()},
        "peak_mib_beside_input_and_output": memory_beside_output(features),
        "largest_difference_to_pennylane": {
            "basic entangler, 4 qubits": disagreement(features, "BasicEntanglerLayers", WIDTH, 20),
            **{
                name: disagreement(features, template, n_qubits, 2)
                for name, (template, n_qubits, _, _) in OTHER_CIRCUITS.items()
            },
        },
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.out or not arguments.quick:
        (arguments.out or Path(__file__).parent / "results" / "encoding.json").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
