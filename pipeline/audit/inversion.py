"""T4: the attacker holds the encoder with its key, as every recipient who uses the encoded data does.

He encodes his own patients and chosen windows, and looks for the windows that encode to what he sees. The figure is the
best of several inverses ([Enc] Thakur et al. 2024 do not test this attack).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np

from pipeline.audit.inverse import Dictionary, distinct, inverses
from pipeline.audit.scene import MIN_SUBJECTS, Encode, EncodingScene
from pipeline.audit.scoring import Target, by_channel, most_exposed_decile, r2, r2_interval
from pipeline.audit.windows import (
    Axis,
    Forward,
    cut,
    forward_map,
    from_groups,
    grouped,
    is_one_map,
    join,
    moving,
    output_width,
    padded,
    padded_shape,
)
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

OWN_WINDOWS = 200_000  # distinct windows of the attacker's own patients in his dictionary
CHOSEN_WINDOWS = 20_000  # and windows he makes up
PLANTED_TARGETS = 40
PLANTED_OWN = 200
FOUND = 0.95  # a planted leak must be recovered to this R2
QUIET = 0.10  # a wrong-record control must stay below this


def unsupported_encoding(scene: EncodingScene) -> str | None:
    """Why the window attacks cannot run on the scene, or None."""
    if len(np.unique(scene.target_subjects)) < MIN_SUBJECTS or len(scene.own) < MIN_SUBJECTS:
        return f"fewer than {MIN_SUBJECTS} subjects on one side"
    width = output_width(scene)
    if width is None:
        return "the encoded shape is not one window map per slot"
    if not is_one_map(scene, width, np.random.default_rng(0)):
        return "the encoder does not apply one repeatable map to every window"
    return None


def chosen_targets(scene: EncodingScene, seed: int) -> EncodingScene:
    """The scene with at most `max_targets` targets, drawn by the seed."""
    if len(scene.targets) <= scene.max_targets:
        return scene
    rows = np.sort(generator(seed, "audit", "targets").permutation(len(scene.targets))[: scene.max_targets])
    return dataclasses.replace(
        scene,
        targets=scene.targets[rows],
        encoded_targets=scene.encoded_targets[rows],
        target_subjects=scene.target_subjects[rows],
    )


def target_of(scene: EncodingScene) -> Target:
    """What is scored; the guess is each channel's mean over the attacker's own patients."""
    return Target(
        values=scene.targets,
        moving=moving(scene.targets, scene.window_steps, scene.axis),
        guess=scene.own.mean(axis=(0, 1), dtype=np.float64),
        subjects=scene.target_subjects,
    )


def own_windows(scene: EncodingScene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Windows that the attacker knows, `(known, window)`, and their groups: his patients' and made-up ones (-1)."""
    own = distinct(grouped(padded(scene.own, scene.window_steps, scene.axis), scene.window_steps, scene.axis))
    rows = rng.permutation(len(own.rows))[:OWN_WINDOWS]
    made_up = rng.uniform(size=(CHOSEN_WINDOWS, scene.window_steps))
    labels = np.concatenate([own.group[rows], np.full(CHOSEN_WINDOWS, -1)])
    return np.concatenate([own.rows[rows], made_up]), labels


def recover(
    scene: EncodingScene, known: Dictionary, encoded: np.ndarray, forward: Forward | None
) -> Mapping[str, np.ndarray]:
    """Every inverse's estimate of the series behind `encoded` (stay, encoded step, encoded channel), and the guess."""
    cells = grouped(encoded, known.encoded.shape[1], scene.axis)
    seen = distinct(cells)
    _, steps, channels = scene.targets.shape
    shape = (len(encoded), *padded_shape(scene))
    whole = (*cells.shape[:2], scene.window_steps)
    estimates = {
        name: from_groups(windows[seen.back].reshape(whole), shape, scene.axis)[:, :steps, :channels]
        for name, windows in inverses(known, seen, forward).items()
    }
    guess = scene.own.mean(axis=(0, 1), dtype=np.float64)
    return {"channel means": np.broadcast_to(guess, (len(encoded), steps, channels)), **estimates}


def calibrated_r2(target: Target, estimate: np.ndarray) -> float:
    """R2 of an estimate shrunk to the guess as far as helps it: near 0 for an estimate of somebody else."""
    pull = estimate - target.guess
    energy = float((pull**2).sum())
    share = float(((target.values - target.guess) * pull).sum()) / energy if energy > 0 else 0.0
    return r2(target, target.guess + np.clip(share, 0, 1) * pull)


