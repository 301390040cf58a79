"""Bundles with a guarantee, of cohorts that differ in one person: equal byte for byte but for noise and digests.

The pairs stand at every count at which an audit changes what it does (found by asking the attacks and their statistics,
one person after the other), and at random ones. Control: without the guarantee the same audits tell many pairs apart.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.audit.run import audit
from pipeline.audit.scene import CondensedScene
from pipeline.audit.sets.membership import REFERENCE_SHARE, SHARP_FPR, Membership
from pipeline.audit.sets.model_membership import ModelMembership
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.audit.sets.reached import FPR
from pipeline.audit.sets.shadows import ShadowCondensation
from pipeline.audit.sets.singling_out import SinglingOut
from pipeline.audit.sets.subgroups import SubgroupMembership
from pipeline.audit.sets.successive import SuccessiveReleases
from pipeline.audit.sets.two_sample import TwoSample
from pipeline.audit.statistics import smallest_fpr
from pipeline.core.codec import record_digest
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    LeakageReport,
    Moments,
    NotRun,
    PrivacyGuarantee,
    Provenance,
    Task,
    UtilityReport,
    UtilityScore,
)
from pipeline.sharing.bundle.facts import ReleaseNotes, release_facts
from pipeline.sharing.bundle.payload import payload_bytes
from pipeline.sharing.bundle.write import bundle_files
from pipeline.sharing.layout import CARD_HTML, CARD_MARKDOWN, LEAKAGE, PAYLOAD, PREDICATE_KEYS
from pipeline.sharing.policy.gate import Circumstances, admit, decide
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import LEDGER_QUERIES
from pipeline.sharing.trust.keys import author_signer
from pipeline.sharing.trust.log import Checkpoint
from pipeline.sharing.trust.signing import make_statement, sign_statement

ISSUED: Final = datetime.date(2026, 3, 1)
SIGNER: Final = author_signer(Secret(bytes(range(32)), "author"))
NOTES: Final = ReleaseNotes("private", "Example hospital", 2, "ODbL-1.0", recipients=("Hospital B",), agreement="DUA 7")
ASKED: Final = {LEDGER_QUERIES: ["a" * 64]}
GUARANTEE: Final = PrivacyGuarantee(
    1.0,
    1e-6,
    "subject",
    "add-or-remove-one",
    "dp-accounting 0.6",
    ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247, "noise_scale": 13.5},),
    ("ranges",),
)
SHARED: Final[dict[str, Any]] = {
    "channels": ("heart_rate", "lactate"),
    "tasks": (Task("death", "died in hospital"),),
    "step_hours": 2.0,
    "transforms": ({"kind": "subjects", "known": True, "public": True}, {"kind": "public_ranges", "public": True}),
}


@dataclass(frozen=True)
class People:
    """How many there are, in every part that an attack counts."""

    members: int = 400
    others: int = 900
    labelled_members: int = 400
    labelled_others: int = 900
    samples: int = 80

    def scene(self) -> CondensedScene:
        """Their series are all alike: an attack that only counts sees no difference."""
        labels = [
            np.where(np.arange(n) < known, 1.0, np.nan).astype(np.float32)[:, None]
            for n, known in ((self.members, self.labelled_members), (self.others, self.labelled_others))
        ]
        return CondensedScene(
            artefact="private",
            artefact_digest="d" * 64,
            condensed=condensed(np.random.default_rng(0), self.samples),
            members=np.zeros((self.members, 4, 2), np.float32),
            holdout=np.zeros((self.others, 4, 2), np.float32),
            member_subjects=np.arange(self.members),
            holdout_subjects=10_000 + np.arange(self.others),
            member_labels=labels[0],
            holdout_labels=labels[1],
            recondense=lambda *_: np.zeros(0),  # type: ignore[arg-type, return-value]
            receiver=lambda *_: np.zeros(0),  # type: ignore[arg-type, return-value]
        )


def condensed(draws: np.random.Generator, samples: int = 80) -> CondensedSet:
    """What is noisy in it differs from draw to draw; nothing else does."""
    return CondensedSet(
        features=(draws.integers(0, 4097, (samples, 4, 2)) / 4096).astype(np.float32),
        labels=(draws.integers(0, 1025, (samples, 1)) / 1024).astype(np.float32),
        method="private_moments",
        starts_from_records=False,
        guarantee=GUARANTEE,
        provenance=Provenance(
            "condense", (f"{draws.integers(2**60):064x}",), {"epsilon": 1.0, "seed": 5, **ASKED}, "0.2", 5
        ),
        **SHARED,
    )


def moments(draws: np.random.Generator) -> Moments:
    half = np.rint(draws.normal(0, 3e4, (3, 3)))
    return Moments(
        gram=half + half.T,
        signed_sums=np.rint(draws.normal(0, 3e4, (1, 3))),
        signed_counts=np.rint(draws.normal(0, 3e4, 1)),
        feature_map={"kind": "summary", "clip_norm": 1.0},
        feature_map_digest="f" * 64,
        n_steps=4,
        guarantee=GUARANTEE,
        provenance=Provenance("moments", config=ASKED),
        **SHARED,
    )


# --- an audit that does what the attacks do with so many people, and finds little -------------------------------------

ATTACKS: Final = (
    NearCopies(),
    Membership(),
    ModelMembership(),
    SubgroupMembership(),
    TwoSample(),
    SinglingOut(),
    ShadowCondensation(),
    SuccessiveReleases(),
)


def reporting(others: int) -> int:
    """People of the holdout on whom a membership attack reports: less its population, the second half."""
    left = others - int(REFERENCE_SHARE * others)
    return left - left // 2


def rates(others: int) -> tuple[str, ...]:
    """At which false-alarm rates it does."""
    smallest = smallest_fpr(reporting(others))
    if smallest > FPR:
        return ("tpr_at_smallest_fpr",)
    return ("tpr_at_1pct_fpr", "tpr_at_01pct_fpr") if smallest <= SHARP_FPR else ("tpr_at_1pct_fpr",)


STATISTICS: Final[Mapping[str, tuple[str, ...]]] = {
    "near_copies": ("count",),
    "model_membership": ("auroc",),
    "subgroup_membership": ("auroc",),
    "two_sample": ("telling_views",),
    "singling_out": ("excess_risk",),
    "shadow_condensation": ("auroc",),
    "successive_releases": ("auroc",),
}
ABOUT: Final = {"auroc": 0.52, "excess_risk": 0.02, "tpr_at_1pct_fpr": 0.02, "tpr_at_01pct_fpr": 0.002}


def reports(people: People, digest: str, draws: np.random.Generator) -> list[LeakageReport]:
    """Which attacks run is what they say themselves; every figure is of these people, and differs from draw to draw."""
    scene, results, not_run = people.scene(), [], []
    for attack in ATTACKS:
        if (why := attack.unsupported(scene)) is not None:
            not_run.append(NotRun(attack.name, attack.threat_model, "private", why))
            continue
        names = STATISTICS.get(attack.name) or ("auroc", *rates(people.others))
        for statistic in names:
            rate = ABOUT.get(statistic, 0.0) * float(draws.uniform(0.9, 1.0))
            n = people.members // 2 + reporting(people.others)
            told = f"{n} people, {rate}"
            results.append(
                AttackResult(
                    *(attack.name, attack.threat_model, "private", statistic, rate, rate, rate * 1.05, n),
                    *(0.0, 1.0, 1.0, True, told, True, statistic != "tpr_at_smallest_fpr", False, None),
                    detail={"n_members": people.members, "n_others": people.others},
                )
            )
    return [LeakageReport("private", digest, tuple(results), tuple(not_run), True, Provenance("audit", (digest,)))]


rules_of: Final = functools.cache(load_policy)


def bundle(artefact: Any, audits: Sequence[LeakageReport], policy: str, auroc: float) -> dict[str, bytes] | None:
    """Every file as it leaves, the statement and its signature among them; None = the gate stays shut."""
    rules = rules_of(policy)
    around = Circumstances(ledger={"a" * 64: GUARANTEE.events}, rules={}, today=ISSUED)
    score = UtilityScore("private", "raw", "tcn", "death", "auroc", auroc, auroc - 0.04, auroc + 0.04, 0.01, 5, 800, 40)
    utility = UtilityReport((score,), 30, "bootstrap")
    decision = decide(rules, artefact, audits, utility, around)
    if decision.verdict != "PASS":
        return None
    release = admit(rules, decision, artefact, audits, utility, around)
    log = Checkpoint("decoct-log/0123456789abcdef", 17, "e" * 64)
    facts = release_facts(release, NOTES, ISSUED, payload_bytes(artefact), log)
    files = bundle_files(facts)
    envelope = sign_statement(make_statement(files, {key: facts.manifest[key] for key in PREDICATE_KEYS}), SIGNER)
    told = json.loads(envelope)
    return {**files, "statement": base64.b64decode(told.pop("payload")), "envelope": json.dumps(told).encode()}


def without_noise(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Each file with its digests and signature taken out, and of the payload its header and length."""
    kept = {name: re.sub(rb"[0-9a-f]{64}", b"<digest>", data) for name, data in files.items()}
    kept["envelope"] = re.sub(rb'"sig": "[^"]*"', b'"sig": "<signature>"', kept["envelope"])
    size = int.from_bytes(files[PAYLOAD][:8], "little")
    kept[PAYLOAD] = files[PAYLOAD][: 8 + size] + str(len(files[PAYLOAD])).encode()
    return kept


