"""The pages of one recorded run: what `make docs` shows as samples, and what the tests hold against one another.

Each is rendered from the record; nothing is computed again.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from flows.cli.ending import Places, ending
from flows.stages.report import policy_terms
from flows.watch.page import gather
from pipeline.audit.history import FILE_NAME, open_history
from pipeline.core.codec import from_plain, record_digest, to_plain
from pipeline.core.config.load import parse_config
from pipeline.core.types import CondensedSet, LeakageReport, PrivacyGuarantee, Provenance, Task, UtilityReport
from pipeline.report.render import render_json
from pipeline.report.watch import watch_page
from pipeline.sharing.bundle.card import card_html, card_markdown
from pipeline.sharing.bundle.croissant import croissant_bytes
from pipeline.sharing.bundle.facts import ReleaseNotes, release_facts
from pipeline.sharing.bundle.payload import payload_bytes
from pipeline.sharing.policy.gate import Circumstances, admit, decide
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import LEDGER_QUERIES

ROOT: Final = Path(__file__).parents[2]
NOW: Final = datetime(2026, 11, 30, 6, tzinfo=UTC)
GUARANTEE: Final = PrivacyGuarantee(
    1.0,
    1e-6,
    "stay",
    "add-or-remove-one",
    "dp-accounting 0.6.0",
    ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},),
    ("ranges",),
)


def record() -> dict[str, Any]:
    """The recorded demo."""
    text = (ROOT / "tests" / "cli" / "recorded_demo.json").read_text(encoding="utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


def judged(policy_name: str) -> dict[str, Any]:
    """The record as a policy judges its figures."""
    shown, policy = record(), load_policy(policy_name)
    reports = from_plain(tuple[LeakageReport, ...], shown["leakage"])
    return {
        **shown,
        "policy": policy_name,
        "decision": {**shown["decision"], "policy": policy_name},
        "terms": to_plain(policy_terms(policy_name, reports)),
        "awaits_approval": policy.approvals > 0,
    }


def shared_set() -> CondensedSet:
    """A set of the recorded one's size, with two channels of arbitrary values: no record of anybody."""
    return CondensedSet(
        features=np.random.default_rng(4).random((320, 4, 2), dtype=np.float32),
        labels=np.tile(np.array([[0.25], [0.75]], dtype=np.float32), (160, 1)),
        channels=("HR", "Lactate"),
        tasks=(Task("in_hospital_death"),),
        step_hours=1.0,
        transforms=({"kind": "subjects", "known": False, "public": True}, {"kind": "scaling", "public": True}),
        method="private_moments",
        starts_from_records=False,
        guarantee=GUARANTEE,
        provenance=Provenance("condense", config={LEDGER_QUERIES: ["a" * 64]}),
    )


def pages_of(policy_name: str, place: Path) -> dict[str, str]:
    """Page -> its text as written, of the recorded run as a policy judges it; `place` is an empty folder to come.

    Under a policy that asks for approvals the run ends in a proposal, as a site's does.
    """
    shown, shared, policy = judged(policy_name), shared_set(), load_policy(policy_name)
    report = next(r for r in from_plain(tuple[LeakageReport, ...], shown["leakage"]) if r.artefact == "private")
    report = dataclasses.replace(report, artefact_digest=record_digest(shared))
    utility = from_plain(UtilityReport, shown["utility"])
    around = Circumstances(ledger={"a" * 64: GUARANTEE.events}, rules={}, today=date(2026, 11, 30), accepted=())
    decision = decide(policy, shared, (report,), utility, around)
    audited = admit(policy, decision, shared, (report,), utility, around)
    payload = payload_bytes(shared)
    notes = ReleaseNotes(name="private", site="demo", version=1, licence="ODC-By-1.0")
    facts = release_facts(audited, notes, date(2026, 11, 30), payload)
    files = {name: {"bytes": 1, "sha256": "0" * 64} for name in ("payload.safetensors", "card.md", "card.html")}
    places = Places("report.html", "demo-private-v1", "root.json", is_demo=policy_name == "demo")
    return {
        "terminal": "\n".join(ending(shown, places)),
        "report": render_json(shown),
        "card": card_html(facts),
        "card.md": card_markdown(facts),
        "croissant": croissant_bytes(facts, files, "payload.safetensors").decode(),
        "watch": watch_page(gather(workspace_of(place, [report], policy_name), now=NOW)),
    }


def workspace_of(place: Path, reports: list[LeakageReport], policy_name: str, encoded: str = "") -> Path:
    """A workspace of one run with one audit on record, of a condensed set or of the cohort that is named."""
    run = place / "runs" / "demo"
    run.mkdir(parents=True)
    config = parse_config(
        {
            "name": "demo",
            "workspace": str(place),
            "source": {"kind": "embedded"},
            "encode": {"raw": {"kind": "identity"}, "rqe": {"kind": "quantum"}},
            "condense": {"private": {"kind": "private_moments", "input": "raw"}},
            "release": {
                "kind": "encoded" if encoded else "condensed",
                "artefact": encoded or "private",
                "policy": policy_name,
                "licence": "ODC-By-1.0",
            },
        },
        "the recorded run's configuration",
        place,
    )
    (run / "config.json").write_text(json.dumps(config.model_dump(mode="json")), encoding="utf-8")
    (run / "report.html").write_text("the report", encoding="utf-8")
    open_history(place / FILE_NAME).record(reports, name="demo", source="run", now=NOW)
    return place