def planted_encoders(window: int, axis: Axis) -> dict[str, Encode]:
    """Encoders that hide nothing: the identity, and a fixed invertible mix with a bend in it."""
    mix = np.linalg.qr(np.random.default_rng(7).standard_normal((window, window)))[0]

    def bent(series: np.ndarray) -> np.ndarray:
        full = padded(series, window, axis)
        windows = cut(full, window, axis)
        out = (windows + 0.1 * np.sin(2 * np.pi * windows)) @ mix
        return join(out, (full.shape[0], full.shape[1], full.shape[2]), axis)

    return {"identity": lambda series: padded(series, window, axis), "bent mix": bent}


@final
@dataclasses.dataclass(frozen=True)
class KnownKeyInversion:
    """Nearest neighbour, linear inverse and Gauss-Newton with the key; the best of them is the figure."""

    name: ClassVar[str] = "known_key_inversion"
    threat_model: ClassVar[ThreatModel] = "T4"
    scene_type: ClassVar[type] = EncodingScene

    def unsupported(self, scene: Any) -> str | None:
        """See `unsupported_encoding`."""
        return unsupported_encoding(scene)

    def run(self, scene: EncodingScene, seed: int) -> tuple[AttackResult, ...]:
        """One result: R2 over all values; moving values, channels and methods in the detail."""
        scene = chosen_targets(scene, seed)
        target = target_of(scene)
        known, found = _attack(scene, seed)
        scores = {name: r2(target, estimate) for name, estimate in found.items()}
        method = max(scores, key=lambda name: scores[name])
        estimate = found[method]
        everything = r2_interval(target, estimate, generator(seed, "audit", "r2"), scene.n_bootstrap)
        moving_only = r2_interval(
            target, estimate, generator(seed, "audit", "moving"), scene.n_bootstrap, target.moving
        )
        control = calibrated_r2(target, np.roll(estimate, len(estimate) // 2, axis=0))
        planted = _planted(scene, seed)
        channels = by_channel(target, estimate, scene.channels)
        return (
            AttackResult(
                attack=self.name,
                threat_model=self.threat_model,
                artefact=scene.artefact,
                statistic="r2",
                rate=everything.value,
                low=everything.low,
                high=everything.high,
                n=target.n,
                control=control,
                positive_control=min(planted.values()),
                ceiling=1.0,
                gates=True,
                summary=f"An attacker who holds the key and patients of his own recovers the encoded series of "
                f"{scene.artefact} with R2 {everything} (n = {target.n} stays); guessing from other stays gives "
                f"{control:.2f}.",
                detail={
                    "method": method,
                    "r2_by_method": {name: round(score, 4) for name, score in scores.items()},
                    "r2_moving": round(moving_only.value, 4),
                    "r2_moving_low": round(moving_only.low, 4),
                    "r2_moving_high": round(moving_only.high, 4),
                    "moving_share": round(float(target.moving.mean()), 4),
                    "r2_most_exposed_decile": most_exposed_decile(target, estimate),
                    "r2_by_channel": channels,
                    "positive_controls": {name: round(score, 4) for name, score in planted.items()},
                    "known_windows": len(known.plain),
                    "n_subjects": len(np.unique(scene.target_subjects)),
                    "controls_held": control <= QUIET and min(planted.values()) >= FOUND,
                    "powered": True,
                },
            ),
        )


def _attack(scene: EncodingScene, seed: int) -> tuple[Dictionary, Mapping[str, np.ndarray]]:
    width = output_width(scene)
    assert width is not None  # `unsupported` was asked
    forward = forward_map(scene, width)
    plain, group = own_windows(scene, generator(seed, "audit", "dictionary"))
    known = Dictionary(plain, forward(plain), group)
    return known, recover(scene, known, scene.encoded_targets, forward)


def _planted(scene: EncodingScene, seed: int) -> dict[str, float]:
    """The best R2 that the same attack reaches on encoders that hide nothing."""
    targets, scores = scene.targets[:PLANTED_TARGETS], {}
    for name, encode in planted_encoders(scene.window_steps, scene.axis).items():
        leak = dataclasses.replace(
            scene,
            encode=encode,
            own=scene.own[:PLANTED_OWN],
            targets=targets,
            encoded_targets=encode(targets),
            target_subjects=scene.target_subjects[: len(targets)],
        )
        target = target_of(leak)
        scores[name] = max(r2(target, estimate) for estimate in _attack(leak, seed)[1].values())
    return scores
