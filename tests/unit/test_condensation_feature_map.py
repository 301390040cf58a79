"""The public feature map: bounded, exactly inverted, described without loss."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from condensation.private.feature_map import LevelAndTrend, from_description, map_digest, public_range
from pipeline.core.errors import DataError


@pytest.mark.parametrize("n_steps", [2, 3, 7, 24, 48])
def test_features_of_the_decoded_series_are_the_features(n_steps: int) -> None:
    phi = LevelAndTrend(n_steps, 5, 0.0, 1.0)
    wanted = np.random.default_rng(0).uniform(-0.2, 0.2, (9, 10))
    np.testing.assert_allclose(phi.features(phi.series(wanted)), wanted, atol=1e-12)


def test_one_step_has_a_level_and_no_trend() -> None:
    phi = LevelAndTrend(1, 2, 0.0, 1.0)
    found = phi.features(np.array([[[0.7, 0.1]]]))
    np.testing.assert_allclose(found, [[0.2, -0.4, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(phi.series(found), [[[0.7, 0.1]]], atol=1e-12)


def test_hand_computed_features_of_four_steps() -> None:
    phi = LevelAndTrend(4, 1, 0.0, 1.0)  # early: steps 0 and 1, late: step 3
    found = phi.features(np.array([[[0.2], [0.4], [0.9], [0.8]]]))
    np.testing.assert_allclose(found, [[0.8 - 0.5, 0.3 - 0.8]])
    np.testing.assert_allclose(phi.series(found)[0, :, 0], [0.3, 0.3, 0.55, 0.8])


def test_features_are_bounded_whatever_the_series_holds() -> None:
    phi = LevelAndTrend(8, 3, 0.0, 1.0)
    wild = np.random.default_rng(1).normal(size=(50, 8, 3)) * 1e6
    assert np.abs(phi.features(wild)[:, :3]).max() <= phi.half_range
    assert np.abs(phi.features(wild)[:, 3:]).max() <= 2 * phi.half_range


def test_series_stay_in_the_public_range() -> None:
    phi = LevelAndTrend(8, 3, -1.0, 1.0)
    series = phi.series(np.random.default_rng(2).normal(size=(50, 6)) * 9)
    assert series.min() >= -1
    assert series.max() <= 1


def test_description_reads_back_and_other_kinds_are_refused() -> None:
    phi = LevelAndTrend(48, 44, 0.0, 1.0)
    assert from_description(phi.describe()) == phi
    with pytest.raises(DataError, match="feature map"):
        from_description({**phi.describe(), "version": 99})


def test_public_range_follows_the_transforms() -> None:
    scale = {"kind": "scaling", "public": True}
    assert public_range((scale,)) == (0.0, 1.0)
    assert public_range((scale, {"kind": "identity", "public": True})) == (0.0, 1.0)
    assert public_range((scale, {"kind": "quantum", "public": True})) == (-1.0, 1.0)
    assert public_range((scale, {"kind": "other", "public": True, "range": [0, 5]})) == (0.0, 5.0)


def test_digest_names_everything_that_two_sites_must_share() -> None:
    phi = LevelAndTrend(8, 2, 0.0, 1.0)
    scale = {"kind": "scaling", "public": True, "low": [0.0, 1.0]}
    base = map_digest(phi.describe(), ("a", "b"), ("death",), (scale,))
    assert base == map_digest(phi.describe(), ("a", "b"), ("death",), (dict(scale),))
    others = [
        map_digest(dataclasses.replace(phi, n_steps=9).describe(), ("a", "b"), ("death",), (scale,)),
        map_digest(phi.describe(), ("b", "a"), ("death",), (scale,)),
        map_digest(phi.describe(), ("a", "b"), ("stay",), (scale,)),
        map_digest(phi.describe(), ("a", "b"), ("death",), ({**scale, "low": [0.0, 2.0]},)),
    ]
    assert len({base, *others}) == 5
