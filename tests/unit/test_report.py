"""The site report: self-contained, deterministic, honest about what is missing, and readable in a narrow window."""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.digest import canonical_json, digest_bytes
from pipeline.core.types import (
    AttackResult,
    ContractResult,
    ExpectationOutcome,
    GateDecision,
    Grouping,
    IngestReport,
    LeakageReport,
    NotRun,
    PrivacyGuarantee,
    Provenance,
    UtilityReport,
    UtilityScore,
)
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.report.record import (
    CondensedSummary,
    DrawnSample,
    LimitRow,
    PolicyTerms,
    RunRecord,
    StageRow,
    Trajectory,
    record_json,
)
from pipeline.report.render import FILTERS, render_json, render_report

TASKS = ("in_hospital_death", "los_over_7_days", "los_over_14_days", "sofa_10", "saps_18", "death_30d", "death_365d")
MODELS = ("tcn", "lstm", "gru", "gradient_boosting", "logistic_regression")
SETS = {  # name -> encoding, AUROC of the weakest model
    "full_data": ("raw", 0.835),
    "matched": ("raw", 0.805),
    "private": ("raw", 0.775),
    "centroids": ("raw", 0.785),
    "random_real_stays": ("raw", 0.665),
}


def _digest(name: str) -> str:
    return digest_bytes(name.encode())


def _scores() -> tuple[UtilityScore, ...]:
    rows = []
    for task_number, task in enumerate(TASKS):
        for name, (encoding, weakest) in SETS.items():
            for number, model in enumerate(MODELS):
                auroc = weakest + 0.008 * ((number * 2) % 5) - 0.012 * task_number
                values = {
                    "auroc": auroc,
                    "auprc": auroc - 0.36,
                    "brier": 0.93 - auroc,
                    "calibration_error": 0.86 - auroc,
                }
                for metric, value in values.items():
                    rows.append(
                        UtilityScore(
                            training_set=name,
                            input=encoding,
                            model=model,
                            task=task,
                            metric=metric,  # type: ignore[arg-type]
                            mean=value,
                            low=value - 0.03,
                            high=value + 0.03,
                            seed_sd=0.006,
                            n_seeds=5,
                            n_test=1600,
                            n_samples=5120 if name == "full_data" else 80,
                        )
                    )
    return tuple(rows)


def _attack(
    attack: str, threat_model: Any, statistic: str, figures: tuple[float, ...], summary: str, **other: Any
) -> AttackResult:
    rate, low, high, control, planted, ceiling = figures
    return AttackResult(
        attack=attack,
        threat_model=threat_model,
        artefact=other.get("artefact", "private"),
        statistic=statistic,
        rate=rate,
        low=low,
        high=high,
        n=400,
        control=control,
        positive_control=planted,
        ceiling=ceiling,
        gates=other.get("gates", True),
        summary=summary,
        controls_held=True,
        powered=True,
        held_back=False,
        p_value=None,
    )


