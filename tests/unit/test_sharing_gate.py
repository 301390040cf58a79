"""The gate: every way of being silent blocks, a limit is held against the upper bound, and only a PASS opens it."""

from __future__ import annotations

import dataclasses
import math
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_release import NOTED, behind

from condensation.private.accounting import analytic_epsilon
from pipeline.core.codec import record_digest
from pipeline.core.errors import LeakageError, ReleaseRefused
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    EncodedCohort,
    GateDecision,
    LeakageReport,
    NotRun,
    PrivacyGuarantee,
    Provenance,
    Task,
    UtilityReport,
    UtilityScore,
)
from pipeline.sharing.policy.accounting import recomputed_epsilon
from pipeline.sharing.policy.gate import AuditedRelease, admit, decide, judge_audit, leaks
from pipeline.sharing.policy.load import Policy, load_policy
from pipeline.sharing.policy.recovery import recovery
from pipeline.sharing.policy.rules import RULES, Finding
from pipeline.store import Store

STRICT = load_policy("strict")
GUARANTEE = PrivacyGuarantee(
    1.0,
    1e-6,
    "stay",
    "add-or-remove-one",
    "dp-accounting",
    ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},),
    (),
)
NO_PEOPLE = {"kind": "subjects", "known": False, "public": True}
SET = CondensedSet(
    features=np.random.default_rng(0).random((80, 4, 2), dtype=np.float32),
    labels=np.tile(np.array([[0.0], [1.0]], dtype=np.float32), (40, 1)),
    channels=("a", "b"),
    tasks=(Task("death"),),
    step_hours=1.0,
    transforms=(NO_PEOPLE, {"kind": "public_ranges", "public": True}),
    method="private_moments",
    starts_from_records=False,
    guarantee=GUARANTEE,
    provenance=Provenance("condense", config=NOTED),
)


def result(attack: str, statistic: str, high: float, **changes: Any) -> AttackResult:
    plain = AttackResult(
        attack=attack,
        threat_model="T6",
        artefact="private",
        statistic=statistic,
        rate=high / 2,
        low=0.0,
        high=high,
        n=1000,
        control=0.0,
        positive_control=1.0,
        ceiling=1.0,
        gates=True,
        summary="s",
        controls_held=True,
        powered=True,
        held_back=False,
        p_value=None,
    )
    return dataclasses.replace(plain, **changes)


GOOD = (
    result("near_copies", "count", 0.0),
    result("density_membership", "auroc", 0.55, rate=0.5),
    result("density_membership", "tpr_at_1pct_fpr", 0.03),
)
SCORE = UtilityScore("private", "raw", "tcn", "death", "auroc", 0.8, 0.75, 0.85, 0.01, 5, 800, 80)
UTILITY = UtilityReport((SCORE,), 30, "bootstrap")


def report(*results: AttackResult, **changes: Any) -> LeakageReport:
    about = changes.pop("about", SET)
    plain = LeakageReport("private", record_digest(about), results or GOOD, (), True, Provenance("audit"))
    return dataclasses.replace(plain, **changes)


def verdict(
    *results: AttackResult, artefact: Any = SET, policy: Policy | None = STRICT, utility: Any = UTILITY, **changes: Any
) -> str:
    reports = [report(*results, about=artefact, **changes)]
    read = {"countersigned": recovery(policy, reports).code} if policy else {}
    return judge(policy, artefact, reports, utility, **read).verdict


def judge(policy: Policy | None, artefact: Any, reports: Any, utility: Any, **told: Any) -> GateDecision:
    """The gate's decision where the ledger holds what the artefact's guarantee states."""
    return decide(policy, artefact, reports, utility, behind(artefact, **told))


def let_out(decision: GateDecision, artefact: Any, reports: Any, utility: Any, **told: Any) -> AuditedRelease:
    return admit(STRICT, decision, artefact, reports, utility, behind(artefact, **told))


def test_a_private_set_with_a_clean_audit_passes() -> None:
    decision = judge(STRICT, SET, [report()], UTILITY)
    assert decision.verdict == "PASS"
    assert (decision.policy, decision.policy_digest) == ("strict", STRICT.digest)
    assert {outcome for outcome, _ in decision.reasons} == {"PASS"}


