"""A whole `decoct release` under all but the strict policy, and what an editor of the workspace without keys can do.

The auditor is a small one of this file's own, which counts samples that equal a stay: what is tested is which artefact
is audited, judged and signed, not how well attacks attack.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, date, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from pyrage import x25519
from typer.testing import CliRunner

from flows import run as road
from flows.charging.ledger import require_related
from flows.cli.main import app
from flows.cli.make.plan import plan
from flows.nights.scheduled import _looked
from flows.stages.attacks.scenes import SceneOf
from flows.watch.page import write_watch
from flows.watch.review import SEALED, Review, level_of, record, review
from flows.workspace.job import Job, new_job
from flows.workspace.trust import first_root
from pipeline.core.config import Config, parse_config
from pipeline.core.errors import BudgetError, EnvironmentProblem, ReleaseRefused
from pipeline.core.keys.secrets import new_secret, write_secret
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    EncodedCohort,
    GateDecision,
    LeakageReport,
    Provenance,
    ReleaseRecord,
)
from pipeline.sharing.canonical import canonical
from pipeline.sharing.layout import ENCRYPTED_PAYLOAD, ENVELOPE, PAYLOAD
from pipeline.sharing.policy.ledger import People, reserved_queries, spent_by_cohort, unrelated
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import expiry_findings
from pipeline.sharing.trust.keys import public_key, role_signer
from pipeline.sharing.trust.log import append_log, read_log
from pipeline.sharing.trust.signing import statement_digest
from pipeline.store import Made

FIGURES = (
    ("near_copies", "count", 0.0),
    ("density_membership", "auroc", 0.55),
    ("density_membership", "tpr_at_1pct_fpr", 0.03),
)
Road = dict[str, Made[Any]]
POLICY = "house.toml"


def house_policy() -> str:
    """The strict policy for a few hundred stays: it asks for no figure that so few people cannot give."""
    strict = (files("pipeline.sharing") / "policies" / "strict.toml").read_text(encoding="utf-8")
    rare = ', "density_membership:tpr_at_1pct_fpr"'
    assert (strict.count('name = "strict"'), strict.count(rare)) == (1, 2)
    return strict.replace('name = "strict"', 'name = "house"').replace(rare, "").replace("min_n = 200", "min_n = 50")


def told(plan: dict[str, Any], workspace: Path) -> Config:
    (workspace / POLICY).write_text(house_policy(), encoding="utf-8")
    return parse_config({**plan, "workspace": str(workspace)}, "the test's configuration", workspace)


PLAN: dict[str, Any] = {
    "name": "decided",
    "source": {"kind": "embedded", "sets": ["a"], "max_stays": 500},
    "cohort": {"tasks": ["in_hospital_death"], "n_steps": 6, "step_hours": 8},
    "encode": {"raw": {"kind": "identity"}},
    "condense": {"private": {"kind": "private_moments", "n_per_class": 20}},
    "utility": {"models": ["logistic_regression"], "n_seeds": 1, "n_random_draws": 1},
    "release": {"artefact": "private", "policy": POLICY, "site": "test site", "licence": "ODbL-1.0"},
}


def small_audit(job: Job, attacked: Sequence[SceneOf], seed: int, attacks: object = None) -> tuple[LeakageReport, ...]:
    """Samples of a set that are a stay's own series, and two figures within the strict limits."""
    reports = []
    for scene in attacked:  # the identity's encoding is none
        stays = {row.tobytes() for row in job.store.get(scene.source.first, EncodedCohort).features}
        copies = sum(row.tobytes() in stays for row in job.store.get(scene.made.first, CondensedSet).features)
        results = tuple(
            AttackResult(
                *(name, "T6", scene.name, what, high / 2 + copies * (what == "count")),
                *(copies * (what == "count"), high + copies * (what == "count"), 500, 0.0, 1.0, 1.0),
                *(True, "s", True, True, False, None),
            )
            for name, what, high in FIGURES
        )
        reports.append(LeakageReport(scene.name, scene.digest, results, (), True, Provenance("audit")))
    return tuple(reports)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, fixed_keys: Callable[[Path], None]) -> Path:
    """A workspace with one proposal."""
    workspace = tmp_path_factory.mktemp("site")
    fixed_keys(workspace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.stages.attacks.scenes.attack_all", small_audit)
        road.walk_until(new_job(told(PLAN, workspace)), "release")
    return workspace


@pytest.fixture
def copy(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("flows.stages.attacks.scenes.attack_all", small_audit)
    return Path(shutil.copytree(site, tmp_path / "site"))


def resumed(workspace: Path, **changes: Any) -> tuple[Job, Road]:
    """`decoct release run.toml --resume`."""
    job = new_job(told({**PLAN, **changes}, workspace), resume=True)
    return job, road.walk_until(job, "release")


def note(workspace: Path, stage: str) -> Path:
    """Where the store notes what the stage made."""
    notes = (workspace / "store" / "index").iterdir()
    (found,) = [path for path in notes if json.loads(path.read_text()).get("stage") == stage]
    return found


def point(path: Path, digests: Sequence[str]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "digests": list(digests)}))


