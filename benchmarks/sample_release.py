"""A small audited release with its people and keys, no patients: what kill_release.py and fuzz_bundle.py work on."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.codec import record_digest
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
from pipeline.sharing.approval import approve, publish
from pipeline.sharing.bundle.write import ReleaseNotes, write_bundle
from pipeline.sharing.policy.gate import Artefact, AuditedRelease, Circumstances, admit, decide
from pipeline.sharing.policy.load import Policy, load_policy
from pipeline.sharing.policy.rules import LEDGER_QUERIES
from pipeline.sharing.trust.keys import TrustRoot, public_key, role_signer
from pipeline.sharing.trust.log import append_log
from pipeline.sharing.trust.root import draft_root, parse_root, sign_root

SITE = "St. Elsewhere"
QUERY = "a" * 64
NOTED = {LEDGER_QUERIES: [QUERY]}
TODAY = datetime.datetime.now(tz=datetime.UTC).date()
FIGURES = (
    ("near_copies", "count", 0.0),
    ("density_membership", "auroc", 0.55),
    ("density_membership", "tpr_at_1pct_fpr", 0.03),
)
SIGNERS = {
    role: role_signer(Secret(bytes([place]) * 32, role)) for place, role in enumerate(("author", "approver", "root"), 1)
}


def root_bytes() -> bytes:
    """A signed trust root: Otto writes, Ann approves, Rosa holds the root."""
    keys = [
        public_key(SIGNERS["author"], "Otto", role="author", site=SITE),
        public_key(SIGNERS["approver"], "Ann", role="approver", site=SITE),
        public_key(SIGNERS["root"], "Rosa", role="root"),
    ]
    expires = TODAY + datetime.timedelta(days=300)
    pinned = {policy().name: policy().digest}
    drafted = draft_root(keys, threshold=1, expires=expires, policies=pinned, max_revocation_age_days=0)
    return sign_root(drafted, SIGNERS["root"])


def trusted() -> TrustRoot:
    """The same, parsed."""
    return parse_root(root_bytes(), "the root")


def policy() -> Policy:
    """The strict policy, in force for as long as this file may be run."""
    return dataclasses.replace(load_policy("strict"), expires="2100-01-01")


def behind(artefact: Artefact, **told: Any) -> Circumstances:
    """What a gate is told in whose ledger stands what the artefact's guarantee states, under the queries it names."""
    guarantee = getattr(artefact, "guarantee", None)
    events = () if guarantee is None else guarantee.events
    names = artefact.provenance.config.get(LEDGER_QUERIES, ())
    return Circumstances(**{"ledger": {names[0]: events} if names else {}, "rules": {}} | told)


def audited(seed: int = 2, samples: int = 40, steps: int = 4) -> AuditedRelease:
    """A release that passed the gate with invented figures."""
    rules = policy()
    condensed = CondensedSet(
        features=np.random.default_rng(seed).random((samples, steps, 2), dtype=np.float32),
        labels=np.tile(np.array([[0.0], [1.0]], dtype=np.float32), (samples // 2, 1)),
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
    results = tuple(
        AttackResult(name, "T6", "p", what, high / 2, 0.0, high, 500, 0.0, 1.0, 1.0, True, "s", True, True, False, None)
        for name, what, high in FIGURES
    )
    report = LeakageReport("p", record_digest(condensed), results, (), True, Provenance("audit"))
    utility = UtilityReport((UtilityScore("p", "raw", "tcn", "death", "auroc", 0.8, 0.7, 0.9, 0.0, 1, 9, 9),), 1, "i")
    case = condensed, [report], utility, behind(condensed)
    return admit(rules, decide(rules, *case), *case)


def propose(workspace: Path, release: AuditedRelease, version: int) -> Path:
    """As a run does it."""
    told: dict[str, Any] = {"site": SITE, "name": "set", "version": version}
    return write_bundle(
        release,
        workspace / "proposals",
        signer=SIGNERS["author"],
        notes=ReleaseNotes("set", SITE, version, "ODbL-1.0"),
        issued=TODAY,
        scan=lambda files: None,
        log=append_log(workspace, "propose", told),
    )


def released(workspace: Path, proposal: Path) -> Path:
    """Approve and publish; the root asks for no revocation list."""
    checked: dict[str, Any] = {"root": trusted(), "today": TODAY, "workspace": workspace, "revocations": None}
    approve(proposal, signer=SIGNERS["approver"], **checked)
    return publish(proposal, workspace / "releases", **checked)
