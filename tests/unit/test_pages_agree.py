"""The pages of one run tell the same counts and bounds: terminal, report, card, Croissant and watch page.

Each page is rendered from the recorded demo; nothing is computed again.
"""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from sample_pages import NOW, judged, pages_of, shared_set, workspace_of

from flows.cli.ending import Places, ending
from flows.watch.page import gather
from pipeline.core.codec import from_plain
from pipeline.core.types import LeakageReport
from pipeline.core.wording import guarantee_words
from pipeline.report.leakage import limits_held, limits_of, missed_attacks
from pipeline.report.render import render_json
from pipeline.report.watch import watch_page
from pipeline.sharing.policy.load import load_policy

POLICIES = ("demo", "strict")  # a demo run, and a site's, which ends in a proposal
RECORD: dict[str, Any] = judged("demo")
SET = shared_set()
BOUNDS = {"card": "within the limit", "card.md": "| within the limit", "croissant": "within the limit; limit"}
EPSILON = re.compile(r"(?:epsilon|ε)\s*(?:=\s*)?[0-9][0-9.]*")
DELTA = re.compile(r"delta|δ")


@pytest.fixture(scope="module", params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pages(policy: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The words of every page of the recorded run, each on one line."""
    made = pages_of(policy, tmp_path_factory.mktemp("pages") / "w")
    assert set(made) == {"terminal", "report", "card", "card.md", "croissant", "watch"}
    return {name: _words(page) for name, page in made.items()}


def _words(page: str) -> str:
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\\", "").split())


def test_every_page_has_the_same_limits(policy: str, pages: dict[str, str]) -> None:
    found = limits_held(limits_of(judged(policy)["terms"], "private"))
    told = f"{found['held']} of {found['limited']} limits held"
    for name in ("terminal", "report", "watch"):
        assert re.findall(r"\d+ of \d+ limits held", pages[name]) == [told], name
    # beside a guarantee nothing that leaves depends on what was found: the policy's own limits, each of them
    bounds = {page: pages[page].count(words) for page, words in BOUNDS.items()}
    assert len(set(bounds.values())) == 1, bounds
    assert bounds["card"] >= len(load_policy(policy).limits)
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
    said = (r"calibration error up to 0\.\d\d", r"AUROC 0\.\d\d(?: to 0\.\d\d)?")
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


def test_every_page_says_whether_the_policy_is_for_production(policy: str, pages: dict[str, str]) -> None:
    is_trial = not load_policy(policy).production
    for name in ("terminal", "report", "card", "card.md"):
        assert bool(re.search("not for production", pages[name], re.IGNORECASE)) is is_trial, name


def test_who_is_asked_for_what_is_the_same_on_the_first_screen_and_in_the_terminal(
    policy: str, pages: dict[str, str]
) -> None:
    asks_another = load_policy(policy).approvals > 0
    for name in ("terminal", "report"):
        assert ("decoct release approve" in pages[name]) is asks_another, name
        assert ("decoct verify" in pages["terminal"]) is not asks_another


def test_what_the_guarantee_allows_is_one_figure(pages: dict[str, str]) -> None:
    said = guarantee_words({"epsilon": 1.0, "delta": 1e-6, "unit": "stay"})
    assert said["found"] == "2.8"  # 2.718 found upwards: "at most" is never below the bound
    for name, words in (("report", "{found}\u202f% of those inside"), ("card", "finds at most {found} of 100 members")):
        assert words.format(**said).replace("\u202f", " ") in pages[name].replace("\u202f", " ")
        assert f"factor of at most {said['factor']}" in pages[name]


def test_an_encoding_that_a_policy_accepts_at_any_value_is_said_to_be_rebuilt(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A site's run under an agreement: no limit holds anything back, and the attacks rebuild the series."""
    shown = {**judged("agreement"), "release_kind": "encoded", "release_artefact": "rqe"}
    reports = from_plain(tuple[LeakageReport, ...], shown["leakage"])
    place = workspace_of(tmp_path_factory.mktemp("encoded") / "w", list(reports[:1]), "agreement", encoded="rqe")
    made = {
        "terminal": _words("\n".join(ending(shown, Places("report.html", "bundle", "root.json", is_demo=False)))),
        "report": _words(render_json(shown)),
        "watch": _words(watch_page(gather(place, now=NOW))),
    }
    bound = max(row.high for row in reports[0].results if row.statistic == "r2")
    missed = missed_attacks(shown)
    for name, text in made.items():
        assert "o figure has a limit" in text, name
        assert f"ttacks rebuild its series (R2 up to {bound:.2f})" in text, name
        assert "of 0 limits" not in text, name
    for name in ("terminal", "report"):
        assert set(re.findall(r"(\d+) attacks? did not run", made[name])) == {str(len(missed))}, name
    # an attack with more and more known pairs counts by its worst figure, on the watch page as at the gate
    worst = max(row.high for row in reports[0].results if row.attack == "aligned_pairs")
    (row,) = re.findall(r"aligned pairs: R² of reconstruction [\d.]+ \[[\d.]+, ([\d.]+)\]", made["watch"])
    assert row == f"{float(f'{worst:.3g}'):.3f}"


def test_nothing_shared_shows_no_sample_and_keeps_all_at_the_site() -> None:
    shown = {**judged("demo"), "bundle_path": None, "bundle_digest": None}
    page, terminal = render_json(shown), "\n".join(ending(shown, Places("r", "", "root.json", is_demo=False)))
    assert "One sample, drawn" not in page
    assert "kept at the site: rqe, rp, private" in " ".join(terminal.split())
