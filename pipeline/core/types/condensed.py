"""What is made of patients and can be shared: condensed sets, private moments, and their guarantee."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from pipeline.core.errors import DataError
from pipeline.core.teacher_form import n_features, problem
from pipeline.core.types.cohort import ArrayRecord, Json, Provenance, Task, _shape


@dataclass(frozen=True)
class PrivacyGuarantee:
    """An (epsilon, delta) statement with all needed to check it; the only privacy claim an artefact may carry."""

    epsilon: float
    delta: float
    unit: Literal["subject", "stay"]
    adjacency: Literal["add-or-remove-one"]
    accountant: str  # library, version and method
    events: tuple[Json, ...]  # dp-accounting events, composed
    assumed_public: tuple[str, ...]  # what the account takes as known beforehand

    def __post_init__(self) -> None:
        if not (self.epsilon >= 0 and 0 <= self.delta < 1 and math.isfinite(self.epsilon)):
            raise DataError("a privacy guarantee needs a finite epsilon >= 0 and a delta in [0, 1)")


@dataclass(frozen=True, eq=False, repr=False)
class Moments(ArrayRecord):
    """Noisy sufficient statistics of a public feature map phi: they add up over institutions with disjoint patients.

    `feature_map` is the public description of phi (kind, size, clip norm, channels, steps); two Moments may be added
    only when `feature_map_digest` agrees. Feature 0 is the constant 1, so counts and sums are entries of `gram`, and
    `signed_counts` is column 0 of `signed_sums`.
    """

    gram: Float64[np.ndarray, "feature feature"]  # sum of phi phi^T, noisy, symmetric
    signed_sums: Float64[np.ndarray, "task feature"]  # sum of (2y - 1) phi, missing labels count 0
    signed_counts: Float64[np.ndarray, " task"]  # sum of (2y - 1), noisy
    feature_map: Json
    feature_map_digest: str
    channels: tuple[str, ...]
    tasks: tuple[Task, ...]
    n_steps: int
    step_hours: float
    transforms: tuple[Json, ...]
    guarantee: PrivacyGuarantee | None
    provenance: Provenance

    def __post_init__(self) -> None:
        features = self.gram.shape[0]
        _shape("gram", self.gram, (features, features))
        _shape("signed_sums", self.signed_sums, (len(self.tasks), features))
        _shape("signed_counts", self.signed_counts, (len(self.tasks),))


@dataclass(frozen=True, eq=False, repr=False)
class CondensedSet(ArrayRecord):
    """A few synthetic samples; by construction no field can hold an id or a row index."""

    features: Float32[np.ndarray, "sample step channel"]
    labels: Float32[np.ndarray, "sample task"]  # in [0, 1]; soft when not all 0 or 1; NaN = missing
    channels: tuple[str, ...]
    tasks: tuple[Task, ...]
    step_hours: float
    transforms: tuple[Json, ...]
    method: str
    starts_from_records: bool  # a sample was initialised from (or is) a real stay or an average of few
    guarantee: PrivacyGuarantee | None
    provenance: Provenance
    label_shift: Float64[np.ndarray, " task"] | None = None
    """What was taken off the labels' log odds to balance them; whoever learns from them adds it to predicted ones."""
    teacher: Float64[np.ndarray, "task entry"] | None = None  # intercept, then a coefficient per feature
    teacher_features: Json | None = None  # what the coefficients weigh (`pipeline.core.teacher_form`)

    def __post_init__(self) -> None:
        samples, steps = self.features.shape[:2]
        _shape("features", self.features, (samples, steps, len(self.channels)))
        _shape("labels", self.labels, (samples, len(self.tasks)))
        if not bool(np.isfinite(self.features).all()):
            raise DataError("condensed features must be finite")
        known = self.labels[np.isfinite(self.labels)]
        if known.size and not (known.min() >= 0 and known.max() <= 1):
            raise DataError("condensed labels must lie in [0, 1]")
        self._check_teacher(steps)

    def _check_teacher(self, steps: int) -> None:
        if (self.teacher is None) != (self.teacher_features is None):
            raise DataError("a teacher is its numbers and their description: one is there without the other")
        if self.guarantee is None and not (self.teacher is None and self.label_shift is None):
            raise DataError(
                "a teacher and the balance of labels describe all patients: only a set with a guarantee may hold them"
            )
        if self.teacher is not None and (why := problem(self.teacher_features, self.channels, steps)):
            raise DataError(f"the description of a condensed set's teacher {why}")
        entries = 1 + (0 if self.teacher_features is None else n_features(self.teacher_features, self.channels))
        for name, array, shape in (
            ("label_shift", self.label_shift, (len(self.tasks),)),
            ("teacher", self.teacher, (len(self.tasks), entries)),
        ):
            if array is not None:
                _shape(name, array, shape)
                if not bool(np.isfinite(array).all()):
                    raise DataError(f"a condensed set's {name} must be finite")

    @property
    def has_soft_labels(self) -> bool:
        known = self.labels[np.isfinite(self.labels)]
        return not bool(np.isin(known, (0.0, 1.0)).all())


@dataclass(frozen=True, eq=False, repr=False)
class LossCurve(ArrayRecord):
    """The losses a condenser reported, thinned; part of the site's report, never of a bundle."""

    losses: Float32[np.ndarray, " point"]
    artefact: str
