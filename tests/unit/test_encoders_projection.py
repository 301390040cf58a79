"""The random projection against loops, its scale, its channel names, and its stated weakness."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from typing import Any, Final

import numpy as np
import pytest
import torch

from encoders.products import tensor_products
from encoders.projection import RandomProjectionEncoder
from encoders.random_matrices import Distribution, MatrixLaw
from encoders.windows import Axis
from pipeline.core.errors import ConfigError, DataError, EnvironmentProblem
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task

KEY = Secret(bytes(range(32)), "encoder")
MATRIX_DIGESTS: Final[dict[Distribution, str]] = {
    "gaussian": "904b1da43afd6386",
    "orthogonal": "9c860fa7809fb299",
    "rademacher": "cd98d9dcc6afb4fb",
    "sparse": "c171ed5d7b5e5099",
}
GOLDEN_ROW = [
    -0.027490248218984742,
    -0.70346928338362824,
    -0.0021207747729035326,
    0.17938969124107373,
]  # of KEY, default options


def cohort_of(features: np.ndarray) -> EncodedCohort:
    stays = len(features)
    return EncodedCohort(
        features=features.astype(np.float32),
        labels=np.zeros((stays, 1), np.float32),
        subject_index=np.arange(stays, dtype=np.int32),
        split=np.zeros(stays, np.int8),
        channels=tuple(f"c{index}" for index in range(features.shape[2])),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        provenance=Provenance(stage="prepare"),
    )


@pytest.mark.parametrize("options", [{}, {"n_components": 3}, {"stride": 1, "n_components": 2}, {"stride": 3}], ids=str)
@pytest.mark.parametrize("axis", ["time", "variables", "record"])
@pytest.mark.parametrize(("stays", "steps", "channels"), [(3, 8, 8), (3, 9, 9), (200, 2, 3), (0, 5, 6)])
def test_every_window_meets_the_one_matrix(
    axis: Axis, options: dict[str, Any], stays: int, steps: int, channels: int
) -> None:
    if axis == "record":
        options = {name: value for name, value in options.items() if name != "stride"}
    encoder = RandomProjectionEncoder(axis=axis, **options)
    features = np.random.default_rng(1).random((stays, steps, channels))
    fitted = encoder.fit(cohort_of(features), KEY)
    width = steps * channels if axis == "record" else 4
    matrix = encoder.matrix(KEY, width=width)
    expected = by_loops(features, axis, options.get("stride", width), matrix)
    np.testing.assert_allclose(fitted.encode_array(features), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fitted.encode_array(features.astype(np.float32)), expected, rtol=0, atol=2e-5)
    moved = tensor_products(torch.from_numpy(features), fitted.geometry, torch.from_numpy(fitted.weights), "cpu")
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-12)  # what runs on other devices


def by_loops(features: np.ndarray, axis: Axis, stride: int, matrix: np.ndarray) -> np.ndarray:
    """The definition, window by window."""
    components, width = matrix.shape
    stays, steps, channels = features.shape
    record = features.reshape(stays, steps * channels, 1)
    series = {"time": features, "variables": features.transpose(0, 2, 1), "record": record}[axis]
    starts = [0]
    while starts[-1] + width < series.shape[1]:
        starts.append(starts[-1] + stride)
    expected = np.zeros((stays, len(starts) * components, series.shape[2]))
    for stay, (number, start), lane in itertools.product(range(stays), enumerate(starts), range(series.shape[2])):
        window = np.zeros(width)
        piece = series[stay, start : start + width, lane]
        window[: len(piece)] = piece
        expected[stay, number * components : (number + 1) * components, lane] = matrix @ window
    return expected if axis == "time" else expected.transpose(0, 2, 1)


def test_a_matrix_per_channel_goes_by_the_channels_name() -> None:
    features = np.random.default_rng(4).random((50, 9, 3))
    cohort = cohort_of(features)
    encoder = RandomProjectionEncoder(key_scope="per_channel", stride=2, n_components=2)
    fitted = encoder.fit(cohort, KEY)
    encoded = fitted.encode_array(features)
    for place, name in enumerate(cohort.channels):
        matrix = encoder.matrix(KEY, channel=name)
        alone = by_loops(features[:, :, [place]], "time", 2, matrix)
        np.testing.assert_allclose(encoded[:, :, [place]], alone, rtol=0, atol=1e-12)
        windows = features[:, :4, place]
        np.testing.assert_allclose(fitted.window_map(windows, place), windows @ matrix.T, rtol=0, atol=1e-12)
    weights = torch.from_numpy(fitted.weights)
    moved = tensor_products(torch.from_numpy(features), fitted.geometry, weights, "cpu")
    np.testing.assert_allclose(moved, encoded, rtol=0, atol=1e-12)
    turned = dataclasses.replace(cohort, channels=cohort.channels[::-1])
    assert np.array_equal(encoder.fit(turned, KEY).weights, fitted.weights[::-1])
    with pytest.raises(DataError, match="fit it again"):
        fitted.encode(turned)
    with pytest.raises(DataError, match="3 channels"):
        fitted.encode_array(features[:, :, :2])


def test_noise_is_added_to_every_output_and_told() -> None:
    cohort = cohort_of(np.random.default_rng(6).random((300, 12, 5)))
    fitted = RandomProjectionEncoder(noise_sd=0.25).fit(cohort, KEY)
    source = NoiseSource(Secret(bytes(32), "noise"), "digest")
    noise = fitted.encode(cohort, source).features - fitted.encode_array(cohort.features)
    n = noise.size
    assert abs(noise.std() / 0.25 - 1) < 5 / np.sqrt(2 * n)  # 5 standard errors of a normal's standard deviation
    assert abs(noise.mean()) < 5 * 0.25 / np.sqrt(n)
    assert fitted.public_spec()["noise"] == {"kind": "gaussian", "noise_sd": 0.25}
    exact = RandomProjectionEncoder().fit(cohort, KEY)
    assert np.array_equal(exact.weights, fitted.weights)  # how much noise there is does not change the map


def test_a_device_that_is_not_there_is_said() -> None:
    features = np.zeros((1, 4, 1), np.float32)
    fitted = RandomProjectionEncoder().fit(cohort_of(features), KEY)
    with pytest.raises(EnvironmentProblem, match="no-such-device"):
        fitted.encode_array(features, "no-such-device")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("axis", ["time", "variables", "record"])
def test_a_gpu_gives_the_same_numbers(axis: Axis) -> None:
    features = np.random.default_rng(8).random((500, 48, 44), dtype=np.float32)
    fitted = RandomProjectionEncoder(axis=axis, n_components=3).fit(cohort_of(features), KEY)
    expected = fitted.encode_array(features)
    np.testing.assert_allclose(fitted.encode_array(features, "cuda"), expected, rtol=0, atol=1e-4)


def test_what_was_added_and_renamed_is_told() -> None:
    cohort = cohort_of(np.random.default_rng(2).random((2, 10, 6)))
    over_time = RandomProjectionEncoder(n_components=2).fit(cohort, KEY)
    assert over_time.public_spec()["padded_positions"] == 2
    encoded = over_time.encode(cohort)
    assert encoded.features.shape == (2, 6, 6)
    assert encoded.step_hours == 2.0
    assert encoded.channels == cohort.channels

    over_variables = RandomProjectionEncoder(axis="variables", n_components=3).fit(cohort, KEY)
    assert over_variables.public_spec()["padded_positions"] == 2
    encoded = over_variables.encode(cohort)
    assert encoded.features.shape == (2, 10, 6)
    assert encoded.step_hours == 1.0
    assert encoded.channels == ("mix00_0", "mix00_1", "mix00_2", "mix01_0", "mix01_1", "mix01_2")


def test_orthogonal_keeps_distances_and_rademacher_has_two_values() -> None:
    for window in (1, 4, 16):
        square = RandomProjectionEncoder(window=window, distribution="orthogonal").matrix(KEY)
        np.testing.assert_allclose(square @ square.T, np.eye(window), atol=1e-12)
    wide = RandomProjectionEncoder(window=8, distribution="orthogonal", n_components=2).matrix(KEY)
    np.testing.assert_allclose(wide @ wide.T, 4 * np.eye(2), atol=1e-12)
    signs = RandomProjectionEncoder(window=64, distribution="rademacher", n_components=16).matrix(KEY)
    assert set(np.unique(signs)) == {-0.25, 0.25}


def test_sparse_has_three_values_in_their_shares() -> None:
    """Shares within 5 standard errors of a binomial; the default density is 1 / sqrt(window)."""
    for density in (None, 1 / 3, 1.0):
        encoder = RandomProjectionEncoder(window=400, distribution="sparse", density=density, n_components=100)
        share = 1 / 20 if density is None else density
        matrix = encoder.matrix(KEY)
        assert set(np.unique(np.abs(matrix))) <= {0.0, 1 / np.sqrt(share * 100)}
        for sign in (-1, 1):
            found = np.mean(np.sign(matrix) == sign)
            assert abs(found - share / 2) < 5 * np.sqrt(share / 2 * (1 - share / 2) / matrix.size)
        spec = encoder.fit(cohort_of(np.zeros((1, 400, 1))), KEY).public_spec()
        assert spec["density"] == share


def test_gram_schmidt_is_the_q_of_a_qr_and_stays_orthogonal_when_wide() -> None:
    """Of the same Gaussian rows as the first distribution's, with a positive diagonal: one factorisation only."""
    stream = KEY.derive("stream")
    gaussian = MatrixLaw("gaussian", 20, 33).draw(stream, "m", 5) * np.sqrt(20)
    rows = MatrixLaw("orthogonal", 20, 33).draw(stream, "m", 5) / np.sqrt(33 / 20)
    for drawn, orthonormal in zip(gaussian, rows, strict=True):
        rotation, triangle = np.linalg.qr(drawn.T)
        np.testing.assert_allclose(orthonormal, (rotation * np.sign(np.diag(triangle))).T, rtol=0, atol=1e-12)
    wide = RandomProjectionEncoder(axis="record", distribution="orthogonal", n_components=64).matrix(KEY, width=2112)
    np.testing.assert_allclose(wide @ wide.T, 33 * np.eye(64), rtol=0, atol=1e-11)