def _leakage() -> tuple[LeakageReport, ...]:
    private = (
        _attack(
            "identifier_scan",
            "bytes",
            "count",
            (0, 0, 0, 0, 1.0, 0),
            "No identifier, date, key or seed was found in any released byte.",
        ),
        _attack(
            "near_copies",
            "T0",
            "auroc",
            (0.512, 0.471, 0.553, 0.5, 1.0, 0.56),
            "Samples lie no closer to training stays than to held-out ones.",
        ),
        _attack(
            "density_ratio_membership",
            "T6",
            "auroc",
            (0.507, 0.468, 0.546, 0.5, 0.973, 0.57),
            "Whether a stay was used cannot be told better than by chance.",
        ),
        _attack(
            "density_ratio_membership",
            "T6",
            "tpr_at_1pct_fpr",
            (0.015, 0.004, 0.038, 0.01, 0.81, 0.04),
            "At one false accusation in a hundred, 1.5 % of members are named.",
        ),
        _attack(
            "attribute_inference_sex",
            "T1",
            "auroc",
            (0.541, 0.499, 0.583, 0.538, 0.9, 0.6),
            "Sex is guessed no better than from population knowledge.",
        ),
        _attack(
            "distance_to_closest_record",
            "T1",
            "distance",
            (1.83, 1.7, 1.96, 1.81, 0.0, None),
            "Shown because others publish it; it decides nothing.",
            gates=False,
        ),  # type: ignore[arg-type]
    )
    encoded = (
        _attack(
            "nearest_neighbour_inverse",
            "T4",
            "r2",
            (0.988, 0.984, 0.991, 0.02, 0.999, 0.05),
            "Whoever holds the encoder rebuilds almost the whole record.",
            artefact="rqe",
        ),
        _attack(
            "distance_profile_linkage",
            "T1",
            "top1_accuracy",
            (0.02, 0.009, 0.039, 0.0025, 1.0, 0.05),
            "One encoded stay in fifty is linked to its patient.",
            artefact="rqe",
        ),
    )
    not_run = (
        NotRun("shadow_condensation", "T6", "private", "needs at least 16 condensations; this run allows 1"),
        NotRun("release_differencing", "T5", "private", "there is no earlier release to compare with"),
    )
    provenance = Provenance(stage="audit")
    return (
        LeakageReport("private", _digest("private"), private, not_run, True, provenance),
        LeakageReport("rqe", _digest("rqe"), encoded, (), True, provenance),
    )


def _trajectories() -> tuple[Trajectory, ...]:
    hours = tuple(float(hour) for hour in range(48))
    plots = []
    for name, unit, base in (
        ("HR", "bpm", 86.0),
        ("MAP", "mmHg", 79.0),
        ("Lactate", "mmol/L", 2.1),
        ("GCS", "", 11.3),
        ("Urine", "mL", 110.0),
        ("pH", "", 7.38),
    ):
        curves = {
            kind: {
                key: tuple(base * (1 + shift + 0.05 * int(key) + 0.02 * math.sin(hour / 5)) for hour in hours)
                for key in "01"
            }
            for kind, shift in (("real", 0.0), ("condensed", 0.012))
        }
        plots.append(
            Trajectory(name, unit, hours, curves["real"], curves["condensed"], "private", {"0": 4400, "1": 720})
        )
    return tuple(plots)


