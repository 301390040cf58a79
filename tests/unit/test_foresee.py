"""What is foreseen of a run: both classes, enough people for each attack, the policy's paperwork, the device."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.charging.foresee import Known, events_of, foreseen_figures, least_people, require_releasable, stops
from flows.cli.main import app
from pipeline.audit.foreseen import Crowd
from pipeline.audit.scene import CondensedScene
from pipeline.audit.sets.linkage_inference import Linkability
from pipeline.audit.sets.membership import Membership
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.audit.sets.singling_out import SinglingOut
from pipeline.audit.sets.two_sample import TwoSample
from pipeline.core.config import Config, parse_config
from pipeline.core.errors import DataError, ReleaseRefused
from pipeline.core.types import CondensedSet, Provenance, Split, Task


def plan(**changes: Any) -> Config:
    tables = {
        "name": "small",
        "workspace": "/nowhere",
        "source": {"kind": "embedded", "sets": ["a"]},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"private": {"kind": "private_moments"}},
        "release": {"artefact": "private", "policy": "strict", "site": "S", "licence": "ODbL-1.0"},
    }
    return parse_config({**tables, **changes}, "the test", Path("/nowhere"))


def known(members: int = 3000, others: int = 1000, **labels: float) -> Known:
    """A cohort of so many subjects, half of each with the event; `train`, `held_out`: one label for all of a part."""
    split = np.repeat([Split.TRAIN, Split.HELD_OUT], [members, others])
    column = (np.arange(len(split)) % 2).astype(float)
    for part, label in labels.items():
        column[split == Split[part.upper()]] = label
    return Known(column[:, None], split, np.arange(len(split)), (Task("died"),))


def test_nothing_stops_a_large_cohort_with_both_classes() -> None:
    assert stops(plan(), known()) == ()
    require_releasable(plan(), known(), to_release=True)


@pytest.mark.parametrize("part", ["train", "held_out"])
@pytest.mark.parametrize("label", [0.0, 1.0, float("nan"), -1.0])
def test_one_class_only_is_seen_before_the_cost(part: str, label: float) -> None:
    """Case 19: `ledger.jsonl` held the reservation when the AUROC of one class failed."""
    with pytest.raises(DataError, match=f"condense.private: died has one class only in {part}"):
        require_releasable(plan(), known(**{part: label}), to_release=False)


def test_one_of_several_tasks_may_be_untestable() -> None:
    whole = known()
    two = Known(
        np.hstack([whole.labels, np.zeros_like(whole.labels)]),
        whole.split,
        whole.subjects,
        (Task("died"), Task("rare")),
    )
    asked = {"private": {"kind": "private_moments", "tasks": "all"}, "rare": {"kind": "centroids", "tasks": ("rare",)}}
    assert stops(plan(condense={"private": asked["private"]}), two) == ()
    assert any(
        sentence.startswith("condense.rare: rare has one class only") for sentence in stops(plan(condense=asked), two)
    )
    regression = Known(np.full_like(whole.labels, 0.5), whole.split, whole.subjects, (Task("days", kind="regression"),))
    assert stops(plan(), regression) == ()


@pytest.mark.parametrize(
    ("members", "others", "sentence"),
    [
        (256, 80, "gives no tpr_at_1pct_fpr with 256 subjects in train and 80 held out"),
        (
            256,
            80,
            "auroc, has n = 156 with 256 subjects in train and 80 held out, and the policy asks for 200",
        ),
        (3000, 854, "gives no tpr_at_1pct_fpr"),
        (39, 5000, "required attack density_membership cannot run"),
        (5000, 19, "required attack near_copies cannot run"),
        (5000, 4, "fewer than 10 held out"),
    ],
)
def test_too_few_people_for_an_attack_that_the_policy_demands(members: int, others: int, sentence: str) -> None:
    found = stops(plan(), known(members, others))
    assert any(sentence in each for each in found), found
    with pytest.raises(ReleaseRefused, match="nothing was drawn"):
        require_releasable(plan(), known(members, others), to_release=True)
    require_releasable(plan(), known(members, others), to_release=False)  # who only condenses may


def policy_that(tmp_path: Path, **changes: tuple[str, str]) -> str:
    """The strict policy with some words changed, as a file."""
    text = (files("pipeline.sharing") / "policies" / "strict.toml").read_text(encoding="utf-8")
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "own.toml").write_text(text)
    return str(tmp_path / "own.toml")


ONLY_COPIES: dict[str, tuple[str, str]] = {
    "name": ('name = "strict"', 'name = "own"'),
    "asked": (', "density_membership:auroc", "density_membership:tpr_at_1pct_fpr"', ""),
}


@pytest.mark.parametrize(
    ("asked", "level", "members", "others", "sentence"),
    [
        ("", "screen", 110, 100, "attack two_sample, telling_views, has n = 180 with 110 subjects"),
        ("", "screen", 99, 5000, ""),  # it does not run, and nobody asked for it
        ("", "full", 200, 400, "attack shadow_condensation, auroc, has n = 100 with 200 subjects"),
        ("", "screen", 200, 400, ""),
        ("linkability", "screen", 250, 5000, "attack linkability, excess_risk, has n = 175 with 250 subjects"),
        ("linkability", "screen", 99, 5000, "required attack linkability cannot run"),
        ("linkability", "screen", 290, 5000, ""),
        ("inference:excess_risk", "screen", 250, 5000, "attack inference, excess_risk, has n = 175"),
        ("singling_out", "screen", 250, 99, "required attack singling_out cannot run"),
        ("shadow_condensation", "screen", 2500, 990, "attack shadow_condensation is part of the full audit only"),
        ("shadow_condensation", "full", 2500, 990, ""),
        ("model_membership:auroc", "screen", 2500, 990, "attack model_membership does not say beforehand"),
        ("byte_scan", "screen", 2500, 990, "attack byte_scan is no installed attack on sets"),
        ("nobody_knows", "full", 2500, 990, "attack nobody_knows is no installed attack on sets"),
    ],
)
def test_every_attack_that_the_policy_judges_is_foreseen(
    tmp_path: Path, asked: str, level: str, members: int, others: int, sentence: str
) -> None:
    """Only two attacks were: with 110 and 100 people a run paid its epsilon, and then ended INCONCLUSIVE."""
    required = ('["near_copies:count"]', f'["near_copies:count", "{asked}"]' if asked else '["near_copies:count"]')
    policy = policy_that(tmp_path, **ONLY_COPIES, required=required)
    release = {"artefact": "private", "policy": policy, "site": "S", "licence": "ODbL-1.0"}
    found = stops(plan(release=release, audit={"level": level}), known(members, others))
    attacks = [each for each in found if "density_membership" not in each]
    assert any(sentence in each for each in attacks) if sentence else not attacks, found


def test_a_demanded_attack_of_others_must_say_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in that said nothing was taken to need nobody: the epsilon was paid, and then it could not run."""

    class Silent:
        name, scene_type, threat_model = "silent", CondensedScene, "T6"

    class Foretelling(Silent):
        name, holds_back = "foretelling", False

        def foreseen(self, crowd: Crowd) -> dict[str, int]:
            return {"auroc": crowd.members} if crowd.each(50) else {}

    monkeypatch.setattr("flows.registry.attacks", lambda: (NearCopies(), Silent(), Foretelling()))
    for name, members, sentence in (
        ("silent", 5000, "required attack silent does not say beforehand"),
        ("foretelling", 49, "required attack foretelling cannot run"),
        ("foretelling:auroc", 199, "attack foretelling, auroc, has n = 199"),
        ("foretelling:auroc", 5000, ""),
    ):
        required = ('["near_copies:count"]', f'["near_copies:count", "{name}"]')
        policy = policy_that(tmp_path, **ONLY_COPIES, required=required)
        asked = plan(release={"artefact": "private", "policy": policy, "site": "S", "licence": "ODbL-1.0"})
        found = stops(asked, known(members, 5000))
        assert any(sentence in each for each in found) if sentence else not found, found
        assert (least_people(asked) is None) == (name == "silent")