def test_matrices_are_the_same_bytes_everywhere() -> None:
    """Digests taken on x86-64 (AVX-512), numpy 2; the arithmetic is fixed by IEEE 754."""
    for distribution, expected in MATRIX_DIGESTS.items():
        encoder = RandomProjectionEncoder(window=33, distribution=distribution, n_components=20)
        assert hashlib.sha256(encoder.matrix(KEY).astype("<f8").tobytes()).hexdigest()[:16] == expected


def test_options_and_key_give_unrelated_matrices() -> None:
    """Golden first: the same key must give the same encoder in every later version, or scheme v2 must become v3."""
    assert RandomProjectionEncoder().matrix(KEY)[0].tolist() == GOLDEN_ROW
    axes: tuple[Axis, ...] = ("time", "variables")
    kinds: tuple[Distribution, ...] = ("gaussian", "orthogonal")
    keys = (KEY, Secret(bytes(32), "encoder"))
    drawn = [
        RandomProjectionEncoder(axis=axis, distribution=kind, stride=stride).matrix(key, channel=channel)[0, 0]
        for axis in axes
        for kind in kinds
        for stride in (4, 2)
        for key in keys
        for channel in (None, "heart_rate")
    ]
    assert len(set(drawn)) == len(drawn)


def test_four_independent_known_windows_undo_it() -> None:
    """Stated in docs/encoders.md: it is a linear map."""
    rng = np.random.default_rng(3)
    known, secret = rng.random((4, 4, 1)), rng.random((100, 4, 1))
    fitted = RandomProjectionEncoder().fit(cohort_of(known), KEY)
    solved = np.linalg.lstsq(fitted.encode_array(known)[:, :, 0], known[:, :, 0])[0]
    np.testing.assert_allclose(fitted.encode_array(secret)[:, :, 0] @ solved, secret[:, :, 0], atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {"window": 0},
        {"n_components": 5},
        {"n_components": 0},
        {"axis": "stay"},
        {"distribution": "x"},
        {"stride": 0},
        {"stride": 5},
        {"axis": "record", "stride": 2},
        {"density": 0.5},
        {"distribution": "sparse", "density": 0.0},
        {"distribution": "sparse", "density": 1.5},
        {"noise_sd": -1.0},
        {"key_scope": "per_site"},
        {"key_scope": "per_channel", "axis": "variables"},
    ],
    ids=str,
)
def test_impossible_projections_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RandomProjectionEncoder(**options)


def test_records_too_small_are_refused() -> None:
    encoder = RandomProjectionEncoder(axis="record", n_components=7)
    with pytest.raises(ConfigError, match="1 to `window` components"):
        encoder.fit(cohort_of(np.zeros((2, 3, 2))), KEY)
    with pytest.raises(ConfigError, match="without steps"):
        encoder.fit(cohort_of(np.zeros((2, 0, 2))), KEY)
