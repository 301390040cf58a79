"""Full float32 unless asked otherwise; what torch had set before is set again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from condensation.kernel_matching import KernelMatching
from condensation.start import condense_with
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task
from pipeline.probes.networks import build_network
from pipeline.probes.precision import arithmetic
from pipeline.probes.training import train_network

FAST = {"maps": ("summaries",), "pool_size": 1, "iterations": 10, "initialisation": "noise"}
NOISE = NoiseSource(Secret(bytes(32), "noise"), "cohort")


def flags() -> list[str]:
    b: Any = torch.backends
    return [str(kind.fp32_precision) for kind in (b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn)]


def cohort() -> EncodedCohort:
    draws = np.random.default_rng(0)
    return EncodedCohort(
        features=draws.uniform(size=(20, 4, 2)).astype(np.float32),
        labels=(np.arange(20) % 2).astype(np.float32)[:, None],
        subject_index=np.arange(20, dtype=np.int32),
        split=np.zeros(20, np.int8),
        channels=("a", "b"),
        tasks=(Task("event"),),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


@pytest.mark.parametrize(("precision", "expected"), [("float32", "ieee"), ("tf32", "tf32")])
def test_flags_hold_inside_and_come_back_even_after_a_failure(precision: str, expected: str) -> None:
    before, seen = flags(), []

    def fail() -> None:
        with arithmetic(precision):  # type: ignore[arg-type]
            seen.extend(flags())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == [expected] * 3
    assert flags() == before


def test_condensing_and_training_are_in_full_float32_by_default() -> None:
    before, seen = flags(), []

    def look(step: int, steps: int, loss: float) -> None:
        seen.append(flags())

    KernelMatching(**FAST).condense(cohort(), n_per_class=2, seed=0, noise=NOISE, on_step=look)  # type: ignore[arg-type]
    network = build_network("rnn-b", n_channels=2, n_steps=4, n_tasks=1, seed=0)
    train_network(network, cohort().features, cohort().labels, epochs=1, seed=0, on_step=look)
    assert seen
    assert all(one == ["ieee"] * 3 for one in seen)
    assert flags() == before
    assert hasattr(condense_with, "__wrapped__")  # the other methods go through it


def test_tf32_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="CUDA"):
        KernelMatching(precision="tf32", **FAST).condense(cohort(), n_per_class=2, seed=0, noise=NOISE)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="among float32, tf32"):
        KernelMatching(precision="int8", **FAST).condense(cohort(), n_per_class=2, seed=0, noise=NOISE)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_in_full_float32_agrees_with_the_cpu() -> None:
    options = {**FAST, "maps": ("tcn-b", "lstm-b"), "pool_size": 2}
    found = [
        KernelMatching(**options).condense(cohort(), n_per_class=2, seed=0, noise=NOISE, device=device)  # type: ignore[arg-type]
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(found[0].features, found[1].features, atol=1e-3)
    coarse = KernelMatching(precision="tf32", **options).condense(  # type: ignore[arg-type]
        cohort(), n_per_class=2, seed=0, noise=NOISE, device="cuda"
    )
    np.testing.assert_allclose(found[0].features, coarse.features, atol=5e-2)