def test_the_id_is_the_stores(tmp_path: Path) -> None:
    assert record_digest(SET) == Store(tmp_path).put(SET)


def test_silence_is_never_a_pass() -> None:
    """Each of these is INCONCLUSIVE: nothing was found, but nobody could have found it."""
    nan = math.nan
    assert verdict(policy=None) == "INCONCLUSIVE"
    assert judge(STRICT, SET, [], UTILITY).verdict == "INCONCLUSIVE"
    assert verdict(controls_held=False) == "INCONCLUSIVE"
    assert verdict(artefact_digest="0" * 64) == "INCONCLUSIVE"
    assert verdict(*GOOD[:2]) == "INCONCLUSIVE"  # a required figure is absent
    assert verdict(*GOOD, not_run=(NotRun("density_membership", "T6", "private", "too few"),)) == "INCONCLUSIVE"
    assert verdict(*GOOD[:2], dataclasses.replace(GOOD[2], gates=False)) == "INCONCLUSIVE"
    assert verdict(*GOOD[:2], dataclasses.replace(GOOD[2], powered=False)) == "INCONCLUSIVE"
    assert verdict(*GOOD[:2], dataclasses.replace(GOOD[2], n=199)) == "INCONCLUSIVE"
    for field in ("rate", "low", "high"):
        assert verdict(*GOOD[:2], dataclasses.replace(GOOD[2], **{field: nan})) == "INCONCLUSIVE", field
    assert verdict(*GOOD[:2], dataclasses.replace(GOOD[2], high=math.inf)) == "INCONCLUSIVE"
    assert verdict(*GOOD[:2], dataclasses.replace(GOOD[2], rate=0.9)) == "INCONCLUSIVE"  # outside its interval
    assert verdict(*GOOD, result("new_attack", "new_statistic", 0.0)) == "INCONCLUSIVE"  # no limit was set for it
    assert verdict(utility=None) == "INCONCLUSIVE"
    assert verdict(utility=UtilityReport((), 30, "i")) == "INCONCLUSIVE"
    assert verdict(utility=UtilityReport((dataclasses.replace(SCORE, mean=nan),), 30, "i")) == "INCONCLUSIVE"
    assert verdict(utility=UtilityReport((dataclasses.replace(SCORE, training_set="b"),), 30, "i")) == "INCONCLUSIVE"


def test_the_upper_bound_is_held_against_the_limit() -> None:
    limit = 0.075
    at, above = (
        result("density_membership", "tpr_at_1pct_fpr", limit),
        result("density_membership", "tpr_at_1pct_fpr", limit + 1e-9),
    )
    assert verdict(*GOOD[:2], at) == "PASS"
    assert verdict(*GOOD[:2], above) == "FAIL"  # though the rate itself is half the limit


def test_a_leak_that_is_certain_fails_however_weak_the_attack_was() -> None:
    found = result("density_membership", "tpr_at_1pct_fpr", 0.9, low=0.5, rate=0.7, n=20, powered=False)
    assert verdict(*GOOD[:2], found) == "FAIL"
    unsure = dataclasses.replace(found, low=0.0)
    assert verdict(*GOOD[:2], unsure) == "INCONCLUSIVE"


def test_figures_that_may_only_be_shown_never_decide() -> None:
    shown = result("near_copy", "closest_record_ratio", 99.0, rate=50.0, gates=False)
    assert verdict(*GOOD, shown) == "PASS"


def test_paperwork_that_fails() -> None:
    replace = dataclasses.replace
    assert verdict(artefact=replace(SET, guarantee=None)) == "FAIL"
    assert verdict(artefact=replace(SET, guarantee=replace(GUARANTEE, epsilon=2.1))) == "FAIL"
    assert verdict(artefact=replace(SET, guarantee=replace(GUARANTEE, delta=1e-4))) == "FAIL"
    assert verdict(artefact=replace(SET, guarantee=replace(GUARANTEE, events=()))) == "INCONCLUSIVE"
    assert verdict(artefact=replace(SET, starts_from_records=True)) == "FAIL"
    assert verdict(artefact=replace(SET, method="random_real")) == "FAIL"
    looked = ({"kind": "train_quantiles", "public": False},)
    assert verdict(artefact=replace(SET, transforms=looked)) == "FAIL"


