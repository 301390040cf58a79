"""T3-k: the attacker has no key, but k windows (or the windows of k patients) both plain and encoded.

He tries a linear inverse, the nearest known pair, and the identification of the forward map: a product-state circuit
followed by expectations is linear in the 3^n monomials of (1, cos pi x, sin pi x). As many independent pairs give it
exactly whatever the circuit; if he knows the public circuit, far fewer do (pipeline.audit.encodings.terms). The map is
then inverted as under T4. Windows picked for independence stand beside random ones, because most windows of slow
variables are constant after carry-forward and teach little.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np
from scipy.linalg import qr

from pipeline.audit.encodings.denoising import output_noise
from pipeline.audit.encodings.inverse import Dictionary
from pipeline.audit.encodings.inversion import (
    FOUND,
    QUIET,
    OwnWindows,
    calibrated_r2,
    chosen_targets,
    known_layout,
    on_windows,
    own_windows,
    recover,
    target_of,
    unsupported_encoding,
    with_targets,
)
from pipeline.audit.encodings.scoring import Target, r2, r2_interval
from pipeline.audit.encodings.terms import Terms, basis, fitted_map, public_terms
from pipeline.audit.encodings.windows import Forward
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import EncodingScene
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

Unit = Literal["window", "patient"]
Choice = Literal["random", "independent"]

PAIR_STAYS = 100  # stays whose plaintext the attacker may know; the others are scored
SCORED_STAYS = 60
MAX_MONOMIAL_WINDOW = 5  # 3^5 = 243 monomials
MIN_MONOMIAL_SHARE = 0.9  # fewer pairs than this share of the monomials do not determine the map
POOL = 20_000  # windows among which independent ones are picked
USUAL = 2_000  # own windows over which a fitted map's expected error is taken
EXACT = 1e-4  # an expected error below this is rounding


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
    Knowledge(20, "window", "random"),
    Knowledge(100, "window", "random"),
    Knowledge(100, "window", "independent"),
    Knowledge(1, "patient", "random"),
    Knowledge(5, "patient", "random"),
    Knowledge(20, "patient", "random"),
    Knowledge(100, "patient", "random"),
)


def monomials(windows: np.ndarray, angle: float = np.pi) -> np.ndarray:
    """Products over the window of one of (1, cos, sin) of `angle` times each input: `(window, 3 ** input)`."""
    found = np.ones((len(windows), 1))
    for x in windows.T.astype(np.float64):
        found = (found[:, :, None] * basis(x, angle)[:, None, :]).reshape(len(windows), -1)
    return found


def independent_rows(features: np.ndarray, k: int) -> np.ndarray:
    """Up to k rows that span as much as rows can: column-pivoted QR of the transpose (Businger & Golub 1965)."""
    pivots: np.ndarray = qr(features.T, mode="r", pivoting=True)[1]
    return pivots[:k]


def pairs(scene: EncodingScene, known: Knowledge, rng: np.random.Generator, terms: Terms | None = None) -> Dictionary:
    """The aligned pairs that the attacker has, from the first `PAIR_STAYS` targets."""
    layout = known_layout(scene)
    stays = rng.permutation(_pair_stays(scene))
    if known.unit == "patient":
        stays = stays[: known.k]
    plain, encoded = layout.cut(scene.targets[stays]), layout.cut_encoded(scene.encoded_targets[stays])
    if known.unit == "window":
        rows = rng.permutation(len(plain))[: POOL if known.choice == "independent" else known.k]
        if known.choice == "independent":
            rows = rows[
                independent_rows(_telling(plain[rows].astype(np.float64), known.k, terms, scene.angle), known.k)
            ]
        plain, encoded = plain[rows], encoded[rows]
    distinct = np.unique(np.hstack([plain, encoded]), axis=0).astype(np.float64)
    inputs, none = scene.window_steps, np.zeros(len(distinct))
    return Dictionary(distinct[:, :inputs], distinct[:, inputs:], none.astype(int) - 1, none)


def _telling(pool: np.ndarray, k: int, terms: Terms | None, angle: float) -> np.ndarray:
    """The features in which picked windows are to be independent: those of the map that the attacker will fit."""
    if terms is not None and k <= len(terms.digits):
        return terms.features(pool)
    window = pool.shape[1]
    return monomials(pool, angle) if window < k and window <= MAX_MONOMIAL_WINDOW else pool


def _pair_stays(scene: EncodingScene) -> int:
    return min(PAIR_STAYS, len(scene.targets) // 2)


def _windows_to_know(scene: EncodingScene) -> int:
    layout = known_layout(scene)
    lanes = 1 if scene.key_scope == "per_channel" else layout.lanes
    return _pair_stays(scene) * lanes * layout.slots


def scored(scene: EncodingScene) -> EncodingScene:
    """The stays that are scored: none of those whose pairs are known."""
    first = _pair_stays(scene)
    return with_targets(scene, np.arange(first, min(first + SCORED_STAYS, len(scene.targets))))


def identified_map(known: Dictionary, angle: float = np.pi) -> Forward | None:
    """The forward map by least squares on monomials, or None where the pairs are too few or the window too long."""
    inputs = known.plain.shape[1]
    if inputs > MAX_MONOMIAL_WINDOW or len(known.plain) < MIN_MONOMIAL_SHARE * 3**inputs:
        return None
    weights = np.linalg.lstsq(monomials(known.plain, angle), known.encoded, rcond=1e-7)[0]
    return lambda windows, _: monomials(windows, angle) @ weights


def attempts(
    scene: EncodingScene,
    known: Dictionary,
    own: OwnWindows,
    terms: Terms | None = None,
    solved: dict[str, Mapping[str, np.ndarray]] | None = None,
) -> Mapping[str, np.ndarray]:
    """Every method's estimate of the scored series from the pairs alone and the attacker's own plain patients.

    Args:
        solved: keeps the estimates by a map once it is exact: more pairs cannot change them.
    """
    layout = known_layout(scene)
    noise = output_noise(scene, known.encoded)
    found = dict(recover(scene, layout, known, scene.encoded_targets, None, noise))

    def refined(name: str, forward: Forward, error: float, exact: bool) -> Mapping[str, np.ndarray]:
        if exact and solved is not None and name in solved:
            return solved[name]
        dictionary = own.encoded_by(forward, labelled=False)
        spread = float(np.hypot(noise, error))
        estimates = recover(scene, layout, dictionary, scene.encoded_targets, forward, spread, noise > 0)
        told = {f"{name}, {method}": estimate for method, estimate in estimates.items() if method != "channel means"}
        if exact and solved is not None:
            solved[name] = told
        return told

    forward, usual = identified_map(known, scene.angle), own.plain[own.weight > 0][:USUAL]
    here = np.zeros(len(usual), np.int64)
    told: np.ndarray | None = None  # what the exact map makes of usual windows, once it is known
    if terms is not None:
        fitted = fitted_map(terms, known.plain, known.encoded, noise, usual)
        exact = noise == 0 and fitted.error <= EXACT
        told = fitted.forward(usual, here) if exact else None
        found |= refined("public circuit", fitted.forward, 0.0 if exact else fitted.error, exact)
    if forward is not None:
        same = told is not None and np.abs(forward(usual, here) - told).max(initial=0) <= EXACT
        found |= refined("identified map", forward, 0.0, same)
    return found


def attempts_by_channel(
    scene: EncodingScene, step: Knowledge, terms: Terms | None, seed: int
) -> tuple[int, Mapping[str, np.ndarray]]:
    """As `attempts`, with pairs and a map for every channel of its own; how many pairs there are in all."""
    rest, n_pairs = scored(scene), 0
    guess = np.broadcast_to(rest.own.mean(axis=(0, 1), dtype=np.float64), rest.targets.shape)
    found: dict[str, np.ndarray] = {}
    for channel, name in enumerate(scene.channels):
        one = _only(scene, channel)
        known = pairs(one, step, generator(seed, "audit", "pairs", str(step), name), terms)
        n_pairs += len(known.plain)
        own = own_windows(one, known_layout(one), generator(seed, "audit", "dictionary", name))
        for method, estimate in attempts(scored(one), known, own, terms).items():
            found.setdefault(method, guess.copy())[:, :, channel] = estimate[:, :, 0]
    return n_pairs, found


def _only(scene: EncodingScene, channel: int) -> EncodingScene:
    """One channel of a scene whose channels have maps of their own."""
    one = slice(channel, channel + 1)
    return dataclasses.replace(
        scene,
        own=scene.own[:, :, one],
        targets=scene.targets[:, :, one],
        encoded_targets=scene.encoded_targets[:, :, one],
        channels=scene.channels[one],
        observed_targets=None,
        observed_own=None,
        released=None,
        key_scope="shared",
    )


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
        reason = unsupported_encoding(scene)
        if reason is None and _windows_to_know(scene) < scene.window_steps:
            return f"a window holds {scene.window_steps} values, more than there are windows to know"
        return reason

    def run(self, scene: EncodingScene, seed: int) -> tuple[AttackResult, ...]:
        """One result per `ladder` step that the number of stays allows."""
        scene = _shuffled(chosen_targets(scene, seed), seed)
        planted = _planted(scene, seed)
        layout = known_layout(scene)
        terms = public_terms(scene.surrogates, layout, generator(seed, "audit", "terms"), scene.angle)
        own = own_windows(scene, layout, generator(seed, "audit", "dictionary"))
        possible = [step for step in self.ladder if step.unit == "window" or step.k <= _pair_stays(scene)]
        solved: dict[str, Mapping[str, np.ndarray]] = {}
        return tuple(self._step(scene, step, own, terms, solved, planted, seed) for step in possible)

    def _step(
        self,
        scene: EncodingScene,
        step: Knowledge,
        own: OwnWindows,
        terms: Terms | None,
        solved: dict[str, Mapping[str, np.ndarray]],
        planted: float,
        seed: int,
    ) -> AttackResult:
        rest = scored(scene)
        per_channel = scene.key_scope == "per_channel"
        if per_channel:
            n_pairs, found = attempts_by_channel(scene, step, terms, seed)
        else:
            known = pairs(scene, step, generator(seed, "audit", "pairs", str(step)), terms)
            n_pairs, found = len(known.plain), attempts(rest, known, own, terms, solved)
        target = target_of(rest)
        method, scores = _best(target, found)
        figure = r2_interval(target, found[method], generator(seed, "audit", "r2", str(step)), scene.n_bootstrap)
        control = calibrated_r2(target, np.roll(found[method], target.n // 2, axis=0))
        whose = " of every channel" if per_channel and step.unit == "window" else ""
        return result(
            scene,
            self,
            Figure("r2", figure, n=target.n, powered=True, gates=True),
            Controls(control, planted, control <= QUIET and planted >= FOUND),
            summary=f"An attacker without the key who knows {step}{whose} plain and encoded recovers other stays of "
            f"{scene.artefact} with R2 {figure} (n = {target.n} stays).",
            detail={
                "k": step.k,
                "unit": step.unit,
                "choice": step.choice,
                "distinct_pairs": n_pairs,
                "circuit_known": terms is not None,
                "method": method,
                "r2_by_method": {name: round(score, 4) for name, score in scores.items()},
                "r2_moving": round(r2(target, found[method], target.moving), 4),
            },
        )


def _best(target: Target, found: Mapping[str, np.ndarray]) -> tuple[str, dict[str, float]]:
    scores = {name: r2(target, estimate) for name, estimate in found.items()}
    return max(scores, key=lambda name: scores[name]), scores


def _shuffled(scene: EncodingScene, seed: int) -> EncodingScene:
    """Targets in an order drawn by the seed, so that the known ones are a random part."""
    return with_targets(scene, generator(seed, "audit", "known stays").permutation(len(scene.targets)))


def _planted(scene: EncodingScene, seed: int) -> float:
    """A keyed linear mix without any bend or noise, from as many independent windows as inputs: must be found."""
    layout = known_layout(scene)
    mix = np.linalg.qr(np.random.default_rng(11).standard_normal((layout.window, layout.window)))[0]
    mixed = on_windows(lambda windows: windows @ mix, layout)
    leak = dataclasses.replace(
        scene, encode=mixed, encoded_targets=mixed(scene.targets), noise_sd=0.0, shots=None, key_scope="shared"
    )
    known = pairs(
        leak, Knowledge(scene.window_steps, "window", "independent"), generator(seed, "audit", "planted pairs")
    )
    rest = scored(leak)
    estimates = recover(rest, known_layout(rest), known, rest.encoded_targets, None)
    return _best(target_of(rest), estimates)[1]["linear inverse"]