# --- the pairs --------------------------------------------------------------------------------------------------------


def steps(field: str, most: int) -> list[int]:
    """The counts at which an attack, or a statistic, changes what it does with one person more; each by bisection."""
    found = []

    def does(n: int) -> tuple[object, ...]:
        people = dataclasses.replace(People(), **{field: n})
        scene = people.scene()
        able = tuple(attack.unsupported(scene) is None for attack in ATTACKS)
        return (*able, rates(people.others))

    def look(low: int, high: int) -> None:
        if does(low) == does(high):
            return
        if high - low == 1:
            found.append(low)
            return
        middle = (low + high) // 2
        look(low, middle)
        look(middle, high)

    look(1, most)
    return found


def pairs() -> list[tuple[People, People]]:
    draws = np.random.default_rng(11)
    found = []
    for field, most in (("members", 2000), ("others", 9000), ("labelled_members", 400), ("labelled_others", 900)):
        places = {low + move for low in steps(field, most) for move in (-1, 0, 1)}
        places |= set(draws.integers(100, most - 1, 50).tolist())
        for n in sorted(places):
            if n > 0:
                one, more = (dataclasses.replace(People(), **{field: count}) for count in (n, n + 1))
                found.append((one, more))
    return found


PAIRS: Final = pairs()


def test_the_known_steps_are_among_the_pairs() -> None:
    """Ten times ten subjects; 299 and 300 held-out people to report on (of 854 and 855), 2,999 and 3,000."""
    others = {(one.others, more.others) for one, more in PAIRS}
    assert {(19, 20), (39, 40), (99, 100), (854, 855)} <= others
    assert {(reporting(a), reporting(b)) for a, b in others} >= {(299, 300), (2999, 3000)}
    assert (99, 100) in {(one.members, more.members) for one, more in PAIRS}
    assert (99, 100) in {(one.labelled_members, more.labelled_members) for one, more in PAIRS}


