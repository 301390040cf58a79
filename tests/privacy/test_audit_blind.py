"""No key, no pair: the population's moments find a rotation, and a made-up population finds none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.audit.encodings.blind import BlindSeparation, by_moments, moments_of
from pipeline.audit.encodings.inversion import known_layout
from pipeline.audit.scene import EncodingScene

STEPS, CHANNELS, WINDOW = 12, 6, 3
MIX = np.random.default_rng(5).normal(size=(WINDOW, WINDOW))


def people(n: int, seed: int) -> np.ndarray:
    """Channels that drift, jump or oscillate, each in its own way, and at its own level."""
    rng = np.random.default_rng(seed)
    steps = np.arange(STEPS)[None, :, None]
    drift = rng.normal(0, 0.02, (n, 1, CHANNELS)) * np.arange(CHANNELS) * steps
    waves = rng.normal(0, 0.1, (n, 1, CHANNELS)) * np.cos(steps * np.linspace(0.3, 3, CHANNELS))
    noise = rng.normal(0, 1, (n, STEPS, CHANNELS)) * np.linspace(0.01, 0.08, CHANNELS)
    level = np.linspace(0.3, 0.7, CHANNELS) + np.linspace(-0.1, 0.1, STEPS)[:, None] ** 2 * 5
    return np.clip(level + drift + waves + noise, 0, 1).astype(np.float32)


def encode(series: np.ndarray) -> np.ndarray:
    windows = np.swapaxes(series, 1, 2).reshape(len(series), series.shape[2], -1, WINDOW) @ MIX
    return np.swapaxes(windows.reshape(len(series), series.shape[2], -1), 1, 2)


def scene() -> EncodingScene:
    targets = people(1200, 2)
    return EncodingScene(
        artefact="encoded",
        artefact_digest="0" * 64,
        encode=encode,
        own=people(1200, 1),
        targets=targets,
        encoded_targets=encode(targets),
        target_subjects=np.arange(1200),
        channels=tuple("abcdef"),
        window_steps=WINDOW,
        max_targets=100,
    )


def test_a_projection_is_undone_without_key_or_pairs() -> None:
    (result,) = BlindSeparation().run(scene(), 0)
    assert result.rate >= 0.9
    assert result.controls_held
    assert result.threat_model == "T1"


def test_the_map_itself_is_found() -> None:
    given = scene()
    layout = known_layout(given)
    rng = np.random.default_rng(0)
    own = moments_of(layout.cut(given.own), layout, 0.0, rng)
    seen = moments_of(layout.cut_encoded(given.encoded_targets), layout, 0.0, rng)
    found = by_moments(own, seen, rng)
    assert np.abs(found - MIX).max() < 0.25 * np.abs(MIX).max()


def test_a_release_of_noise_gives_nothing() -> None:
    noise = np.random.default_rng(3).normal(size=(1200, STEPS, CHANNELS))
    (result,) = BlindSeparation().run(dataclasses.replace(scene(), encoded_targets=noise), 0)
    assert result.rate < 0.1
    assert result.control == pytest.approx(0, abs=0.1)


def test_what_it_cannot_do_is_said() -> None:
    assert "single map" in str(BlindSeparation().unsupported(dataclasses.replace(scene(), key_scope="per_channel")))
    wide = dataclasses.replace(scene(), window_steps=12)
    assert BlindSeparation().unsupported(wide) is not None
