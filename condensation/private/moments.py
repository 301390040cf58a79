"""The one place where the private condenser meets patients: two Gaussian queries on one feature map, then nothing.

Query 1 (a small share of the budget) asks for the number of subjects, the mean and the mean square of each feature.
Its noisy answers centre and scale the features of query 2, which asks for the second moments z z^T and the signed sums
(2y - 1) z of the tasks. Counts, class sizes, means and scales are therefore all inside the account; what is used
without noise (range, blocks, weights, budget shares, clip norm) is public and fixed before any stay is read.

Sums and digests are taken block by block, in the order of the stays, so that a cohort may lie in a file and be larger
than memory; on the grid of the answers (`condensation.private.granular`) the size of a block makes no difference.

Several stays of a subject are averaged (weights 1 / k), so one person moves the sums by at most one row's bound. No
step raises, stops or branches on a value of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol, final

import numpy as np

from condensation.private.accounting import (
    accountant_name,
    centre_sensitivity,
    moment_sensitivity,
    noise_multipliers,
    pack_symmetric,
    task_weights,
    unpack_symmetric,
)
from condensation.private.feature_map import LevelAndTrend, map_digest, public_range
from condensation.private.granular import noisy_answer
from pipeline.core.digest import digest_array, digest_blocks, digest_json
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.threads import single_threaded
from pipeline.core.types import EncodedCohort, Moments, PrivacyGuarantee, Provenance

CENTRE_SHARE: Final = 0.2  # of the budget, for query 1
SHARES: Final = (CENTRE_SHARE, 1 - CENTRE_SHARE)
DEFAULT_CLIP_NORM: Final = 1.0  # of a standardised row, whose mean square norm is about 1
COUNT_WEIGHT: Final = 0.5  # of the subject count in query 1, in units of that query's clip norm
RAW_CLIP_SHARE: Final = 0.75  # query 1 clips ||x|| to this share of half_range * sqrt(features)
SPREAD_FLOOR: Final = 0.2  # smallest standard deviation believed, in half ranges
CHUNK_STAYS: Final = 1024
HELD_BYTES: Final = 1 << 26  # rows of the feature map up to this size are kept between the passes, else made anew
PUBLIC_CONSTANTS: Final = (
    "variables, units, plausible and scaling ranges, constants for never observed variables, grid and task definitions",
    "feature map, its weights, clip norms, shares of the budget and regularisation, fixed before the data were read",
    "every transform listed with the set, the encoder's public specification included",
    "who counts as one subject, and the split: a keyed hash of the subject, or given by a rule that looks at no other",
    "number of samples asked for",
)
NOISE_LAW: Final = (
    "sums are rounded to one grid, and the noise is a discrete Gaussian on it, sampled exactly from a secret keystream"
)


@final
@dataclass(frozen=True)
class Standardiser:
    """Query 1's noisy answer, rounded: `z = (x - centre) * gain`, each `(feature,)`."""

    centre: np.ndarray
    gain: np.ndarray


