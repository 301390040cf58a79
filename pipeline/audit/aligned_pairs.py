"""T3-k: the attacker has no key, but k windows (or the windows of k patients) both plain and encoded.

He tries a linear inverse, the nearest known pair, and the identification of the forward map: a product-state circuit
followed by expectations is linear in the 3^n monomials of (1, cos pi x, sin pi x), so that many independent pairs give
it exactly, and the map is then inverted as under T4. Windows picked for independence stand beside random ones, because
most windows of slow variables are constant after carry-forward and teach little.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np
from scipy.linalg import qr

from pipeline.audit.inverse import Dictionary
from pipeline.audit.inversion import (
    FOUND,
    QUIET,
    calibrated_r2,
    chosen_targets,
    own_windows,
    planted_encoders,
    recover,
    target_of,
    unsupported_encoding,
)
from pipeline.audit.scene import EncodingScene
from pipeline.audit.scoring import Target, r2, r2_interval
from pipeline.audit.windows import Forward, cut, output_width, padded
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

Unit = Literal["window", "patient"]
Choice = Literal["random", "independent"]

PAIR_STAYS = 100  # stays whose plaintext the attacker may know; the others are scored
SCORED_STAYS = 60
MAX_MONOMIAL_WINDOW = 5  # 3^5 = 243 monomials
MIN_MONOMIAL_SHARE = 0.9  # fewer pairs than this share of the monomials do not determine the map
POOL = 20_000  # windows among which independent ones are picked


@dataclass(frozen=True)
class Knowledge:
    """How many aligned pairs, of what, picked how."""

    k: int
    unit: Unit
    choice: Choice

    def __str__(self) -> str:
        noun = self.unit if self.k == 1 else f"{self.unit}s"
        return f"{self.k} {'independent ' if self.choice == 'independent' else 'random '}{noun}"


LADDER = (
    Knowledge(1, "window", "random"),
    Knowledge(4, "window", "random"),
    Knowledge(4, "window", "independent"),
    Knowledge(100, "window", "random"),
    Knowledge(100, "window", "independent"),
    Knowledge(1, "patient", "random"),
    Knowledge(5, "patient", "random"),
    Knowledge(20, "patient", "random"),
    Knowledge(100, "patient", "random"),
)


def monomials(windows: np.ndarray) -> np.ndarray:
    """Products over the window of one of (1, cos pi x, sin pi x) per input: `(window, 3 ** input)`."""
    found = np.ones((len(windows), 1))
    for x in windows.T.astype(np.float64):
        basis = np.stack([np.ones_like(x), np.cos(np.pi * x), np.sin(np.pi * x)], axis=1)
        found = (found[:, :, None] * basis[:, None, :]).reshape(len(windows), -1)
    return found


def independent_rows(features: np.ndarray, k: int) -> np.ndarray:
    """Up to k rows that span as much as rows can: column-pivoted QR of the transpose (Businger & Golub 1965)."""
    pivots: np.ndarray = qr(features.T, mode="r", pivoting=True)[1]
    return pivots[:k]


def pairs(scene: EncodingScene, known: Knowledge, rng: np.random.Generator) -> Dictionary:
    """The aligned pairs that the attacker has, from the first `PAIR_STAYS` targets."""
    width = output_width(scene)
    assert width is not None  # `unsupported` was asked
    stays = rng.permutation(_pair_stays(scene))
    if known.unit == "patient":
        stays = stays[: known.k]
    plain = cut(padded(scene.targets[stays], scene.window_steps, scene.axis), scene.window_steps, scene.axis)
    encoded = cut(scene.encoded_targets[stays], width, scene.axis)
    if known.unit == "window":
        rows = rng.permutation(len(plain))[: POOL if known.choice == "independent" else known.k]
        if known.choice == "independent":
            wide = known.k > scene.window_steps and scene.window_steps <= MAX_MONOMIAL_WINDOW
            pool = plain[rows].astype(np.float64)
            rows = rows[independent_rows(monomials(pool) if wide else pool, known.k)]
        plain, encoded = plain[rows], encoded[rows]
    distinct = np.unique(np.hstack([plain, encoded]), axis=0).astype(np.float64)
    inputs = scene.window_steps
    return Dictionary(distinct[:, :inputs], distinct[:, inputs:], np.full(len(distinct), -1))


def _pair_stays(scene: EncodingScene) -> int:
    return min(PAIR_STAYS, len(scene.targets) // 2)


def scored(scene: EncodingScene) -> EncodingScene:
    """The stays that are scored: none of those whose pairs are known."""
    first = _pair_stays(scene)
    rows = slice(first, first + SCORED_STAYS)
    return dataclasses.replace(
        scene,
        targets=scene.targets[rows],
        encoded_targets=scene.encoded_targets[rows],
        target_subjects=scene.target_subjects[rows],
    )


def identified_map(known: Dictionary) -> Forward | None:
    """The forward map by least squares on monomials, or None where the pairs are too few or the window too long."""
    inputs = known.plain.shape[1]
    if inputs > MAX_MONOMIAL_WINDOW or len(known.plain) < MIN_MONOMIAL_SHARE * 3**inputs:
        return None
    weights = np.linalg.lstsq(monomials(known.plain), known.encoded, rcond=1e-7)[0]
    return lambda windows: monomials(windows) @ weights


def attempts(scene: EncodingScene, known: Dictionary, own: tuple[np.ndarray, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Every method's estimate of the scored series from the pairs alone and the attacker's own plain patients."""
    found = dict(recover(scene, known, scene.encoded_targets, None))
    forward = identified_map(known)
    if forward is not None:
        windows, group = own
        dictionary = Dictionary(windows, forward(windows), group)
        refined = recover(scene, dictionary, scene.encoded_targets, forward)
        found |= {f"identified map, {name}": estimate for name, estimate in refined.items()}
    return found


