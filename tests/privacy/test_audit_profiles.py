"""Rows are recognised by what changes in them, without a key; rows of others and redrawn maps are not."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.audit.encodings.profiles import ProfileLinkage, TwoKeys, changed, comes_first, ranked
from pipeline.audit.scene import EncodingScene

STEPS, CHANNELS, WINDOW = 24, 5, 4


def people(n: int, seed: int) -> np.ndarray:
    """Carried-forward series: a value holds until somebody measures again."""
    rng = np.random.default_rng(seed)
    fresh = rng.random((n, STEPS, CHANNELS)) < 0.15
    fresh[:, 0] = True
    values = rng.uniform(size=(n, STEPS, CHANNELS))
    last = np.maximum.accumulate(np.where(fresh, np.arange(STEPS)[None, :, None], 0), axis=1)
    return np.take_along_axis(values, last, axis=1).astype(np.float32)


def encoder(seed: int):  # type: ignore[no-untyped-def]
    matrix = np.random.default_rng(seed).normal(size=(WINDOW, WINDOW))

    def encode(series: np.ndarray) -> np.ndarray:
        windows = np.swapaxes(series, 1, 2).reshape(len(series), series.shape[2], -1, WINDOW) @ matrix
        return np.swapaxes(np.sin(windows).reshape(len(series), series.shape[2], -1), 1, 2)

    return encode


def scene() -> EncodingScene:
    targets, encode = people(300, 2), encoder(1)
    return EncodingScene(
        artefact="encoded",
        artefact_digest="0" * 64,
        encode=encode,
        own=people(200, 1),
        targets=targets,
        encoded_targets=encode(targets),
        target_subjects=np.arange(300),
        channels=tuple("abcde"),
        window_steps=WINDOW,
        surrogates=(encoder(9),),
    )


def test_a_known_record_is_found_without_a_key() -> None:
    whole, part = ProfileLinkage().run(scene(), 0)
    assert whole.low > 0.9
    assert 0.02 < part.rate <= whole.rate
    for result in (whole, part):
        assert result.controls_held
        assert result.control is not None
        assert result.control < 0.05


def test_two_keys_do_not_keep_two_releases_apart() -> None:
    (result,) = TwoKeys().run(scene(), 0)
    assert result.low > 0.9
    assert result.controls_held
    assert "second key" in str(TwoKeys().unsupported(dataclasses.replace(scene(), surrogates=())))


def test_rows_of_other_people_are_not_found() -> None:
    """The release holds other stays: whoever comes first is nobody's."""
    other = dataclasses.replace(scene(), encoded_targets=encoder(1)(people(300, 5)))
    for result in ProfileLinkage().run(other, 0):
        assert result.low <= 1 / 300
        assert result.high < 0.05


def test_ties_find_nobody() -> None:
    assert not comes_first(np.ones((2, 3)), np.array([0, 1])).any()
    assert comes_first(np.eye(3), np.arange(3)).all()


def test_scores_do_not_depend_on_units() -> None:
    values = np.random.default_rng(0).uniform(size=(50, 4))
    values[:10] = 0
    assert np.allclose(ranked(values, values), ranked(3 * values, 3 * values), atol=1e-3)
    assert np.allclose(changed(values), changed(3 * values))
