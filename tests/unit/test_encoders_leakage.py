"""Leakage bounds against hand calculation, numerical integration, and brute force."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from encoder_calibrate import calibrate
from scipy.integrate import quad
from scipy.stats import binom, norm

from encoders.calibrate import calibrated
from encoders.fisher import WindowMap, jacobian, output_information, prior_points, prior_quantile
from encoders.leakage import (
    PRIOR_INFORMATION,
    PRIOR_SD,
    Case,
    Layout,
    bayes_rmse,
    exposure,
    leakage_bound,
    rounded_down,
    total_information,
    unbiased_rmse,
    van_trees_rmse,
)
from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from encoders.randomise import MAX_SHOTS, OutputNoise
from pipeline.core.errors import ConfigError
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance

MATRIX = np.random.default_rng(0).normal(size=(3, 4))
KEY = Secret(bytes(range(32)), "encoder")
COHORT = EncodedCohort(
    features=np.zeros((1, 48, 1), np.float32),
    labels=np.zeros((1, 0), np.float32),
    subject_index=np.zeros(1, np.int32),
    split=np.zeros(1, np.int8),
    channels=("c",),
    tasks=(),
    step_hours=1.0,
    transforms=(),
    provenance=Provenance(stage="prepare"),
)


def dfil(window_map: WindowMap, windows: np.ndarray, how: OutputNoise) -> np.ndarray:
    """trace I(x) / width of each window."""
    outputs, slopes = jacobian(window_map, windows)
    return np.asarray((output_information(outputs, how)[:, :, None] * slopes**2).sum((1, 2)) / windows.shape[1])


def linear(windows: np.ndarray) -> np.ndarray:
    return windows @ MATRIX.T


def cosine(windows: np.ndarray) -> np.ndarray:
    """One qubit with nothing behind it."""
    return np.cos(np.pi * windows)


def circuit(n_qubits: int) -> Callable[[np.ndarray], np.ndarray]:
    return QuantumEncoder(n_qubits=n_qubits).fit(COHORT, KEY).window_map


def test_the_prior_is_what_is_stated() -> None:
    def density(x: float) -> float:
        return 1 - math.cos(2 * math.pi * x)

    assert quad(density, 0, 1)[0] == pytest.approx(1)
    information = quad(lambda x: (2 * math.pi * math.sin(2 * math.pi * x)) ** 2 / density(x), 1e-9, 1 - 1e-9)[0]
    assert information == pytest.approx(PRIOR_INFORMATION)
    assert quad(lambda x: (x - 0.5) ** 2 * density(x), 0, 1)[0] ** 0.5 == pytest.approx(0.1808, abs=1e-4)
    for u in (1e-6, 0.2, 0.5, 0.9):
        assert quad(density, 0, float(prior_quantile(np.array(u))))[0] == pytest.approx(u, abs=1e-9)
    for n_values in (1, 2, 4):
        points, weights, exact = prior_points(n_values)
        assert exact
        assert weights @ np.cos(2 * np.pi * points[:, 0]) == pytest.approx(-0.5, abs=1e-7)


def test_a_linear_map_with_a_gaussian_prior_is_exact() -> None:
    """There van Trees holds with equality: the posterior covariance in Kalman's form, J = 1 / s^2."""
    sd, s = 0.3, 0.5
    seen = exposure(linear, 4, 12, "independent_values")
    np.testing.assert_allclose(total_information(seen, OutputNoise(sd)), MATRIX.T @ MATRIX / sd**2, rtol=1e-5)
    gain = s**2 * MATRIX.T @ np.linalg.inv(s**2 * MATRIX @ MATRIX.T + sd**2 * np.eye(3))
    posterior = s**2 * (np.eye(4) - gain @ MATRIX)
    exact = math.sqrt(np.trace(posterior) / 4)
    assert van_trees_rmse(MATRIX.T @ MATRIX / sd**2, s**-2) == pytest.approx(exact)