@final
@dataclass(frozen=True)
class AlignedPairs:
    """R2 on other stays from k aligned pairs; one result per step of the ladder."""

    name: ClassVar[str] = "aligned_pairs"
    threat_model: ClassVar[ThreatModel] = "T3"
    scene_type: ClassVar[type] = EncodingScene

    ladder: tuple[Knowledge, ...] = LADDER

    def unsupported(self, scene: Any) -> str | None:
        """As the inversion, and twice as many stays are needed: some are known, others are scored."""
        if len(scene.targets) < 40:
            return "fewer than 40 stays to divide into known and scored ones"
        return unsupported_encoding(scene)

    def run(self, scene: EncodingScene, seed: int) -> tuple[AttackResult, ...]:
        """One result per `ladder` step that the number of stays allows."""
        scene = _shuffled(chosen_targets(scene, seed), seed)
        planted = _planted(scene, seed)
        own = own_windows(scene, generator(seed, "audit", "dictionary"))
        possible = [step for step in self.ladder if step.unit == "window" or step.k <= _pair_stays(scene)]
        return tuple(self._step(scene, step, own, planted, seed) for step in possible)

    def _step(
        self,
        scene: EncodingScene,
        step: Knowledge,
        own: tuple[np.ndarray, np.ndarray],
        planted: float,
        seed: int,
    ) -> AttackResult:
        known = pairs(scene, step, generator(seed, "audit", "pairs", str(step)))
        rest = scored(scene)
        target = target_of(rest)
        found = attempts(rest, known, own)
        method, scores = _best(target, found)
        figure = r2_interval(target, found[method], generator(seed, "audit", "r2", str(step)), scene.n_bootstrap)
        control = calibrated_r2(target, np.roll(found[method], target.n // 2, axis=0))
        return AttackResult(
            attack=self.name,
            threat_model=self.threat_model,
            artefact=scene.artefact,
            statistic="r2",
            rate=figure.value,
            low=figure.low,
            high=figure.high,
            n=target.n,
            control=control,
            positive_control=planted,
            ceiling=1.0,
            gates=True,
            summary=f"An attacker without the key who knows {step} plain and encoded recovers other stays of "
            f"{scene.artefact} with R2 {figure} (n = {target.n} stays).",
            detail={
                "k": step.k,
                "unit": step.unit,
                "choice": step.choice,
                "distinct_pairs": len(known.plain),
                "method": method,
                "r2_by_method": {name: round(score, 4) for name, score in scores.items()},
                "r2_moving": round(r2(target, found[method], target.moving), 4),
                "controls_held": control <= QUIET and planted >= FOUND,
                "powered": True,
            },
        )


def _best(target: Target, found: Mapping[str, np.ndarray]) -> tuple[str, dict[str, float]]:
    scores = {name: r2(target, estimate) for name, estimate in found.items()}
    return max(scores, key=lambda name: scores[name]), scores


def _shuffled(scene: EncodingScene, seed: int) -> EncodingScene:
    """Targets in an order drawn by the seed, so that the known ones are a random part."""
    rows = generator(seed, "audit", "known stays").permutation(len(scene.targets))
    return dataclasses.replace(
        scene,
        targets=scene.targets[rows],
        encoded_targets=scene.encoded_targets[rows],
        target_subjects=scene.target_subjects[rows],
    )


def _planted(scene: EncodingScene, seed: int) -> float:
    """A keyed linear mix without any bend, from 4 windows per input picked for independence: must be found."""
    mix = np.linalg.qr(np.random.default_rng(11).standard_normal((scene.window_steps, scene.window_steps)))[0]
    identity = planted_encoders(scene.window_steps, scene.axis)["identity"]

    def mixed(series: np.ndarray) -> np.ndarray:
        full = identity(series)
        if scene.axis == "time":
            return np.swapaxes(_rotate(np.swapaxes(full, 1, 2), mix), 1, 2)
        return _rotate(full, mix)

    leak = dataclasses.replace(scene, encode=mixed, encoded_targets=mixed(scene.targets))
    known = pairs(
        leak, Knowledge(scene.window_steps, "window", "independent"), generator(seed, "audit", "planted pairs")
    )
    rest = scored(leak)
    return _best(target_of(rest), recover(rest, known, rest.encoded_targets, None))[1]["linear inverse"]


def _rotate(lined: np.ndarray, mix: np.ndarray) -> np.ndarray:
    window = len(mix)
    mixed: np.ndarray = (lined.reshape(*lined.shape[:2], -1, window) @ mix).reshape(lined.shape)
    return mixed
