"""Samples of a private teacher: series of the public process, placed over the whole range of its risk, with its labels.

Nothing here sees a patient, so any size and seed is free. Where teacher and statistics come from (one release, several
sites, a running sum) is not its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Float64
from scipy.special import expit

from condensation.private.channels import PublicChannels
from condensation.private.placement import placed, pool_size
from condensation.private.process import draw_series
from condensation.private.process_statistics import ProcessStatistics
from condensation.private.teacher.logistic import LogisticTeacher, balancing_shift, calibrated
from condensation.private.teacher.reliability import Reliability
from pipeline.core.risk import LARGEST_LOGIT
from pipeline.core.threads import single_threaded
from pipeline.core.types import Json


@final
@dataclass(frozen=True)
class TaughtSamples:
    """Placed series with the teacher's labels, and the teacher whose risks are those of the cohort."""

    features: Float32[np.ndarray, "sample step channel"]
    labels: Float32[np.ndarray, "sample task"]
    teacher: LogisticTeacher  # calibrated
    label_shift: Float64[np.ndarray, " task"]  # what was taken off its logits to balance the labels; 0 for most tasks
    carried: Json  # what a receiver needs to compute the teacher's features

    def in_set(self) -> dict[str, Any]:
        """All of it as fields of a condensed set."""
        return {
            "features": self.features,
            "labels": self.labels,
            "label_shift": self.label_shift,
            "teacher": self.teacher.numbers,
            "teacher_features": self.carried,
        }


@single_threaded
def samples_from_teacher(
    channels: PublicChannels,
    statistics: ProcessStatistics,
    teacher: LogisticTeacher,
    event_shares: np.ndarray,
    known: Reliability,
    *,
    kinds: Sequence[str],
    n: int,
    seed: int,
) -> TaughtSamples:
    """Draw a pool from the process, place `n` of it, label them; pure post-processing.

    Labels are the teacher's risks. A first task of classes is balanced (its median logit becomes 0), as its samples
    are; the other tasks, and numbers, keep the mean that they have among patients.

    Args:
        teacher: with any slope and intercepts; calibrated by `known` and, where that tells little, so that the pool's
            mean risk is `event_shares`, `(task,)`.
        kinds: of each task, "binary" or "regression".
    """
    pool = draw_series(channels, statistics, pool_size(n), seed)
    levels = channels.features(pool)
    fitted = calibrated(teacher, levels, event_shares, known)
    logits = fitted.logits(levels)
    shift = np.zeros(len(kinds))
    shift[0] = balancing_shift(logits[:, 0]) if kinds[0] == "binary" else 0.0
    chosen = placed(logits[:, 0], n)
    told = np.clip(logits[chosen] - shift, -LARGEST_LOGIT, LARGEST_LOGIT)
    return TaughtSamples(pool[chosen], expit(told).astype(np.float32), fitted, shift, channels.of_features())
