"""Who may do what with a release, and what a receiver refuses: roles, roots, revocations, rollback, logs, receipts."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import datetime
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from sample_release import NOTED, behind

from pipeline.core.codec import record_digest
from pipeline.core.errors import DecoctError, EnvironmentProblem, ReleaseRefused, UsageError
from pipeline.core.files.chained import found_chain
from pipeline.core.files.seen import accept
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    LeakageReport,
    PrivacyGuarantee,
    Provenance,
    Task,
    UtilityReport,
    UtilityScore,
)
from pipeline.sharing.approval import approve, publish, publish_unapproved
from pipeline.sharing.bundle.write import ReleaseNotes, write_bundle
from pipeline.sharing.canonical import canonical, sha256_hex
from pipeline.sharing.layout import ENVELOPE, LEAKAGE, LEAKAGE_FORMAT, MANIFEST, PAYLOAD, POLICY, PREDICATE_KEYS
from pipeline.sharing.policy.gate import AuditedRelease, admit, decide
from pipeline.sharing.policy.load import Policy, load_policy
from pipeline.sharing.policy.reevaluation import _audit_broken, _audit_oversteps
from pipeline.sharing.receive.receipt import read_receipt, receipt_bytes, require_consistent, require_in_log
from pipeline.sharing.receive.state import load_state, memory_of, remember
from pipeline.sharing.receive.verify import read_folder, verify, verify_files
from pipeline.sharing.trust.keys import PublicKey, TrustRoot, public_key, role_signer
from pipeline.sharing.trust.log import append_log, checkpoint, log_path, merkle_root, read_log
from pipeline.sharing.trust.revocation import draft_revocations, parse_revocations, sign_revocations
from pipeline.sharing.trust.root import (
    draft_root,
    fingerprint,
    load_trust_root,
    parse_root,
    read_root,
    require_successor,
    sign_root,
)
from pipeline.sharing.trust.signing import make_statement, sign_statement

ISSUED = datetime.date(2026, 3, 1)
TODAY = datetime.date(2026, 3, 10)
SITE = "St. Elsewhere"


def signer(number: int, role: str) -> object:
    return role_signer(Secret(bytes([number]) * 32, role))


AUTHOR, ANN, BOB, ROOT_ONE, ROOT_TWO, ROOT_THREE = (
    signer(number, role)
    for number, role in enumerate(("author", "approver", "approver", "root", "root", "root"), start=1)
)
KEYS = (
    public_key(AUTHOR, "Otto", role="author", site=SITE),
    public_key(ANN, "Ann", role="approver", site=SITE),
    public_key(BOB, "Bob", role="approver", site=SITE),
    *(public_key(each, name, role="root") for each, name in ((ROOT_ONE, "R1"), (ROOT_TWO, "R2"), (ROOT_THREE, "R3"))),
)


def root_bytes(
    keys: tuple[PublicKey, ...] = KEYS, signers: tuple[object, ...] = (ROOT_ONE, ROOT_TWO), **changes
) -> bytes:
    settings = {"threshold": 2, "expires": datetime.date(2026, 12, 31), "max_revocation_age_days": 0}
    settings |= {"policies": {"strict": rules().digest}} | changes
    data = draft_root(keys, **settings)
    for each in signers:
        data = sign_root(data, each)
    return data


def trusted(**changes: object) -> TrustRoot:
    return parse_root(root_bytes(**changes), "the root")


def revoked(
    keys: tuple[str, ...] = (), releases: tuple[str, ...] = (), version: int = 1, issued=TODAY, by=None
) -> bytes:
    data = draft_revocations(keys, releases, version=version, issued=issued)
    for each in by or (ROOT_ONE, ROOT_TWO):
        data = sign_revocations(data, each)
    return data


def rules(**changes: object) -> Policy:
    settled = {"approvals": 1, "revocation_days": 0, "expires": "2100-01-01"}
    return dataclasses.replace(load_policy("strict"), **(settled | changes))


def audited(policy: Policy, seed: int = 2) -> AuditedRelease:
    condensed = CondensedSet(
        features=np.random.default_rng(seed).random((40, 3, 2), dtype=np.float32),
        labels=np.tile(np.array([[0.0], [1.0]], dtype=np.float32), (20, 1)),
        channels=("a", "b"),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=({"kind": "subjects", "known": False, "public": True}, {"kind": "public_ranges", "public": True}),
        method="private_moments",
        starts_from_records=False,
        guarantee=PrivacyGuarantee(
            1.0,
            1e-6,
            "stay",
            "add-or-remove-one",
            "dp-accounting",
            ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},),
            (),
        ),
        provenance=Provenance("condense", config=NOTED),
    )
    figures = (("near_copies", "count", 0.0), ("density_membership", "auroc", 0.55))
    figures += (("density_membership", "tpr_at_1pct_fpr", 0.03),)
    results = tuple(
        AttackResult(name, "T6", "p", what, high / 2, 0.0, high, 500, 0.0, 1.0, 1.0, True, "s", True, True, False, None)
        for name, what, high in figures
    )
    report = LeakageReport("p", record_digest(condensed), results, (), True, Provenance("audit"))
    utility = UtilityReport((UtilityScore("p", "raw", "tcn", "death", "auroc", 0.8, 0.7, 0.9, 0.0, 1, 9, 9),), 1, "i")
    case = condensed, [report], utility, behind(condensed)
    return admit(policy, decide(policy, *case), *case)


def propose(workspace: Path, policy: Policy | None = None, version: int = 1, seed: int = 2, **notes: object) -> Path:
    policy = policy or rules()
    told = {"site": SITE, "name": "set", "version": version, "policy": policy.digest}
    return write_bundle(
        audited(policy, seed),
        workspace / "proposals",
        signer=AUTHOR,
        notes=ReleaseNotes("set", SITE, version, "ODbL-1.0", **notes),
        issued=ISSUED,
        scan=lambda files: None,
        log=append_log(workspace, "propose", told),
    )


def approved(proposal: Path, by: object = ANN, root: TrustRoot | None = None, **more: object) -> PublicKey:
    workspace = proposal.parent.parent
    checked = {"root": root or trusted(), "today": TODAY, "workspace": workspace, "revocations": None}
    return approve(proposal, signer=by, **(checked | more))


def published(proposal: Path, root: TrustRoot | None = None, **more: object) -> Path:
    workspace = proposal.parent.parent
    releases = workspace / "releases"
    checked = {"root": root or trusted(), "today": TODAY, "workspace": workspace, "revocations": None}
    return publish(proposal, releases, **(checked | more))


def released(workspace: Path, version: int = 1, policy: Policy | None = None, seed: int = 2, **notes: object) -> Path:
    proposal = propose(workspace, policy, version, seed, **notes)
    approved(proposal)
    return published(proposal)


@pytest.fixture
def root_file(tmp_path: Path) -> Path:
    path = tmp_path / "root.json"
    path.write_bytes(root_bytes())
    return path


def refusal(act: Callable[[], object], error: type[DecoctError] = ReleaseRefused) -> str:
    with pytest.raises(error) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# from proposal to release


def test_a_release_is_proposed_approved_published_and_verified(tmp_path: Path, root_file: Path) -> None:
    proposal = propose(tmp_path)
    assert "approved by 0 people, and the trust root asks for 1" in refusal(
        lambda: verify(proposal, root_file, today=TODAY)
    )
    assert "approved by 0 people" in refusal(lambda: published(proposal))
    assert approved(proposal).name == "Ann"
    bundle = published(proposal)
    assert not proposal.exists()
    found = verify(bundle, root_file, today=TODAY)
    assert (found.signed_by.name, [key.name for key in found.approved_by]) == ("Otto", ["Ann"])
    entries = read_log(tmp_path).entries
    assert [entry["what"] for entry in entries] == ["propose", "approve", "publish"]
    assert {entry["statement"] for entry in entries[1:]} == {found.statement}
    assert {entry["policy"] for entry in entries} == {rules().digest}


def test_two_of_two_approvers_are_needed_and_enough(tmp_path: Path) -> None:
    proposal, both = propose(tmp_path), trusted(min_approvals=2)
    approved(proposal, ANN, both)
    assert "approved by 1 people" in refusal(lambda: published(proposal, both))
    assert "has approved this release already" in refusal(lambda: approved(proposal, ANN, both))
    approved(proposal, BOB, both)
    verify(published(proposal, both), both, today=TODAY)


def test_a_policy_without_approvals_is_published_by_its_author_and_one_with_is_not(tmp_path: Path) -> None:
    alone = rules(approvals=0)
    bundle = publish_unapproved(propose(tmp_path, alone), tmp_path / "releases", workspace=tmp_path)
    verify(bundle, trusted(min_approvals=0, policies={"strict": alone.digest}), today=TODAY)
    told = refusal(lambda: verify(bundle, trusted(policies={"strict": alone.digest}), today=TODAY))
    assert "the trust root asks for 1" in told  # whatever the policy in the bundle asks for
    waiting = propose(tmp_path, version=2)
    assert "asks for 1 approvals" in refusal(
        lambda: publish_unapproved(waiting, tmp_path / "releases", workspace=tmp_path)
    )


@pytest.mark.parametrize(("first", "second"), list(itertools.product(("author", "approver", "root"), repeat=2)))
def test_every_pair_of_roles(first: str, second: str, tmp_path: Path) -> None:
    """Who signs where the author does, and who where an approver does: one pair of nine is a release."""
    hands = {"author": AUTHOR, "approver": BOB, "root": ROOT_ONE}
    files = read_folder(propose(tmp_path))
    manifest = json.loads(files[MANIFEST])
    statement = make_statement(
        {name: data for name, data in files.items() if name != ENVELOPE}, {key: manifest[key] for key in PREDICATE_KEYS}
    )
    proposal = next((tmp_path / "proposals").glob("[!.]*"))
    (proposal / ENVELOPE).write_bytes(sign_statement(statement, hands[first]))
    if (first, second) == ("author", "approver"):
        approved(proposal, BOB)
        verify(published(proposal), trusted(), today=TODAY)
        return
    refusal(lambda: approved(proposal, hands[second]))
    refusal(lambda: published(proposal))
    assert not (tmp_path / "releases").exists()


def test_nobody_approves_their_own_release_with_a_second_key(tmp_path: Path) -> None:
    """The root calls both keys Otto's: one person, two keys."""
    twice = tuple(dataclasses.replace(key, name="Otto") if key.name == "Ann" else key for key in KEYS)
    proposal = propose(tmp_path)
    assert "Otto approved a release of their own" in refusal(lambda: approved(proposal, root=trusted(keys=twice)))
    both = tuple(dataclasses.replace(key, name="Ann") if key.name == "Bob" else key for key in KEYS)
    approved(proposal, ANN)
    assert "twice, with two keys" in refusal(lambda: approved(proposal, BOB, root=trusted(keys=both)))


