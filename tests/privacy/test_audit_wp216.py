"""Singling out, linkability and inference: planted members are found, strangers are quiet, strata are respected."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from pipeline.audit.excess import Arms, Excess, Hits, Told, best_variant, clustered_share, excess, excess_result
from pipeline.audit.multiplicity import with_family
from pipeline.audit.scene import CondensedScene, LeakageAttack
from pipeline.audit.sets.linkage_inference import Inference, Linkability
from pipeline.audit.sets.singling_out import SinglingOut, by_people
from pipeline.audit.sets.summary_table import columns_of
from pipeline.audit.statistics import Interval, clopper_pearson
from pipeline.core.errors import DataError
from pipeline.core.types import AttackResult, CondensedSet, LeakageReport, Provenance, Task
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import attack_verdicts

STEPS, CHANNELS = 12, 8
ATTACKS = (SinglingOut(), Linkability(), Inference())


def people(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Seven series and a static 0 / 1, and a label that depends on the first series."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.8, (n, 1, CHANNELS))
    series = np.clip(level + rng.normal(0, 0.02, (n, STEPS, CHANNELS)).cumsum(axis=1), 0, 1)
    series[:, :, -1] = rng.integers(0, 2, (n, 1))
    labels = (level[:, 0, :1] + rng.normal(0, 0.2, (n, 1)) > 0.5).astype(np.float32)
    return series.astype(np.float32), labels


MEMBERS, HOLDOUT, STRANGERS = people(800, 1), people(900, 2), people(100, 3)


def scene_of(samples: tuple[np.ndarray, np.ndarray]) -> CondensedScene:
    condensed = CondensedSet(
        features=samples[0],
        labels=samples[1],
        channels=(*tuple("abcdefg"), "sex"),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        method="test",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("test"),
    )
    subjects = np.arange(len(MEMBERS[0])), 10_000 + np.arange(len(HOLDOUT[0]))
    return CondensedScene(
        "set", "0" * 64, condensed, MEMBERS[0], HOLDOUT[0], *subjects, MEMBERS[1], HOLDOUT[1]
    )  # fmt: skip


def mixed(share: float) -> tuple[np.ndarray, np.ndarray]:
    """A set of 100 of which a share are members verbatim."""
    copies = int(100 * share)
    features, labels = (np.concatenate([m[:copies], s[copies:]]) for m, s in zip(MEMBERS, STRANGERS, strict=True))
    return features, labels


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_set_of_strangers_is_quiet(attack: LeakageAttack) -> None:
    for result in attack.run(scene_of(STRANGERS), 0):
        assert result.low <= 0
        assert result.controls_held
        assert result.positive_control is not None
        assert result.positive_control >= 0.8


def test_descriptions_of_members_single_them_out() -> None:
    """The risk grows with the share of the set that is verbatim."""
    rates = [SinglingOut().run(scene_of(mixed(share)), 0)[0] for share in (0.0, 0.2, 1.0)]
    assert rates[0].rate < rates[1].rate < rates[2].rate
    assert rates[1].low > 0
    assert rates[2].low > 0.5
    assert rates[2].detail["control_rate"][0] < 0.05


@pytest.mark.parametrize("attack", [Linkability(), Inference()], ids=lambda attack: attack.name)
def test_members_in_the_set_are_linked_and_read(attack: LeakageAttack) -> None:
    """400 of 800 members verbatim: the tenth nearest to the set is nearly all of them copies."""
    everybody, tenth = attack.run(scene_of((MEMBERS[0][:400], MEMBERS[1][:400])), 0)
    assert everybody.low > 0
    assert tenth.low > 0.5
    assert tenth.rate > everybody.rate
    assert everybody.n == 0.7 * len(MEMBERS[0])


def test_what_is_true_of_everybody_is_no_risk() -> None:
    """A set whose rule "high a, then death" holds for members and others alike infers much and has no excess."""
    truth = people(300, 7)
    rule = truth[0], (truth[0][:, :, 0].mean(axis=1, keepdims=True) > 0.5).astype(np.float32)
    everybody, _ = Inference().run(scene_of(rule), 0)
    assert everybody.low <= 0


def test_the_same_seed_gives_the_same_result() -> None:
    for attack in (Linkability(), Inference()):
        assert attack.run(scene_of(STRANGERS), 5) == attack.run(scene_of(STRANGERS), 5)


def test_small_sets_are_not_run() -> None:
    few = tuple(part[:20] for part in STRANGERS)
    for attack in ATTACKS:
        assert "40" in str(attack.unsupported(scene_of((few[0], few[1]))))
        assert attack.unsupported(scene_of(STRANGERS)) is None


def test_labels_must_fit() -> None:
    with pytest.raises(DataError, match="labels"):
        dataclasses.replace(scene_of(STRANGERS), member_labels=MEMBERS[1][:3])


def test_columns_of_statics_are_kept_once() -> None:
    columns = columns_of(HOLDOUT[0], (*tuple("abcdefg"), "sex"), ("death",))
    assert columns.names.count("sex") == 1
    assert columns.binary[columns.names.index("sex")]
    assert len(columns.names) == 7 * 5 + 1


def hits(p: float, n: int, rng: np.random.Generator, per: int = 1) -> Hits:
    """n subjects with `per` tries each that are alike within a subject half of the time."""
    own = rng.random((n, per)) < p
    alike = np.where(rng.random((n, 1)) < 0.5, own[:, :1], own)
    return Hits(alike.ravel(), np.repeat(np.arange(n), per))


@pytest.mark.parametrize(("main", "control"), [(0.3, 0.1), (0.05, 0.05), (0.9, 0.85), (0.02, 0.0)])
def test_the_excess_interval_covers(main: float, control: float) -> None:
    """400 draws: at least 93 % coverage is asked of a 95 % interval (3 standard errors of 400 draws are 3.3 %)."""
    rng = np.random.default_rng(4)
    truth = (main - control) / (1 - control)
    found = [excess(Arms(hits(main, 300, rng, 3), hits(control, 200, rng), hits(0, 2, rng)))[0] for _ in range(400)]
    covered = np.mean([item.low <= truth <= item.high for item in found])
    assert covered >= stats.binom.ppf(0.001, 400, 0.95) / 400


def test_single_tries_get_clopper_pearson() -> None:
    hit = np.arange(100) < 30
    share, exact = clustered_share(Hits(hit, np.arange(100))), clopper_pearson(30, 100)
    assert share.low == pytest.approx(exact.low, abs=2e-3)  # the effective size is 99 there
    assert share.high == pytest.approx(exact.high, abs=2e-3)
    assert clustered_share(Hits(np.zeros(50, bool), np.arange(50))).high == pytest.approx(clopper_pearson(0, 50).high)


def test_choosing_among_many_variants_costs_nothing() -> None:
    """Twenty attacks without a leak: the chosen one's lower bound exceeds 0 in about 2.5 of 100 audits."""
    rng = np.random.default_rng(8)
    alarms = 0
    for _ in range(100):
        variants = {str(i): Arms(hits(0.3, 200, rng), hits(0.3, 150, rng), hits(0.3, 200, rng)) for i in range(20)}
        alarms += best_variant(variants, rng).figure.low > 0
    assert alarms <= stats.binom.ppf(0.999, 100, 0.025)