def test_no_pair_of_neighbours_can_be_told_apart() -> None:
    compared = differing = 0
    draws = np.random.default_rng(12)
    for place, (one, more) in enumerate(PAIRS):
        made = []
        policy = "strict" if min(one.others, more.others) >= 855 and place % 4 > 1 else "demo"
        for people in (one, more):
            artefact = moments(draws) if place % 2 else condensed(draws)
            audits = reports(people, record_digest(artefact), draws)
            made.append((bundle(artefact, audits, policy, float(draws.uniform(0.7, 0.9))), audits))
        if made[0][0] is None or made[1][0] is None:
            continue
        first, second = (without_noise(files) for files, _ in made if files is not None)
        for name in first:
            assert first[name] == second[name], f"{name} tells {one} from {more}"
        assert made[0][0][PAYLOAD] != made[1][0][PAYLOAD]
        compared += 1
        ran = [{(r.attack, r.statistic) for r in audits[0].results} for _, audits in made]
        differing += ran[0] != ran[1]
    assert compared >= 200
    assert differing >= 6  # the control: with other rows, which a bundle without a guarantee would show


def test_without_a_guarantee_the_same_audits_tell_neighbours_apart() -> None:
    """The control: rows of the audit's own turn on one person, so a test that compares bundles can see it."""
    draws = np.random.default_rng(13)
    seen = []
    for others in (854, 855):
        bare = dataclasses.replace(condensed(draws), guarantee=None, method="centroids")
        files = bundle(bare, reports(People(others=others), record_digest(bare), draws), "research", 0.8)
        assert files is not None
        seen.append(files)
    for name in (LEAKAGE, CARD_HTML, CARD_MARKDOWN):
        assert without_noise(seen[0])[name] != without_noise(seen[1])[name]


def test_real_attacks_on_one_person_more_do_not_show() -> None:
    """854 and 855 held-out people: the real audit has other figures, and the bundle none of them."""
    draws = np.random.default_rng(14)
    series = draws.normal(size=(1255, 4, 2)).astype(np.float32)
    made, told = [], []
    for others in (854, 855):
        artefact = condensed(draws)
        scene = dataclasses.replace(
            People(members=400, others=others).scene(),
            condensed=dataclasses.replace(artefact, features=draws.normal(size=(80, 4, 2)).astype(np.float32)),
            artefact_digest=record_digest(artefact),
            members=series[:400],
            holdout=series[400 : 400 + others],
            member_labels=None,
            holdout_labels=None,
        )
        audits = audit([scene], seed=3, attacks=(NearCopies(), Membership()))
        told.append({result.statistic for result in audits[0].results})
        made.append(bundle(artefact, audits, "demo", 0.8))
    assert told[0] ^ told[1] == {"tpr_at_smallest_fpr", "tpr_at_1pct_fpr"}
    assert made[0] is not None
    assert made[1] is not None
    assert without_noise(made[0]) == without_noise(made[1])