def test_a_constant_series_is_told_by_all_its_windows() -> None:
    sd = 0.3
    constant = exposure(linear, 4, 12, "constant_series")
    level = 12 * float((MATRIX.sum(axis=1) ** 2).sum()) / sd**2
    np.testing.assert_allclose(total_information(constant, OutputNoise(sd)), [[level]], rtol=1e-5)
    plain = (level + PRIOR_INFORMATION) ** -0.5
    assert plain < bayes_rmse(constant, OutputNoise(sd)) < 1.01 * plain  # weights help little where I is constant


def test_the_weighted_bound_is_the_best_of_a_family_by_hand() -> None:
    """z = x^2 / 2 seen once, I = x^2 / sd^2: the two-field bound of v = 1 and v = cos(pi x), integrated numerically."""
    sd = 0.05

    def mean(function: Callable[[float], float]) -> float:
        return float(quad(lambda x: function(x) * (1 - math.cos(2 * math.pi * x)), 1e-9, 1 - 1e-9, epsabs=1e-11)[0])

    fields: list[Callable[[float], float]] = [lambda x: 1.0, lambda x: math.cos(math.pi * x)]
    slopes: list[Callable[[float], float]] = [lambda x: 0.0, lambda x: -math.pi * math.sin(math.pi * x)]

    def psi(a: int, b: int) -> float:
        def product(x: float) -> float:
            score = 2 * math.pi / math.tan(math.pi * x)
            divergences = [score * fields[i](x) + slopes[i](x) for i in (a, b)]
            return fields[a](x) * fields[b](x) * (x / sd) ** 2 + divergences[0] * divergences[1]

        return mean(product)

    whole = np.array([[psi(a, b) for b in (0, 1)] for a in (0, 1)])
    means = np.array([mean(field) for field in fields])
    two_fields = math.sqrt(float(means @ np.linalg.solve(whole, means)))
    plain = whole[0, 0] ** -0.5
    found = bayes_rmse(exposure(lambda w: w**2 / 2, 1, 1, "constant_series"), OutputNoise(sd))
    x, z = prior_quantile((np.arange(4000) + 0.5) / 4000), np.linspace(-0.3, 0.8, 1101)
    weight = norm.pdf(z[:, None], x**2 / 2, sd)
    explained = (weight @ x) ** 2 / weight.sum(axis=1) / len(x)
    best_attacker = math.sqrt(float((x**2).mean() - explained.sum() * (z[1] - z[0])))
    assert plain < two_fields < found < best_attacker
    assert found > 0.95 * best_attacker


def test_nothing_released_leaves_the_priors_own_spread() -> None:
    for case, slack in (("constant_series", 1e-3), ("independent_values", 0.02)):
        seen = exposure(circuit(4), 4, 12, case)  # type: ignore[arg-type]
        assert PRIOR_SD * (1 - slack) < bayes_rmse(seen, OutputNoise(1e5)) < PRIOR_SD


def stacked(n_positions: int, starts: range, width: int) -> np.ndarray:
    """All outputs of a linear map as one matrix on the series."""
    whole = np.zeros((len(starts) * 3, n_positions))
    for row, start in enumerate(starts):
        whole[3 * row : 3 * row + 3, start : start + width] = MATRIX
    return whole


