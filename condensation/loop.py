"""The one condensation loop: draw a batch per class, ask the method for a loss, take a step on the samples.

A method is a function (step, real batches, samples per class) -> loss; it owns its networks. The loop owns the samples,
the optimiser, the batches and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.protocols import OnStep
from pipeline.core.seeds import generator
from pipeline.core.types import EncodedCohort

Loss = Callable[[int, Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(step, real batch per class, samples per class), each `(n, step, channel)` -> scalar loss."""

REPORT_EVERY = 10  # steps between calls of on_step: reading a loss back would stall an accelerator


@final
@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs to know beyond the loss."""

    iterations: int
    learning_rate: float
    batch_size: int


def class_rows(encoded: EncodedCohort, at_least: int, why: str) -> list[np.ndarray]:
    """Row numbers of the stays of class 0 and class 1 of task 0; stays without that label belong to neither.

    Raises:
        DataError: a class has fewer than `at_least` stays.
    """
    labels = encoded.labels[:, 0]
    rows = [np.flatnonzero(labels == label) for label in (0.0, 1.0)]
    for label, found in enumerate(rows):
        if len(found) < at_least:
            raise DataError(
                f"class {label} of task {encoded.tasks[0].name} has too few training stays: {why} needs {at_least}"
            )
    return rows


def check_n_per_class(n_per_class: int) -> None:
    """Raises ConfigError below 1."""
    if n_per_class < 1:
        raise ConfigError("n_per_class must be at least 1")


def optimise_samples(
    encoded: EncodedCohort,
    rows: Sequence[np.ndarray],
    initial: np.ndarray,
    loss: Loss,
    settings: LoopSettings,
    *,
    seed: int,
    device: str,
    on_step: OnStep,
) -> np.ndarray:
    """Move the samples `(class * sample, step, channel)`, classes one after the other, down the loss.

    Adam, one step per iteration on all samples; batches of up to `batch_size` stays per class, without replacement
    within a batch. The same seed gives the same bytes on one machine and thread count.
    """
    samples = torch.tensor(initial, dtype=torch.float32, device=device, requires_grad=True)
    optimiser = torch.optim.Adam([samples], lr=settings.learning_rate)
    per_class = len(initial) // len(rows)
    draws = generator(seed, "condense", "batches")
    for step in range(settings.iterations):
        real = [
            torch.from_numpy(
                encoded.features[draws.choice(part, min(settings.batch_size, len(part)), replace=False)]
            ).to(device)
            for part in rows
        ]
        value = loss(step, real, torch.split(samples, per_class))
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward without annotations
        optimiser.step()
        done = step + 1
        if done % REPORT_EVERY == 0 or done == settings.iterations:
            on_step(done, settings.iterations, float(value.detach()))
    return samples.detach().cpu().numpy()
