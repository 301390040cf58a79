"""The random projection against loops, its scale, its channel names, and its stated weakness."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from encoders.projection import Axis, Distribution, RandomProjectionEncoder
from pipeline.core.errors import ConfigError
from pipeline.core.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task

KEY = Secret(bytes(range(32)), "encoder")
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


@pytest.mark.parametrize("components", [4, 3, 1])
@pytest.mark.parametrize("axis", ["time", "variables"])
@pytest.mark.parametrize(("steps", "channels"), [(8, 8), (9, 9), (2, 3)])
def test_every_window_meets_the_one_matrix(axis: Axis, components: int, steps: int, channels: int) -> None:
    encoder = RandomProjectionEncoder(axis=axis, n_components=components)
    features = np.random.default_rng(1).random((3, steps, channels))
    fitted = encoder.fit(cohort_of(features), KEY)
    encoded = fitted.encode_array(features)
    matrix = encoder.matrix(KEY)
    series = features if axis == "time" else features.transpose(0, 2, 1)  # the windowed axis in the middle
    length = -(-series.shape[1] // 4) * 4
    expected = np.zeros((3, length // 4 * components, series.shape[2]))
    for stay, start, other in itertools.product(range(3), range(0, length, 4), range(series.shape[2])):
        window = np.zeros(4)
        piece = series[stay, start : start + 4, other]
        window[: len(piece)] = piece
        expected[stay, start // 4 * components : (start // 4 + 1) * components, other] = matrix @ window
    if axis == "variables":
        expected = expected.transpose(0, 2, 1)
    np.testing.assert_allclose(encoded, expected, rtol=0, atol=1e-12)
    single = fitted.encode_array(features.astype(np.float32))
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5)


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


def test_options_and_key_give_unrelated_matrices() -> None:
    """Golden first: the same key must give the same encoder in every later version, or scheme v2 must become v3."""
    assert RandomProjectionEncoder().matrix(KEY)[0].tolist() == GOLDEN_ROW
    axes: tuple[Axis, ...] = ("time", "variables")
    kinds: tuple[Distribution, ...] = ("gaussian", "orthogonal")
    keys = (KEY, Secret(bytes(32), "encoder"))
    drawn = [RandomProjectionEncoder(axis=a, distribution=d).matrix(k)[0, 0] for a in axes for d in kinds for k in keys]
    assert len(set(drawn)) == len(drawn)


def test_four_independent_known_windows_undo_it() -> None:
    """Stated in docs/encoders.md: it is a linear map."""
    rng = np.random.default_rng(3)
    known, secret = rng.random((4, 4, 1)), rng.random((100, 4, 1))
    fitted = RandomProjectionEncoder().fit(cohort_of(known), KEY)
    solved = np.linalg.lstsq(fitted.encode_array(known)[:, :, 0], known[:, :, 0])[0]
    np.testing.assert_allclose(fitted.encode_array(secret)[:, :, 0] @ solved, secret[:, :, 0], atol=1e-8)


def test_impossible_projections_are_refused() -> None:
    for options in ({"window": 0}, {"n_components": 5}, {"n_components": 0}, {"axis": "stay"}, {"distribution": "x"}):
        with pytest.raises(ConfigError):
            RandomProjectionEncoder(**options)
