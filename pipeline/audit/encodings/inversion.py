"""T4: the attacker holds the encoder with its key, as every recipient who uses the encoded data does.

He encodes his own patients and chosen windows, and looks for the windows that encode to what he sees. The figure is the
best of several inverses ([Enc] Thakur et al. 2024 do not test this attack).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, final

import numpy as np

from pipeline.audit.encodings.denoising import averaged_runs, output_noise, smoothed
from pipeline.audit.encodings.inverse import Dictionary, Windows, distinct, inverses, posterior_mean
from pipeline.audit.encodings.scoring import Target, by_channel, most_exposed_decile, r2, r2_interval
from pipeline.audit.encodings.windows import Forward, Layout, forward_map, is_one_map, layout_of, moving
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MIN_SUBJECTS, Encode, EncodingScene
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

OWN_WINDOWS = 200_000  # distinct windows of the attacker's own patients in his dictionary
CHOSEN_WINDOWS = 20_000  # and windows he makes up
CHOSEN_VALUES = 20_000_000  # as far as they hold no more values than this
NOISY_TARGETS = 80  # targets when the encoding is noisy: no two windows are then equal, and every one costs
PLANTED_TARGETS = 40
PLANTED_OWN = 200
FOUND = 0.95  # a planted leak must be recovered to this R2
QUIET = 0.10  # a wrong-record control must stay below this


def unsupported_encoding(scene: EncodingScene) -> str | None:
    """Why the window attacks cannot run on the scene, or None."""
    if len(np.unique(scene.target_subjects)) < MIN_SUBJECTS or len(scene.own) < MIN_SUBJECTS:
        return f"fewer than {MIN_SUBJECTS} subjects on one side"
    if scene.not_understood is not None:
        return scene.not_understood
    if scene.key_scope == "per_channel" and scene.axis != "time":
        return "a map for every channel is only understood for windows over time"
    layout = layout_of(scene)
    if layout is None:
        return "the encoded shape is not one window map per slot"
    if not is_one_map(scene, layout, np.random.default_rng(0)):
        return "the encoder does not apply one repeatable map to every window"
    return None


def known_layout(scene: EncodingScene) -> Layout:
    """The layout of a scene that `unsupported_encoding` found no fault with."""
    layout = layout_of(scene)
    assert layout is not None  # `unsupported` was asked
    return layout


def chosen_targets(scene: EncodingScene, seed: int) -> EncodingScene:
    """The scene with at most `max_targets` targets, drawn by the seed; fewer when every window is noisy."""
    most = min(scene.max_targets, NOISY_TARGETS) if is_noisy(scene) else scene.max_targets
    if len(scene.targets) <= most:
        return scene
    return with_targets(scene, np.sort(generator(seed, "audit", "targets").permutation(len(scene.targets))[:most]))


def is_noisy(scene: EncodingScene) -> bool:
    """Whether the encoded targets hold noise beside the map's outputs."""
    return scene.noise_sd > 0 or scene.shots is not None


def with_targets(scene: EncodingScene, rows: np.ndarray) -> EncodingScene:
    """The scene with the targets at `rows` only."""
    return dataclasses.replace(
        scene,
        targets=scene.targets[rows],
        encoded_targets=scene.encoded_targets[rows],
        target_subjects=scene.target_subjects[rows],
        observed_targets=None if scene.observed_targets is None else scene.observed_targets[rows],
        released=None if scene.released is None else scene.released[rows],
    )


def target_of(scene: EncodingScene) -> Target:
    """What is scored; the guess is each channel's mean over the attacker's own patients."""
    return Target(
        values=scene.targets,
        moving=moving(scene.targets, known_layout(scene)),
        guess=scene.own.mean(axis=(0, 1), dtype=np.float64),
        subjects=scene.target_subjects,
    )


@dataclasses.dataclass(frozen=True)
class OwnWindows:
    """Windows that the attacker knows plain: his patients' by group with their counts, and made-up ones."""

    plain: np.ndarray  # (known, window)
    group: np.ndarray  # (known,) -1 = made up
    map_group: np.ndarray  # (known,) the group as which they are encoded
    weight: np.ndarray  # (known,)

    def encoded_by(self, forward: Forward, labelled: bool) -> Dictionary:
        """With their encodings; `labelled`: made-up windows belong to the group they are encoded as."""
        group = self.map_group if labelled else self.group
        return Dictionary(self.plain, forward(self.plain, self.map_group), group, self.weight)


