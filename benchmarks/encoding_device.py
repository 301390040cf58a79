"""The quantum encoder on a device of torch: `python benchmarks/encoding.py --device cuda [--quick]`.

Time by the device's own events (on a CPU: the clock), the median of rounds after a warm-up. Beside the windows per
second stands how much of the device's bandwidth is used: bytes of input plus output per second, over the rate at which
a copy of the input reads and writes (measured in the same run). Peers: PennyLane's QNode with a batch of windows on the
same device, and the floor: sine and cosine of the input alone. This module needs torch and numpy; without PennyLane the
peer is left out and that is said.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from encoders.quantum import QuantumEncoder
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance

KEY = Secret(bytes(range(32)), "encoder")  # a benchmark's key is no secret
ROUNDS = 15
CIRCUITS: dict[str, tuple[dict[str, Any], int]] = {  # name -> (options, stays of 8,000)
    "basic entangler, 4 qubits": ({}, 8000),
    "strongly entangling, 4 qubits": ({"template": "StronglyEntanglingLayers"}, 8000),
    "strongly entangling, 8 qubits": ({"template": "StronglyEntanglingLayers", "n_qubits": 8}, 2000),
    "strongly entangling, 10 qubits": ({"template": "StronglyEntanglingLayers", "n_qubits": 10}, 500),
}
BATCH = 1 << 15


def device_table(device: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Seconds, windows per second and share of the bandwidth for every circuit and precision."""
    place = torch.device(device)
    rows: dict[str, dict[str, Any]] = {}
    for precision in (torch.float32, torch.float64):
        features = torch.rand(shape, dtype=precision, generator=torch.Generator().manual_seed(0)).to(place)
        copied = torch.empty_like(features)
        copy = seconds(place, lambda: copied.copy_(features))  # noqa: B023  # called at once
        bandwidth = 2 * features.nbytes / copy
        sine = seconds(place, lambda: (torch.sin(features, out=copied), torch.cos(features, out=copied)))  # noqa: B023
        kind = str(precision).removeprefix("torch.")
        rows[f"copy, {kind}"] = {"seconds": copy, "gigabytes_per_second": bandwidth / 1e9}
        rows[f"sine and cosine alone, {kind}"] = {
            "seconds": sine,
            "windows_of_4_per_second": features.numel() / 4 / sine,
        }
        for name, (options, stays) in CIRCUITS.items():
            some = features[: max(1, stays * shape[0] // 8000)]
            encoder = QuantumEncoder(**options)
            fitted = encoder.fit(_like(some), KEY)
            encoded = fitted.encode_tensor(some)
            taken = seconds(place, lambda: fitted.encode_tensor(some))  # noqa: B023
            windows = encoded.numel() // encoder.components
            row: dict[str, Any] = {
                "seconds": taken,
                "windows": windows,
                "windows_per_second": windows / taken,
                "share_of_copy_bandwidth": (some.nbytes + encoded.nbytes) / taken / bandwidth,
            }
            peer = _qnode(encoder, some)
            if peer is None:
                row["batched_qnode"] = "PennyLane is not installed"
            else:
                row["batched_qnode_windows_per_second"] = peer[0] / seconds(place, peer[1])
            rows[f"{name}, {kind}"] = row
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    return {"benchmark": "encoding on a device", "device": name, "torch": torch.__version__, "rows": rows}


def seconds(place: torch.device, call: Callable[[], object]) -> float:
    """Median over rounds."""
    taken: list[float] = []
    for index in range(ROUNDS + 2):
        if place.type == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            torch.cuda.synchronize(place)
            elapsed = start.elapsed_time(stop) / 1000
        else:
            began = time.perf_counter()
            call()
            elapsed = time.perf_counter() - began
        if index >= 2:
            taken.append(elapsed)
    return statistics.median(taken)


def _qnode(encoder: QuantumEncoder, features: torch.Tensor) -> tuple[int, Callable[[], object]] | None:
    """PennyLane's circuit on a batch of windows that lie on the device."""
    try:
        import pennylane as qml
    except ImportError:
        return None
    n_qubits = encoder.n_qubits
    width = features.shape[1] - features.shape[1] % n_qubits
    windows = features[:, :width].transpose(1, 2).reshape(-1, n_qubits)[: BATCH >> (n_qubits - 4)].clone()
    weights = torch.from_numpy(encoder.parameters(KEY).weights).to(features)

    @qml.qnode(qml.device("default.qubit", wires=n_qubits), interface="torch", diff_method=None)
    def circuit(values: torch.Tensor) -> Any:
        for wire in range(n_qubits):
            qml.RY(torch.pi * values[:, wire], wires=wire)
        getattr(qml, encoder.template)(weights, wires=range(n_qubits))
        return [qml.expval(qml.PauliZ(wire)) for wire in range(n_qubits)]

    return len(windows), lambda: circuit(windows)


def _like(features: torch.Tensor) -> EncodedCohort:
    """No stays: a fit needs the shape only."""
    steps, channels = features.shape[1:]
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
