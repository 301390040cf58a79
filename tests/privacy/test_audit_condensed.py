"""Condensed sets: copies are caught, sets of strangers pass, and what cannot be measured is said."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.audit.run import DEFAULT_ATTACKS, audit
from pipeline.audit.scene import CondensedScene
from pipeline.audit.sets.distances import lag_distances
from pipeline.audit.sets.membership import Membership
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.core.errors import DataError
from pipeline.core.types import AttackResult, CondensedSet, Provenance, Task

STEPS, CHANNELS = 12, 4


def people(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.8, (n, 1, CHANNELS))
    return np.clip(level + rng.normal(0, 0.02, (n, STEPS, CHANNELS)).cumsum(axis=1), 0, 1).astype(np.float32)


MEMBERS, HOLDOUT, STRANGERS = people(600, 1), people(900, 2), people(40, 3)


def condensed_scene(
    samples: np.ndarray, members: np.ndarray = MEMBERS, holdout: np.ndarray = HOLDOUT
) -> CondensedScene:
    condensed = CondensedSet(
        features=samples.astype(np.float32),
        labels=np.zeros((len(samples), 1), np.float32),
        channels=tuple("abcd"),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        method="test",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("test"),
    )
    return CondensedScene(
        artefact="set",
        artefact_digest="0" * 64,
        condensed=condensed,
        members=members,
        holdout=holdout,
        member_subjects=np.arange(len(members)),
        holdout_subjects=10_000 + np.arange(len(holdout)),
    )


def by_statistic(results: tuple[AttackResult, ...]) -> dict[str, AttackResult]:
    return {result.statistic: result for result in results}


NOISE = np.random.default_rng(9).normal(0, 0.003, (40, STEPS, CHANNELS))


@pytest.mark.parametrize(
    "samples",
    [MEMBERS[:40], np.roll(MEMBERS[:40], 1, axis=1) + NOISE, MEMBERS[:40] + NOISE],
    ids=["verbatim", "shifted", "noisy"],
)
def test_copies_are_counted(samples: np.ndarray) -> None:
    found = by_statistic(NearCopies().run(condensed_scene(samples), 0))
    assert found["count"].rate >= 36
    assert found["count"].control == 0
    assert found["count"].controls_held
    assert not found["closest_record_ratio"].gates
    assert not found["member_excess"].gates


def test_one_copy_of_the_rarest_record_is_counted() -> None:
    """Where a distance-to-closest-record score says that all is well."""
    members = MEMBERS.copy()
    members[7] = 1 - np.linspace(0, 1, STEPS)[:, None]
    found = by_statistic(NearCopies().run(condensed_scene(np.concatenate([STRANGERS, members[7:8]]), members), 0))
    assert found["count"].rate == 1
    assert found["closest_record_ratio"].rate < 1.5


def test_one_verbatim_copy_is_no_chance_and_one_near_copy_may_be() -> None:
    """One of 41 samples against none of some hundred null records: p is about the share of samples among all."""
    members = MEMBERS.copy()
    members[7] = 1 - np.linspace(0, 1, STEPS)[:, None]
    samples = np.concatenate([STRANGERS, members[7:8]])
    assert by_statistic(NearCopies().run(condensed_scene(samples, members), 0))["count"].p_value == 0
    samples[-1] += 0.003
    near = by_statistic(NearCopies().run(condensed_scene(samples, members), 0))["count"]
    assert (near.rate, near.detail["null_records_flagged"]) == (1, 0)
    assert near.p_value == pytest.approx(41 / (41 + near.detail["n_null_records"]))
    assert by_statistic(NearCopies().run(condensed_scene(STRANGERS), 0))["count"].p_value == 1


def test_a_sample_that_equals_twins_names_nobody() -> None:
    members = MEMBERS.copy()
    members[8] = members[7] = 1 - np.linspace(0, 1, STEPS)[:, None]
    samples = np.concatenate([STRANGERS, members[7:8]])
    found = by_statistic(NearCopies().run(condensed_scene(samples, members), 0))["count"]
    assert (found.rate, found.p_value) == (0, 1)


@pytest.mark.parametrize(
    "samples",
    [STRANGERS, np.repeat(MEMBERS.mean(axis=0)[None], 40, axis=0) + NOISE, HOLDOUT[:40]],
    ids=["strangers", "mean and noise", "holdout copies"],
)
def test_sets_without_members_are_quiet(samples: np.ndarray) -> None:
    near = by_statistic(NearCopies().run(condensed_scene(samples), 0))
    assert near["count"].rate == 0
    assert near["member_excess"].low <= 0
    member = by_statistic(Membership().run(condensed_scene(samples), 0))
    assert member["auroc"].detail["auroc_p_value"] > 0.001
    assert all(result.controls_held for result in member.values())


def test_membership_finds_a_set_of_members() -> None:
    """A third of the members verbatim: most records of the set are named at a low false-positive rate."""
    found = by_statistic(Membership().run(condensed_scene(MEMBERS[:200]), 0))
    assert found["tpr_at_1pct_fpr"].low > 0.2
    assert found["tpr_at_1pct_fpr"].detail["epsilon_lower_bound"] > 1
    assert found["tpr_at_1pct_fpr"].detail["epsilon_lower_bound"] < found["auroc"].detail["epsilon_ceiling"]
    assert found["auroc"].low > 0.5


def test_few_subjects_are_under_powered_and_fewer_are_not_run() -> None:
    small = by_statistic(Membership().run(condensed_scene(STRANGERS, MEMBERS[:60], HOLDOUT[:60]), 0))
    assert "tpr_at_1pct_fpr" not in small
    assert small["tpr_at_smallest_fpr"].powered is False
    assert small["auroc"].powered is False
    assert "40" in str(Membership().unsupported(condensed_scene(STRANGERS, MEMBERS[:30], HOLDOUT[:30])))
    assert NearCopies().unsupported(condensed_scene(STRANGERS, MEMBERS[:10], HOLDOUT)) is not None


def test_subjects_and_not_stays_are_judged() -> None:
    scene = condensed_scene(STRANGERS)
    paired = CondensedScene(**{**vars(scene), "member_subjects": np.arange(600) // 2})
    assert Membership().run(paired, 0)[0].detail["n_members"] == 150


def test_lags_are_forgiven_both_ways() -> None:
    series = people(3, 5)
    assert np.diag(lag_distances(series[:, 2:], series[:, :-2])).max() < 1e-3
    assert np.diag(lag_distances(series[:, :-2], series[:, 2:])).max() < 1e-3
    assert np.diag(lag_distances(series[:, 2:], series[:, :-2], max_lag=0)).min() > 1e-3


def test_the_report_lists_what_nobody_did() -> None:
    steps: list[tuple[int, int]] = []
    (report,) = audit([condensed_scene(STRANGERS)], seed=3, on_step=lambda step, of, _: steps.append((step, of)))
    about = [attack for attack in DEFAULT_ATTACKS if attack.scene_type is CondensedScene]
    missing = {"byte_scan", "model_membership"}  # nobody gave bytes, or said how a receiver trains
    assert {item.attack for item in report.not_run} >= missing
    assert all(item.reason for item in report.not_run)
    assert report.controls_held
    assert report.provenance.stage == "audit"
    done = {result.attack for result in report.results}
    assert done >= {"near_copies", "density_membership", "singling_out", "linkability", "inference"}
    assert done | {item.attack for item in report.not_run} == missing | {attack.name for attack in about}
    assert steps == [(step + 1, len(about)) for step in range(len(about))]
    assert audit([condensed_scene(STRANGERS)], seed=3) == (report,)


def test_a_broken_control_breaks_the_report() -> None:
    """An encoding in which members and holdout are from different populations: the strangers' set is no control."""
    shifted = np.clip(HOLDOUT + 0.5, 0, 1)
    (report,) = audit([condensed_scene(STRANGERS, holdout=shifted)], seed=0)
    assert not report.controls_held


def test_an_artefact_has_one_digest() -> None:
    one = condensed_scene(STRANGERS)
    other = CondensedScene(**{**vars(one), "artefact_digest": "1" * 64})
    with pytest.raises(DataError, match="digests"):
        audit([one, other], seed=0)
    with pytest.raises(DataError, match="no scene"):
        audit([], seed=0)


def test_members_cannot_be_holdout() -> None:
    scene = condensed_scene(STRANGERS)
    with pytest.raises(DataError, match="both"):
        CondensedScene(**{**vars(scene), "holdout_subjects": np.arange(len(HOLDOUT))})


def test_every_attack_says_what_it_is() -> None:
    names = [attack.name for attack in DEFAULT_ATTACKS]
    assert len(set(names)) == len(names)