def test_tasks_chosen_on_real_stays_are_outside_the_guarantee() -> None:
    """Whatever the policy says of guarantees: a set that claims one must not hide a look that was not accounted."""
    for chosen, expected in (("real_stays", "FAIL"), ("private_moments", "PASS"), ("fixed", "PASS")):
        made = dataclasses.replace(SET.provenance, config={**NOTED, "tasks_chosen": chosen})
        assert verdict(artefact=dataclasses.replace(SET, provenance=made)) == expected


def test_fail_is_stronger_than_inconclusive() -> None:
    assert verdict(artefact=dataclasses.replace(SET, guarantee=None), controls_held=False) == "FAIL"


ENCODED = EncodedCohort(
    features=np.zeros((40, 4, 2), dtype=np.float32),
    labels=np.repeat(np.array([[0.0], [1.0]], dtype=np.float32), 20, axis=0),
    subject_index=np.arange(40, dtype=np.int32),
    split=np.zeros(40, dtype=np.int8),
    channels=("a", "b"),
    tasks=(Task("death"),),
    step_hours=1.0,
    transforms=({"kind": "quantum", "public": True},),
    provenance=Provenance("encode"),
)
BROKEN = (
    result("known_key_inversion", "r2", 0.99, rate=0.98, threat_model="T4"),
    result("aligned_pairs", "r2", 1.0, threat_model="T3"),
)


def test_a_row_per_person_leaves_only_under_a_policy_that_says_so() -> None:
    assert verdict(*BROKEN, artefact=ENCODED, utility=None) == "FAIL"
    assert verdict(*BROKEN, artefact=ENCODED, policy=load_policy("agreement"), utility=None) == "PASS"


def test_an_agreement_prints_leaks_but_not_silence() -> None:
    agreement = load_policy("agreement")
    assert verdict(BROKEN[0], artefact=ENCODED, policy=agreement, utility=None) == "INCONCLUSIVE"
    missing = dataclasses.replace(BROKEN[1], high=math.nan)
    assert verdict(BROKEN[0], missing, artefact=ENCODED, policy=agreement, utility=None) == "INCONCLUSIVE"


def test_small_cells_of_an_encoded_cohort_stay() -> None:
    labels = np.zeros((40, 1), dtype=np.float32)
    labels[:9] = 1
    few = dataclasses.replace(ENCODED, labels=labels)
    assert verdict(*BROKEN, artefact=few, policy=load_policy("agreement"), utility=None) == "FAIL"


def test_maps_redrawn_for_every_window_never_leave() -> None:
    redrawn = dataclasses.replace(ENCODED, transforms=({"kind": "random_projection", "public": True, "fresh": True},))
    agreement = load_policy("agreement")
    assert verdict(*BROKEN, artefact=ENCODED, policy=agreement, utility=None) == "PASS"
    assert verdict(*BROKEN, artefact=redrawn, policy=agreement, utility=None) == "FAIL"


def test_only_the_gate_makes_an_audited_release() -> None:
    decision = judge(STRICT, SET, [report()], UTILITY)
    assert let_out(decision, SET, [report()], UTILITY).name == "private"
    with pytest.raises(ReleaseRefused, match="only the gate"):
        AuditedRelease(object(), STRICT, decision, SET, (report(),), UTILITY)


def test_a_borrowed_decision_opens_nothing() -> None:
    decision = judge(STRICT, SET, [report()], UTILITY)
    other = dataclasses.replace(SET, features=SET.features + 1)
    with pytest.raises(ReleaseRefused, match="does not follow"):
        let_out(decision, other, [report()], UTILITY)
    with pytest.raises(ReleaseRefused, match="does not follow"):
        let_out(decision, SET, [report(*GOOD[:2])], UTILITY)
    with pytest.raises(ReleaseRefused, match="another policy"):
        admit(load_policy("demo"), decision, SET, [report()], UTILITY, behind(SET))
    forged = dataclasses.replace(judge(STRICT, SET, [], UTILITY), verdict="PASS")
    with pytest.raises(ReleaseRefused, match="does not follow"):
        let_out(forged, SET, [], UTILITY)


