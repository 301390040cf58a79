"""What every attack registered under `decoct.attacks` promises, on scenes that it can do and on ones that it cannot."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import numpy as np
import pytest

from condensation.private.moments import release_moments
from encoders.projection import RandomProjectionEncoder
from flows import registry
from pipeline.audit.games import release_game
from pipeline.audit.once import Piece
from pipeline.audit.run import attempt, attempts, seed_of
from pipeline.audit.scene import (
    BytesScene,
    CondensedScene,
    Encode,
    EncodingScene,
    InPieces,
    Mechanism,
    Scene,
    TableScene,
    encoding_scene,
)
from pipeline.audit.sets import two_sample
from pipeline.core.codec import from_parts, record_digest, to_parts, to_plain
from pipeline.core.digest import canonical_json, digest_array
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import AttackResult, AuditPiece, CondensedSet, EncodedCohort, Moments, NotRun, Provenance, Task
from pipeline.probes.panel import fit_predict

STAYS, STEPS, WINDOW, CHANNELS = 640, 12, 4, ("a", "b", "c", "sex")
SEED = 3
RANGES = {  # of a statistic; the others are shares or areas, in [0, 1]
    "r2": (-float("inf"), 1.0),
    "count": (0.0, float("inf")),
    "telling_views": (0.0, float("inf")),
    "epsilon_above_claim": (0.0, float("inf")),
    "closest_record_ratio": (0.0, float("inf")),
    "excess_risk": (-1.0, 1.0),
    "excess_risk_nearest_tenth": (-1.0, 1.0),
    "member_excess": (-float("inf"), 1.0),
    "auroc_advantage": (-1.0, 1.0),
    "auroc_excess": (-1.0, 1.0),
}
FAST: dict[str, dict[str, Any]] = {  # how long it plays is not its contract
    "canary_subjects": {"rounds": 120},
    "key_enumeration": {"numbers": 8},
    "key_enumeration_long": {"numbers": 9},
    "shadow_condensation": {"n_shadows": 6},
}


def cohort(n: int = STAYS, seed: int = 1) -> EncodedCohort:
    """Levels and walks, a static, two tasks that the levels tell in part; half train, half tuning."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.8, (n, 1, 3))
    series = np.clip(level + rng.normal(0, 0.04, (n, STEPS, 3)).cumsum(axis=1), 0, 1)
    static = np.repeat((level[:, :, :1] > 0.5).astype(float), STEPS, axis=1)
    labels = (level[:, 0, :2] + rng.normal(0, 0.2, (n, 2)) > 0.5).astype(np.float32)
    return EncodedCohort(
        features=np.concatenate([series, static], axis=2).astype(np.float32),
        labels=labels,
        subject_index=np.arange(n, dtype=np.int32),
        split=(np.arange(n) % 2).astype(np.int8),
        channels=CHANNELS,
        tasks=(Task("died"), Task("long stay")),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


@functools.cache
def encoding() -> EncodingScene:
    prepared, encoder = cohort(), RandomProjectionEncoder(window=WINDOW)

    def under(material: bytes) -> Encode:
        return encoder.fit(prepared, Secret(material, "encoder")).encode_array

    key = np.random.default_rng(5).bytes(32)
    fitted = encoder.fit(prepared, Secret(key, "encoder"))
    return encoding_scene(
        "encoded",
        "1" * 64,
        prepared=prepared,
        encoded=fitted.encode(prepared),
        encode=fitted.encode_array,
        spec=fitted.public_spec(),
        observed=np.random.default_rng(6).uniform(size=(STAYS, STEPS, 3)) < [0.5, 0.3, 0.2],
        surrogates=[under(bytes([number]) * 32) for number in range(2)],
        encode_under=under,
        max_targets=120,
        n_bootstrap=60,
    )


def averaging(series: np.ndarray, labels: np.ndarray, subjects: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.1, (40, *series.shape[1:]))
    return (series.mean(axis=0) + noise).astype(np.float32)


def moments(encoded: EncodedCohort, number: int) -> Moments:
    noise = NoiseSource(Secret(number.to_bytes(32, "little"), "noise"), "made up")
    return release_moments(encoded, epsilon=4.0, delta=1e-6, clip_norm=1.5, noise=noise)


@functools.cache
def condensed() -> CondensedScene:
    members, others, strangers = cohort(), cohort(800, 2), cohort(80, 3)
    empty = members.take(np.zeros(0, np.int64))
    guarantee = moments(cohort(40, 4), 0).guarantee
    samples = CondensedSet(
        features=strangers.features,
        labels=strangers.labels,
        channels=CHANNELS,
        tasks=members.tasks,
        step_hours=1.0,
        transforms=(),
        method="test",
        starts_from_records=False,
        guarantee=guarantee,
        provenance=Provenance("test"),
    )
    return CondensedScene(
        artefact="set",
        artefact_digest="2" * 64,
        condensed=samples,
        members=members.features,
        holdout=others.features,
        member_subjects=members.subject_index,
        holdout_subjects=10_000 + others.subject_index,
        member_labels=members.labels,
        holdout_labels=others.labels,
        recondense=averaging,
        mechanism=Mechanism(moments, empty, guarantee),
        receiver=lambda series, labels, asked, seed: fit_predict(
            "logistic_regression", series, labels, asked, epochs=10, seed=seed
        ),
    )


@functools.cache
def bundle() -> BytesScene:
    files = {"a.txt": b"stay 132542 of 1200", "b.json": b"{}"}
    ids = tuple(str(number) for number in range(132_539, 132_639))
    return BytesScene("bundle", "3" * 64, files, ids, (bytes(range(32)),), ("2019-03-04",), (987_654_321,))


@functools.cache
def table() -> TableScene:
    rng = np.random.default_rng(8)
    return TableScene("table", "4" * 64, {"x": rng.normal(size=60), "sex": rng.integers(0, 2, 60).astype(np.uint32)})


def scenes() -> tuple[Scene, ...]:
    return encoding(), condensed(), bundle(), table()


def fast(attack: Any) -> Any:
    """The attack as it is registered, but for how long it plays."""
    return dataclasses.replace(attack, **FAST.get(attack.name, {}))


EVERY = [(place, fast(attack)) for place, attack in attempts(scenes(), registry.attacks())]
every_attack = pytest.mark.parametrize(("place", "attack"), EVERY, ids=[attack.name for _, attack in EVERY])


@functools.cache
def found(place: int, attack: Any) -> tuple[AttackResult, ...]:
    outcome = attempt(scenes()[place], attack, seed=SEED, level="full")
    assert not isinstance(outcome, NotRun), outcome.reason
    return outcome


def arrays_of(scene: Scene) -> dict[str, str]:
    values = {item.name: getattr(scene, item.name) for item in dataclasses.fields(scene)}
    return {name: digest_array(value) for name, value in values.items() if isinstance(value, np.ndarray)}


def test_all_registered_attacks_are_under_contract_and_none_is_there_twice() -> None:
    names = [attack.name for attack in registry.attacks()]
    assert len(set(names)) == len(names) == 23
    assert {attack.name for _, attack in EVERY} == set(names)


@every_attack
def test_figures_are_numbers_in_the_range_of_their_statistic(place: int, attack: Any) -> None:
    for result in found(place, attack):
        low, high = RANGES.get(result.statistic, (0.0, 1.0))
        assert low <= result.low <= result.rate <= result.high <= high
        assert np.isfinite([result.low, result.rate, result.high]).all()
        assert result.n > 0
        if result.statistic == "count":
            assert result.rate == round(result.rate)
        if result.ceiling is not None and result.statistic != "auroc_advantage":
            assert result.rate <= result.ceiling


@every_attack
def test_what_decides_is_said_and_every_deciding_figure_has_its_two_controls(place: int, attack: Any) -> None:
    for result in found(place, attack):
        flags = (result.gates, result.held_back, result.controls_held, result.powered)
        assert all(type(flag) is bool for flag in flags)
        assert not (result.gates and result.held_back)
        assert result.p_value is None or 0 <= result.p_value <= 1
        assert result.p_value_of_the_family is None  # the audit's to say
        assert result.artefact == scenes()[place].artefact
        assert result.artefact in result.summary
        assert not set(result.detail) & {"gates", "held_back", "controls_held", "powered", "p_value"}
        if result.gates:
            assert result.control is not None
            assert result.positive_control is not None
            assert np.isfinite([result.control, result.positive_control]).all()


@every_attack
def test_a_planted_leak_is_found_beyond_the_control(place: int, attack: Any) -> None:
    told = [result for result in found(place, attack) if result.gates] or found(place, attack)
    held = [result for result in told if result.controls_held and result.control is not None]
    assert all(result.positive_control > result.control for result in held)
    if attack.name not in ("blind_source_separation", "attribute_inference_set"):  # needs more people than these
        assert held


@every_attack
def test_the_same_seed_gives_the_same_result_and_the_scene_is_left_alone(place: int, attack: Any) -> None:
    scene, before = scenes()[place], arrays_of(scenes()[place])
    again = attempt(scene, attack, seed=SEED, level="full")
    assert to_plain(again) == to_plain(found(place, attack))
    assert arrays_of(scene) == before


IN_PIECES = [(place, attack) for place, attack in EVERY if isinstance(attack, InPieces)]


@functools.cache
def piece_of(attack: Any, name: str) -> str:
    """The digest of a piece of the condensed scene."""
    return record_digest(attack.pieces(condensed(), seed_of(attack, SEED))[name].make())


@pytest.mark.parametrize("attack", [attack for _, attack in IN_PIECES], ids=lambda attack: attack.name)
@pytest.mark.parametrize("samples", [80, 50])
def test_a_piece_is_made_of_what_it_names_and_of_nothing_else(
    attack: Any, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another set, and all that it does not name taken away: whoever finds it kept finds what he would have made."""
    monkeypatch.setattr(two_sample, "RELABELLINGS", 49)
    monkeypatch.setattr(release_game, "LEARNING_ROUNDS", 4)
    scene, seed = condensed(), seed_of(attack, SEED)
    others = cohort(samples, 9)
    made = dataclasses.replace(
        scene.condensed, features=others.features, labels=others.labels, guarantee=None, method="another"
    )
    nobody = np.zeros((0, STEPS, len(CHANNELS)), np.float32)
    missing: dict[str, dict[str, Any]] = {
        "receiver": {"receiver": None},
        "mechanism": {"mechanism": None},
        "source": {"members": nobody, "holdout": nobody, "member_subjects": nobody[:, 0, 0], "member_labels": None,
                   "holdout_subjects": nobody[:, 0, 0], "holdout_labels": None},
    }  # fmt: skip
    for name, how in attack.pieces(scene, seed).items():
        gone = {field: value for origin, fields in missing.items() if origin not in how.on
                for field, value in fields.items()}  # fmt: skip
        other = dataclasses.replace(scene, artefact="another", condensed=made, recondense=None, **gone)
        again = attack.pieces(other, seed)[name]
        assert again.on == how.on
        if again.told == how.told:
            assert record_digest(again.make()) == piece_of(attack, name)
        else:
            assert samples != len(scene.condensed.features)


def test_the_attacks_that_share_pieces_are_known() -> None:
    """One that is heavy and leaves its `pieces` out would be made for every set again."""
    assert {attack.name for _, attack in IN_PIECES} == {
        "density_membership", "subgroup_membership", "model_membership", "two_sample", "canary_subjects"
    }  # fmt: skip


@pytest.mark.parametrize(("place", "attack"), IN_PIECES, ids=[attack.name for _, attack in IN_PIECES])
def test_kept_pieces_are_made_once_and_change_no_result(place: int, attack: Any) -> None:
    there: dict[tuple[str, str, int], AuditPiece] = {}
    made: list[str] = []

    def keep(of: str, name: str, seed: int, how: Piece) -> AuditPiece:
        assert of == attack.name
        if (of, name, seed) not in there:
            made.append(name)
            meta, arrays = to_parts(how.make())
            there[of, name, seed] = from_parts(AuditPiece, json.loads(canonical_json(meta)), arrays)
        return there[of, name, seed]

    scene = dataclasses.replace(condensed(), keep=keep)
    for _ in range(2):
        again = attempt(scene, attack, seed=SEED, level="full")
        assert canonical_json(to_plain(again)) == canonical_json(to_plain(found(place, attack)))
    assert sorted(made) == sorted(attack.pieces(scene, 0))


def too_small(scene: Scene) -> Scene:
    """Three people, one sample, no file: nothing that an attack could be about."""
    if isinstance(scene, BytesScene):
        return dataclasses.replace(scene, files={})
    if isinstance(scene, TableScene):
        return dataclasses.replace(scene, columns={name: column[:1] for name, column in scene.columns.items()})
    few: dict[str, Any] = {"window_steps": STEPS + 1, "encode_under": None}
    names = ("own", "targets", "encoded_targets", "target_subjects", "observed_targets", "observed_own")
    if isinstance(scene, CondensedScene):
        one, samples = np.zeros(1, np.int64), scene.condensed
        features, labels = samples.features[one], samples.labels[one]
        few = {"condensed": dataclasses.replace(samples, features=features, labels=labels, guarantee=None)}
        names = ("members", "holdout", "member_subjects", "holdout_subjects", "member_labels", "holdout_labels")
    return dataclasses.replace(scene, **few, **{name: getattr(scene, name)[:3] for name in names})


@every_attack
def test_a_scene_that_it_cannot_do_gets_a_reason_and_no_figure(place: int, attack: Any) -> None:
    outcome = attempt(too_small(scenes()[place]), attack, seed=SEED, level="full")
    assert isinstance(outcome, NotRun)
    assert len(outcome.reason) > 10
    assert not outcome.failed
    assert (outcome.attack, outcome.threat_model) == (attack.name, attack.threat_model)