def sample_record() -> RunRecord:
    """A run as it may look on 8,000 stays; invented figures."""
    guarantee = PrivacyGuarantee(
        1.0,
        1e-6,
        "subject",
        "add-or-remove-one",
        "dp-accounting 0.6 (privacy loss distribution)",
        ({"name": "GaussianDpEvent", "noise_multiplier": 4.22},),
        ("variable list and plausible ranges", "task definitions", "number of samples per class"),
    )
    matrix = tuple(tuple(0.0 if i == j else 0.1 + 0.07 * abs(i - j) for j in range(7)) for i in range(7))
    coverage = {
        name: max(0.02, 0.99 - 0.035 * place)
        for place, name in enumerate(
            (
                "HR",
                "Temp",
                "GCS",
                "BUN",
                "Creatinine",
                "HCT",
                "Platelets",
                "WBC",
                "Na",
                "Mg",
                "HCO3",
                "K",
                "Urine",
                "SysABP",
                "DiasABP",
                "MAP",
                "NIMAP",
                "NISysABP",
                "NIDiasABP",
                "pH",
                "PaCO2",
                "PaO2",
                "FiO2",
                "MechVent",
                "SaO2",
                "Lactate",
                "Bilirubin",
                "ALP",
            )
        )
    }
    return RunRecord(
        name="icu-mortality-2026",
        created="2026-11-22",
        code_version="0.1.0",
        config_digest=_digest("config"),
        machine={
            "cpu": "x86_64, 2 cores",
            "memory_gib": 16,
            "python": "3.11.9",
            "libraries": {"torch": "2.12.0", "numpy": "2.3.1"},
            "gpu": None,
        },
        seed=7,
        site="St Elsewhere University Hospital",
        policy="strict",
        stages=tuple(
            StageRow(name, _digest(name), seconds, name == "ingest", summary)
            for name, seconds, summary in (
                ("ingest", 3.4, "8 000 stays, 37 variables, 48 hourly steps"),
                ("prepare", 1.2, "carry forward, public ranges, 44 channels"),
                ("encode rqe", 2.9, "random quantum encoding, 4 qubits, 2 layers"),
                ("condense private", 4.1, "private moments, 80 samples, one Gaussian release"),
                ("utility", 311.0, "5 models, 5 training sets, 5 seeds"),
                ("audit", 94.5, "8 results, 2 not run"),
                ("gate", 0.1, "policy strict"),
            )
        ),
        ingest=IngestReport(
            source="PhysioNet/CinC Challenge 2012, sets A and B",
            rows_read=3_462_101,
            rows_used=3_441_890,
            rows_dropped={"outside_plausible_range": 9_211, "after_window": 10_988, "unknown_variable": 12},
            dropped_by_variable={
                "pH": {"outside_plausible_range": 4},
                "Temp": {"outside_plausible_range": 611},
                "HR": {"outside_plausible_range": 8596},
            },
            stays=8_000,
            stays_without_series=7,
            coverage=coverage | {"Cholesterol": 0.0005},
            prevalence=dict.fromkeys(TASKS, 0.14) | {"sofa_10": 0.001},
            labels_missing=dict.fromkeys(TASKS, 0) | {"saps_18": 3, "death_30d": 212},
            notes=("3 stays have an implausible height, taken as missing", "1300 stays have no label"),
        ),
        contracts=(
            ContractResult(
                "cohort",
                "cohort",
                True,
                (
                    ExpectationOutcome("HR", "between 0 and 300", True, True, 0, 8000),
                    ExpectationOutcome("Weight", "at least 30 % observed", False, False, 4, 8000),
                ),
            ),
            ContractResult(
                "condensed", "private", True, (ExpectationOutcome("features", "finite", True, True, 0, 80),)
            ),
        ),
        encoders={
            "raw": {"kind": "identity", "public": True},
            "rqe": {
                "kind": "quantum",
                "n_qubits": 4,
                "n_layers": 2,
                "fingerprint": _digest("key")[:16],
                "public": True,
                "window": [4, 1],
            },
        },
        condensed=(
            CondensedSummary(
                "matched",
                "distribution_matching",
                "raw",
                80,
                168_960,
                None,
                False,
                True,
                212.0,
                tuple(8 * math.exp(-i / 12) + 0.1 for i in range(100)),
            ),
            CondensedSummary(
                "private",
                "private_moments",
                "raw",
                80,
                168_960,
                guarantee,
                False,
                False,
                4.1,
                tuple(1.4 - 0.5 * i / 60 for i in range(60)),
            ),
            CondensedSummary("centroids", "centroids", "raw", 80, 168_960, None, True, False, 1.7, ()),
        ),
        utility=UtilityReport(_scores(), 30, "patient bootstrap of the test stays, 1,000 draws, over 5 training seeds"),
        grouping=Grouping(
            TASKS,
            "samplewise_multihead",
            matrix,
            "label_hamming",
            matrix,
            0.93,
            (TASKS[:3], TASKS[3:]),
            (TASKS[:2], TASKS[2:]),
            0.4312,
            5120,
            ("No grouping is identifiable beyond what labels say.",),
        ),
        leakage=_leakage(),
        decision=GateDecision(
            "INCONCLUSIVE",
            "strict",
            _digest("policy"),
            (
                ("PASS", "An (ε, δ) guarantee per subject is present: ε 1 is within the allowed 2."),
                ("PASS", "Near copies: AUROC at most 0.553, allowed 0.60."),
                ("INCONCLUSIVE", "Shadow condensation did not run; the policy asks for it."),
            ),
        ),
        bundle_path=None,
        bundle_digest=None,
        trajectories=_trajectories(),
        release_artefact="private",
        terms=PolicyTerms(
            "strict",
            True,
            1,
            (
                LimitRow("private", "identifier_scan", "bytes", "count", 0, 0, "PASS"),
                LimitRow("private", "near_copies", "T0", "auroc", 0.553, 0.6, "PASS"),
                LimitRow("private", "density_ratio_membership", "T6", "auroc", 0.546, 0.6, "PASS"),
                LimitRow("private", "density_ratio_membership", "T6", "tpr_at_1pct_fpr", 0.038, 0.075, "PASS"),
                LimitRow("private", "attribute_inference_sex", "T1", "auroc", 0.583, None, "PASS"),
                LimitRow("rqe", "nearest_neighbour_inverse", "T4", "r2", 0.991, 0.2, "FAIL"),
            ),
        ),
        sample=DrawnSample((("HR", "bpm", (88.0, 91.0, 90.0)), ("pH", "", (7.38, 7.38, 7.38))), (0.0, 1.0, 2.0)),
        implausible_samples=55,
    )