@single_threaded
def release_moments(
    encoded: EncodedCohort, *, epsilon: float, delta: float, noise: NoiseSource, clip_norm: float | None = None
) -> Moments:
    """Release the moments of the feature map once, (epsilon, delta)-DP per subject, add or remove one.

    Args:
        encoded: training stays; an empty cohort is as good as any.
        clip_norm: L2 bound of a standardised row; None = `DEFAULT_CLIP_NORM`.

    Raises:
        ConfigError: a transform looked at patients, or epsilon, delta or clip_norm is out of range.
        BudgetError: the noise source has a ledger, and it refuses.
    """
    clip_norm = DEFAULT_CLIP_NORM if clip_norm is None else clip_norm
    require_public(encoded)
    if not (clip_norm > 0 and math.isfinite(clip_norm)):
        raise ConfigError("clip_norm must be a finite number above 0")
    phi = LevelAndTrend(encoded.features.shape[1], len(encoded.channels), *public_range(encoded.transforms))
    multipliers = noise_multipliers(epsilon, delta, SHARES)
    share = subject_shares(encoded.subject_index)
    rows = row_blocks(encoded.features, phi.features, phi.n_features - 1)
    query = _query(encoded, rows, phi, epsilon, delta, clip_norm)
    noise.reserve(query, _events(multipliers))  # before the first noise: a ledger may say no, and then nothing is drawn
    signs = signed_labels(encoded.labels)
    half_width, size = 2 * phi.half_range, phi.n_features - 1  # of a trend; a level's is half of it
    clip = RAW_CLIP_SHARE * phi.half_range * math.sqrt(size)
    sums = ask_sums(rows, share, size, clip, half_width, multipliers[0], noise, {**query, "part": "centre"})
    scaler = sums.standardiser(phi, half_width)
    packed, scale = _ask_moments(rows, share, signs, scaler, clip_norm, multipliers[1], noise, query)
    gram, signed_sums = _in_public_coordinates(packed, scaler, len(encoded.tasks))
    scales = (sums.scale, scale)
    described = {**phi.describe(), "clip_norm": clip_norm}
    tasks = tuple(task.name for task in encoded.tasks)
    return Moments(
        gram=gram,
        signed_sums=signed_sums,
        signed_counts=signed_sums[:, 0].copy(),
        feature_map=described,
        feature_map_digest=map_digest(described, encoded.channels, tasks, encoded.transforms),
        channels=encoded.channels,
        tasks=encoded.tasks,
        n_steps=encoded.features.shape[1],
        step_hours=encoded.step_hours,
        transforms=encoded.transforms,
        guarantee=_guarantee(encoded, epsilon, delta, multipliers, scales),
        provenance=Provenance(
            "moments", config={"epsilon": epsilon, "delta": delta, "clip_norm": clip_norm, "noise_scale": scale}
        ),
    )


def subject_shares(subject_index: np.ndarray) -> np.ndarray:
    """1 / (stays of the same subject), `(stay,)`: the weights of one subject's stays sum to one."""
    _, codes, counts = np.unique(subject_index, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[codes] if len(codes) else np.zeros(0))


def signed_labels(labels: np.ndarray) -> np.ndarray:
    """2y - 1 in [-1, 1], a missing label is 0: `(stay, task)`."""
    return np.asarray(np.clip(np.nan_to_num(2.0 * labels.astype(np.float64) - 1.0, nan=0.0), -1.0, 1.0))


def clipped(rows: np.ndarray, norm: float) -> np.ndarray:
    """Rows scaled down to an L2 norm of at most `norm`."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows * np.minimum(1.0, norm / np.maximum(length, 1e-300)))


def centre_parts(rows: np.ndarray, share: np.ndarray, clip: float, square_weight: float) -> np.ndarray:
    """Query 1 without noise: (count_weight * n, sum x, square_weight * sum x^2), flat, `(1 + 2 * feature,)`."""
    bounded = clipped(rows, clip)
    count = COUNT_WEIGHT * clip * share.sum()
    return np.concatenate([[count], share @ bounded, square_weight * (share @ bounded**2)])


def moment_parts(z: np.ndarray, share: np.ndarray, signs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Query 2 without noise: packed sum of z z^T, then weights[t] * sum of signs[t] z, flat."""
    gram = (z * share[:, None]).T @ z
    sums = (signs * share[:, None]).T @ z * weights[:, None]
    return np.concatenate([pack_symmetric(gram), sums.ravel()])


def standardised(rows: np.ndarray, scaler: Standardiser, clip_norm: float) -> np.ndarray:
    """(1, clipped (x - centre) * gain): rows of norm at most sqrt(1 + clip_norm^2)."""
    z = clipped((rows - scaler.centre) * scaler.gain, clip_norm)
    return np.concatenate([np.ones((len(z), 1)), z], axis=1)


class Weighted(Protocol):
    """A feature map whose features lie within `half_range` of their middle, with public weights."""

    @property
    def half_range(self) -> float:
        """Largest |level - middle|."""
        ...

    @property
    def weights(self) -> np.ndarray:
        """Public importance of the features, `(feature,)`."""
        ...