def test_an_approver_of_another_site_approves_nothing_here(tmp_path: Path) -> None:
    moved = tuple(dataclasses.replace(key, site="Elsewhere") if key.name == "Ann" else key for key in KEYS)
    assert "speaks for Elsewhere" in refusal(lambda: approved(propose(tmp_path), root=trusted(keys=moved)))


def test_an_approver_sees_a_changed_proposal(tmp_path: Path) -> None:
    proposal = propose(tmp_path)
    (proposal / "card.md").write_text("all is well")
    before = (proposal / ENVELOPE).read_bytes()
    assert "card.md was altered after signing" in refusal(lambda: approved(proposal))
    assert (proposal / ENVELOPE).read_bytes() == before


def test_a_full_disk_leaves_the_proposal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    proposal = propose(tmp_path)
    before = read_folder(proposal)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refusal(lambda: approved(proposal), EnvironmentProblem)
    monkeypatch.undo()
    assert read_folder(proposal) == before
    assert sorted(path.name for path in (tmp_path / "proposals").iterdir()) == [".lock", proposal.name]


def test_of_two_approvers_at_once_neither_signature_is_lost(tmp_path: Path) -> None:
    proposal = propose(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        names = {key.name for key in pool.map(lambda by: approved(proposal, by), (ANN, BOB))}
    assert names == {"Ann", "Bob"}
    verify(published(proposal), trusted(), today=TODAY)


# time, revocation, rollback


def test_revoked_keys_sign_nothing(tmp_path: Path, root_file: Path) -> None:
    bundle = released(tmp_path)
    for key in KEYS[:2]:
        listed = parse_revocations(revoked((key.keyid,)), trusted())
        told = refusal(lambda listed=listed: verify(bundle, root_file, today=TODAY, revocations=listed))
        assert told == f"the key of {key.name} is revoked, so it signs nothing"
    proposal = propose(tmp_path, version=2)
    listed = parse_revocations(revoked((KEYS[1].keyid,)), trusted())
    assert "revoked" in refusal(lambda: approved(proposal, revocations=listed))
    approved(proposal)
    assert "revoked" in refusal(lambda: published(proposal, revocations=listed))


def test_a_withdrawn_release_is_refused(tmp_path: Path, root_file: Path) -> None:
    bundle = released(tmp_path)
    (tmp_path / "list.json").write_bytes(revoked(releases=(f"{SITE}/set/1",)))
    assert "withdrew" in refusal(lambda: verify(bundle, root_file, today=TODAY, revocations=tmp_path / "list.json"))


def test_an_old_or_missing_revocation_list_is_inconclusive(tmp_path: Path) -> None:
    asks = {"max_revocation_age_days": 30}
    proposal, root = propose(tmp_path), trusted(**asks)
    fresh = parse_revocations(revoked(), root)
    told = refusal(lambda: approved(proposal, root=root))  # nobody signs in doubt either
    assert told.startswith("INCONCLUSIVE: the trust root asks for a revocation")
    approved(proposal, root=root, revocations=fresh)
    assert refusal(lambda: published(proposal, root)).startswith("INCONCLUSIVE: the trust root asks for a revocation")
    bundle = published(proposal, root, revocations=fresh)
    later = TODAY + datetime.timedelta(days=31)
    (tmp_path / "root.json").write_bytes(root_bytes(**asks))
    assert refusal(lambda: verify(bundle, tmp_path / "root.json", today=TODAY)).startswith("INCONCLUSIVE")
    (tmp_path / "revocations.json").write_bytes(revoked())
    verify(bundle, tmp_path / "root.json", today=TODAY)  # it is found beside the root
    told = refusal(lambda: verify(bundle, root, today=later, revocations=fresh))
    assert told.startswith("INCONCLUSIVE: the revocation list is 31 days old and the trust root allows 30")
    future = parse_revocations(revoked(issued=TODAY + datetime.timedelta(days=1)), root)
    for each in (root, trusted()):  # also where none is asked for
        told = refusal(lambda each=each: verify(bundle, each, today=TODAY, revocations=future))
        assert "in the future" in told


def test_a_revocation_list_needs_enough_root_keys() -> None:
    for by in ((ROOT_ONE,), (ANN, BOB), (ROOT_ONE, AUTHOR)):
        assert "and 2 are needed" in refusal(lambda by=by: parse_revocations(revoked(by=by), trusted()))


def test_an_expired_bundle_and_an_expired_root_are_refused(tmp_path: Path) -> None:
    bundle = released(tmp_path)
    long = trusted(expires=datetime.date(2030, 1, 1))
    told = refusal(lambda: verify(bundle, long, today=datetime.date(2027, 3, 2)))
    assert told == "the bundle expired on 2027-03-01"
    assert "the trust root expired on 2026-12-31" in refusal(
        lambda: verify(bundle, trusted(), today=datetime.date(2027, 1, 1))
    )


def beside(root_file: Path) -> Path:
    """Where a receiver's state is looked for when nobody names another place."""
    path = memory_of(root_file) / "state.json"
    path.parent.mkdir(exist_ok=True)
    return path


def received(bundle: Path, root_file: Path, state: Path, **more: object) -> object:
    found = verify(bundle, root_file, today=TODAY, state=state, **more)
    root = load_trust_root(root_file)
    remember(state, root, read_root(root_file), found.manifest, found.statement, more.get("revocations"))
    return found


def rewritten(workspace: Path, lines: bytes) -> None:
    """The site's log, and what was noted of it, by an operator who has everything."""
    log_path(workspace).write_bytes(lines)
    accept(workspace / "keys", "log/log.jsonl", found_chain(log_path(workspace)).state)


def test_a_step_back_is_refused_by_whoever_remembers(tmp_path: Path, root_file: Path) -> None:
    """Rollback, two releases of one version, and a site whose log goes backwards."""
    state = tmp_path / "state.json"
    first, second = released(tmp_path), released(tmp_path, version=2)
    received(second, root_file, state)
    received(second, root_file, state)  # the same again is no step back
    assert "is older than 2, which was received before" in refusal(lambda: received(first, root_file, state))
    assert "older than 2" in refusal(lambda: verify(first, root_file, today=TODAY, state=state))
    verify(first, root_file, today=TODAY)  # who remembers nothing sees nothing
    shutil.copy(state, beside(root_file))
    assert "older than 2" in refusal(lambda: verify(first, root_file, today=TODAY))
    beside(root_file).unlink()
    other = tmp_path / "other"
    append_log(other, "propose", {"site": SITE, "name": "another", "version": 1})
    twin = released(other, version=2, seed=3)
    assert "two different releases" in refusal(lambda: received(twin, root_file, state))
    anew = released(tmp_path / "anew", version=3)
    assert "begun anew" in refusal(lambda: received(anew, root_file, state))
    rewritten(tmp_path, b"".join(log_path(tmp_path).read_bytes().splitlines(keepends=True)[:2]))
    back = released(tmp_path, version=3, seed=4)
    assert "cut or split" in refusal(lambda: received(back, root_file, state))


def test_an_older_revocation_list_is_refused_by_whoever_remembers(tmp_path: Path, root_file: Path) -> None:
    state, bundle = tmp_path / "state.json", released(tmp_path)
    old, new = (parse_revocations(revoked(version=number), trusted()) for number in (1, 2))
    received(bundle, root_file, state, revocations=new)
    for step_back in (old, None):
        told = refusal(lambda step_back=step_back: received(bundle, root_file, state, revocations=step_back))
        assert "the revocation list is older than version 2" in told


def test_a_damaged_state_refuses_rather_than_forgets(tmp_path: Path, root_file: Path) -> None:
    state, bundle = tmp_path / "state.json", released(tmp_path)
    for content in (b"{}", b"", b"[1]", b'{"format":"decoct-receiver/9"}'):
        state.write_bytes(content)
        refusal(lambda: received(bundle, root_file, state))
    state.unlink()
    received(bundle, root_file, state)
    assert set(load_state(state)["releases"]) == {f"{SITE}/set"}


# the root


def test_a_root_needs_its_threshold_of_people(tmp_path: Path) -> None:
    for signers in ((), (ROOT_ONE,), (ROOT_ONE, ROOT_ONE)):
        assert "and 2 are needed" in refusal(lambda signers=signers: trusted(signers=signers))
    with pytest.raises(UsageError, match="only a root key"):
        root_bytes(signers=(ROOT_ONE, AUTHOR))
    assert trusted().threshold == 2
    path = tmp_path / "root.json"
    path.write_bytes(root_bytes().replace(b"R", b"S", 1))
    refusal(lambda: load_trust_root(path))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"threshold": 0}, "threshold"),
        ({"threshold": 4}, "threshold"),
        ({"version": 0}, "version"),
        ({"keys": (*KEYS, KEYS[0])}, "once, for one role"),
        ({"keys": (*KEYS, dataclasses.replace(KEYS[0], role="approver"))}, "once, for one role"),
        ({"keys": (*KEYS, dataclasses.replace(KEYS[3], name="R9"))}, "once, for one role"),
        ({"keys": (*KEYS[:4], dataclasses.replace(KEYS[4], name="R1 "))}, "the number of people"),
        ({"keys": (*KEYS[:4], dataclasses.replace(KEYS[4], name="r1"))}, "the number of people"),
        ({"keys": (*KEYS[:4], dataclasses.replace(KEYS[4], name="\uff32\uff11"))}, "the number of people"),
        ({"keys": (*KEYS[:4], dataclasses.replace(KEYS[4], name="R\u200b1"))}, "the number of people"),
        ({"keys": (*KEYS[:3], dataclasses.replace(KEYS[3], name="Otto")), "threshold": 1}, "by its authors alone"),
        ({"keys": (*KEYS[:4], dataclasses.replace(KEYS[4], name="OTTO ")), "threshold": 1}, "by its authors alone"),
        ({"keys": (KEYS[0], *KEYS[3:])}, "more approvals"),
        ({"keys": (KEYS[0], dataclasses.replace(KEYS[1], name="otto"), *KEYS[3:])}, "more approvals"),
        ({"min_approvals": 3}, "more approvals"),
        ({"min_approvals": -1}, "more approvals"),
        ({"max_revocation_age_days": -1}, "max_revocation_age_days"),
        ({"policies": {}}, "a name alone says nothing"),
        ({"policies": {"strict": "strict"}}, "a name alone says nothing"),
        ({"keys": (dataclasses.replace(KEYS[0], site=""), *KEYS[1:])}, "speak for one site"),
        ({"keys": (*KEYS[:5], dataclasses.replace(KEYS[5], site=SITE))}, "speak for one site"),
        ({"keys": (dataclasses.replace(KEYS[0], role="chief"), *KEYS[1:])}, "one role"),
    ],
)
def test_a_root_that_could_not_be_trusted_is_not_drafted(changes: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        root_bytes(**changes)


def test_the_next_root_is_signed_by_enough_of_the_last(tmp_path: Path, root_file: Path) -> None:
    state, bundle = tmp_path / "state.json", released(tmp_path)
    received(bundle, root_file, state)
    thieves = [signer(number, "root") for number in (20, 21)]
    stolen = (*KEYS[:3], *(public_key(each, f"T{n}", role="root") for n, each in enumerate(thieves)))
    root_file.write_bytes(root_bytes(stolen, tuple(thieves), version=2))
    assert "fewer than 2 of the root keys known before" in refusal(lambda: received(bundle, root_file, state))

    fresh = [signer(number, "root") for number in (30, 31)]
    next_keys = (*KEYS[:3], *(public_key(each, f"N{n}", role="root") for n, each in enumerate(fresh)))
    data, old = root_bytes(next_keys, tuple(fresh), version=2), trusted()
    root_file.write_bytes(sign_root(data, ROOT_ONE, old))
    assert "fewer than 2" in refusal(lambda: received(bundle, root_file, state))
    root_file.write_bytes(sign_root(sign_root(data, ROOT_ONE, old), ROOT_THREE, old))
    received(bundle, root_file, state)
    root_file.write_bytes(root_bytes())
    assert "version 1, and version 2 was used before" in refusal(lambda: received(bundle, root_file, state))
    root_file.write_bytes(root_bytes(next_keys, tuple(fresh), version=2, min_approvals=0))
    assert "two trust roots of version 2" in refusal(lambda: received(bundle, root_file, state))
    by_hand = TrustRoot(keys=KEYS, expires="2100-01-01", policies={"strict": rules().digest}, max_revocation_age_days=0)
    assert "nobody signed" in refusal(lambda: verify(bundle, by_hand, today=TODAY, state=state))


def test_the_next_root_is_the_very_next_version(tmp_path: Path) -> None:
    """Version 3 may be right, and what version 2 revoked or added would never have been seen."""
    old = trusted(version=4)
    for version in (3, 4, 6, 7, 40):
        told = refusal(lambda version=version: require_successor(root_bytes(version=version), old, "the root"))
        assert told.endswith("version 4 was known before: the next that counts is version 5"), version
    assert require_successor(root_bytes(version=5), old, "the root").version == 5


def test_a_root_that_never_expires_accepts_nothing(tmp_path: Path) -> None:
    bundle = released(tmp_path)
    endless = dataclasses.replace(trusted(), expires="")
    assert "does not say until when" in refusal(lambda: verify(bundle, endless, today=TODAY))


def test_fingerprints_name_what_is_said_and_not_who_signed() -> None:
    one, two = root_bytes(signers=(ROOT_ONE, ROOT_TWO)), root_bytes(signers=(ROOT_TWO, ROOT_THREE))
    assert fingerprint(one) == fingerprint(two) != fingerprint(root_bytes(version=2))
    assert len(fingerprint(one).split()) == 16


# what is held against the policy again


def test_the_receiver_holds_the_bundle_against_its_policy_again(tmp_path: Path) -> None:
    """Signed by author and approver, and still refused: a gate that was bent does not help."""
    files = dict(read_folder(released(tmp_path)))
    manifest, leakage, policy = (json.loads(files[name]) for name in (MANIFEST, LEAKAGE, POLICY))
    verify_files(_signed(files, manifest, leakage, policy), trusted(), today=TODAY)
    attacks = leakage["attacks"]
    bent: dict[str, tuple[dict, dict, dict]] = {
        "is not the policy whose digest": ({}, {}, {"max_epsilon": 9.0}),
        "a stale one, of another payload": ({}, {"payload_sha256": "0" * 64}, {}),
        "did not pass": ({}, {"verdict": "INCONCLUSIVE"}, {}),
        "audit did not pass": ({}, {"controls_held": False}, {}),
        "what follows from the policy, and no more": ({}, {"attacks": attacks[:1]}, {}),
        "follows from the policy, and no more": ({}, {"attacks": [{**row, "limit": 0.9} for row in attacks]}, {}),
        "from the policy, and no more": ({}, {"attacks": [{**row, "upper_bound": 0.09} for row in attacks]}, {}),
        "the policy, and no more": ({}, {"not_run": [{"attack": "singling_out", "threat_model": "T6"}]}, {}),
        "policy, and no more": ({}, {"rounding": 0.05}, {}),
        "epsilon or delta": ({"guarantee": {**manifest["guarantee"], "epsilon": 2.5}}, {}, {}),
        "asks for a guarantee": ({"guarantee": None}, {}, {}),
        "never releases sets made by": ({"release": {**manifest["release"], "method": "random_real"}}, {}, {}),
        "does not release encoded": (
            {
                "release": {**manifest["release"], "kind": "encoded"},
                "data": {name: told for name, told in manifest["data"].items() if name != "soft_labels"},
            },
            {},
            {},
        ),
        "started from real stays": ({"release": {**manifest["release"], "starts_from_records": True}}, {}, {}),
        "it allows 365 days": ({"expires": "2029-01-01"}, {}, {}),
        "encrypted to their recipients only": ({}, {}, {"encrypted": True}),
        "does not say whether payloads leave encrypted": ({}, {}, {"encrypted": None}),
        "it expired on 2026-02-28": ({}, {}, {"expires": "2026-02-28"}),
        "and no more": ({}, {"attacks": None}, {}),
        "no more": ({}, {"comment": "there were 854 of them"}, {}),
        "do not fit together": ({"guarantee": {**manifest["guarantee"], "epsilon": "one"}}, {}, {}),
    }
    for sentence, (of_manifest, of_leakage, of_policy) in bent.items():
        rules, root = {**policy, **of_policy}, trusted()
        if {"encrypted", "expires"} & set(of_policy):  # a policy that signers and root holders signed as it is
            of_manifest = {"policy": {**manifest["policy"], "digest": sha256_hex(canonical(rules))}}
            root = trusted(policies={"strict": of_manifest["policy"]["digest"]})
        again = _signed(files, {**manifest, **of_manifest}, {**leakage, **of_leakage}, rules)
        told = refusal(lambda again=again, root=root: verify_files(again, root, today=TODAY))
        assert sentence in told, sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, ""),
        ({"limit": 0.9}, "not judged by the policy's limit"),
        ({"verdict": "INCONCLUSIVE"}, "not judged by the policy's limit"),
        ({"upper_bound": 0.99}, "above the limit"),
        ({"upper_bound": -1.0}, "above the limit"),
        ({"attack": "singling_out"}, "lacks the required"),
        ({"statistic": "r2"}, "lacks the required"),
    ],
)
def test_figures_without_a_guarantee_are_held_against_the_limits(changes: dict[str, object], sentence: str) -> None:
    """There the rows are the audit's own: each must be judged by the policy's limit, and keep it."""
    policy = {
        "name": "house",
        "limits": [{"attack": "*", "statistic": "*", "max_upper": 0.6}],
        "required": {"condensed": ["density_membership:auroc"]},
    }
    row = {"attack": "density_membership", "statistic": "auroc", "verdict": "PASS", "limit": 0.6, "upper_bound": 0.55}
    told = {"format": LEAKAGE_FORMAT, "policy": "house", "verdict": "PASS", "controls_held": True}
    files = {PAYLOAD: b"numbers"}
    leakage = {**told, "payload_sha256": sha256_hex(files[PAYLOAD]), "attacks": [{**row, **changes}]}
    manifest = {"guarantee": None, "encryption": None, "release": {"kind": "condensed"}}
    found = _audit_broken(policy, manifest, leakage, files)
    assert sentence in found
    assert bool(sentence) == bool(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"upper_bound": 0.5531},
        {"upper_bound": 0.55, "limit": True},
        {"upper_bound": "0.55"},
        {"threat_model": "T6\x1b[2J"},
        {"attack": "x" * 1000},
        {"statistic": "count", "upper_bound": 2.5},
        {"more": 1},
        None,
    ],
)
def test_figures_without_a_guarantee_have_no_room_for_more(changes: dict[str, object] | None) -> None:
    """Decimals of a bound, words in a name, a figure given twice: what is rounded has one spelling."""
    names = {"attack": "density_membership", "threat_model": "T6", "statistic": "auroc"}
    row = {**names, "verdict": "PASS", "limit": 0.6, "upper_bound": 0.55}
    told = {"format": LEAKAGE_FORMAT, "policy": "house", "verdict": "PASS", "controls_held": True, "rounding": 0.05}
    leakage = {**told, "payload_sha256": "", "attacks": [row], "not_run": []}
    assert not _audit_oversteps({"rounding": 0.05}, leakage)
    changed = [row, row] if changes is None else [{**row, **changes}]
    with suppress(TypeError):  # is refused where it is caught
        assert _audit_oversteps({"rounding": 0.05}, {**leakage, "attacks": changed})