@pytest.fixture(scope="module")
def record() -> RunRecord:
    return sample_record()


@pytest.fixture(scope="module")
def page(record: RunRecord) -> str:
    return render_report(record)


class _Outline(HTMLParser):
    """Collects tags, ids, links, headings and unclosed elements."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"stray </{tag}>"
        assert self.open.pop() == tag, f"</{tag}> closes another element"


class _Answers:
    """The text of the four answers on a page, by their CSS class."""

    def __init__(self, page: str) -> None:
        section = page.split('id="answers"')[1].split("</section>")[0]
        cells = re.split(r'<div class="(shared|worth|leaks|unknown)">', section)[1:]
        plain = [" ".join(html.unescape(re.sub(r"<[^>]+>", " ", cell)).split()) for cell in cells]
        self.text = dict(zip(plain[::2], plain[1::2], strict=True))


def test_the_first_screen_answers_the_four_questions(record: RunRecord) -> None:
    told = _Answers(render_report(dataclasses.replace(record, bundle_path="out/b"))).text
    assert list(told) == ["shared", "worth", "leaks", "unknown"]
    assert "80 synthetic series" in told["shared"]
    assert "epsilon 1, delta 1e-06, per patient" in told["shared"]
    assert "teaching vectors, not patients" in told["shared"]
    assert "55 of 80 samples hold a value outside its plausible clinical range" in told["shared"]
    assert "AUROC 0.78 to 0.81 95 % interval 0.74 to 0.84" in told["worth"]
    assert "Calibration error up to 0.08" in told["worth"]
    assert "4 of 4 limits held" in told["leaks"]
    # of what lies between chance and the limit, membership has used less than near copies
    assert "Nearest: near copies, AUROC at most 0.553, limit 0.600" in told["leaks"]
    assert "2 attacks did not run" in told["unknown"]
    assert "Shadow condensation, release differencing" in told["unknown"]


@pytest.mark.parametrize(("production", "waits"), [(True, False), (True, True), (False, False)])
def test_a_pass_never_stands_without_its_condition(record: RunRecord, production: bool, waits: bool) -> None:
    assert record.terms is not None
    terms = dataclasses.replace(record.terms, production=production)
    decision = GateDecision("PASS", "strict", "0" * 64, (("PASS", "a reason"),))
    page = render_report(
        dataclasses.replace(record, terms=terms, decision=decision, bundle_path="b", awaits_approval=waits)
    )
    headline = page.split('id="verdict-h"')[1].split("</h2>")[0]
    assert ("not for production" in headline) is not production
    assert ("once another person approves" in headline) is waits
    asked = page.split('id="asked"')[1].split("</section>")[0]
    assert ("decoct release approve b --key APPROVER.key" in asked) is waits


def test_the_limit_is_drawn_in_every_strip_that_has_one(record: RunRecord, page: str) -> None:
    section = page.split('id="leakage"')[1].split("</section>")[0]
    assert section.count('class="bound"') == 1 + 3 + 1  # the key; near copies, membership twice; the inversion of rqe
    assert "The policy&#39;s limit is 0.6." in section
    assert record.terms is not None


def test_a_set_without_a_drawn_sample_says_nothing_of_one(record: RunRecord) -> None:
    assert "One sample, drawn" not in render_report(dataclasses.replace(record, sample=None))


def test_the_page_reaches_for_nothing(page: str) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert not re.search(r"https?://", page.replace("http://www.w3.org/2000/svg", ""))
    assert not re.search(r"<script|<link|<img|<iframe|<object|<form|url\(|@import|\son\w+=", page)


def test_the_page_is_well_formed_and_its_anchors_meet(page: str) -> None:
    outline = _Outline(page)
    assert outline.open == []
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {str(attrs["href"])[1:] for tag, attrs in outline.tags if tag == "a"}
    referred = {name for _, attrs in outline.tags for name in str(attrs.get("aria-labelledby") or "").split()}
    assert targets | referred <= set(ids)


def test_a_reader_who_does_not_see_is_served(page: str) -> None:
    outline = _Outline(page)
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    tables = page.split("<table")[1:]
    assert len(tables) > 8
    assert all("<caption>" in table.split("</table>")[0] for table in tables)
    for tag, attrs in outline.tags:
        if tag == "svg" and attrs.get("role") == "img":
            assert attrs["aria-labelledby"]
    assert page.count('role="img"') == page.count("<desc ") > 15


def test_the_same_record_gives_the_same_bytes(record: RunRecord, page: str) -> None:
    assert render_report(sample_record()) == page
    assert render_json(json.loads(canonical_json(record_json(record)))) == page


def test_sections_stand_in_the_order_of_reading(page: str) -> None:
    order = (
        *("verdict", "answers", "asked", "leaves", "not-tested", "gate"),
        *("utility", "privacy", "leakage", "terms", "data"),
        *("contracts", "encoders"),
        *("condensed", "trajectories", "losses", "grouping", "stages", "limits", "glossary"),
    )
    found = re.findall(r'<section[^>]* id="([a-z-]+)"', page)
    assert tuple(found) == order


@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_the_verdict_is_said_in_words(record: RunRecord, verdict: Any) -> None:
    decided = dataclasses.replace(record, decision=GateDecision(verdict, "strict", "0" * 64, ((verdict, "a reason"),)))
    page = render_report(decided)
    meaning = "may leave the site" if verdict == "PASS" else "must not leave the site"
    assert re.search(rf'<span class="word">{verdict}</span>: {meaning}', page)


def test_nothing_leaves_without_a_bundle(record: RunRecord, page: str) -> None:
    assert "<strong>Nothing.</strong> No bundle was written" in page
    released = dataclasses.replace(record, bundle_path="out/bundle", bundle_digest="ab" * 32)
    assert "ab" * 32 in render_report(released)
    assert "No bundle was written" not in render_report(released)


def test_small_cells_are_suppressed_in_page_and_json_alike(record: RunRecord, page: str) -> None:
    ingest = record_json(record)["ingest"]
    assert ingest["stays_without_series"] == "<10"
    assert ingest["labels_missing"]["saps_18"] == "<10"
    assert ingest["labels_missing"]["death_30d"] == 212
    assert ingest["labels_missing"]["in_hospital_death"] == 0
    assert ingest["prevalence"]["sofa_10"] == "<10"  # 8 of 8,000
    assert ingest["prevalence"]["in_hospital_death"] == 0.14
    assert ingest["coverage"]["Cholesterol"] == "<10"  # 4 of 8,000
    assert ingest["notes"] == ["<10 stays have an implausible height, taken as missing", "1300 stays have no label"]
    assert record_json(record)["contracts"][0]["outcomes"][1]["unexpected_count"] == "<10"
    assert re.search(r"sofa_<wbr>10</th><td class=\"right\">&lt;10</td>", page)


def test_no_share_is_exact_enough_to_tell_its_denominator(record: RunRecord) -> None:
    # 67 of 292 known labels: the exact fraction would give away that 8 of 300 are missing.
    ingest = dataclasses.replace(record.ingest, stays=300, prevalence={"t": 67 / 292}, labels_missing={"t": 8})
    assert record_json(dataclasses.replace(record, ingest=ingest))["ingest"]["prevalence"] == {"t": 0.229}


def test_a_lone_small_cell_takes_a_neighbour_with_it(record: RunRecord) -> None:
    # The exact total by reason is shown (9,211), so 9,211 - 611 - 8,596 would give the hidden 4 away.
    drops = record_json(record)["ingest"]["dropped_by_variable"]
    assert drops["pH"] == {"outside_plausible_range": "<10"}
    assert drops["Temp"] == {"outside_plausible_range": "withheld"}
    assert drops["HR"] == {"outside_plausible_range": 8596}


def test_a_small_class_is_not_drawn(record: RunRecord) -> None:
    small = dataclasses.replace(record.trajectories[0], real_counts={"0": 40, "1": 9})
    data = record_json(dataclasses.replace(record, trajectories=(small,)))
    assert set(data["trajectories"][0]["real_means"]) == {"0"}
    assert "fewer than ten real stays" in render_json(data)


def test_hostile_names_stay_text(record: RunRecord) -> None:
    evil = "<script>alert('x')</script>\"><b onload=1>"
    hostile = dataclasses.replace(
        record,
        site=evil,
        name=evil,
        release_artefact=evil,
        bundle_path=evil,
        encoders={evil: {evil: evil}},
        condensed=tuple(dataclasses.replace(item, name=evil, method=evil) for item in record.condensed),
        utility=dataclasses.replace(
            record.utility,
            scores=tuple(
                dataclasses.replace(row, training_set=evil, model=evil, task=evil) for row in record.utility.scores[:3]
            ),
        ),
        trajectories=(dataclasses.replace(record.trajectories[0], variable=evil, unit=evil),),
        sample=DrawnSample(((evil, evil, (1.0, 2.0)),), (0.0, 1.0)),
        terms=None if record.terms is None else dataclasses.replace(record.terms, name=evil),
        grouping=dataclasses.replace(record.grouping, tasks=(evil,) * 7) if record.grouping else None,
        machine={evil: evil},
    )
    page = render_report(hostile)
    assert "<script" not in page
    assert "<b onload" not in page
    assert html.escape(evil) in page or "&lt;script&gt;" in page
    assert _Outline(page).open == []


def test_words_that_promise_too_much_are_absent(page: str) -> None:
    assert not re.search(r"anonym|irreversib|complian|\bsafe", page, re.IGNORECASE)


def test_what_was_not_tested_is_named(page: str) -> None:
    section = page.split('id="not-tested"')[1].split("</section>")[0]
    assert "there is no earlier release to compare with" in section
    # Neither a result nor a reason for the judged artefact (another's do not count); T5 has a reason.
    assert re.findall(r"<li><strong>(T\d)</strong>", section) == ["T2", "T7"]


def test_an_attacker_who_cannot_exist_is_not_a_gap(record: RunRecord, page: str) -> None:
    # The judged set is not encoded: nobody holds pairs of it or its encoder. T1 has a result in this audit.
    section = page.split('id="not-tested"')[1].split("</section>")[0]
    assert "Not applicable: T3, T4. private is not encoded" in section
    assert "T3" not in _Answers(page).text["unknown"]
    encoded = dataclasses.replace(record, release_kind="encoded", release_artefact="rqe")
    assert "Not applicable" not in render_report(encoded)


def test_a_policy_file_is_named_without_its_path(record: RunRecord) -> None:
    page = render_report(dataclasses.replace(record, policy="/srv/site/own.toml", decision=None))
    assert "policy own judged" in page


def test_figures_of_one_interval_have_equal_digits() -> None:
    figures = [FILTERS["figure"](value, "excess_risk") for value in (-0.000767, -0.0002, 0.03, None, "<10")]
    assert figures == ["-0.001", "0.000", "0.030", "–", "<10"]


def test_counts_are_whole_and_their_planted_control_is_a_share(page: str) -> None:
    row = page.split("identifier scan")[1].split("</tr>")[0]
    assert "<span>0<" in row
    assert "<span>100\u202f%</span>" in row


def test_a_result_that_cannot_tell_says_so(record: RunRecord) -> None:
    private = record.leakage[0]
    section = render_report(record).split('id="leakage"')[1].split("</section>")[0]
    assert "too few to tell" not in section
    assert "control failed" not in section
    weak = dataclasses.replace(private.results[0], powered=False, controls_held=False)
    changed = dataclasses.replace(record, leakage=(dataclasses.replace(private, results=(weak,)),))
    section = render_report(changed).split('id="leakage"')[1].split("</section>")[0]
    assert "too few to tell" in section
    assert "control failed" in section


def test_gaps_of_what_was_not_judged_are_told_together(record: RunRecord) -> None:
    missing = tuple(NotRun("key_enumeration", "T4", name, "not implemented") for name in ("rqe", "rp"))
    byte_scan = NotRun("identifier_scan", "bytes", "private", "no bytes were given")
    private, rqe = record.leakage
    reports = (
        dataclasses.replace(private, results=private.results[1:], not_run=(byte_scan,)),
        *(dataclasses.replace(rqe, artefact=gap.artefact, not_run=(gap,)) for gap in missing),
    )
    section = render_report(dataclasses.replace(record, leakage=reports)).split('id="not-tested"')[1]
    assert "key enumeration</strong> (T4) on rqe, rp: not implemented" in section
    assert "1 attack did not run" in section
    # Once the bundle's bytes were scanned, that the artefact alone was not scanned is no gap.
    scan = dataclasses.replace(private, artefact="bundle", results=private.results[:1], not_run=())
    section = render_report(dataclasses.replace(record, leakage=(*reports, scan))).split('id="not-tested"')[1]
    assert "Every attack of the audit ran on private" in section


def test_the_guarantee_is_put_in_words(page: str) -> None:
    section = page.split('id="privacy"')[1].split("</section>")[0]
    assert "factor of at most 2.72" in section  # e
    assert "73.2\u202f%" in section  # e / (1 + e), upwards: a bound is never rounded below itself
    assert "2.8\u202f%" in section  # e x 1 % + 1e-6
    assert "variable list and plausible ranges" in section


def test_the_worst_model_and_the_kept_skill_are_right(page: str) -> None:
    # Weakest model of every row is the first (offset 0): 0.775 for the judged set. Mean offset over models is 0.016,
    # so skill kept is (0.775 + 0.016 - 0.5) / (0.835 + 0.016 - 0.5) = 82.9 %.
    assert "AUROC is 0.775 at worst (tcn, [0.745, 0.805]) to 0.807 at best (gru); on all real" in page
    assert "<td>83\u202f%</td>" in page


def test_a_bare_run_still_renders(record: RunRecord) -> None:
    bare = dataclasses.replace(
        record,
        stages=(),
        contracts=(),
        encoders={},
        condensed=(),
        utility=UtilityReport((), 0, ""),
        grouping=None,
        leakage=(),
        decision=None,
        trajectories=(),
        release_artefact="",
        machine={},
    )
    page = render_report(bare)
    assert "NOT JUDGED" in page
    assert "Silence is not a pass" in page
    assert "No artefact of this run carries a mathematical guarantee" in page
    assert _Outline(page).open == []


def test_the_judged_artefact_comes_first_and_others_are_folded_away(record: RunRecord) -> None:
    page = render_report(dataclasses.replace(record, leakage=record.leakage[::-1]))
    section = page.split('id="leakage"')[1].split("</section>")[0]
    assert (
        section.index("Attacks on private")
        < section.index("<details><summary>rqe: 2 results")
        < section.index("Attacks on rqe")
    )
    unjudged = render_report(dataclasses.replace(record, release_artefact="")).split('id="leakage"')[1]
    assert "<details>" not in unjudged.split("</section>")[0]


def test_the_scan_of_the_bundle_counts_for_what_was_judged(record: RunRecord) -> None:
    private = record.leakage[0]
    scan = dataclasses.replace(private, artefact="bundle", results=private.results[:1], not_run=())
    rest = dataclasses.replace(private, results=private.results[1:])
    page = render_report(dataclasses.replace(record, leakage=(rest, scan)))
    assert "<strong>bytes</strong>" not in page
    assert "<strong>bytes</strong>" in render_report(dataclasses.replace(record, leakage=(rest,)))


@pytest.mark.parametrize("kind", ["encoded", "moments"])
def test_other_kinds_of_release_say_what_they_are(record: RunRecord, kind: Any) -> None:
    page = render_report(dataclasses.replace(record, release_kind=kind, release_artefact="rqe", bundle_path="b"))
    assert ("still a row per person" if kind == "encoded" else "noisy sums over all training stays") in page


def test_not_a_number_is_shown_as_missing(record: RunRecord) -> None:
    broken = dataclasses.replace(record.leakage[0].results[0], rate=math.nan, low=math.nan, high=math.inf, control=None)
    odd = dataclasses.replace(record, leakage=(dataclasses.replace(record.leakage[0], results=(broken,)),))
    assert not re.search(r"\b(nan|inf)\b", render_report(odd).split("<main")[1])
    canonical_json(record_json(odd))  # raises on NaN


def test_a_page_on_real_stays_holds_no_id_of_theirs(record: RunRecord) -> None:
    tables = read_source("embedded", sets=("a",), max_stays=300)
    split = np.arange(300, dtype=np.int8) % 3
    cohort, ingest = build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, split=split)
    page = render_report(dataclasses.replace(record, ingest=ingest))
    assert "300 intensive-care stays" in page
    assert "PhysioNet 2012, set A" in page
    numbers = set(re.findall(r"\d+", page))
    assert len(cohort.stay_ids) == 300
    assert not numbers & set(cohort.stay_ids.tolist())


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(_chromium() is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_overflows_sideways(page: str, width: int, tmp_path: Path) -> None:
    """A frame of the given width loads the page and reports its scroll width; Chromium prints the outcome as DOM."""
    (tmp_path / "page.html").write_text(page.replace("<main", "<main data-loaded", 1), encoding="utf-8")
    probe = (
        f'<iframe id=f src="page.html" style="width:{width}px;height:900px;border:0"></iframe><p id=out>waiting</p>'
        "<script>f.onload=()=>{const d=f.contentDocument.documentElement;"
        "out.textContent='width '+d.clientWidth+' needs '+d.scrollWidth+' loaded '"
        "+d.querySelectorAll('main').length}</script>"
    )
    (tmp_path / "probe.html").write_text(f"<!doctype html>{probe}", encoding="utf-8")
    chromium = _chromium()
    assert chromium is not None
    outcome = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1600,1000",
            "--virtual-time-budget=3000",
            "--dump-dom",
            (tmp_path / "probe.html").as_uri(),
        ],
        env={**os.environ, "HOME": str(tmp_path)},  # it writes there whatever its profile says
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    measured = re.search(r"width (\d+) needs (\d+) loaded 1", outcome.stdout)
    assert measured, outcome.stdout[-300:] + outcome.stderr[-300:]
    client, needed = int(measured[1]), int(measured[2])
    assert client > width - 30  # less a scroll bar
    assert needed <= client


def test_each_attacker_gets_a_sentence_and_shown_curves_are_about_ten_or_more(record: RunRecord) -> None:
    report = record.leakage[0]
    roc = {"fpr": [0.001, 0.02, 0.1, 1.0], "tpr": [0.4, 0.5, 0.6, 1.0]}
    detail = {"roc": roc, "n_others": 500, "r2_by_channel": {"heart_rate": 0.97, "lactate": 0.4}}
    row = dataclasses.replace(report.results[0], detail=detail)
    page = render_report(dataclasses.replace(record, leakage=(dataclasses.replace(report, results=(row,)),)))
    assert "What each attacker reaches" in page
    assert "heart_rate is recovered best (R² 0.97) and lactate worst (R² 0.40)" in page
    assert "at 0.02 false alarms 0.5 of the members" in page
    assert "at 0.001 false alarms" not in page  # half a stranger
    assert "WP216" in page
    assert not re.search(r"\banonym", page, re.IGNORECASE)