def gains(variance: np.ndarray, phi: Weighted) -> np.ndarray:
    """Scale per feature from (private) variances: weight / sd^(1/2), so that the rows' mean square norm is one."""
    variance = np.maximum(variance, (SPREAD_FLOOR * phi.half_range) ** 2)
    gain = phi.weights / variance**0.25
    return np.asarray(gain / math.sqrt(float(np.sum(gain**2 * variance))))


def require_public(encoded: EncodedCohort) -> None:
    """No transform looked at patients.

    Raises:
        ConfigError: one did, or nobody can check that it did not.
    """
    if not encoded.is_public_transform:
        bad = ", ".join(sorted(str(step.get("kind")) for step in encoded.transforms if not step["public"]))
        raise ConfigError(
            f"no privacy guarantee can be given: the constants of {bad} were computed from patients, or nobody can "
            'check that they were not; use prepare.scaling = "public_ranges" and an encoder that ships with Decoct'
        )


RowBlocks = Callable[[], Iterable[tuple[slice, np.ndarray]]]
"""A pass over the rows of the feature map: which stays, and theirs, `(stay, feature)`."""


def row_blocks(series: np.ndarray, features: Callable[[np.ndarray], np.ndarray], width: int) -> RowBlocks:
    """Passes over `features` of the series, `(stay, width)`: kept where they are small, else made anew in each pass."""
    parts = [slice(start, start + CHUNK_STAYS) for start in range(0, len(series), CHUNK_STAYS)]

    def made() -> Iterable[tuple[slice, np.ndarray]]:
        return ((part, features(series[part])) for part in parts)

    if len(series) * width * np.dtype(np.float64).itemsize > HELD_BYTES:
        return made
    held = tuple(made())
    return lambda: held


def _query(
    encoded: EncodedCohort, rows: RowBlocks, phi: LevelAndTrend, epsilon: float, delta: float, clip_norm: float
) -> dict[str, object]:
    """Everything the true answers depend on; it names the noise and is published nowhere."""
    shape = (len(encoded.features), phi.n_features - 1)
    return {
        "mechanism": "level_and_trend_moments on a grid, discrete Gaussian",
        "map": phi.describe(),
        "epsilon": float(epsilon).hex(),
        "delta": float(delta).hex(),
        "clip": float(clip_norm).hex(),
        "tasks": [task.name for task in encoded.tasks],
        "channels": list(encoded.channels),
        "transforms": digest_json([dict(step) for step in encoded.transforms]),
        # one noise on two answers cancels in their difference: neither another part of the same cohort nor a constant
        # changed in a later version may meet the same noise (a changed formula asks for another name of the mechanism)
        "constants": [CENTRE_SHARE, COUNT_WEIGHT, RAW_CLIP_SHARE, SPREAD_FLOOR],
        "rows": [
            digest_blocks(np.dtype(np.float64), shape, (block for _, block in rows())),
            *(digest_array(part) for part in (encoded.features, encoded.labels, encoded.subject_index)),
        ],
    }


@final
@dataclass(frozen=True)
class Sums:
    """A noisy answer about rows: how many subjects, the sums of their entries and of their squares; and the noise."""

    count: float  # at least 1
    totals: np.ndarray  # (feature,)
    squares: np.ndarray  # (feature,)
    beside: np.ndarray  # what else was asked
    scale: float

    def standardiser(self, phi: Weighted, half_width: float) -> Standardiser:
        """Centre and gain of every feature, rounded, so that the last bits of a sum on another machine do not ask for
        other noise in the next query."""
        centre = np.clip(self.totals / self.count, -half_width, half_width)
        variance = np.clip(self.squares / self.count, 0, half_width**2) - centre**2
        return Standardiser(np.round(centre, 6), np.maximum(np.round(gains(variance, phi), 6), 1e-6))


