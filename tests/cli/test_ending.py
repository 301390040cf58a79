"""The end of a run: one screen, from the record alone, with the report's own figures and never a bare PASS."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.cli.ending import MAX_LINES, WIDTH, Places, coloured, ending
from flows.cli.main import app
from flows.stages.report import policy_terms
from pipeline.core.codec import from_plain, to_plain
from pipeline.core.types import LeakageReport
from pipeline.report.leakage import missed_attacks
from pipeline.report.utility import utility_view
from pipeline.sharing.policy.load import load_policy, shipped_policies

ROOT = Path(__file__).parents[2]
RECORD: dict[str, Any] = json.loads((Path(__file__).parent / "recorded_demo.json").read_text(encoding="utf-8"))
DEMO = Places(
    report="decoct-demo/runs/demo/report.html",
    bundle="decoct-demo/releases/demo-private-v1",
    root="decoct-demo/trust/root.json",
    is_demo=True,
)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-_", min_size=1, max_size=80)


def shown(record: dict[str, Any] = RECORD, places: Places = DEMO) -> str:
    return "\n".join(ending(record, places))


def under(policy: str, **other: Any) -> dict[str, Any]:
    """The recorded run as another policy judges it."""
    reports = from_plain(tuple[LeakageReport, ...], RECORD["leakage"])
    return {**copy.deepcopy(RECORD), "terms": to_plain(policy_terms(policy, reports)), **other}


def test_the_readme_shows_exactly_what_the_recorded_demo_prints() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\n```text\n{shown()}\n```\n" in readme


def test_every_figure_is_the_records() -> None:
    text = " ".join(shown().split())
    main = [row for row in RECORD["utility"]["scores"] if row["task"] == "in_hospital_death"]
    for name in ("private", "full_data", "random_real_stays"):
        means = [row["mean"] for row in main if (row["training_set"], row["metric"]) == (name, "auroc")]
        low, high = f"{min(means):.2f}", f"{max(means):.2f}"
        assert (low if low == high else f"{low} to {high}") in text
    errors = [r["mean"] for r in main if (r["training_set"], r["metric"]) == ("private", "calibration_error")]
    assert f"calibration error up to {max(errors):.2f}" in text
    assert f"on {utility_view(RECORD)['n_test'][0]:,} held-out real stays" in text
    private = next(item for item in RECORD["condensed"] if item["name"] == "private")
    assert f"{private['n_samples']} synthetic series" in text
    assert f"epsilon {private['guarantee']['epsilon']:g}, delta {private['guarantee']['delta']:g}, per stay" in text
    judged = [reason for _, reason in RECORD["decision"]["reasons"] if reason.startswith("attack ")]
    limited = [reason for reason in judged if "within the limit" in reason]
    assert f"{len(limited)} of {len(limited)} limits held" in text
    assert f"{len(missed_attacks(RECORD))} attacks did not run" in text


def test_the_nearest_limit_is_the_one_with_the_least_room_left() -> None:
    record = copy.deepcopy(RECORD)
    rows = [item for item in record["terms"]["limits"] if item["artefact"] == "private"]
    row = next(item for item in rows if (item["attack"], item["statistic"]) == ("inference", "excess_risk"))
    row["high"] = 0.19
    assert "nearest: inference" in shown(record)
    assert "at most 0.190, limit 0.200" in " ".join(shown(record).split())
    held = int(re.findall(r"(\d+) of \1 limits held", shown(record))[0])
    row |= {"high": 0.31, "verdict": "FAIL"}
    assert f"{held - 1} of {held} limits held" in shown(record)
    assert "not held: inference" in shown(record)


@settings(deadline=None, max_examples=150)
@given(
    artefacts=st.lists(NAMES, min_size=0, max_size=30, unique=True),
    names=st.tuples(NAMES, NAMES),
    verdict=st.sampled_from(["PASS", "FAIL", "INCONCLUSIVE"]),
    kind=st.sampled_from(["condensed", "encoded", "moments"]),
    policy=st.sampled_from(shipped_policies()),
    proposal=st.booleans(),
    missed=st.lists(NAMES, max_size=20),
)
def test_one_screen_whatever_the_run_holds(
    artefacts: list[str],
    names: tuple[str, str],
    verdict: str,
    kind: str,
    policy: str,
    proposal: bool,
    missed: list[str],
) -> None:
    record = under(policy, awaits_approval=proposal and verdict == "PASS")
    record["decision"]["verdict"] = verdict
    record["release_kind"] = kind
    for row in record["utility"]["scores"]:
        row["task"] = names[0]
    aside = next(item for item in record["leakage"] if item["artefact"] == "rqe")
    record["leakage"] += [{**aside, "artefact": f"x{name}"} for name in artefacts]
    judged = next(item for item in record["leakage"] if item["artefact"] == "private")
    judged["not_run"] += [{**judged["not_run"][0], "attack": name[:30]} for name in missed]
    # what fits beside "decoct release approve"; a longer path may be as wide as it is
    bundle = None if verdict != "PASS" else f"releases/{names[1]}"[:45]
    record["bundle_path"] = bundle
    lines = ending(record, dataclasses.replace(DEMO, bundle=bundle))
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= WIDTH
    (said,) = [line for line in lines if line.startswith(verdict)]
    everything = " ".join(" ".join(lines).split())
    assert ("not for production" in everything) is not load_policy(policy).production
    if verdict != "PASS":
        assert "must not leave the site" in " ".join(everything.split())
        assert "decoct verify" not in everything
        assert "SHARED    nothing" in "\n".join(lines)
    else:
        assert "may leave the site" in said


def test_a_proposal_is_approved_by_somebody_else_before_it_is_published() -> None:
    places = dataclasses.replace(DEMO, bundle="w/proposals/a-private-v1", is_demo=False)
    text = shown(under("strict", awaits_approval=True), places)
    assert "may leave the site once" in text
    assert "decoct release approve w/proposals/a-private-v1 \\" in text
    assert "decoct release publish w/proposals/a-private-v1" in text
    assert "config init" not in text


def test_a_command_with_odd_paths_in_it_can_be_pasted() -> None:
    places = dataclasses.replace(DEMO, bundle="my work/releases/a-v1", root="my work/it's root.json")
    command = shown(places=places).split("receive ")[1].partition("your data")[0].replace("\\\n", "")
    assert shlex.split(command) == [*("decoct", "verify", "my work/releases/a-v1", "--root", "my work/it's root.json")]
    without = shown(places=dataclasses.replace(DEMO, root=None))
    assert "--root TRUST_ROOT    (make one: decoct trust init)" in without


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("verdict", "colour"), [("PASS", "32"), ("FAIL", "31"), ("INCONCLUSIVE", "33")])
def test_the_verdict_has_its_colour_on_a_terminal_alone(verdict: str, colour: str) -> None:
    lines = ["LEAKS     PASS", f"{verdict}      and its condition"]
    assert coloured(lines, Terminal(), {}) == [lines[0], f"\x1b[1;{colour}m{verdict}\x1b[0m      and its condition"]
    assert coloured(lines, io.StringIO(), {}) == lines
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert coloured(lines, Terminal(), plain) == lines


def test_what_the_end_tells_the_reader_to_type_is_a_command() -> None:
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    groups = {group.name for group in app.registered_groups}
    for line in shown().splitlines():
        if "decoct " in line and not line.startswith("look"):
            assert line.split("decoct ")[1].split()[0] in known | groups
