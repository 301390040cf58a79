"""T1: no key and no pair, but patients of the same population: the map is found by matching moments.

For a linear map y = x A of windows, the covariances of every channel's windows obey S_y = A^T S_x A, and the attacker's
own patients tell S_x. Pooled covariances leave a rotation open; the covariances of single channels close it, by the
eigenvectors of one mixture of them on either side (joint diagonalisation, Belouchrani et al., IEEE TSP 45, 1997), and
mean windows settle the signs. Beside it: independent component analysis (FastICA, Hyvärinen 1999) of own and encoded
windows, components matched by their mean profiles. Both assume linearity; on a circuit they reach what is linear in it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, final

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from pipeline.audit.encodings.inversion import (
    QUIET,
    calibrated_r2,
    chosen_targets,
    is_noisy,
    known_layout,
    target_of,
    unsupported_encoding,
)
from pipeline.audit.encodings.scoring import r2, r2_interval
from pipeline.audit.encodings.windows import Layout
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import EncodingScene
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import AttackResult, ThreatModel

MAX_WINDOW = 10
MAX_ROWS = 1500  # stays of either side from which moments are taken
MIXTURES = 60
ICA_WINDOWS = 20_000
FOUND = 0.8  # R2 for a planted rotation
RIDGE = 1e-6


@dataclass(frozen=True)
class Moments:
    """Of windows by cell (lane, slot) and by channel."""

    means: np.ndarray  # (cell, value)
    pooled: np.ndarray  # (value, value) covariance
    channels: np.ndarray  # (channel, value, value)
    windows: np.ndarray  # (window, value), moving ones, a sample


def moments_of(cells: np.ndarray, layout: Layout, noise: float, rng: np.random.Generator) -> Moments:
    """Moments of `(stay * cell, value)`, the variance of added noise taken off."""
    width = cells.shape[1]
    by_cell = cells.reshape(-1, layout.lanes * layout.slots, width).astype(np.float64)
    groups = layout.groups(1)
    off = noise**2 * np.eye(width)
    channels = [_covariance(by_cell[:, groups == group].reshape(-1, width)) - off for group in np.unique(groups)]
    moving = cells[np.ptp(cells, axis=1) > 0.05 * np.ptp(cells)]
    sample = moving[rng.permutation(len(moving))[:ICA_WINDOWS]]
    return Moments(by_cell.mean(axis=0), _covariance(cells) - off, np.stack(channels), sample.astype(np.float64))


def _covariance(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.cov(rows, rowvar=False).reshape(rows.shape[1], rows.shape[1]))


def _root(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric square root and its inverse; small eigenvalues are held up."""
    values, vectors = np.linalg.eigh(matrix)
    values = np.sqrt(np.maximum(values, RIDGE * max(float(values.max()), 1e-12)))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def rotations(own: Moments, seen: Moments, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Candidate maps A `(value, output)`, by the eigenvectors of mixtures of the channels' covariances."""
    root, unroot = _root(own.pooled)
    seen_root, seen_unroot = _root(seen.pooled)
    plain = unroot @ own.channels @ unroot
    encoded = seen_unroot @ seen.channels @ seen_unroot
    signs = np.array(list(product((1.0, -1.0), repeat=min(len(root), MAX_WINDOW))))
    anchor, seen_anchor = own.means - own.means.mean(axis=0), seen.means - seen.means.mean(axis=0)
    for _ in range(MIXTURES):
        weights = rng.standard_normal(len(plain))
        vectors = np.linalg.eigh(np.tensordot(weights, plain, axes=1))[1]
        seen_vectors = np.linalg.eigh(np.tensordot(weights, encoded, axes=1))[1]
        mine, theirs = anchor @ unroot @ vectors, seen_anchor @ seen_unroot @ seen_vectors
        sign = np.sign((mine * theirs).sum(axis=0))  # least squares of the mean profiles, direction by direction
        flips = signs[:1] if np.all(sign) else signs
        for flip in flips:
            chosen = np.where(sign == 0, flip, sign)
            yield unroot @ (vectors * chosen) @ seen_vectors.T @ seen_root


def mismatch(found: np.ndarray, own: Moments, seen: Moments) -> float:
    """How far a map is from carrying the own moments onto those that are seen."""
    means = (own.means - own.means.mean(axis=0)) @ found - (seen.means - seen.means.mean(axis=0))
    covariances = found.T @ own.channels @ found - seen.channels
    scale = max(float(np.trace(seen.pooled)), 1e-12)
    return float((means**2).mean() / scale + (covariances**2).mean() / scale**2)


def by_moments(own: Moments, seen: Moments, rng: np.random.Generator) -> np.ndarray:
    """The candidate that fits best."""
    return min(rotations(own, seen, rng), key=lambda found: mismatch(found, own, seen))


def by_components(own: Moments, seen: Moments, seed: int) -> np.ndarray:
    """The map that carries the own independent components onto the encoded ones of the likest mean profile."""
    width = own.pooled.shape[0]
    fits = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for part in (own, seen):
            fits.append(FastICA(width, whiten="unit-variance", max_iter=300, random_state=seed).fit(part.windows))
    profiles = [
        (part.means - part.means.mean(axis=0)) @ fit.components_.T for fit, part in zip(fits, (own, seen), strict=True)
    ]
    scaled = [profile / np.maximum(np.linalg.norm(profile, axis=0), 1e-12) for profile in profiles]
    alike = scaled[0].T @ scaled[1]
    mine, theirs = linear_sum_assignment(-np.abs(alike))
    unmix = fits[0].components_.T[:, mine] * np.sign(alike[mine, theirs])
    return np.asarray(unmix @ fits[1].mixing_.T[theirs])


def estimates(scene: EncodingScene, encoded: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The targets' series by each method: `(stay, step, channel)`.

    Args:
        encoded: what the release holds of all its stays; the targets are estimated from `scene.encoded_targets`.
    """
    layout = known_layout(scene)
    rng = generator(seed, "audit", "blind")
    own = moments_of(layout.cut(scene.own[:MAX_ROWS]), layout, 0.0, rng)
    noise = max(scene.noise_sd, 0.0 if scene.shots is None else scene.shots**-0.5)
    seen = moments_of(layout.cut_encoded(encoded[:MAX_ROWS]), layout, noise, rng)
    maps = {
        "moments": by_moments(own, seen, rng),
        "components": by_components(own, seen, child_seed(seed, "ica") % 2**32),
    }
    cells = layout.cut_encoded(scene.encoded_targets).astype(np.float64)
    shift = seen.means.mean(axis=0), own.means.mean(axis=0)
    return {
        name: layout.join(np.clip((cells - shift[0]) @ np.linalg.pinv(found) + shift[1], 0, 1))
        for name, found in maps.items()
    }


@final
@dataclass(frozen=True)
class BlindSeparation:
    """R2 of what a population's moments and independent components give away."""

    name: ClassVar[str] = "blind_source_separation"
    threat_model: ClassVar[ThreatModel] = "T1"
    scene_type: ClassVar[type] = EncodingScene

    def unsupported(self, scene: Any) -> str | None:
        """Not one map of few values that keeps as many."""
        if (reason := unsupported_encoding(scene)) is not None:
            return reason
        layout = known_layout(scene)
        if scene.key_scope != "shared":
            return "there is no single map whose moments could be matched"
        if layout.width != layout.window or not 2 <= layout.window <= MAX_WINDOW:
            return f"only maps of 2 to {MAX_WINDOW} values onto as many are separated blindly"
        return None

    def run(self, scene: EncodingScene, seed: int) -> tuple[AttackResult, ...]:
        """One result: R2 over all values, the better method."""
        release = scene.encoded_targets
        few = chosen_targets(scene, seed)
        target, layout = target_of(few), known_layout(few)
        found = estimates(few, release, seed)
        values = {name: r2(target, estimate) for name, estimate in found.items()}
        method = max(values, key=lambda name: values[name])
        figure = r2_interval(target, found[method], generator(seed, "audit", "blind", "r2"), few.n_bootstrap)
        control = calibrated_r2(target, np.roll(found[method], len(few.targets) // 2, axis=0))
        planted = max(r2(target, estimate) for estimate in _planted(scene, few, layout, seed).values())
        return (
            result(
                scene,
                self,
                Figure("r2", figure, n=target.n, powered=True, gates=True),
                Controls(control, planted, control <= QUIET and planted >= FOUND),
                summary=f"An attacker without key or pairs, who knows the population, recovers the series of "
                f"{scene.artefact} with R2 {figure} (n = {target.n} stays).",
                detail={
                    "method": method,
                    "r2_by_method": {name: round(value, 4) for name, value in values.items()},
                    "noisy": is_noisy(scene),
                },
            ),
        )


def _planted(scene: EncodingScene, few: EncodingScene, layout: Layout, seed: int) -> dict[str, np.ndarray]:
    """The same attack on a fixed rotation without noise."""
    mix = np.linalg.qr(np.random.default_rng(7).standard_normal((layout.window, layout.window)))[0]

    def rotated(series: np.ndarray) -> np.ndarray:
        cells = (layout.cut(series) @ mix).reshape(len(series), layout.lanes, layout.slots * layout.window)
        return np.swapaxes(cells, 1, 2) if layout.axis == "time" else cells

    leak = dataclasses.replace(few, encoded_targets=rotated(few.targets), noise_sd=0.0, shots=None)
    return estimates(leak, rotated(scene.targets[:MAX_ROWS]), seed)
