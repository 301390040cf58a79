"""The pages of one run tell the same counts and bounds: terminal, report, card, Croissant and watch page.

Each page is rendered from the recorded demo; nothing is computed again.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.cli.ending import Places, ending
from flows.watch.page import gather
from pipeline.audit.history import FILE_NAME, open_history
from pipeline.core.codec import from_plain, record_digest
from pipeline.core.config.load import parse_config
from pipeline.core.types import CondensedSet, LeakageReport, PrivacyGuarantee, Provenance, Task, UtilityReport
from pipeline.report.leakage import limits_held, limits_of, missed_attacks
from pipeline.report.render import render_json
from pipeline.report.watch import watch_page
from pipeline.sharing.bundle.card import card_html, card_markdown
from pipeline.sharing.bundle.croissant import croissant_bytes
from pipeline.sharing.bundle.facts import ReleaseNotes, release_facts
from pipeline.sharing.bundle.payload import payload_bytes
from pipeline.sharing.policy.gate import Circumstances, admit, decide
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import LEDGER_QUERIES

RECORD: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "cli" / "recorded_demo.json").read_text(encoding="utf-8")
)
NOW = datetime(2026, 11, 30, 6, tzinfo=UTC)
GUARANTEE = PrivacyGuarantee(
    1.0,
    1e-6,
    "stay",
    "add-or-remove-one",
    "dp-accounting 0.6.0",
    ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},),
    ("ranges",),
)
SET = CondensedSet(
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
PAGES = ("terminal", "report", "card", "card.md", "croissant", "watch")
BOUNDS = {"card": "within the limit", "card.md": "| within the limit", "croissant": "within the limit; limit"}
EPSILON = re.compile(r"(?:epsilon|ε)\s*(?:=\s*)?[0-9][0-9.]*")
DELTA = re.compile(r"delta|δ")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The words of every page of the recorded run, each on one line."""
    report = next(r for r in from_plain(tuple[LeakageReport, ...], RECORD["leakage"]) if r.artefact == "private")
    report = dataclasses.replace(report, artefact_digest=record_digest(SET))
    policy, utility = load_policy("demo"), from_plain(UtilityReport, RECORD["utility"])
    around = Circumstances(ledger={"a" * 64: GUARANTEE.events}, rules={}, today=date(2026, 11, 30), accepted=())
    decision = decide(policy, SET, (report,), utility, around)
    audited = admit(policy, decision, SET, (report,), utility, around)
    payload = payload_bytes(SET)
    notes = ReleaseNotes(name="private", site="demo", version=1, licence="ODC-By-1.0")
    facts = release_facts(audited, notes, date(2026, 11, 30), payload)
    files = {name: {"bytes": 1, "sha256": "0" * 64} for name in ("payload.safetensors", "card.md", "card.html")}
    places = Places("report.html", "demo-private-v1", "root.json", is_demo=True)
    return {
        "terminal": _words("\n".join(ending(RECORD, places))),
        "report": _words(render_json(RECORD)),
        "card": _words(card_html(facts)),
        "card.md": _words(card_markdown(facts)),
        "croissant": _words(croissant_bytes(facts, files, "payload.safetensors").decode()),
        "watch": _words(watch_page(gather(_workspace(tmp_path_factory.mktemp("pages") / "w", report), now=NOW))),
    }


def _workspace(place: Path, report: LeakageReport) -> Path:
    """A workspace of one run with one audit on record."""
    run = place / "runs" / "demo"
    run.mkdir(parents=True)
    config = parse_config(
        {
            "name": "demo",
            "workspace": str(place),
            "source": {"kind": "embedded"},
            "encode": {"raw": {"kind": "identity"}},
            "condense": {"private": {"kind": "private_moments", "input": "raw"}},
            "release": {"artefact": "private", "policy": "demo", "licence": "ODC-By-1.0"},
        },
        "the test's configuration",
        place,
    )
    (run / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    (run / "report.html").write_text("the report")
    open_history(place / FILE_NAME).record([report], name="demo", source="run", now=NOW)
    return place


def _words(page: str) -> str:
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\\", "").split())


def test_every_page_has_the_same_limits(pages: dict[str, str]) -> None:
    found = limits_held(limits_of(RECORD["terms"], "private"))
    told = f"{found['held']} of {found['limited']} limits held"
    for name in ("terminal", "report", "watch"):
        assert re.findall(r"\d+ of \d+ limits held", pages[name]) == [told], name
    # beside a guarantee nothing that leaves depends on what was found: the policy's own limits, each of them
    bounds = {page: pages[page].count(words) for page, words in BOUNDS.items()}
    assert len(set(bounds.values())) == 1, bounds
    assert bounds["card"] >= len(load_policy("demo").limits)
    near = found["nearest"]
    for name in ("terminal", "report"):
        assert f"at most {near['high']:.3f}, limit {near['limit']:.3f}" in pages[name]


def test_every_page_has_the_same_attacks_that_did_not_run(pages: dict[str, str]) -> None:
    missed = [name.replace("_", " ") for name in missed_attacks(RECORD)]
    assert len(missed) == 2
    for name in ("terminal", "report"):
        assert set(re.findall(r"(\d+) attacks? (?:did|could) not run", pages[name])) == {str(len(missed))}, name
    for name in ("card", "card.md", "croissant"):
        assert not re.search(r"not run|limits held", pages[name]), name
    assert "byte scan did not run" not in pages["report"]


def test_no_page_tells_an_epsilon_without_its_delta(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        for hit in EPSILON.finditer(text):
            around = text[max(0, hit.start() - 60) : hit.end() + 90]
            assert DELTA.search(around) or "policy's" in around, f"{name}: {around}"
    for name in ("terminal", "report", "croissant"):
        assert "epsilon 1, delta 1e-06, per stay" in pages[name] or "epsilon 1, delta 1e-06, add or" in pages[name]


def test_the_card_tells_no_limit_as_if_it_had_been_found(pages: dict[str, str]) -> None:
    assert "upper 95 % bound not published" in pages["croissant"]
    for row in pages["card.md"].split("| Verdict |")[1].split(" | near ")[0].split(" | | ")[1:]:
        assert row.count("|") < 6 or "not published" in row


def test_the_same_samples_and_scores_are_told(pages: dict[str, str]) -> None:
    said = (r"calibration error up to 0\.\d\d", r"AUROC 0\.\d\d to 0\.\d\d")
    figures = [found[0] for one in said if (found := re.search(one, pages["terminal"]))]
    assert len(figures) == 2
    for name in ("terminal", "report"):
        assert f"{len(SET.features)} synthetic series with soft labels" in pages[name].replace(
            "series With", "series with"
        )
        for figure in figures:
            assert figure.lower() in pages[name].lower(), name
    for name in ("report", "card", "card.md"):
        assert "teaching vectors, not patients" in pages[name]
