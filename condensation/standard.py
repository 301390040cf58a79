"""Standardised channels: the training part's mean and standard deviation, and the way back.

Both look at the stays, so a method that uses them can carry no guarantee.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from condensation.coresets import in_chunks
from pipeline.core.types import EncodedCohort

SMALLEST_SPREAD: Final = 1e-6  # share of the mean below which float32 tells no values of a channel apart


@final
@dataclass(frozen=True, eq=False)
class Standard:
    """Mean and standard deviation of each channel over stays and steps; 0 = the channel does not vary."""

    mean: Float32[np.ndarray, " channel"]
    sd: Float32[np.ndarray, " channel"]

    def z(self, features: Tensor) -> Tensor:
        """`(..., channel)` in the cohort's units -> z; 0 throughout in a channel that does not vary."""
        return self.z_on(str(features.device))(features)

    def z_on(self, device: str) -> Callable[[Tensor], Tensor]:
        """`z` for tensors that lie there, its constants brought over once."""
        mean, sd = (torch.from_numpy(column).to(device) for column in (self.mean, self.sd))
        gain = torch.where(sd > 0, 1 / sd, 0.0)
        return lambda features: (features - mean) * gain

    def series(self, z: np.ndarray) -> Float32[np.ndarray, "sample step channel"]:
        """z -> the cohort's units; the constant in a channel that does not vary."""
        return np.asarray(self.mean + self.sd * z, dtype=np.float32)


def standard_of(encoded: EncodedCohort) -> Standard:
    """Of all stays of a cohort, in two passes over chunks of stays, summed in float64."""
    stays = np.arange(len(encoded.features))
    n_values = max(1, encoded.features.shape[0] * encoded.features.shape[1])
    total, squares = np.zeros((2, encoded.features.shape[2]))
    for chunk in in_chunks(stays):
        total += encoded.features[chunk].sum(axis=(0, 1), dtype=np.float64)
    mean = (total / n_values).astype(np.float32)
    for chunk in in_chunks(stays):
        squares += np.square(encoded.features[chunk] - mean).sum(axis=(0, 1), dtype=np.float64)
    sd = np.sqrt(squares / n_values)
    sd[sd <= SMALLEST_SPREAD * np.abs(mean)] = 0.0
    return Standard(mean, sd.astype(np.float32))