def test_too_few_samples_are_foreseen(tmp_path: Path) -> None:
    policy = policy_that(tmp_path, **ONLY_COPIES, samples=("min_n = 1\n", "min_n = 300\n"))
    release = {"artefact": "private", "policy": policy, "site": "S", "licence": "ODbL-1.0"}
    condense = {"private": {"kind": "private_moments", "n_per_class": 100}}
    assert any("count, has n = 200" in each for each in stops(plan(release=release, condense=condense), known()))


def test_what_is_foreseen_is_what_the_attacks_give() -> None:
    rng, (members, others, samples) = np.random.default_rng(0), (150, 120, 50)

    def series(n: int) -> np.ndarray:
        return rng.random((n, 4, 3)).astype(np.float32)

    condensed = CondensedSet(
        features=series(samples),
        labels=np.tile(np.array([[0], [1]], np.float32), (samples // 2, 1)),
        channels=("a", "b", "c"),
        tasks=(Task("died"),),
        step_hours=1.0,
        transforms=(),
        method="means",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("condense"),
    )
    people = np.arange(members), np.arange(members, members + others)
    scene = CondensedScene("s", "0" * 64, condensed, series(members), series(others), *people)
    crowd = Crowd(members, others, samples)
    for attack in (NearCopies(), Membership(), SinglingOut(), Linkability(), TwoSample()):
        told = attack.foreseen(crowd)
        given = {each.statistic: each.n for each in attack.run(scene, 1) if each.gates or each.statistic in told}
        assert told == given, attack.name
        assert attack.foreseen(Crowd(9, others, samples)) == attack.foreseen(Crowd(members, 9, samples)) == {}


def test_config_check_says_how_many_people_a_release_needs(tmp_path: Path) -> None:
    assert least_people(plan()) == (40, 855)
    (tmp_path / "run.toml").write_text(
        'name = "small"\nworkspace = "work"\n[source]\nkind = "embedded"\n[encode.raw]\nkind = "identity"\n'
        '[condense.private]\nkind = "private_moments"\n[release]\nartefact = "private"\nlicence = "ODbL-1.0"\n'
    )
    told = CliRunner().invoke(app, ["config", "check", str(tmp_path / "run.toml")])
    assert "at least 40 people in train and 855 held out" in told.stdout, told.output


def test_the_smallest_number_that_does() -> None:
    """As the red team measured it: 854 held-out people leave 299 for 1 % false alarms, 855 leave 300."""
    assert "tpr_at_1pct_fpr" not in foreseen_figures(plan(), known(3000, 854))["density_membership"]
    assert stops(plan(), known(3000, 855)) == ()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"condense": {"private": {"kind": "private_moments", "epsilon": 2.1}}}, "epsilon 2.1 of condense.private"),
        ({"condense": {"private": {"kind": "private_moments", "delta": 1e-4}}}, "delta 0.0001 of condense.private"),
        ({"condense": {"private": {"kind": "random_real"}}}, "never releases sets made by random_real"),
        ({"condense": {"private": {"kind": "centroids"}}}, "asks for a guarantee, and condense.private gives none"),
        ({"device": "cuda:99"}, "there is no device cuda:99"),
        ({"device": "abacus"}, "there is no device abacus"),
    ],
)
def test_what_the_configuration_alone_rules_out(changes: dict[str, Any], sentence: str) -> None:
    assert any(sentence in each for each in stops(plan(**changes), known())), stops(plan(**changes), known())


def test_rows_of_people_are_ruled_out_by_kind() -> None:
    release = {"artefact": "raw", "kind": "encoded", "policy": "strict", "site": "S", "licence": "ODbL-1.0"}
    assert stops(plan(release=release), known()) == ("policy strict does not release encoded data",)


def test_the_price_is_the_one_that_will_be_reserved() -> None:
    from condensation.private.accounting import noise_multipliers
    from condensation.private.moments import CENTRE_SHARE

    events = events_of(plan().condense["private"])
    multipliers = noise_multipliers(1.0, 1e-6, (CENTRE_SHARE, 1 - CENTRE_SHARE))
    assert tuple(event["noise_multiplier"] for event in events) == multipliers
    assert events_of(plan(condense={"private": {"kind": "centroids"}}).condense["private"]) == ()