def bundles(workspace: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in workspace.glob(f"[pr]*s/*/{PAYLOAD}")}


def test_what_nobody_touched_is_found_again(copy: Path) -> None:
    before = bundles(copy)
    job, made = resumed(copy)
    assert job.only(made["decide"], GateDecision).verdict == "PASS"
    assert list(before) == [job.only(made["release"], ReleaseRecord).name] == ["test-site-private-v1"]
    assert all(made[stage].reused for stage in ("condense private", "audit", "decide", "release"))
    assert bundles(copy) == before


UNCHANGED = """
import json, sys
from pathlib import Path
from flows.nights.night import run_night
from flows.run import walk_until
from flows.watch.page import write_watch
from pipeline.core.config import parse_config
config = parse_config(json.loads(sys.argv[1]), "the test's configuration", Path(sys.argv[2]))
night = run_night(config, lambda job, made: walk_until(job, made=made))
write_watch(config.workspace)
print(json.dumps([night.state, max(night.seconds.values()), sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_a_night_that_makes_nothing_loads_nothing_to_make_it_with(copy: Path) -> None:
    write_watch(copy)  # which composes the epsilons that the night then reads
    plan = json.dumps({**PLAN, "workspace": str(copy)})
    command = [sys.executable, "-c", UNCHANGED, plan, str(copy)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    state, most, loaded = json.loads(ended.stdout.splitlines()[-1])
    assert (state, most) == ("proposed", 0.0), ended.stderr
    heavy = {"torch", "sklearn", "scipy", "pandas", "pyarrow", "great_expectations", "prefect", "dp_accounting"}
    assert not heavy & set(loaded)


def test_a_release_that_is_there_is_found_without_the_gate_and_none_is_written_without_it(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> None:
        raise ReleaseRefused("the gate was asked")

    monkeypatch.setattr("pipeline.sharing.policy.gate.decide", asked)
    assert resumed(copy)[1]["release"].reused
    shutil.rmtree(copy / "proposals")
    with pytest.raises(ReleaseRefused, match="the gate was asked"):
        resumed(copy)
    assert not (copy / "proposals").exists()


def test_a_policy_that_has_expired_shuts_the_gate_for_what_was_released_as_well(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = partial(expiry_findings, today=date(2999, 1, 1))
    for module in ("flows.stages.decide", "pipeline.sharing.policy.rules", "pipeline.sharing.policy.gate"):
        monkeypatch.setattr(f"{module}.expiry_findings", lambda policy, _=None: late(policy))
    with pytest.raises(ReleaseRefused, match="expired on"):
        resumed(copy)


def forged(job: Job, made: Road) -> CondensedSet:
    """The true set with forty real stays for its samples: method, guarantee and queries are the true ones."""
    honest = job.only(made["condense private"], CondensedSet)
    stays = job.only(made["encode raw"], EncodedCohort)
    rows = slice(0, len(honest.features))
    return dataclasses.replace(honest, features=stays.features[rows], labels=np.nan_to_num(stays.labels[rows]))


def test_verbatim_patients_under_forged_notes_are_never_released(copy: Path) -> None:
    """The red team's walk: set, condense's note, release; then yesterday's report, the audit's note, release again."""
    before = bundles(copy)
    job, made = resumed(copy)
    curve, report = made["condense private"].digests[1], job.only(made["audit"], LeakageReport)
    digest = job.store.put(forged(job, made))
    point(note(copy, "condense"), [digest, curve])
    _, again = resumed(copy)
    assert again["condense private"].digests == made["condense private"].digests
    point(note(copy, "condense"), [digest, curve])
    copied = job.store.put(dataclasses.replace(report, artefact_digest=digest))
    point(note(copy, "audit"), [copied])
    point(note(copy, "decide"), [job.store.put(GateDecision("PASS", "house", "0" * 64, ()))])
    second, again = resumed(copy)
    assert again["condense private"].digests == made["condense private"].digests
    assert again["audit"].digests == made["audit"].digests
    assert second.only(again["decide"], GateDecision) == job.only(made["decide"], GateDecision)
    assert bundles(copy) == before
    rows = [row.tobytes() for row in forged(job, made).features]
    assert not any(row in data for data in bundles(copy).values() for row in rows)


def test_even_under_a_note_of_the_sites_own_the_audit_and_the_ledger_stand(copy: Path) -> None:
    """Who holds the store's key as well still has the audit against him, and with a set of other noise the ledger."""
    job, made = resumed(copy)
    key = note(copy, "condense").name
    curve = made["condense private"].digests[1]
    verbatim = forged(job, made)
    untold = dataclasses.replace(verbatim.provenance, config={"kind": "private_moments"})
    for artefact, verdict in (
        (verbatim, "above the limit"),
        (
            dataclasses.replace(job.only(made["condense private"], CondensedSet), provenance=untold),
            "nothing was reserved",
        ),
    ):
        job.store.remember(key, Made((job.store.put(artefact), curve), 1.0, reused=False), stage="condense")
        with pytest.raises(Exception, match=verdict):
            resumed(copy)
    assert list(bundles(copy)) == ["test-site-private-v1"]