def ask_sums(
    rows: RowBlocks,
    share: np.ndarray,
    size: int,
    clip: float,
    half_width: float,
    multiplier: float,
    noise: NoiseSource,
    query: dict[str, object],
    beside: tuple[np.ndarray, float] = (np.zeros(0), 0.0),
) -> Sums:
    """One Gaussian query: `centre_parts` of rows of `size` entries within `half_width`, clipped to the norm `clip`.

    Sensitivity: `centre_sensitivity`, in square plus that of `beside`: further exact sums and the most that a subject
    moves them by.
    """
    square_weight = 1 / half_width
    sensitivity = math.hypot(centre_sensitivity(clip, half_width, COUNT_WEIGHT * clip, square_weight), beside[1])
    exact = centre_parts(np.zeros((0, size)), share[:0], clip, square_weight)
    for part, block in rows():
        exact += centre_parts(block, share[part], clip, square_weight)
    answer, scale = noisy_answer(np.concatenate([exact, beside[0]]), sensitivity, multiplier, noise, query)
    count = max(answer[0] / (COUNT_WEIGHT * clip), 1.0)
    squares = answer[1 + size : 1 + 2 * size] / square_weight
    return Sums(count, answer[1 : 1 + size], squares, answer[1 + 2 * size :], scale)


def _ask_moments(
    rows: RowBlocks,
    share: np.ndarray,
    signs: np.ndarray,
    scaler: Standardiser,
    clip_norm: float,
    multiplier: float,
    noise: NoiseSource,
    query: dict[str, object],
) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    row_norm = math.sqrt(1 + clip_norm**2)
    weights = task_weights(signs.shape[1], row_norm)
    sensitivity = moment_sensitivity(row_norm, [float(weight) for weight in weights])
    size = len(scaler.centre) + 1
    exact = moment_parts(np.zeros((0, size)), share[:0], signs[:0], weights)
    for part, block in rows():
        exact += moment_parts(standardised(block, scaler, clip_norm), share[part], signs[part], weights)
    used = {name: digest_array(array) for name, array in vars(scaler).items()} | {"weights": digest_array(weights)}
    answer, scale = noisy_answer(exact, sensitivity, multiplier, noise, {**query, "part": "moments", **used})
    cut = size * (size + 1) // 2
    gram = unpack_symmetric(answer[:cut], size)
    return (gram, answer[cut:].reshape(signs.shape[1], size) / weights[:, None]), scale


def _in_public_coordinates(
    packed: tuple[np.ndarray, np.ndarray], scaler: Standardiser, n_tasks: int
) -> tuple[np.ndarray, np.ndarray]:
    """From (1, z) to (1, x): x = centre + z / gain, so that moments of sites with other centres add up."""
    gram, sums = packed
    size = len(gram)
    back = np.zeros((size, size))
    back[0, 0] = 1.0
    back[1:, 0] = scaler.centre
    back[np.arange(1, size), np.arange(1, size)] = 1 / scaler.gain
    public = back @ gram @ back.T
    return (public + public.T) / 2, np.asarray(sums @ back.T).reshape(n_tasks, size)


def priced(epsilon: float, delta: float) -> tuple[dict[str, object], ...]:
    """The accounted events of a release, before there is one. Raises ConfigError as `release_moments`."""
    return _events(noise_multipliers(epsilon, delta, SHARES))


def _events(multipliers: tuple[float, ...]) -> tuple[dict[str, object], ...]:
    """The two queries as the accountant sees them."""
    return tuple(
        {"event": "GaussianDpEvent", "query": name, "noise_multiplier": multiplier}
        for name, multiplier in zip(("centre", "moments"), multipliers, strict=True)
    )


def _guarantee(
    encoded: EncodedCohort,
    epsilon: float,
    delta: float,
    multipliers: tuple[float, ...],
    scales: tuple[float, ...],
) -> PrivacyGuarantee:
    return PrivacyGuarantee(
        epsilon=epsilon,
        delta=delta,
        unit=encoded.protected_unit,
        adjacency="add-or-remove-one",
        accountant=accountant_name(),
        events=tuple(
            {**event, "noise_scale": scale} for event, scale in zip(_events(multipliers), scales, strict=True)
        ),
        assumed_public=(*PUBLIC_CONSTANTS, NOISE_LAW),
    )
