"""Keys that people choose are found, random ones are not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from pipeline.audit.encodings.key_search import KEY_BYTES, WAYS, KeySearch, LongKeySearch, weak_keys
from pipeline.audit.run import audit
from pipeline.audit.scene import Encode, EncodingScene
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import Encoder
from pipeline.core.types import EncodedCohort, Provenance, Task


def prepared() -> EncodedCohort:
    rng = np.random.default_rng(0)
    return EncodedCohort(
        features=rng.uniform(size=(40, 8, 2)).astype(np.float32),
        labels=np.zeros((40, 1), np.float32),
        subject_index=np.arange(40, dtype=np.int32),
        split=np.zeros(40, np.int8),
        channels=("a", "b"),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        provenance=Provenance("test"),
    )


def scene(encoder: Encoder, key: bytes) -> EncodingScene:
    series = prepared()

    def under(material: bytes) -> Encode:
        return encoder.fit(series, Secret(material, "encoder")).encode_array

    return EncodingScene(
        artefact="encoded",
        artefact_digest="0" * 64,
        encode=under(key),
        own=series.features[:20],
        targets=series.features[20:],
        encoded_targets=under(key)(series.features[20:]),
        target_subjects=np.arange(20),
        channels=series.channels,
        window_steps=4,
        encode_under=under,
    )


RANDOM = bytes(np.random.default_rng(99).integers(0, 256, KEY_BYTES, np.uint8))


@pytest.mark.parametrize("encoder", [QuantumEncoder(), RandomProjectionEncoder()], ids=["quantum", "projection"])
def test_a_small_integer_is_found_and_a_random_key_is_not(encoder: Encoder) -> None:
    for key, count in ((WAYS["big-endian integer"](42), 1), (bytes([7]) * KEY_BYTES, 1), (RANDOM, 0)):
        (result,) = KeySearch(numbers=50).run(scene(encoder, key), 0)
        assert result.rate == count
        assert result.controls_held
    assert result.n == len(list(weak_keys(50)))


def test_the_full_audit_searches_as_far_as_it_says() -> None:
    (result,) = LongKeySearch(numbers=400).run(scene(RandomProjectionEncoder(), WAYS["digest of a number"](397)), 0)
    assert result.rate == 1
    assert result.controls_held
    assert LongKeySearch().numbers == 10_001  # 0 to 10,000


def test_the_long_search_is_part_of_the_full_audit_only() -> None:
    given = scene(RandomProjectionEncoder(), RANDOM)
    attacks = (KeySearch(numbers=5), LongKeySearch(numbers=6))
    (screen,) = audit([given], seed=0, attacks=attacks)
    assert {item.attack: item.reason for item in screen.not_run}["key_enumeration_long"].startswith("part of the full")
    (full,) = audit([given], seed=0, attacks=attacks, level="full")
    assert {result.attack for result in full.results} == {"key_enumeration", "key_enumeration_long"}


def test_without_a_way_to_choose_keys_it_is_not_run() -> None:
    given = dataclasses.replace(scene(RandomProjectionEncoder(), RANDOM), encode_under=None)
    assert "chosen key" in str(KeySearch().unsupported(given))


def test_weak_keys_are_whole_keys() -> None:
    keys = list(weak_keys(30))
    assert {len(key) for key in keys} == {KEY_BYTES}
    assert len(set(keys)) == len(keys)