@pytest.mark.parametrize("case", ["independent_values", "constant_series"])
@pytest.mark.parametrize(
    ("name", "layout", "starts", "levels"),
    [
        ("overlap", Layout(stride=2), range(0, 10, 2), np.zeros(12, int)),
        ("overlap by one", Layout(stride=3), range(0, 15, 3), np.zeros(16, int)),
        ("zeros at the end", Layout(filled=2, filling="constant"), range(0, 20, 4), np.array([0] * 18 + [-1] * 2)),
        ("variables", Layout(period=None, repeats=48), range(0, 20, 4), np.arange(20)),
        ("overlapping variables", Layout(stride=2, period=None, repeats=48), range(0, 10, 2), np.arange(12)),
        ("record of 6 channels", Layout(period=6), range(0, 24, 4), np.arange(24) % 6),
        ("record of 3 channels", Layout(period=3), range(0, 24, 4), np.arange(24) % 3),
        ("last value repeated", Layout(period=None, stride=2, filled=1), range(0, 10, 2), np.r_[0:11, 10]),
    ],
)
def test_every_layout_agrees_with_the_whole_series_matrix(
    name: str, layout: Layout, starts: range, levels: np.ndarray, case: Case
) -> None:
    sd = 0.4
    whole = stacked(len(levels), starts, 4)
    found = exposure(linear, 4, len(starts), case, layout)
    if case == "constant_series":
        onto = (levels[:, None] == np.arange(levels.max() + 1)).astype(float)
        repeats = layout.repeats
    elif (layout.stride or 4) == 4:  # windows share nothing: one full window stands for all
        onto, repeats = np.eye(len(levels))[:, :4], 1
        whole = whole[:3]
    else:
        last = len(levels) - layout.filled
        onto, repeats = np.eye(len(levels))[:, :last], 1
        onto[last:, -1] = 1
    information = repeats * (whole @ onto).T @ (whole @ onto) / sd**2
    eigenvalues = np.linalg.eigvalsh(total_information(found, OutputNoise(sd)))
    eigenvalues = np.sort(np.tile(eigenvalues, onto.shape[1] // len(eigenvalues)))  # one window's, where all are alike
    np.testing.assert_allclose(eigenvalues, np.linalg.eigvalsh(information), rtol=1e-5, atol=1e-5, err_msg=name)
    plain = van_trees_rmse(information, PRIOR_INFORMATION)
    assert plain * (1 - 1e-3) < bayes_rmse(found, OutputNoise(sd)) < PRIOR_SD
    expected = (np.trace(information) / onto.shape[1]) ** -0.5
    assert unbiased_rmse(found, OutputNoise(sd)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shots", [1, 7, 100])
@pytest.mark.parametrize("z", [-0.9, 0.0, 0.4, 0.99])
def test_the_information_of_shots_is_the_binomials(z: float, shots: int) -> None:
    k, h = np.arange(shots + 1), 1e-6
    score = (binom.logpmf(k, shots, (1 + z + h) / 2) - binom.logpmf(k, shots, (1 + z - h) / 2)) / (2 * h)
    expected = float((binom.pmf(k, shots, (1 + z) / 2) * score**2).sum())
    assert output_information(np.array([[z]]), OutputNoise(shots=shots))[0, 0] == pytest.approx(expected, rel=1e-6)


def mixed_information(z: float, shots: int, sd: float) -> float:
    """Of a binomial mean plus Gaussian noise about z, by summing over a fine grid."""
    h, k = 1e-5, np.arange(shots + 1)
    y = np.linspace(-4 - 12 * sd, 4 + 12 * sd, 40_001)
    kernel = norm.pdf(y[:, None], 2 * k / shots - 1, sd)
    density, up, down = (kernel @ binom.pmf(k, shots, (1 + value) / 2) for value in (z, z + h, z - h))
    inside = density > 1e-290
    return float((((up - down)[inside] / (2 * h)) ** 2 / density[inside]).sum() * (y[1] - y[0]))


@pytest.mark.parametrize("shots", [1, 4, 16])
@pytest.mark.parametrize("sd", [0.02, 0.2, 0.5, 2.0])
@pytest.mark.parametrize("z", [0.0, 0.5, -0.95])
def test_shots_and_noise_together_are_bounded_from_above(z: float, shots: int, sd: float) -> None:
    truth = mixed_information(z, shots, sd)
    stated = float(output_information(np.array([[z]]), OutputNoise(sd, shots))[0, 0])
    assert stated >= truth * (1 - 1e-6)
    if sd >= 0.25 and shots == 1:
        assert stated <= truth * 1.01
    assert stated <= shots / (1 - z**2) * (1 + 1e-12)


def test_the_smaller_of_the_two_informations_would_be_no_bound() -> None:
    truth = mixed_information(0.999, 1, 2.0)
    assert truth > 2.0**-2 * 1.05
    assert float(output_information(np.array([[0.999]]), OutputNoise(2.0, 1))[0, 0]) >= truth * (1 - 1e-6)


def test_slopes_are_the_parameter_shift_rules() -> None:
    """An output is a + b cos(r pi x_j) + c sin(r pi x_j), r = high - low of the embedding, in every value:
    df/dx_j = r pi/2 (f(x + e_j / 2r) - f(x - e_j / 2r)), exactly."""
    window_map = circuit(4)
    low, high = QuantumEncoder().embedding_range
    turn = high - low
    windows = np.random.default_rng(2).random((50, 4))
    slopes = jacobian(window_map, windows)[1]
    for value in range(4):
        shift = np.eye(4)[value] / (2 * turn)
        exact = turn * np.pi / 2 * (window_map(windows + shift) - window_map(windows - shift))
        np.testing.assert_allclose(slopes[:, :, value], exact, atol=1e-9)


def test_quadrature_agrees_with_a_large_sample_of_the_prior() -> None:
    """Four standard errors of the sample, for every entry."""
    window_map, how = circuit(4), OutputNoise(0.2)
    windows = prior_quantile(np.random.default_rng(3).random((40_000, 4)))
    slopes = jacobian(window_map, windows)[1]
    each = np.einsum("nki,nkj->nij", slopes, slopes) / how.noise_sd**2
    found = total_information(exposure(window_map, 4, 12, "independent_values"), how)
    assert (np.abs(found - each.mean(axis=0)) <= 4.5 * each.std(axis=0) / 200 + 1e-4).all()
    assert dfil(window_map, windows, how).mean() == pytest.approx(np.trace(each.mean(axis=0)) / 4)
    shots = OutputNoise(shots=50)
    weighted = output_information(window_map(windows), shots)
    each = np.einsum("nk,nki,nkj->nij", weighted, slopes, slopes)
    found = total_information(exposure(window_map, 4, 12, "independent_values"), shots)
    assert (np.abs(found - each.mean(axis=0)) <= 4.5 * each.std(axis=0) / 200 + 1e-2).all()


def test_where_a_sample_stands_for_the_prior_it_errs_upward() -> None:
    """Six wires: too many nodes, so 4,096 draws and four standard errors more."""
    window_map, how = circuit(6), OutputNoise(0.2)
    windows = prior_quantile(np.random.default_rng(4).random((40_000, 6)))
    found = np.trace(total_information(exposure(window_map, 6, 8, "independent_values"), how)) / 6
    truth = float(dfil(window_map, windows, how).mean())
    assert truth < found < 1.2 * truth


def test_certain_outcomes_have_their_limit() -> None:
    """z = cos(pi x): pi^2 per shot everywhere, at z = +-1 as well, and for n windows n times that."""
    how = OutputNoise(shots=20)
    assert dfil(cosine, np.array([[0.3]]), how)[0] == pytest.approx(20 * np.pi**2, rel=1e-6)
    found = total_information(exposure(cosine, 1, 48, "constant_series"), how)
    np.testing.assert_allclose(found, 48 * 20 * np.pi**2, rtol=1e-5)
    product = exposure(lambda w: np.cos(np.pi * w).prod(axis=1, keepdims=True), 2, 1, "constant_series")
    assert total_information(product, how)[0, 0] <= 20 * 2 * np.pi**2  # (D^T D = 2) pi^2 is the quantum limit


def test_bounds_grow_with_noise_from_nothing_to_the_priors_own() -> None:
    window_map = circuit(4)
    cases: tuple[Case, ...] = ("independent_values", "constant_series")
    for case in cases:
        seen = exposure(window_map, 4, 12, case)
        by_noise = [bayes_rmse(seen, OutputNoise(sd)) for sd in (0.0, 0.01, 0.1, 1.0, 10.0, 1e4)]
        assert by_noise[0] == 0
        assert (np.diff(by_noise) > 0).all()
        assert by_noise[-1] == pytest.approx(PRIOR_SD, rel=0.02)
        by_shots = [bayes_rmse(seen, OutputNoise(shots=n)) for n in (1, 2, 10, 1000, MAX_SHOTS)]
        assert (np.diff(by_shots) < 0).all()
        both = [bayes_rmse(seen, OutputNoise(sd, 20)) for sd in (0.0, 0.1, 1.0)]
        assert (np.diff(both) > 0).all()


def test_what_the_spec_says() -> None:
    window_map, how = circuit(4), OutputNoise(0.2)
    said = leakage_bound(window_map, 4, how, 12)
    assert said == leakage_bound(window_map, 4, how, 12)
    json.dumps(said, allow_nan=False)
    exact = bayes_rmse(exposure(window_map, 4, 12, "constant_series"), how)
    assert 0.9 * exact < said["bayes_rmse_constant_series_at_least"] <= exact
    assert said["bayes_rmse_constant_series_at_least"] < said["bayes_rmse_at_least"] < PRIOR_SD
    nothing = leakage_bound(window_map, 4, OutputNoise(), 12)
    assert {value for name, value in nothing.items() if name.endswith("at_least")} == {0.0}
    json.dumps(leakage_bound(lambda w: 0 * w, 4, how, 12), allow_nan=False)


def test_rounding_never_says_more() -> None:
    for value, expected in ((0.1, 0.1), (0.10999, 0.1), (0.0999, 0.099), (0.159154, 0.15), (12.7, 12.0), (0.0, 0.0)):
        assert rounded_down(value) == expected
    for value in np.random.default_rng(5).lognormal(size=1000):
        assert 0.9 * value < rounded_down(float(value)) <= value


@pytest.mark.parametrize("case", ["independent_values", "constant_series"])
@pytest.mark.parametrize("window_map", [circuit(4), lambda windows: windows[:, ::-1] * 0.3])
def test_calibration_finds_the_least_noise(window_map: Callable[[np.ndarray], np.ndarray], case: Case) -> None:
    seen = exposure(window_map, 4, 12, case)
    for target in (0.01, 0.05, 0.1, 0.15):
        how = calibrate(target, window_map, 4, 12, case=case)
        assert bayes_rmse(seen, how) >= target
        assert bayes_rmse(seen, OutputNoise(how.noise_sd * 0.98)) < target
        assert how.shots is None


def test_calibration_finds_the_most_shots() -> None:
    window_map = circuit(4)
    seen = exposure(window_map, 4, 12, "constant_series")
    how = calibrate(0.03, window_map, 4, 12, vary="shots")
    assert how.shots is not None
    assert how.shots > 1
    assert bayes_rmse(seen, how) >= 0.03 > bayes_rmse(seen, OutputNoise(shots=how.shots + 1))
    noisier = calibrate(0.03, window_map, 4, 12, vary="shots", beside=OutputNoise(0.1))
    assert noisier.noise_sd == 0.1
    assert noisier.shots is not None
    assert noisier.shots > how.shots
    with_shots = calibrate(0.1, window_map, 4, 12, beside=OutputNoise(shots=20))
    assert with_shots.shots == 20
    assert with_shots.noise_sd < calibrate(0.1, window_map, 4, 12).noise_sd
    assert calibrate(0.001, window_map, 4, 12, beside=OutputNoise(shots=20)) == OutputNoise(0.0, 20)


def test_targets_out_of_reach_are_said_so() -> None:
    for target in (0.0, -1.0, PRIOR_SD, 0.5, float("nan")):
        with pytest.raises(ConfigError, match=r"0\.181"):
            calibrate(target, linear, 4, 12)
    with pytest.raises(ConfigError, match="no Gaussian noise"):
        calibrate(0.1807, lambda windows: 1e5 * windows, 4, 12)
    with pytest.raises(ConfigError, match="not even one shot"):
        calibrate(0.155, circuit(4), 4, 12, vary="shots")
    with pytest.raises(ConfigError, match="shots"):
        leakage_bound(linear, 4, OutputNoise(shots=5), 12)
    with pytest.raises(ConfigError, match="shots"):
        output_information(np.array([[1.5]]), OutputNoise(shots=5))


def test_the_encoders_say_their_bound_once_they_add_noise() -> None:
    quantum = QuantumEncoder(shots=50, noise_sd=0.1).fit(COHORT, KEY)
    said = quantum.public_spec()["leakage_bound"]
    assert said == leakage_bound(quantum.window_map, 4, OutputNoise(0.1, 50), 12)
    projection = RandomProjectionEncoder(noise_sd=0.1, window=5).fit(COHORT, KEY)  # 48 steps: two zeros at the end
    layout = Layout(filled=2, filling="constant")
    assert projection.public_spec()["leakage_bound"] == leakage_bound(
        projection.window_map, 5, OutputNoise(0.1), 10, layout
    )
    on_a_device = QuantumEncoder(backend="pennylane", shots=10)
    for encoder in (QuantumEncoder(), RandomProjectionEncoder(), on_a_device):
        assert encoder.fit(COHORT, KEY).public_spec()["leakage_bound"] is None


def test_a_map_per_channel_is_bounded_by_its_most_telling_one() -> None:
    wide = dataclasses.replace(COHORT, features=np.zeros((1, 48, 3), np.float32), channels=("a", "b", "c"))
    fitted = RandomProjectionEncoder(noise_sd=0.1, key_scope="per_channel").fit(wide, KEY)
    said = fitted.public_spec()["leakage_bound"]
    each = [leakage_bound(functools.partial(fitted.window_map, channel=c), 4, OutputNoise(0.1), 12) for c in range(3)]
    for name in ("unbiased_rmse_at_least", "bayes_rmse_at_least", "bayes_rmse_constant_series_at_least"):
        assert said[name] == min(bound[name] for bound in each)
        assert len({bound[name] for bound in each}) > 1


def test_windows_over_variables_and_whole_records_are_bounded() -> None:
    wide = dataclasses.replace(COHORT, features=np.zeros((1, 48, 8), np.float32), channels=tuple("abcdefgh"))
    over = RandomProjectionEncoder(noise_sd=0.5, axis="variables", distribution="orthogonal").fit(wide, KEY)
    said = over.public_spec()["leakage_bound"]
    looked_at_48_times = (48 / 0.25 + PRIOR_INFORMATION) ** -0.5
    assert 0.9 * looked_at_48_times < said["bayes_rmse_constant_series_at_least"] < 1.05 * looked_at_48_times
    assert said["n_windows"] == 2
    record = RandomProjectionEncoder(noise_sd=0.5, axis="record", distribution="orthogonal").fit(wide, KEY)
    said = record.public_spec()["leakage_bound"]
    assert said["n_windows"] == 1
    assert 0.9 * looked_at_48_times < said["bayes_rmse_constant_series_at_least"] < looked_at_48_times
    alone = (1 / 0.25 + PRIOR_INFORMATION) ** -0.5
    assert 0.9 * alone < said["bayes_rmse_at_least"] < alone


@pytest.mark.parametrize(
    "encoder", [QuantumEncoder(), QuantumEncoder(stride=2, shots=200), RandomProjectionEncoder(key_scope="per_channel")]
)
def test_an_encoder_with_a_target_gets_the_least_noise_that_reaches_it(
    encoder: QuantumEncoder | RandomProjectionEncoder,
) -> None:
    def bound(noise_sd: float) -> float:
        spec = dataclasses.replace(encoder, noise_sd=noise_sd).fit(COHORT, KEY).public_spec()
        return float(spec["leakage_bound"]["bayes_rmse_constant_series_at_least"])

    found = calibrated(encoder, 0.05, COHORT, KEY).noise_sd
    assert bound(found) >= 0.05 > bound(0.97 * found)


def test_a_target_out_of_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be"):
        calibrated(QuantumEncoder(), 0.5, COHORT, KEY)
