"""The encoding attacks break what can be broken and stay quiet where nothing is to be had; synthetic series."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from pipeline.audit.encodings.aligned_pairs import AlignedPairs, Knowledge, independent_rows, monomials
from pipeline.audit.encodings.denoising import output_noise, run_means
from pipeline.audit.encodings.inverse import Dictionary, Windows, by_group_regression, most_probable
from pipeline.audit.encodings.inversion import KnownKeyInversion
from pipeline.audit.encodings.terms import coefficients, public_terms
from pipeline.audit.encodings.windows import Layout
from pipeline.audit.scene import Axis, Encode, EncodingScene
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
    assert result.controls_held
    assert result.n == 80


def test_an_encoding_without_content_is_not_inverted() -> None:
    """The control on the artefact's side: a constant encoding gives nothing away and the attack says so."""
    (result,) = KnownKeyInversion().run(scene(on_series(lambda w: np.zeros_like(w))), 0)
    assert result.rate <= 0.05
    assert result.controls_held


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


def overlapping(window_map: Callable[[np.ndarray], np.ndarray], stride: int, axis: Axis = "time") -> Encode:
    """As `on_series`, a window of four every `stride` positions along any axis; written apart from the audit's cut."""

    def encode(series: np.ndarray) -> np.ndarray:
        lanes = series.reshape(len(series), 1, -1) if axis == "record" else series
        lanes = np.swapaxes(lanes, 1, 2) if axis == "time" else lanes
        slots = 1 + max(0, -(-(lanes.shape[2] - 4) // stride))
        full = np.pad(lanes, ((0, 0), (0, 0), (0, (slots - 1) * stride + 4 - lanes.shape[2])))
        parts = [window_map(full[:, :, i * stride : i * stride + 4].reshape(-1, 4)) for i in range(slots)]
        joined = np.stack(parts, axis=1).reshape(*lanes.shape[:2], -1).astype(np.float32)
        return np.swapaxes(joined, 1, 2) if axis == "time" else joined

    return encode


@pytest.mark.parametrize(("stride", "axis"), [(2, "time"), (3, "time"), (1, "variables"), (4, "record"), (2, "record")])
def test_overlapping_windows_along_any_axis_are_inverted(stride: int, axis: Axis) -> None:
    """Widths that do not fit, zeros at the end, more outputs than inputs: all of it is the same attack."""
    wide = np.random.default_rng(6).normal(0, 0.5, (4, 6))
    given = scene(overlapping(lambda w: w @ wide, stride, axis), stride=stride, axis=axis)
    assert KnownKeyInversion().unsupported(given) is None
    (result,) = KnownKeyInversion().run(given, 0)
    assert result.rate >= 0.99
    assert result.controls_held


def per_channel(series: np.ndarray) -> np.ndarray:
    """A matrix for every channel."""
    rng = np.random.default_rng(8)
    maps = [rng.normal(0, 0.5, (4, 4)) for _ in range(series.shape[2])]
    parts = [on_series(lambda w, m=m: w @ m)(series[:, :, [c]]) for c, m in enumerate(maps)]  # type: ignore[misc]
    return np.concatenate(parts, axis=2)


def test_a_map_per_channel_is_attacked_channel_by_channel() -> None:
    shared = scene(per_channel)
    assert "repeatable" in str(KnownKeyInversion().unsupported(shared))
    given = scene(per_channel, key_scope="per_channel")
    assert KnownKeyInversion().unsupported(given) is None
    (result,) = KnownKeyInversion().run(given, 0)
    assert result.rate >= 0.99
    attack = AlignedPairs(ladder=(Knowledge(4, "window", "independent"),))
    assert attack.unsupported(given) is None
    (pairs,) = attack.run(given, 0)
    assert pairs.rate >= 0.99
    assert pairs.detail["distinct_pairs"] == 4 * CHANNELS
    assert "of every channel" in pairs.summary
    assert "over time" in str(KnownKeyInversion().unsupported(dataclasses.replace(given, axis="variables")))


def noisy(encode: Encode, sd: float, **changes: object) -> EncodingScene:
    clean = scene(encode, n=60, **changes)
    noise = sd * np.random.default_rng(9).standard_normal(clean.encoded_targets.shape)
    return dataclasses.replace(clean, encoded_targets=clean.encoded_targets + noise, noise_sd=sd)


def test_knowing_the_noise_helps_and_more_noise_hides_more() -> None:
    """The exact inverse of noisy outputs amplifies noise; attacks that reckon with it do better, and less with more."""
    rates = []
    for sd in (0.05, 0.2, 1.0):
        (result,) = KnownKeyInversion().run(noisy(on_series(circuit(ANGLES)), sd), 0)
        scores = result.detail["r2_by_method"]
        assert result.rate > scores["gauss-newton"] + 0.05
        assert result.rate > scores["linear inverse with intercept"]
        assert result.controls_held
        rates.append(result.rate)
    assert rates[0] > rates[1] > rates[2]


def test_the_linear_gaussian_case_reaches_the_best_possible_error() -> None:
    """x ~ N(m, s^2 I), y = M x + noise: no estimate has an expected squared error below the posterior variance.

    The regression must come within 5 % of it, and stay above 90 % of it: 20,000 values have a relative standard error
    of 1 %.
    """
    rng = np.random.default_rng(0)
    spread, sd = 0.1, 0.05
    own, asked = rng.normal(0.5, spread, (20_000, 4)), rng.normal(0.5, spread, (5_000, 4))
    groups = np.zeros(20_000, int)
    known = Dictionary(own, own @ MIX, groups, np.ones(20_000))
    rows = asked @ MIX + sd * rng.standard_normal(asked.shape)
    seen = Windows(rows, groups[:5_000], np.arange(5_000), np.ones(5_000))
    found = by_group_regression(known, seen, sd, np.zeros_like(asked))
    bound = float(np.trace(np.linalg.inv(np.eye(4) / spread**2 + MIX @ MIX.T / sd**2))) / 4
    assert 0.9 * bound < float(((found - asked) ** 2).mean()) < 1.05 * bound
    probable = most_probable(lambda w, _: w @ MIX, known, seen, sd, found)
    assert float(((probable - asked) ** 2).mean()) < 1.05 * bound


def test_averaging_equal_windows_divides_the_noise() -> None:
    """Runs of a constant lane join; a jump starts a new one."""
    layout = Layout(40, 1, 4, 4, "time", 4)
    steady = np.zeros((10, 4)) + 0.1 * np.random.default_rng(0).standard_normal((10, 4))
    steady[5:] += 5
    means, level = run_means(steady, layout, 0.1)
    assert np.allclose(means[0], steady[:5].mean(axis=0))
    assert np.allclose(level, 0.1 / np.sqrt(5))


def test_finite_shots_are_noise() -> None:
    """(1 - z^2) / shots: 0 for certain outcomes, 1 / shots for fair ones."""
    given = scene(on_series(lambda w: w), shots=100)
    assert output_noise(given, np.ones((5, 4))) == 0
    assert output_noise(given, np.zeros((5, 4))) == pytest.approx(0.1)
    assert output_noise(dataclasses.replace(given, noise_sd=0.1), np.zeros((5, 4))) == pytest.approx(np.sqrt(0.02))


def test_unknown_noise_is_not_run() -> None:
    given = scene(on_series(lambda w: w), not_understood="the attacks do not know noise of the kind laplace")
    assert "laplace" in str(KnownKeyInversion().unsupported(given))


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
    assert all(result.controls_held for result in found)
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


def surrogates(n: int) -> tuple[Encode, ...]:
    """The same circuit under angles of the attacker's own."""
    rng = np.random.default_rng(21)
    return tuple(on_series(circuit(rng.uniform(0, 2 * np.pi, (2, 4)))) for _ in range(n))


def test_the_public_circuit_has_few_terms() -> None:
    """12 of 81 x 4 coefficients, whatever the angles; a linear map is not of that form."""
    layout = Layout(STEPS, CHANNELS, 4, 4, "time", 4)
    terms = public_terms(surrogates(4), layout, np.random.default_rng(0))
    assert terms is not None
    assert int((terms.scale > 0).sum()) == 12
    assert public_terms((on_series(lambda w: w @ MIX),), layout, np.random.default_rng(0)) is None
    assert public_terms((), layout, np.random.default_rng(0)) is None


def test_coefficients_come_from_a_grid() -> None:
    """sin pi x_0 + 2 cos pi x_1 + 3 has three coefficients, at (sin, 1), (1, cos) and (1, 1)."""
    found = coefficients(lambda w, _: (np.sin(np.pi * w[:, 0]) + 2 * np.cos(np.pi * w[:, 1]) + 3)[:, None], 2)[..., 0]
    assert np.allclose(found, [[3, 2, 0], [0, 0, 0], [1, 0, 0]])


def test_a_few_pairs_identify_a_public_circuit() -> None:
    """12 unknowns: 8 windows picked for independence give the map that 100 gave before, and 4 random ones much."""
    ladder = (Knowledge(8, "window", "independent"), Knowledge(4, "window", "random"))
    given = scene(on_series(circuit(ANGLES)))
    before = AlignedPairs(ladder=ladder).run(given, 0)
    after = AlignedPairs(ladder=ladder).run(dataclasses.replace(given, surrogates=surrogates(6)), 0)
    assert after[0].rate >= 0.95
    assert after[0].rate > before[0].rate + 0.1
    assert after[1].rate > before[1].rate
    assert all(result.detail["circuit_known"] and result.controls_held for result in after)


def test_wrong_pairs_teach_nothing() -> None:
    """The negative side: pairs whose encodings belong to other windows identify no map, public circuit or not."""
    given = scene(on_series(circuit(ANGLES)), surrogates=surrogates(6))
    wrong = dataclasses.replace(given, encoded_targets=np.roll(given.encoded_targets, 7, axis=0))
    (result,) = AlignedPairs(ladder=(Knowledge(8, "window", "random"),)).run(wrong, 0)
    assert result.rate < 0.35


def test_pairs_need_stays() -> None:
    assert "40" in str(AlignedPairs().unsupported(scene(on_series(lambda w: w), n=30)))
