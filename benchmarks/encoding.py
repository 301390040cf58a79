"""How fast the encoders are, beside their peers in the same run: `python benchmarks/encoding.py [--quick]`.

Claims, on an array of PhysioNet 2012's size (8,000 stays x 48 steps x 44 channels; uniform values: nothing here depends
on them). Windows per second of the thread's own CPU time, as the wall clock of a shared machine measures the
neighbours; one thread for everybody. Every round times each contestant once, every other round in reverse order; a
ratio is taken within a round, and the median over rounds with its range is reported.

* quantum encoder, 4 qubits, 2 layers, against PennyLane's QNode called per window and called with a batch of windows
  (both on a sample of the windows, extrapolated: their time is proportional to it), and against a floor: sine and
  cosine of the input plus one float32 product [n, 81] @ [81, 4], the 81 monomials and all output buffers given for
  nothing. (The encoder needs no 81 monomials, so it can be faster than that; sine and cosine alone stand beside it.)
* random projection against scikit-learn's `GaussianRandomProjection.transform` on the same array: windows of variables,
  where both see the array as it lies; and windows of time, where scikit-learn needs the array rearranged (both with and
  without counting that).
"""

from __future__ import annotations

import argparse
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
from pipeline.core.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance

SHAPE, QUICK_SHAPE = (8000, 48, 44), (800, 48, 44)
WIDTH, LAYERS = 4, 2
KEY = Secret(bytes(range(32)), "encoder")  # a benchmark's key is no secret
SEED = 0
BARS = {
    "quantum float32 / QNode per window": 20_000,
    "quantum float32 / best batched QNode": 25,
    "quantum float32 / floor": 0.5,
    "projection over variables / scikit-learn": 1.0,
    "projection over time / scikit-learn, rearranged beforehand": 1.0,
}


def qnode(interface: str) -> Any:
    """PennyLane's circuit; values are `(wire,)` or `(window, wire)`."""
    device = qml.device("default.qubit", wires=WIDTH)

    @qml.qnode(device, interface=interface, diff_method=None)
    def circuit(values: Any, angles: Any) -> Any:
        for wire in range(WIDTH):
            qml.RY(np.pi * values[..., wire], wires=wire)
        qml.BasicEntanglerLayers(angles, wires=range(WIDTH))
        return [qml.expval(qml.PauliZ(wire)) for wire in range(WIDTH)]

    return circuit


def contestants(features: np.ndarray, n_calls: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name -> (windows it handles, what to time)."""
    stays, steps, channels = features.shape
    n_windows = stays * steps // WIDTH * channels
    rng = np.random.default_rng(SEED)
    cohort = empty_cohort(steps, channels)
    quantum = QuantumEncoder(WIDTH, LAYERS).fit(cohort, KEY)
    angles = QuantumEncoder(WIDTH, LAYERS).parameters(KEY).weights
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
                interface, windows, angles, precision, batch
            )

    monomials = rng.random((n_windows, 3**WIDTH), dtype=np.float32)
    matrix = rng.random((3**WIDTH, WIDTH), dtype=np.float32)
    sine, cosine, product = np.empty_like(features), np.empty_like(features), np.empty((n_windows, WIDTH), np.float32)
    torch_in, torch_monomials, torch_matrix = map(torch.from_numpy, (features, monomials, matrix))
    torch_sine, torch_cosine, torch_product = map(torch.from_numpy, (sine, cosine, product))

    def numpy_trigonometry() -> None:
        np.sin(features, out=sine)
        np.cos(features, out=cosine)

    def numpy_floor() -> None:
        numpy_trigonometry()
        np.matmul(monomials, matrix, out=product)

    def torch_floor() -> None:
        torch.sin(torch_in, out=torch_sine)
        torch.cos(torch_in, out=torch_cosine)
        torch.matmul(torch_monomials, torch_matrix, out=torch_product)

    found["sine and cosine alone, numpy"] = (n_windows, numpy_trigonometry)
    found["floor, numpy"] = (n_windows, numpy_floor)
    found["floor, torch"] = (n_windows, torch_floor)

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


def batched(
    interface: str, windows: np.ndarray, angles: np.ndarray, precision: Any, batch: int
) -> tuple[int, Callable[[], object]]:
    """PennyLane's broadcasting over a batch of windows."""
    circuit = qnode(interface)
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
        ratios[f"{ours} / floor"] = against(ours, best("floor"))
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
    for name, encoder in (("quantum", QuantumEncoder()), ("projection", RandomProjectionEncoder())):
        fitted = encoder.fit(cohort, KEY)
        for kind, array in (("", features), (", 46 steps (padded)", features[:, :46])):
            tracemalloc.start()
            output = fitted.encode_array(array)
            held[f"{name}{kind}"] = round((tracemalloc.get_traced_memory()[1] - output.nbytes) / 2**20, 2)
            tracemalloc.stop()
    return held


def disagreement(features: np.ndarray) -> float:
    """Largest difference to PennyLane over the windows of 20 stays, float64."""
    angles = QuantumEncoder(WIDTH, LAYERS).parameters(KEY).weights
    some = features[:20].astype(np.float64)
    windows = some.reshape(-1, WIDTH, some.shape[2]).transpose(0, 2, 1).reshape(-1, WIDTH)
    expected = np.stack(qnode("numpy")(windows, angles), axis=1)
    ours = QuantumEncoder(WIDTH, LAYERS).fit(empty_cohort(*some.shape[1:]), KEY).encode_array(some)
    ours = ours.reshape(-1, WIDTH, some.shape[2]).transpose(0, 2, 1).reshape(-1, WIDTH)
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
        "largest_difference_to_pennylane": disagreement(features),
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.out or not arguments.quick:
        (arguments.out or Path(__file__).parent / "results" / "encoding.json").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