def test_a_release_after_ledger_and_log_were_removed_is_refused_with_one_sentence(copy: Path) -> None:
    before = bundles(copy)
    for folder in ("ledger", "log"):
        shutil.rmtree(copy / folder)
    with pytest.raises(
        BudgetError, match=r"noise\.seen has seen 2 lines of ledger/ledger\.jsonl, and nothing or others"
    ):
        reserved_queries(copy)
    with pytest.raises(EnvironmentProblem, match=r"noise\.seen has seen .* of log/log\.jsonl, and nothing or others"):
        resumed(copy)
    (copy / "keys" / "noise.seen").unlink()
    with pytest.raises(BudgetError, match="test-site-private-v1 was made by another log than this one"):
        reserved_queries(copy)
    assert bundles(copy) == before
    assert not (copy / "ledger").exists()


@pytest.mark.parametrize("acknowledged", [True, False])
def test_people_under_new_ids_are_asked_about_before_anything_is_reserved(copy: Path, acknowledged: bool) -> None:
    renamed = People(("x1", "x2"), "stay")
    code = unrelated(copy, renamed)
    with pytest.raises(BudgetError, match=f'other_people = "{code}"'):
        require_related(told(PLAN, copy), renamed)
    release = {**PLAN["release"], "other_people": code if acknowledged else "0" * 12}
    asked = told({**PLAN, "release": release}, copy)
    with nullcontext() if acknowledged else pytest.raises(BudgetError, match="not one id of this cohort"):
        require_related(asked, renamed)


# --- looking ahead ----------------------------------------------------------------------------------------------------


