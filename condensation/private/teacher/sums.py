"""The exact sums that a private teacher asks for, block by block: no noise yet, so nothing here may leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Final, final

import numpy as np

from condensation.private.accounting import task_weights
from condensation.private.channels import PublicChannels
from condensation.private.moments import (
    RAW_CLIP_SHARE,
    RowBlocks,
    Standardiser,
    row_blocks,
    standardised,
    subject_shares,
)
from condensation.private.process_statistics import row_length, statistic_rows
from condensation.private.teacher import logistic
from condensation.private.teacher.reliability import KNOTS, reliability_parts
from pipeline.core.digest import digest_array, digest_blocks
from pipeline.core.types import EncodedCohort

LABEL_WEIGHT: Final = 0.5  # of the label sums in the scale's query, in units of that query's clip norm


@final
class ExactSums:
    """Of one cohort; several stays of a subject share a weight of one."""

    def __init__(self, encoded: EncodedCohort, channels: PublicChannels) -> None:
        self.channels, self._encoded = channels, encoded
        self.share = subject_shares(encoded.subject_index)
        self.levels = row_blocks(encoded.features, channels.features, channels.n_features)
        self.clip = RAW_CLIP_SHARE * channels.half_range * math.sqrt(channels.n_features)  # of a row of features
        self.label_weights = task_weights(len(encoded.tasks), LABEL_WEIGHT * self.clip)
        self.task_weights = task_weights(len(encoded.tasks), 1.0)

    @cached_property
    def statistics(self) -> RowBlocks:
        """Passes over `statistic_rows`."""
        features, width = self._encoded.features, row_length(self.channels)
        return row_blocks(features, lambda series: statistic_rows(self.channels, series), width)

    def labelled(self) -> np.ndarray:
        """`label_parts` of all stays."""
        return label_parts(self._encoded.labels, self.share, self.label_weights)

    def gradients(self, scaler: Standardiser) -> Callable[[np.ndarray], np.ndarray]:
        """Weights -> the sum of `gradient_parts` over all stays, flat."""

        def row(series: np.ndarray) -> np.ndarray:
            z = standardised(self.channels.features(series), scaler, logistic.CLIP_NORM)
            z[:, 0] = logistic.CONSTANT
            return z

        rows = row_blocks(self._encoded.features, row, self.channels.n_features + 1)
        labels = self._encoded.labels

        def exact(weights: np.ndarray) -> np.ndarray:
            found = np.zeros(weights.size)
            for part, z in rows():
                found += logistic.gradient_parts(z, labels[part], weights, self.share[part], self.task_weights)
            return found

        return exact

    def reliability(self, taught: logistic.LogisticTeacher) -> np.ndarray:
        """The sum of `reliability_parts` over all stays, flat."""
        found = np.zeros(len(self.task_weights) * len(KNOTS) * 2)
        for part, levels in self.levels():
            logits, labels = taught.unbounded(levels), self._encoded.labels[part]
            found += reliability_parts(logits, labels, self.share[part], self.task_weights)
        return found

    @cached_property
    def channels_digest(self) -> str:
        """Of the public facts."""
        return self.channels.digest()

    @cached_property
    def digests(self) -> list[str]:
        """Of all that the sums depend on."""
        return [
            self._digest(self.levels, self.channels.n_features),
            self._digest(self.statistics, row_length(self.channels)),
            *(digest_array(part) for part in (self._encoded.features, self._encoded.labels)),
            digest_array(self._encoded.subject_index),
        ]

    def _digest(self, rows: RowBlocks, width: int) -> str:
        shape = (len(self._encoded.labels), width)
        return digest_blocks(np.dtype(np.float64), shape, (block for _, block in rows()))


def label_parts(labels: np.ndarray, share: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Per task weights[t] * (sum of y, sum of 1 - y), flat, `(2 * task,)`; a missing label adds to neither.

    (y, 1 - y) has a norm of at most 1, so a subject moves it by at most sqrt(sum of weights^2).
    """
    known = np.clip(labels.astype(np.float64), 0.0, 1.0)
    both = np.nan_to_num(np.stack([known, 1.0 - known], axis=2), nan=0.0)
    return np.asarray((weights[:, None] * np.tensordot(share, both, axes=1)).ravel())
