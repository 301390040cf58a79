"""The encoding attacks break what can be broken and stay quiet where nothing is to be had; synthetic series."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from pipeline.audit.aligned_pairs import AlignedPairs, Knowledge, independent_rows, monomials
from pipeline.audit.inversion import KnownKeyInversion
from pipeline.audit.scene import Axis, EncodingScene
from pipeline.audit.windows import Layout
from pipeline.core.errors import DataError

STEPS, CHANNELS = 16, 3


def walks(n: int, seed: int) -> np.ndarray:
    """Random walks in [0, 1] with constant stretches, as carried-forward series have: (stay, step, channel)."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.05, (n, STEPS, CHANNELS)) * (rng.uniform(size=(n, STEPS, CHANNELS)) < 0.5)
    return np.clip(rng.uniform(0.2, 0.8, (n, 1, CHANNELS)) + steps.cumsum(axis=1), 0, 1).astype(np.float32)


def circuit(angles: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """[Enc]'s 4-qubit encoding by state vectors: RY(pi x), layers of RX and a ring of CNOTs, <Z> of each wire."""
    n = angles.shape[1]
    signs = 1 - 2 * ((np.arange(2**n)[None] >> (n - 1 - np.arange(n))[:, None]) & 1)

    def encode(windows: np.ndarray) -> np.ndarray:
        half = np.pi * windows.astype(np.float64) / 2
        state = np.ones((len(windows), 1))
        for wire in range(n):
            qubit = np.stack([np.cos(half[:, wire]), np.sin(half[:, wire])], axis=1)
            state = (state[:, :, None] * qubit[:, None, :]).reshape(len(windows), -1)
        amplitude = state.astype(complex)
        for layer in angles:
            for wire in range(n):
                turn = np.array([[np.cos(layer[wire] / 2), -1j * np.sin(layer[wire] / 2)]] * 2)
                turn[1] = turn[1][::-1]
                parts = amplitude.reshape(len(windows), 2**wire, 2, -1)
                amplitude = np.einsum("ij,najb->naib", turn, parts).reshape(len(windows), -1)
            for wire in range(n):
                control, target = n - 1 - wire, n - 1 - (wire + 1) % n
                index = np.arange(2**n)
                amplitude = amplitude[:, np.where((index >> control) & 1, index ^ (1 << target), index)]
        return np.abs(amplitude) ** 2 @ signs.T

    return encode


def on_series(window_map: Callable[[np.ndarray], np.ndarray], window: int = 4) -> Callable[[np.ndarray], np.ndarray]:
    """A window map over time as a series encoder."""

    def encode(series: np.ndarray) -> np.ndarray:
        stays, _, channels = series.shape
        rows = Layout(series.shape[1], channels, window, window).cut(series)
        out = window_map(rows).reshape(stays, channels, -1)
        return np.swapaxes(out, 1, 2).astype(np.float32)

    return encode


def scene(encode: Callable[[np.ndarray], np.ndarray], n: int = 80, **changes: object) -> EncodingScene:
    targets = walks(n, 1)
    base = EncodingScene(
        artefact="encoded",
        artefact_digest="0" * 64,
        encode=encode,
        own=walks(120, 2),
        targets=targets,
        encoded_targets=encode(targets),
        target_subjects=np.arange(n),
        channels=("a", "b", "c"),
        window_steps=4,
        n_bootstrap=100,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


MIX = np.random.default_rng(3).normal(0, 0.5, (4, 4))
ANGLES = np.random.default_rng(4).uniform(0, 2 * np.pi, (2, 4))


@pytest.mark.parametrize("axis", ["time", "variables", "record"])
@pytest.mark.parametrize("stride", [4, 3, 1])
def test_windows_join_again(axis: Axis, stride: int) -> None:
    """Whatever axis and overlap, with a last window that must be filled up."""
    series = np.random.default_rng(0).normal(size=(5, 9, 11)).astype(np.float32)
    layout = Layout(9, 11, 4, stride, axis)
    windows = layout.cut(series)
    assert windows.shape == (5 * layout.lanes * layout.slots, 4)
    assert len(layout.groups(5)) == len(windows)
    np.testing.assert_allclose(layout.join(windows), series, atol=1e-6)


def test_groups_are_what_windows_are_about() -> None:
    """Channels over time, blocks of channels over variables, the channel of the first value in a record."""
    assert Layout(4, 3, 2, 2, "time").groups(1).tolist() == [0, 0, 1, 1, 2, 2]
    assert Layout(2, 3, 2, 2, "variables").groups(1).tolist() == [0, 1, 0, 1]
    assert Layout(2, 3, 2, 2, "record").groups(1).tolist() == [0, 2, 1]


@pytest.mark.parametrize("name", ["projection", "circuit"])
def test_who_holds_the_key_recovers_the_series(name: str) -> None:
    encode = on_series({"projection": lambda w: w @ MIX, "circuit": circuit(ANGLES)}[name])
    attack = KnownKeyInversion()
    given = scene(encode)
    assert attack.unsupported(given) is None
    (result,) = attack.run(given, 0)
    assert result.rate >= 0.95
    assert result.low <= result.rate <= result.high
    assert result.positive_control is not None
    assert result.positive_control >= 0.99
    assert result.control is not None
    assert result.control < 0.1
    assert result.detail["controls_held"]
    assert result.n == 80


def test_an_encoding_without_content_is_not_inverted() -> None:
    """The control on the artefact's side: a constant encoding gives nothing away and the attack says so."""
    (result,) = KnownKeyInversion().run(scene(on_series(lambda w: np.zeros_like(w))), 0)
    assert result.rate <= 0.05
    assert result.detail["controls_held"]


def test_the_same_seed_gives_the_same_result() -> None:
    given = scene(on_series(circuit(ANGLES)), n=40)
    assert KnownKeyInversion().run(given, 5) == KnownKeyInversion().run(given, 5)


def test_windows_over_variables_and_padded_channels() -> None:
    """Three channels in windows of four: encoders fill up, the attack scores only what was there."""

    def encode(series: np.ndarray) -> np.ndarray:
        full = np.pad(series, ((0, 0), (0, 0), (0, -series.shape[2] % 4)))
        return (full.reshape(-1, 4) @ MIX).reshape(full.shape).astype(np.float32)

    given = scene(encode, axis="variables")
    assert KnownKeyInversion().unsupported(given) is None
    (result,) = KnownKeyInversion().run(given, 0)
    assert result.rate >= 0.99


def test_a_compressing_projection_is_attacked_too() -> None:
    (result,) = KnownKeyInversion().run(scene(on_series(lambda w: w @ MIX[:, :2])), 0)
    assert 0.5 < result.rate < 1


def test_what_is_not_one_map_is_not_run() -> None:
    rng = np.random.default_rng(0)
    fresh = on_series(lambda w: w * rng.uniform(1, 2, (len(w), 1)))
    assert "repeatable" in str(KnownKeyInversion().unsupported(scene(fresh)))
    few = scene(on_series(lambda w: w), n=80, target_subjects=np.zeros(80, int))
    assert "subjects" in str(KnownKeyInversion().unsupported(few))
    odd = scene(on_series(lambda w: w))
    odd = dataclasses.replace(odd, encoded_targets=odd.encoded_targets[:, :13])
    assert "window map" in str(KnownKeyInversion().unsupported(odd))


def test_a_scene_checks_its_shapes() -> None:
    with pytest.raises(DataError, match="as many"):
        scene(on_series(lambda w: w), target_subjects=np.arange(3))


def test_monomials_are_all_products() -> None:
    x = np.array([[0.3, 0.7]])
    values = [[1, np.cos(np.pi * v), np.sin(np.pi * v)] for v in x[0]]
    assert monomials(x)[0].tolist() == pytest.approx([a * b for a, b in product(*values)])


def test_the_circuit_is_linear_in_81_monomials() -> None:
    """The identity the identification rests on."""
    rng = np.random.default_rng(0)
    encode = circuit(ANGLES)
    train, test = rng.uniform(size=(200, 4)), rng.uniform(size=(50, 4))
    weights = np.linalg.lstsq(monomials(train), encode(train), rcond=None)[0]
    assert np.abs(monomials(test) @ weights - encode(test)).max() < 1e-9


def test_independent_rows_span() -> None:
    rows = np.array([[1.0, 0], [1, 0], [0, 1], [2, 0]])
    assert np.linalg.matrix_rank(rows[independent_rows(rows, 2)]) == 2


def results_by(encode: Callable[[np.ndarray], np.ndarray], ladder: tuple[Knowledge, ...]) -> dict[str, float]:
    given = scene(encode)
    attack = AlignedPairs(ladder=ladder)
    assert attack.unsupported(given) is None
    found = attack.run(given, 0)
    assert all(result.detail["controls_held"] for result in found)
    return {str(step): result.rate for step, result in zip(ladder, found, strict=True)}


def test_four_independent_windows_give_a_projection_away() -> None:
    rates = results_by(
        on_series(lambda w: w @ MIX), (Knowledge(4, "window", "random"), Knowledge(4, "window", "independent"))
    )
    assert rates["4 independent windows"] >= 0.99
    assert rates["4 random windows"] <= rates["4 independent windows"] + 1e-6


def test_a_hundred_independent_windows_give_the_circuit_away() -> None:
    rates = results_by(
        on_series(circuit(ANGLES)), (Knowledge(1, "window", "random"), Knowledge(100, "window", "independent"))
    )
    assert rates["100 independent windows"] >= 0.95
    assert rates["1 random window"] <= 0.5


def test_pairs_need_stays() -> None:
    assert "40" in str(AlignedPairs().unsupported(scene(on_series(lambda w: w), n=30)))