def own_windows(scene: EncodingScene, layout: Layout, rng: np.random.Generator) -> OwnWindows:
    """The attacker's own patients' windows and made-up ones."""
    groups = layout.groups(len(scene.own))
    own = distinct(layout.cut(scene.own), groups)
    rows = rng.permutation(len(own.rows))[: min(OWN_WINDOWS, max(1, CHOSEN_VALUES // layout.window))]
    n_chosen = min(CHOSEN_WINDOWS, max(layout.window + layout.window // 4, CHOSEN_VALUES // 10 // layout.window))
    made_up = rng.uniform(size=(n_chosen, layout.window))
    labels = np.arange(n_chosen) % (int(groups.max()) + 1)
    return OwnWindows(
        np.concatenate([own.rows[rows], made_up]),
        np.concatenate([own.group[rows], np.full(n_chosen, -1)]),
        np.concatenate([own.group[rows], labels]),
        np.concatenate([own.count[rows], np.zeros(n_chosen)]),
    )


def recover(
    scene: EncodingScene,
    layout: Layout,
    known: Dictionary,
    encoded: np.ndarray,
    forward: Forward | None,
    noise: float = 0.0,
    averages: bool = False,
    seed: int = 0,
) -> Mapping[str, np.ndarray]:
    """Every inverse's estimate of the series behind `encoded` (stay, encoded step, encoded channel), and the guess.

    Args:
        noise: standard deviation of what `encoded` holds beside the outputs of the map.
        averages: whether that is fresh in every window, so that averages reduce it (an error of the map is not).
    """
    guess = scene.own.mean(axis=(0, 1), dtype=np.float64)
    shape = (len(encoded), *scene.targets.shape[1:])
    cells, groups = layout.cut_encoded(encoded).astype(np.float64), layout.groups(len(encoded))
    per_channel = scene.key_scope == "per_channel"
    seen = distinct(cells, groups)
    windows = inverses(known, seen, forward, noise, per_channel)
    found = {name: layout.join(rows[seen.back]) for name, rows in windows.items()}
    if averages and forward is not None:

        def averaged(rows: np.ndarray) -> np.ndarray:
            labels = layout.groups(len(rows) // (layout.lanes * layout.slots))
            seen = Windows(rows, labels, np.arange(len(rows)), np.ones(len(rows)))
            alone = posterior_mean(known, seen, np.full(len(rows), noise), np.full((len(rows), layout.window), 0.5))
            return layout.join(averaged_runs(known, rows, labels, layout, noise, alone))

        found["averaged runs"] = averaged(cells)
        found["averaged runs, smoothed"] = smoothed(
            scene, layout, forward, noise, averaged, found["averaged runs"], generator(seed, "audit", "smoothing")
        )
    return {"channel means": np.broadcast_to(guess, shape), **found}


def calibrated_r2(target: Target, estimate: np.ndarray) -> float:
    """R2 of an estimate shrunk to the guess as far as helps it: near 0 for an estimate of somebody else."""
    pull = estimate - target.guess
    energy = float((pull**2).sum())
    share = float(((target.values - target.guess) * pull).sum()) / energy if energy > 0 else 0.0
    return r2(target, target.guess + np.clip(share, 0, 1) * pull)


def planted_encoders(layout: Layout) -> dict[str, Encode]:
    """Encoders that hide nothing: the identity, and a fixed invertible mix with a bend in it."""
    mix = np.linalg.qr(np.random.default_rng(7).standard_normal((layout.window, layout.window)))[0]

    def bent(windows: np.ndarray) -> np.ndarray:
        return np.asarray((windows + 0.1 * np.sin(2 * np.pi * windows)) @ mix)

    return {"identity": on_windows(lambda rows: rows, layout), "bent mix": on_windows(bent, layout)}


def on_windows(window_map: Callable[[np.ndarray], np.ndarray], layout: Layout) -> Encode:
    """A map of windows, as wide as they, as an encoder of series of any number of steps and channels."""

    def encode(series: np.ndarray) -> np.ndarray:
        own = dataclasses.replace(layout, steps=series.shape[1], channels=series.shape[2], width=layout.window)
        cells = window_map(own.cut(series)).reshape(len(series), own.lanes, own.slots * own.width)
        return np.swapaxes(cells, 1, 2) if layout.axis == "time" else cells

    return encode


@final
@dataclasses.dataclass(frozen=True)
class KnownKeyInversion:
    """Nearest neighbour, linear inverse and Gauss-Newton with the key; the best of them is the figure."""

    name: ClassVar[str] = "known_key_inversion"
    threat_model: ClassVar[ThreatModel] = "T4"
    scene_type: ClassVar[type] = EncodingScene
    unsupported = staticmethod(unsupported_encoding)

    def run(self, scene: EncodingScene, seed: int) -> tuple[AttackResult, ...]:
        """One result: R2 over all values; moving values, channels and methods in the detail."""
        scene = chosen_targets(scene, seed)
        target = target_of(scene)
        attempts = inversions(scene, seed)
        found = attempts.estimates
        scores = {name: r2(target, estimate) for name, estimate in found.items()}
        method = max(scores, key=lambda name: scores[name])
        estimate = found[method]
        everything = r2_interval(target, estimate, generator(seed, "audit", "r2"), scene.n_bootstrap)
        moving_only = r2_interval(
            target, estimate, generator(seed, "audit", "moving"), scene.n_bootstrap, target.moving
        )
        control = calibrated_r2(target, np.roll(estimate, len(estimate) // 2, axis=0))
        planted = _planted(scene, seed)
        weakest = min(planted.values())
        channels = by_channel(target, estimate, scene.channels)
        return (
            result(
                scene,
                self,
                Figure("r2", everything, n=target.n, powered=True, gates=True),
                Controls(control, weakest, control <= QUIET and weakest >= FOUND),
                summary=f"An attacker who holds the key and patients of their own recovers the encoded series of "
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
                    "known_windows": attempts.known_windows,
                    "mean_squared_error": float(((target.values - estimate) ** 2).mean()),
                    "noise_sd": attempts.noise,
                    "n_subjects": len(np.unique(scene.target_subjects)),
                },
            ),
        )


@dataclasses.dataclass(frozen=True)
class Attempts:
    """Every method's estimate of the targets, the noise that was reckoned with, and how many windows were known."""

    estimates: Mapping[str, np.ndarray]
    noise: float
    known_windows: int


def inversions(scene: EncodingScene, seed: int) -> Attempts:
    """Every method's estimate of the scene's targets by somebody who holds the key."""
    layout = known_layout(scene)
    per_channel = scene.key_scope == "per_channel"
    forward = forward_map(scene.encode, layout, per_channel)
    own = own_windows(scene, layout, generator(seed, "audit", "dictionary"))
    known = own.encoded_by(forward, labelled=per_channel)
    noise = output_noise(scene, known.encoded[known.weight > 0])
    found = recover(scene, layout, known, scene.encoded_targets, forward, noise, noise > 0, seed)
    return Attempts(found, noise, len(known.plain))


def _planted(scene: EncodingScene, seed: int) -> dict[str, float]:
    """The best R2 that the same attack reaches on encoders that hide nothing."""
    few = with_targets(scene, np.arange(min(PLANTED_TARGETS, len(scene.targets))))
    layout = known_layout(scene)
    planted = {name: (encode, few.targets) for name, encode in planted_encoders(layout).items()}
    return {name: _planted_score(few, encode, targets, seed) for name, (encode, targets) in planted.items()}


def _planted_score(few: EncodingScene, encode: Encode, targets: np.ndarray, seed: int) -> float:
    leak = dataclasses.replace(
        few,
        encode=encode,
        own=few.own[:PLANTED_OWN],
        observed_own=None,
        targets=targets,
        encoded_targets=encode(targets),
        noise_sd=0.0,
        shots=None,
    )
    target = target_of(leak)
    return max(r2(target, estimate) for estimate in inversions(leak, seed).estimates.values())