def _signed(files: dict[str, bytes], manifest: dict, leakage: dict, policy: dict) -> dict[str, bytes]:
    """The bundle as author and approver would sign it with other contents."""
    from pipeline.sharing.trust.signing import add_signature

    parts = {name: data for name, data in files.items() if name not in (ENVELOPE, MANIFEST)}
    parts |= {LEAKAGE: canonical(leakage), POLICY: canonical(policy)}
    described = {name: {"bytes": len(data), "sha256": sha256_hex(data)} for name, data in parts.items()}
    manifest = {**manifest, "files": described}
    parts[MANIFEST] = canonical(manifest)
    statement = make_statement(parts, {key: manifest[key] for key in PREDICATE_KEYS})
    return {**parts, ENVELOPE: add_signature(sign_statement(statement, AUTHOR), ANN)}


def test_the_wrong_recipient_is_refused(tmp_path: Path) -> None:
    bundle = released(tmp_path, recipients=("Hospital B", "Hospital C"))
    for name in ("", "Hospital D"):
        told = refusal(lambda name=name: verify(bundle, trusted(), today=TODAY, recipient=name))
        assert "addressed to other recipients" in told
    verify(bundle, trusted(), today=TODAY, recipient="Hospital C")


# the log


def test_the_merkle_root_is_that_of_rfc_6962() -> None:
    """Test vectors of the Certificate Transparency reference implementation."""
    leaves = [b"", b"\x00", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43", b"\x50\x51\x52\x53\x54\x55\x56\x57"]
    leaves.append(bytes(range(0x60, 0x70)))
    roots = {
        0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    assert {size: merkle_root(leaves[:size]) for size in roots} == roots


def receipt(bundle: Path, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(receipt_bytes(verify(bundle, trusted(), today=TODAY), TODAY))
    return path


def test_receipts_show_a_log_that_was_cut_changed_or_split(tmp_path: Path) -> None:
    one = read_receipt(receipt(released(tmp_path), tmp_path, "one.json"))
    two = read_receipt(receipt(released(tmp_path, version=2), tmp_path, "two.json"))
    require_consistent([one, two])
    for each in (one, two):
        require_in_log(read_log(tmp_path), each)
    whole = log_path(tmp_path).read_bytes()
    lines = whole.splitlines(keepends=True)

    rewritten(tmp_path, b"".join(lines[:3]))
    require_in_log(read_log(tmp_path), one)
    assert "the log was cut: two.json saw 4 lines of it, and it has 3" in refusal(
        lambda: require_in_log(read_log(tmp_path), two)
    )
    rewritten(tmp_path, b"".join(lines[:2]))
    assert "the log lacks the release" in refusal(lambda: require_in_log(read_log(tmp_path), one))

    rewritten(tmp_path, b"".join(lines[:2]))
    append_log(tmp_path, "publish", {"site": SITE, "name": "set", "version": 7})
    other = read_receipt(receipt(released(tmp_path, version=3), tmp_path, "three.json"))
    assert "the log was rewritten" in refusal(lambda: require_in_log(read_log(tmp_path), two))
    assert "a split view" in refusal(lambda: require_consistent([one, two, other]))

    log_path(tmp_path).write_bytes(b"".join([lines[0], *lines[2:]]))
    assert "the chain breaks at line 2" in refusal(lambda: read_log(tmp_path), EnvironmentProblem)
    rewritten(tmp_path, b"")
    append_log(tmp_path, "propose", {"site": "x"})
    assert "begun anew" in refusal(lambda: require_in_log(read_log(tmp_path), one))


def test_two_contents_of_one_release_are_seen_when_receipts_are_compared(tmp_path: Path) -> None:
    one = read_receipt(receipt(released(tmp_path / "a"), tmp_path, "one.json"))
    two = read_receipt(receipt(released(tmp_path / "b", seed=3), tmp_path, "two.json"))
    assert "two different releases" in refusal(lambda: require_consistent([one, two]))


def test_the_checkpoint_is_under_the_signatures(tmp_path: Path) -> None:
    files = dict(read_folder(released(tmp_path)))
    manifest = json.loads(files[MANIFEST])
    assert manifest["log"] == checkpoint(read_log(tmp_path), 1).plain()
    files[MANIFEST] = canonical({**manifest, "log": {**manifest["log"], "size": 2}})
    refusal(lambda: verify_files(files, trusted(), today=TODAY))


def test_a_receipt_that_somebody_made_up_is_told_from_one_of_the_sites(tmp_path: Path) -> None:
    path = receipt(released(tmp_path), tmp_path, "one.json")
    read_receipt(path, trusted())
    content = json.loads(path.read_bytes())
    statement = json.loads(base64.b64decode(json.loads(base64.b64decode(content["envelope"]))["payload"]))
    statement["predicate"]["log"]["size"] = 99
    made_up = sign_statement(statement, signer(77, "author"))
    path.write_bytes(canonical({**content, "envelope": base64.b64encode(made_up).decode()}))
    assert "the log was cut" in refusal(lambda: require_in_log(read_log(tmp_path), read_receipt(path)))
    assert "does not list" in refusal(lambda: read_receipt(path, trusted()))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"x" * 2_000_000, b'{"envelope":"","format":"","received":""}'])
def test_what_is_no_receipt_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(content)
    refusal(lambda: read_receipt(tmp_path / "r.json"))


def test_verification_is_quick_and_light_with_everything_on(tmp_path: Path, root_file: Path) -> None:
    """A process of its own: signed root, revocation list, state. The time is the whole process's, on a busy machine."""
    bundle = released(tmp_path)
    (tmp_path / "list.json").write_bytes(revoked())
    script = f"""
import sys, datetime, pathlib, sysconfig
before = set(sys.modules)
from pipeline.sharing.receive.verify import verify
at = pathlib.Path({str(tmp_path)!r})
verify(pathlib.Path({str(bundle)!r}), at / "root.json", today=datetime.date(2026, 3, 10),
       revocations=at / "list.json", state=at / "state.json")
site = sysconfig.get_paths()["purelib"]
found = {{name.split(".")[0] for name in set(sys.modules) - before
         if (getattr(sys.modules[name], "__file__", None) or "").startswith(site)}}
print(*sorted(found - {{"pipeline", "_cffi_backend"}}))
"""
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["cryptography", "rfc8785"]
    assert time.monotonic() - begin < 20  # a bound for a busy machine; the figure is in the documents