def test_the_plan_says_that_the_run_can_end_in_a_release_and_what_that_costs(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: (copy / name).read_bytes() for name in ("ledger/ledger.jsonl", "log/log.jsonl")}
    plan(new_job(told(PLAN, copy), resume=True), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["policy"], found["stops"]) == ("house", [])
    (cost,) = found["costs"]
    assert (cost["table"], cost["epsilon"], cost["delta"], cost["covered"]) == ("private", 1.0, 1e-6, True)
    spent = spent_by_cohort(copy, load_policy(copy / POLICY).budget)[0].epsilon
    assert cost["spent_before"] == pytest.approx(spent, abs=1e-3)  # rounded
    assert spent < cost["spent_after"] == pytest.approx(4 - cost["left"], abs=1e-3)
    plan(new_job(told(PLAN, copy), resume=True), as_json=False)
    assert "plan    this run can end in a release under policy house" in capsys.readouterr().out
    assert _looked(told(PLAN, copy)).name == "Possible"  # a night that only looks
    assert {name: (copy / name).read_bytes() for name in before} == before


def test_what_the_budget_does_not_cover_is_foreseen(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    condense = {f"p{number}": {"kind": "private_moments", "epsilon": 2.0} for number in range(4)}
    asked = told({**PLAN, "condense": {**PLAN["condense"], **condense}}, copy)
    with pytest.raises(typer.Exit) as ended:
        plan(new_job(asked, resume=True), as_json=False)
    shown = capsys.readouterr().out
    assert ended.value.exit_code == BudgetError.exit_code
    assert "cannot end in a release" in shown
    assert shown.count("NOT COVERED") >= 1
    state = _looked(asked)
    assert (state.name, state.is_failed()) == ("Refused", True)
    assert re.match(r"exit code 17: the budget does not cover condense\.p\d", str(state.message))


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"release": {**PLAN["release"], "policy": "strict"}}, ReleaseRefused, "gives no tpr_at_1pct_fpr with"),
        ({"condense": {"private": {"kind": "private_moments", "epsilon": 2.5}}}, ReleaseRefused, "epsilon 2.5 of"),
    ],
)
def test_a_run_that_cannot_end_in_a_release_charges_nobody(
    copy: Path, changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    """Some hundred stays under the strict policy once paid their epsilon, and then ended INCONCLUSIVE."""
    condense = {"private": {"kind": "private_moments", "epsilon": 0.5}}  # a question that was not asked before
    ledger = (copy / "ledger" / "ledger.jsonl").read_bytes()
    with pytest.raises(error, match=sentence) as refused:
        resumed(copy, **{"condense": condense, **changes})
    assert str(refused.value).startswith("nothing was drawn, as this run cannot end in a release: ")
    assert (copy / "ledger" / "ledger.jsonl").read_bytes() == ledger


# --- the approver's review --------------------------------------------------------------------------------------------


def proposal(workspace: Path) -> Path:
    return workspace / "proposals" / "test-site-private-v1"


def refused(workspace: Path, **asked: bool) -> dict[str, str]:
    """What a review refuses, line by line."""
    found = review(proposal(workspace), workspace, **asked)
    assert found.held == all(line.held for line in found.lines)
    return {line.what: line.told for line in found.lines if not line.held}


def test_a_review_derives_again_what_the_proposal_says_and_approve_names_it(copy: Path) -> None:
    workspace, root = copy, copy / "trust" / "root.json"
    ann = new_secret("approver")
    write_secret(copy / "ann.key", ann)
    public = public_key(role_signer(ann), "Ann", role="approver").public
    today = datetime.now(tz=UTC).date()
    named = [str(copy / POLICY)]
    first_root(workspace, root, "test site", today=today, approvers={"Ann": public}, policies=named)
    approving = ["release", "approve", str(proposal(copy)), "--key", str(copy / "ann.key"), "--json"]
    looking = ["release", "review", str(proposal(copy))]
    assert CliRunner().invoke(app, looking, catch_exceptions=False).exit_code == 0
    assert read_log(copy).entries[-1]["what"] == "propose"  # whose review it was nobody can say
    answer = CliRunner().invoke(app, [*looking, "--key", str(copy / "ann.key")], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    table = [line.split() for line in answer.stdout.splitlines()]
    assert [(row[0], row[1]) for row in table[:-1]] == [
        (what, "OK") for what in ("links", "files", "payload", "ledger", "audit")
    ]
    assert Path(table[-1][1]) == copy / "runs" / "decided" / "report.html"
    assert Path(table[-1][1]).exists()
    told = json.loads(CliRunner().invoke(app, approving, catch_exceptions=False).stdout)
    assert told["review"] == "derived again"
    lines = [(entry["what"], entry.get("level"), entry.get("review")) for entry in read_log(copy).entries[-2:]]
    assert lines == [("review", "derived again", None), ("approve", None, "derived again")]
    assert not refused(copy)  # an approval changes nothing of what was derived


def test_a_review_of_an_encrypted_payload_says_what_it_compared(copy: Path) -> None:
    """It always ended REFUSED. Without an identity the run's own record of the bundle's files is what can be asked."""
    keys = {who: x25519.Identity.generate() for who in ("Hospital B", "somebody else")}
    for who, key in keys.items():
        path = copy / f"{who}.txt"
        path.write_text(f"{key}\n")
        path.chmod(0o600)
    to = {"recipients": ("Hospital B",), "recipient_keys": {"Hospital B": str(keys["Hospital B"].to_public())}}
    resumed(copy, release={**PLAN["release"], **to})
    sealed = copy / "proposals" / "test-site-private-v2"
    found = review(sealed, copy)
    assert found.held, found.lines
    assert found.level == SEALED
    assert "NOT compared" in found.lines[2].told
    opened = review(sealed, copy, identity=copy / "Hospital B.txt")
    assert opened.held, opened.lines
    assert opened.level == "derived again"
    assert "byte for byte" in opened.lines[2].told
    other = review(sealed, copy, identity=copy / "somebody else.txt")
    assert [line.what for line in other.lines if not line.held] == ["payload"]
    payload = sealed / ENCRYPTED_PAYLOAD
    payload.write_bytes(payload.read_bytes()[:-1] + b"x")
    for identity in (None, copy / "Hospital B.txt"):
        changed = review(sealed, copy, identity=identity)
        assert [line.what for line in changed.lines if not line.held] == ["files", *(["payload"] if identity else [])]


def test_an_approval_without_a_review_says_so_on_the_log(copy: Path) -> None:
    """A line that nobody signed was once believed: who proposes can write on the log."""
    ann, bob = (role_signer(new_secret("approver")) for _ in range(2))
    hers = public_key(ann, "Ann", role="approver")
    statement = statement_digest((proposal(copy) / ENVELOPE).read_bytes())
    assert level_of(copy, "0" * 64, hers) == "none"
    record(proposal(copy), copy, Review((), None, "audited again"), bob)
    append_log(copy, "review", {"statement": statement, "level": "audited again"})
    assert level_of(copy, statement, hers) == "none"
    record(proposal(copy), copy, Review((), None, SEALED), ann)
    record(proposal(copy), copy, Review((), None, "none"), ann)
    assert level_of(copy, statement, hers) == SEALED
    genuine = next(entry for entry in read_log(copy).entries if entry.get("level") == SEALED)
    told = {name: genuine[name] for name in ("statement", "level", "by", "signature")}
    for forged in ({"level": "audited again"}, {"statement": "1" * 64}, {"signature": ""}, {"signature": None}):
        append_log(copy, "review", {**told, **forged})
    assert level_of(copy, statement, hers) == SEALED
    assert level_of(copy, "1" * 64, hers) == "none"


def test_a_review_may_attack_the_sealed_cohort_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not refused(copy, again=True)

    def leaking(*told: Any) -> tuple[LeakageReport, ...]:
        found = small_audit(*told)
        bad = dataclasses.replace(found[0].results[0], rate=3.0, low=3.0, high=3.0)
        return (dataclasses.replace(found[0], results=(bad, *found[0].results[1:])),)

    monkeypatch.setattr("flows.stages.attacks.scenes.attack_all", leaking)
    told = refused(copy, again=True)
    assert list(told) == ["audit again"]
    assert "the gate says FAIL: attack near_copies" in told["audit again"]


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def edit(workspace: Path) -> None:
        path = proposal(workspace) / name
        path.write_bytes(canonical(change(json.loads(path.read_bytes()))))

    return edit


def renoted(stage: str) -> Callable[[Path], None]:
    """The note of a stage, edited by who has no key."""
    return lambda workspace: point(
        note(workspace, stage), json.loads(note(workspace, stage).read_text())["digests"] * 2
    )


def other_payload(workspace: Path) -> None:
    path = proposal(workspace) / PAYLOAD
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def other_array(workspace: Path) -> None:
    """The artefact's bytes on the site's disk."""
    made = json.loads(note(workspace, "condense").read_text())["digests"][0]
    path = workspace / "store" / "objects" / made[:2] / made / "arrays.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def hidden_words(workspace: Path) -> None:
    """What no reader of the card sees."""
    with (proposal(workspace) / "card.html").open("a") as page:
        page.write("<!-- records -->")


BOTH = {"files", "audit"}


@pytest.mark.parametrize(
    ("tamper", "lines", "sentence"),
    [
        (other_payload, {"files", "payload"}, "holds other bytes than the artefact in the store gives"),
        (other_array, {"links", "payload", "ledger", "audit"}, "does not match its digest"),
        (renoted("condense"), {"links"}, "has no link under the store's key"),
        (renoted("audit"), {"links"}, "has no link under the store's key"),
        (renoted("ingest"), {"links"}, "has no link under the store's key"),
        (renoted("decide"), {"links", "audit"}, "has no link under the store's key"),
        (renoted("release"), {"links", "files", "payload", "ledger", "audit"}, "no link of the store's own says"),
        (lambda workspace: shutil.rmtree(workspace / "ledger"), {"ledger", "audit"}, "noise.seen has seen"),
        (
            edited("manifest.json", lambda told: {**told, "guarantee": None}),
            {"files", "ledger"},
            "states another guarantee",
        ),
        (
            edited("manifest.json", lambda told: {**told, "guarantee": {**told["guarantee"], "epsilon": 0.5}}),
            {"files", "ledger"},
            "states another guarantee than its artefact has",
        ),
        (
            edited("leakage.json", lambda told: {**told, "verdict": "FAIL"}),
            BOTH,
            "states another verdict",
        ),
        (
            edited("leakage.json", lambda told: {**told, "policy": "strict"}),
            BOTH,
            "states another verdict",
        ),
        (
            edited("policy.json", lambda told: {**told, "max_epsilon": 9.0}),
            BOTH,
            "is not the policy whose digest",
        ),
        (edited("manifest.json", lambda told: {**told, "licence": "none"}), {"files"}, "other files than the run"),
        (
            hidden_words,
            {"files"},
            "other files",
        ),
        (edited("policy.json", lambda told: {}), BOTH, "other fields than this version's"),
    ],
)
def test_what_was_changed_by_hand_does_not_come_out_the_same(
    copy: Path, tamper: Callable[[Path], None], lines: set[str], sentence: str
) -> None:
    tamper(copy)
    told = refused(copy)
    assert set(told) == lines, told
    assert not lines or any(sentence in each for each in told.values()), told
    if lines:
        answer = CliRunner().invoke(app, ["release", "review", str(proposal(copy))])
        assert answer.exit_code == ReleaseRefused.exit_code
        assert answer.stdout.count("REFUSED") == len(lines)
        assert read_log(copy).entries[-1]["what"] == "propose"  # no review is on record