def test_the_error_says_whether_the_audit_or_the_paperwork_refused() -> None:
    leak = report(*GOOD[:2], result("density_membership", "tpr_at_1pct_fpr", 0.5))
    decision = judge(STRICT, SET, [leak], UTILITY)
    assert leaks(decision)
    with pytest.raises(LeakageError, match="tpr_at_1pct_fpr") as caught:
        let_out(decision, SET, [leak], UTILITY)
    assert caught.value.exit_code == 13

    bare = dataclasses.replace(SET, guarantee=None)
    decision = judge(STRICT, bare, [report(about=bare)], UTILITY)
    assert not leaks(decision)
    with pytest.raises(ReleaseRefused, match="no privacy guarantee") as refused:
        let_out(decision, bare, [report(about=bare)], UTILITY)
    assert refused.value.exit_code == 14


def test_a_stored_decision_is_still_good(tmp_path: Path) -> None:
    """Reports and decision come back from the store before the release: nothing may get lost on the way."""
    from pipeline.core.types import GateDecision

    store = Store(tmp_path)
    kept = store.get(store.put(report()), LeakageReport)
    artefact = store.get(store.put(SET), CondensedSet)
    utility = store.get(store.put(UTILITY), UtilityReport)
    decision = store.get(store.put(judge(STRICT, SET, [report()], UTILITY)), GateDecision)
    assert let_out(decision, artefact, [kept], utility).name == "private"


def reasons(decision: Any, word: str) -> str:
    return "; ".join(reason for verdict, reason in decision.reasons if verdict == word)


def test_a_figure_that_never_decides_cannot_be_made_to() -> None:
    """No flag of an attack, and no limit of a policy, lets distance to the closest record open or shut the gate."""
    for statistic in ("closest_record_ratio", "mutual_information", "member_excess"):
        pushed = result("near_copies", statistic, 0.1, gates=True)
        decision = judge(STRICT, SET, [report(*GOOD, pushed)], UTILITY)
        assert decision.verdict == "INCONCLUSIVE"
        assert f"offers {statistic} to decide by" in reasons(decision, "INCONCLUSIVE")
        only = result("density_membership", statistic, 0.0, gates=True)
        assert verdict(*GOOD[:2], only) == "INCONCLUSIVE"  # nor does it stand in for a required figure
    any_limit = dataclasses.replace(STRICT, limits=(dataclasses.replace(STRICT.limits[0], statistic="*"),))
    pushed = result("near_copies", "mutual_information", 0.0)
    assert judge(any_limit, SET, [report(pushed)], UTILITY).verdict == "INCONCLUSIVE"


def test_an_expired_policy_lets_nothing_pass() -> None:
    last, after = date.fromisoformat(STRICT.expires), date.fromisoformat(STRICT.expires) + timedelta(days=1)
    assert judge(STRICT, SET, [report()], UTILITY, today=last).verdict == "PASS"
    decision = judge(STRICT, SET, [report()], UTILITY, today=after)
    assert decision.verdict == "INCONCLUSIVE"
    assert "expired" in reasons(decision, "INCONCLUSIVE")
    with pytest.raises(ReleaseRefused):
        let_out(judge(STRICT, SET, [report()], UTILITY), SET, [report()], UTILITY, today=after)