def verdicts(share: float, seed: int, policy: str = "strict", attacks: Sequence[LeakageAttack] = ATTACKS) -> list[str]:
    results = [result for attack in attacks for result in attack.run(scene_of(mixed(share)), seed)]
    report = LeakageReport("set", "0" * 64, tuple(results), (), True, Provenance("audit"))
    return [item.verdict for item in attack_verdicts(load_policy(policy), [report])]


@pytest.mark.parametrize("policy", ["strict", "demo", "research"])
def test_planted_members_fail_at_the_gate(policy: str) -> None:
    assert "FAIL" in verdicts(1.0, 0, policy, (SinglingOut(),))


def test_strangers_do_not_fail_at_the_gate() -> None:
    """Two seeds on one set of strangers, three figures each; benchmarks/audit_null.py has hundreds on real stays."""
    assert not [verdict for seed in range(2) for verdict in verdicts(0.0, seed) if verdict == "FAIL"]


def told(main: float, control: float, n: int, widest: float = 0.1) -> AttackResult:
    """The result of an attack that hits as often as that, among n members and n others."""

    def arm(p: float) -> Hits:
        return Hits(np.arange(n) < round(p * n), np.arange(n))

    def found(p: float, c: float) -> Excess:
        figure, main, control = excess(Arms(arm(p), arm(c), arm(0)))
        return Excess("one", figure, main, control, main, n, n, True)

    how = Told("links", "subjects", gates=True, widest=widest)
    arms = found(main, control), found(1.0, 0.0), found(0.0, 0.0)
    return excess_result(scene_of(STRANGERS), Linkability(), how, *arms, {})


def test_few_people_hold_a_figure_back_unless_the_leak_is_plain() -> None:
    """+-.1 at 1,000 people decides; 40 people cannot; but nine of ten members hit, and no other, needs no more."""
    many, few, plain = told(0.3, 0.3, 1000), told(0.3, 0.3, 40), told(0.9, 0.0, 40)
    assert (many.gates, few.gates, plain.gates) == (True, False, True)
    assert few.held_back
    assert not few.powered
    assert not many.held_back
    assert not plain.held_back


def test_a_figure_that_is_held_back_stays_in_the_family() -> None:
    """Left out only where it found nothing, it would make the others' p-values smaller than they are."""
    alone, with_few = with_family([told(0.4, 0.3, 1000)]), with_family([told(0.4, 0.3, 1000), told(0.3, 0.3, 40)])
    assert with_few[0].p_value_of_the_family == pytest.approx(2 * alone[0].p_value_of_the_family)


def test_people_singled_out_are_members_by_their_number_only() -> None:
    """Exact: 12 of 20 different people are members where 3 in 5 of the pool are; 20 of 20 are not chance."""
    figure = told(0.3, 0.3, 40)
    chance, leak = (
        Excess("one", Interval(figure.rate, figure.low, figure.high), *(Interval(0, 0, 0),) * 3, 1, 1, True, hit, other)
        for hit, other in ((12, 8), (20, 0))
    )
    assert by_people(chance, 600, 400) == pytest.approx(stats.binom.sf(11, 20, 0.6))
    assert by_people(leak, 600, 400) == pytest.approx(0.6**20)


def test_choosing_among_kinds_of_descriptions_costs_nothing() -> None:
    """200 audits of ten kinds without a leak, where a description fits a member *or* another, at nominal 5 %.

    Crossed over (each half's kind chosen on the other half) 25 of them alarmed: a kind that both halves choose is
    reported on what it was chosen by.
    """
    rng = np.random.default_rng(11)
    alarms, clusters = 0, np.repeat(np.arange(60), 8)
    for _ in range(200):
        tries = rng.random((10, len(clusters)))
        variants = {
            str(number): Arms(Hits(one < 0.3, clusters), Hits(one > 0.7, clusters), Hits(one < 0, clusters))
            for number, one in enumerate(tries)
        }
        alarms += by_people(best_variant(variants, rng), 1, 1) <= 0.05
    assert alarms <= stats.binom.ppf(0.99, 200, 0.05)