@pytest.mark.parametrize(
    ("changes", "word", "sentence"),
    [
        ({"epsilon": 0.5}, "FAIL", "the claim is false"),  # understated: the noise gives 1.0
        ({"events": GUARANTEE.events * 2}, "FAIL", "the claim is false"),  # a step that was not counted
        ({"epsilon": 1.9}, "INCONCLUSIVE", "do not belong together"),
        ({"events": ({"event": "TrustMe"},)}, "INCONCLUSIVE", "cannot be computed again"),
        ({"events": ({"event": "parallel", "sites": []},)}, "INCONCLUSIVE", "cannot be computed again"),
        ({"events": ({"event": "GaussianDpEvent"},)}, "INCONCLUSIVE", "no noise_multiplier"),
        ({"events": ({"event": "GaussianDpEvent", "noise_multiplier": -4.0},)}, "INCONCLUSIVE", "no noise_multiplier"),
    ],
)
def test_the_gate_computes_epsilon_again(changes: dict[str, Any], word: str, sentence: str) -> None:
    claimed = dataclasses.replace(SET, guarantee=dataclasses.replace(GUARANTEE, **changes))
    decision = judge(STRICT, claimed, [report(about=claimed)], UTILITY)
    assert decision.verdict == word
    assert sentence in reasons(decision, word)


def test_the_recomputed_epsilon_is_that_of_the_closed_form() -> None:
    """Balle and Wang (2018) give the Gaussian mechanism exactly; the accountant is pessimistic by less than 0.1 %."""
    for multiplier in (0.6, 2.0, 9.0):
        event = {"event": "GaussianDpEvent", "noise_multiplier": multiplier}
        found = recomputed_epsilon(dataclasses.replace(GUARANTEE, delta=1e-6, events=(event,)))
        assert found == pytest.approx(analytic_epsilon(multiplier, 1e-6), rel=1e-3)


def test_a_stay_is_a_person_only_where_the_source_knows_no_people() -> None:
    public = {"kind": "public_ranges", "public": True}
    known = dataclasses.replace(SET, transforms=({**NO_PEOPLE, "known": True}, public))
    silent = dataclasses.replace(SET, transforms=(public,))
    per_person = dataclasses.replace(known, guarantee=dataclasses.replace(GUARANTEE, unit="subject"))
    assert verdict(artefact=SET) == "PASS"
    assert verdict(artefact=known) == "FAIL"
    assert verdict(artefact=silent) == "INCONCLUSIVE"
    assert verdict(artefact=per_person) == "PASS"


def test_what_recipients_recover_must_be_countersigned_as_it_is() -> None:
    agreement = load_policy("agreement")
    reports = [report(*BROKEN, about=ENCODED)]
    decision = judge(agreement, ENCODED, reports, None)
    assert decision.verdict == "INCONCLUSIVE"
    assert "recovers up to 1 of the variation" in reasons(decision, "INCONCLUSIVE")
    code = recovery(agreement, reports).code
    assert code in reasons(decision, "INCONCLUSIVE")
    assert judge(agreement, ENCODED, reports, None, countersigned=code).verdict == "PASS"
    better = [report(dataclasses.replace(BROKEN[0], high=0.6, rate=0.5), BROKEN[1], about=ENCODED)]
    assert judge(agreement, ENCODED, better, None, countersigned=code).verdict == "INCONCLUSIVE"


def test_worse_than_the_last_accepted_release() -> None:
    blocking = dataclasses.replace(STRICT, on_regression="block")
    before = report(GOOD[0], dataclasses.replace(GOOD[1], rate=0.5, low=0.49, high=0.51), GOOD[2])
    after = report(GOOD[0], dataclasses.replace(GOOD[1], rate=0.56, low=0.54, high=0.58), GOOD[2])

    def judged(policy: Policy, accepted: Any) -> Any:
        return judge(policy, SET, [after], UTILITY, accepted=accepted)

    assert judged(blocking, None).verdict == "INCONCLUSIVE"  # nobody looked
    assert judged(blocking, ()).verdict == "PASS"  # there is none
    assert judged(blocking, (after,)).verdict == "PASS"
    assert judged(blocking, (before,)).verdict == "FAIL"
    assert judged(STRICT, (before,)).verdict == "PASS"
    assert "0.5 [0.49, 0.51] before, 0.56 [0.54, 0.58] now, worse" in reasons(judged(STRICT, (before,)), "PASS")


def test_a_threat_model_without_a_figure_blocks() -> None:
    asking = dataclasses.replace(STRICT, threat_models={**STRICT.threat_models, "condensed": ("T6", "T7")})
    decision = judge(asking, SET, [report()], UTILITY)
    assert decision.verdict == "INCONCLUSIVE"
    assert "threat model T7" in reasons(decision, "INCONCLUSIVE")


def test_an_audit_alone_is_judged_by_the_limits() -> None:
    assert judge_audit(load_policy("research"), "condensed", [report()]).verdict == "PASS"
    leak = report(dataclasses.replace(GOOD[0], rate=1.0, low=1.0, high=1.0), *GOOD[1:])
    assert judge_audit(load_policy("research"), "condensed", [leak]).verdict == "FAIL"
    assert judge_audit(load_policy("research"), "condensed", []).verdict == "INCONCLUSIVE"
    assert judge_audit(load_policy("research"), "condensed", [report(controls_held=False)]).verdict == "INCONCLUSIVE"


# --- rules of others --------------------------------------------------------------------------------------------------


def with_rule(rule: Any, *results: AttackResult) -> GateDecision:
    return judge(STRICT, SET, [report(*results)], UTILITY, rules={"guest": rule})


def test_a_rule_of_others_is_one_more_reason() -> None:
    plain = judge(STRICT, SET, [report()], UTILITY)
    passed = with_rule(lambda *case: [Finding("PASS", "fine")])
    assert passed.verdict == "PASS"
    assert passed.reasons == (*plain.reasons, ("PASS", "rule guest: fine"))
    for verdict in ("FAIL", "INCONCLUSIVE"):
        stopped = with_rule(lambda *case, verdict=verdict: iter([Finding(verdict, "not on Sundays")]))
        assert (stopped.verdict, stopped.reasons[-1]) == (verdict, (verdict, "rule guest: not on Sundays"))


def test_a_rule_of_others_overrules_none_and_its_objection_is_no_attacks() -> None:
    leak = result("density_membership", "auroc", 0.9, low=0.8, rate=0.85)
    assert (
        with_rule(lambda *case: [Finding("PASS", "attack density_membership is wrong")], *GOOD[:1], leak).verdict
        == "FAIL"
    )
    assert not leaks(with_rule(lambda *case: [Finding("FAIL", "attack of nerves")]))
    assert not leaks(with_rule(lambda *case: 1 / 0))


@pytest.mark.parametrize(
    "rule",
    [
        lambda *case: [],
        lambda *case: None,
        lambda *case: 1 / 0,
        lambda *case: ["PASS"],
        lambda *case: [Finding("pass", "fine")],  # type: ignore[arg-type]
        lambda *case: [Finding("PASS", "fine"), ("PASS", "fine")],
        lambda: [Finding("PASS", "takes nothing")],
        "PASS",
    ],
    ids=["silent", "nothing", "fails", "a word", "no verdict", "a pair", "takes nothing", "no function"],
)
def test_a_rule_of_others_that_says_nothing_sound_is_inconclusive(rule: Any) -> None:
    assert with_rule(rule).verdict == "INCONCLUSIVE"


def test_a_rule_cannot_be_left_out_between_decision_and_release() -> None:
    case = SET, [report()], UTILITY
    strict = {"rules": {"guest": lambda *case: [Finding("FAIL", "no")]}}
    for decided, admitted in (({}, strict), (strict, {})):
        with pytest.raises(ReleaseRefused, match="does not follow"):
            let_out(judge(STRICT, *case, **decided), *case, **admitted)


def test_the_gates_own_rules_are_looked_at_whatever_is_registered() -> None:
    """Registered like any, under the product's name, and neither run twice nor left out."""
    plain = judge(STRICT, SET, [report()], UTILITY)
    assert judge(STRICT, SET, [report()], UTILITY, rules=RULES) == plain


def test_an_attack_that_failed_is_inconclusive_whatever_else_was_found() -> None:
    broken = NotRun("guest", "T6", "private", "it failed with KeyError", failed=True)
    assert judge(STRICT, SET, [report(not_run=(broken,))], UTILITY).verdict == "INCONCLUSIVE"
    skipped = dataclasses.replace(broken, failed=False)
    assert judge(STRICT, SET, [report(not_run=(skipped,))], UTILITY).verdict == "PASS"
