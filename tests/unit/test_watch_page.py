"""The watch page: what the nights came to, in aggregates; nothing of patients, keys or places; no network."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.watch.page import FIGURES, PAGE, clean, gather, watched, write_watch
from flows.watch.releases import COMPOSED, budget_spent, releases
from flows.workspace.logs import logged
from pipeline.audit.history import FILE_NAME, open_history
from pipeline.core.config import parse_config
from pipeline.core.errors import DataError, UsageError
from pipeline.core.keys.secrets import Secret, write_secret
from pipeline.core.types import AttackResult, LeakageReport, NotRun, Provenance, UtilityReport, UtilityScore
from pipeline.core.types.drift import DriftReport, DriftRow
from pipeline.report.watch import watch_page
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger import People, reserve
from pipeline.sharing.trust.log import append_log
from pipeline.store import Made, Store

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
IDS = tuple(f"patient-{number}" for number in range(300))
CONFIG: dict[str, Any] = {
    "name": "nightly",
    "source": {"kind": "embedded"},
    "encode": {"raw": {"kind": "identity"}},
    "condense": {"private": {"kind": "private_moments"}},
    "release": {"artefact": "private", "policy": "demo", "licence": "CC0-1.0"},
    "utility": {"floor_auroc": 0.7},
}


def figure(statistic: str, rate: float, n: int, attack: str = "density_membership") -> AttackResult:
    wide = 0.0 if statistic == "count" else 0.02
    return AttackResult(
        attack,
        "T6",
        "private",
        statistic,
        rate,
        rate - wide,
        rate + wide,
        n,
        None,
        1.0,
        1.0,
        True,
        "s",
        True,
        True,
        False,
        None,
    )


def audit(rate: float, copies: int = 0, n: int = 900) -> LeakageReport:
    results = (figure("auroc", rate, n), figure("count", copies, 80, "near_copies"))
    gap = NotRun("model_membership", "T6", "private", "no model")
    return LeakageReport("private", "a" * 64, results, (gap,), True, Provenance("audit"))


def score(training_set: str, mean: float, n_test: int = 1600) -> UtilityScore:
    return UtilityScore(
        training_set, "raw", "logistic_regression", "death", "auroc", mean, mean - 0.03, mean + 0.03, 0.0, 1, n_test, 80
    )


def drift_report(n_now: int = 900) -> DriftReport:
    row = DriftRow("all", "value", "lactate", 0.24, 0.05, 900, n_now, "warn")
    quiet = dataclasses.replace(row, item="HR", effect=0.01, level="none")
    return DriftReport("private v1", 900, 950, 60, 10, (row, quiet), "warn", "", (), Provenance("drift"))


@pytest.fixture
def workspace(tmp_path: Path, made_once: Path) -> Path:
    """A copy of the workspace for each test."""
    return shutil.copytree(made_once, tmp_path / "hospital-share" / "decoct-work")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four nights, two releases, one proposal, a ledger, keys; as the flow leaves them."""
    place = tmp_path_factory.mktemp("made") / "hospital-share" / "decoct-work"
    run = place / "runs" / "nightly"
    run.mkdir(parents=True)
    config = parse_config(CONFIG | {"workspace": str(place)}, "the test's configuration", place)
    (run / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    store, history = Store(place / "store"), open_history(place / FILE_NAME)
    nights = []
    for number in range(4):
        at = NOW - timedelta(days=4 - number)
        utility = store.put(UtilityReport((score("private", 0.78 + number / 100), score("full_data", 0.86)), 30, "x"))
        drift = store.put(drift_report())
        history.record([audit(0.52 + number / 50)], name="nightly", source="run", now=at)
        failed = number == 3
        nights.append(
            {
                "night": f"night-{number}",
                "run": "nightly",
                "started": at.isoformat(),
                "ended": (at + timedelta(minutes=12)).isoformat(),
                "state": "failed" if failed else "released",
                "exit_code": 11 if failed else 0,
                "sentence": f"{place}/keys/encoder.key <b>is</b> open and 3 stays have no time" if failed else "",
                "digests": {"utility": [utility], "drift": [drift]},
                "seconds": {"ingest": 1.0},
                "release": None if failed else "private",
                "version": None if failed else number + 1,
                "subject": "patient-17",
            }
        )
    (place / "nights").mkdir()
    (place / "nights" / "nights.jsonl").write_text("".join(json.dumps(line) + "\n" for line in nights) + '{"cut')
    bundle(place, "proposals", 3, "2026-11-19", "2027-11-19")
    bundle(place, "releases", 2, "2026-11-18", "2027-11-18")
    bundle(place, "releases", 1, "2024-11-17", "2025-11-17")
    write_secret(place / "keys" / "encoder.key", Secret(bytes(range(32)), "encoder"))
    events = [{"event": "GaussianDpEvent", "noise_multiplier": 5.0}]
    reserve(place, "q1", events, People(IDS, "subject"), Budget(3.0, 1e-5, 365), "house")
    reserve(place, "q2", events, People(IDS[:4], "subject"), Budget(3.0, 1e-5, 365), "house")
    return place


def bundle(place: Path, folder: str, version: int, issued: str, expires: str) -> None:
    target = place / folder / f"site-private-v{version}"
    target.mkdir(parents=True)
    told = {"site": "site", "name": "private", "version": version, "issued": issued, "expires": expires}
    (target / "manifest.json").write_text(json.dumps(told | {"policy": {"name": "demo"}}))


def test_every_part_is_there(workspace: Path) -> None:
    data = gather(workspace, now=NOW)
    assert data["unread"] == []
    assert [row["state"] for row in data["nights"]] == ["failed", "released", "released", "released"]
    assert data["nights"][0]["seconds"] == 720
    assert data["nights"][1]["release"] == "private v3"
    assert [(row["version"], row["state"]) for row in data["releases"]] == [
        (3, "proposed"),
        (2, "published"),
        (1, "expired"),
    ]
    (auroc, copies) = data["audit"]
    assert (auroc["statistic"], auroc["limit"], auroc["judged"]) == ("auroc", 0.6, True)
    assert [point["high"] for point in auroc["points"]] == [0.54, 0.56, 0.58, 0.6]
    assert copies["limit"] == 0
    (utility,) = data["utility"]
    assert [point["released"]["mean"] for point in utility["points"]] == [0.78, 0.79, 0.8, 0.81]
    assert utility["floor"] == 0.7
    assert [row["level"] for row in data["drift"]] == ["warn"] * 4
    assert data["drift"][0]["levels"] == {"none": 1, "note": 0, "warn": 1, "stop": 0}
    first, _ = data["ledger"]["cohorts"]
    assert first["people"] == 300
    assert first["epsilon"] + first["left"] == pytest.approx(3.0, abs=1e-3)


def test_nothing_of_patients_keys_or_places_is_on_it(workspace: Path) -> None:
    write_watch(workspace, now=NOW)
    for name in (PAGE, FIGURES):
        text = (workspace / "watch" / name).read_text(encoding="utf-8")
        assert "patient-" not in text
        assert "hospital-share" not in text
        assert Secret(bytes(range(32)), "encoder").reveal().hex() not in text
        assert "/keys" not in text
        assert (workspace / "watch" / name).stat().st_mode & 0o077 == 0


def test_epsilons_that_were_composed_are_read_until_the_queries_are_others(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_watch(workspace, now=NOW)
    told, kept = budget_spent(workspace), workspace / COMPOSED
    assert kept.stat().st_mode & 0o077 == 0
    composed: list[float] = []
    monkeypatch.setattr(
        "pipeline.sharing.policy.ledger.composed_epsilon", lambda events, delta: composed.append(delta) or 9.0
    )
    assert (budget_spent(workspace, keep=True), composed) == (told, [])
    before = kept.read_bytes()
    assert budget_spent(workspace)["cohorts"][0]["epsilon"] == 9.0  # an alarm believes nothing that is kept
    assert composed
    assert kept.read_bytes() == before  # who only looks writes nothing
    kept.write_text("[1]")  # damaged
    assert budget_spent(workspace, keep=True)["cohorts"][0]["epsilon"] == 9.0


def test_small_cells_are_held_back(workspace: Path) -> None:
    open_history(workspace / FILE_NAME).record([audit(0.5371, copies=3, n=9)], name="nightly", source="run", now=NOW)
    data = gather(workspace, now=NOW)
    by_statistic = {trend["statistic"]: trend for trend in data["audit"]}
    assert by_statistic["auroc"]["points"][-1]["rate"] == "<10"
    assert by_statistic["auroc"]["latest"][0]["n"] == "<10"
    assert by_statistic["count"]["points"][-1]["rate"] == "<10"
    assert data["ledger"]["cohorts"][1]["people"] == "<10"
    assert "0.537" not in watch_page(data)
    assert data["nights"][0]["sentence"] == "…/encoder.key <b>is</b> open and <10 stays have no time"


def test_a_utility_or_drift_of_few_is_not_told(workspace: Path) -> None:
    store = Store(workspace / "store")
    utility = store.put(UtilityReport((score("private", 0.9123, n_test=9),), 30, "x"))
    drift = store.put(drift_report(n_now=9))
    line = {"run": "nightly", "started": NOW.isoformat(), "digests": {"utility": utility, "drift": [drift]}}
    (workspace / "nights" / "nights.jsonl").write_text(json.dumps(line) + "\n")
    data = gather(workspace, now=NOW)
    assert data["utility"][0]["points"][0]["released"] is None
    assert data["drift"][0]["rows"] == []
    assert "0.912" not in watch_page(data)


def test_a_bundle_s_own_name_says_its_version_once(tmp_path: Path) -> None:
    (tmp_path / "nights").mkdir()
    line = {"run": "n", "started": NOW.isoformat(), "release": "site-private-v3", "version": 3, "exit_code": 0}
    (tmp_path / "nights" / "nights.jsonl").write_text(json.dumps(line) + "\n")
    assert gather(tmp_path, now=NOW)["nights"][0]["release"] == "site-private-v3"


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("key /srv/a b/x.key is open", "key …/a b/x.key is open"),
        ("decoct-work/keys/encoder.key is open", "…/encoder.key is open"),
        ("column HR of /data/vitals.csv, rule in/out", "column HR of …/vitals.csv, rule in/out"),
        (
            "/data: 2 text files do not begin with X: 132539.txt, a?b.txt",
            "…/data: 2 text files do not begin with X: ….txt, ….txt",
        ),
        ("3 stays, 12 stays, 1.5 stays, 9 subjects", "<10 stays, 12 stays, 1.5 stays, <10 subjects"),
    ],
)
def test_sentences_are_cleaned(told: str, shown: str) -> None:
    assert clean(told) == shown


class _Tags(HTMLParser):
    """What a browser would fetch, run or label."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(text)
    return parser.tags


def test_the_page_asks_for_nothing_and_escapes_what_it_shows(workspace: Path) -> None:
    text = write_watch(workspace, now=NOW).read_text(encoding="utf-8")
    found = tags(text)
    assert not {"script", "img", "link", "iframe", "object", "form", "input"} & {tag for tag, _ in found}
    assert not re.search(r"https?://|@import|url\(|javascript:|\son\w+=", text)
    assert not [attrs for _, attrs in found if "style" in attrs or "src" in attrs]
    assert all(re.match(r"#|\.\./runs/[^/:]+/report\.html$", str(a["href"])) for tag, a in found if tag == "a")
    assert "<b>is</b>" not in text
    assert "&lt;b&gt;is&lt;/b&gt;" in text


def test_its_one_style_sheet_is_the_one_it_allows(workspace: Path) -> None:
    text = write_watch(workspace, now=NOW).read_text(encoding="utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(sha256(style.encode()).digest()).decode()
    assert f"style-src &#39;sha256-{digest}&#39;" in text or f"style-src 'sha256-{digest}'" in text


def test_it_can_be_read_without_a_mouse_and_without_seeing(workspace: Path) -> None:
    found = tags(write_watch(workspace, now=NOW).read_text(encoding="utf-8"))
    ids = {attrs["id"] for _, attrs in found if "id" in attrs}
    targets = [str(a["href"])[1:] for tag, a in found if tag == "a" and str(a.get("href")).startswith("#")]
    assert targets[0] == "top"
    assert set(targets) <= ids
    assert next(attrs for tag, attrs in found if tag == "html")["lang"] == "en"
    names = [tag for tag, _ in found]
    assert names.count("table") == names.count("caption") >= 6
    assert all("scope" in attrs for tag, attrs in found if tag == "th")
    for tag, attrs in found:
        if tag == "section":
            assert attrs["aria-labelledby"] in ids
        if tag == "svg" and attrs.get("role") == "img":
            assert set(str(attrs["aria-labelledby"]).split()) <= ids
    assert next(tag for tag in names if tag in ("h1", "h2")) == "h1"


def test_the_same_data_give_the_same_page_whatever_was_read_back(workspace: Path) -> None:
    page = write_watch(workspace, now=NOW).read_text(encoding="utf-8")
    data = json.loads((workspace / "watch" / FIGURES).read_text(encoding="utf-8"))
    assert watch_page(data) == page


def test_an_empty_workspace_has_a_page_and_no_workspace_has_none(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert "No scheduled run is on record" in write_watch(tmp_path / "new", now=NOW).read_text()
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"watch"}
    with pytest.raises(UsageError, match="no workspace"):
        write_watch(tmp_path / "absent")


def test_a_part_that_cannot_be_read_is_named_and_hides_no_other(workspace: Path) -> None:
    (workspace / "ledger" / "ledger.jsonl").chmod(0o644)
    (workspace / FILE_NAME).chmod(0o644)
    data = gather(workspace, now=NOW)
    assert data["unread"] == ["the audit history (EnvironmentProblem)", "the ledger (EnvironmentProblem)"]
    assert len(data["nights"]) == 4
    assert "could not be read" in watch_page(data)


def test_a_release_that_was_moved_away_and_one_that_was_revoked_are_told(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"site": "site", "name": "old", "version": 7, "policy": "p"}
    append_log(workspace, "publish", told)
    monkeypatch.setattr("flows.watch.releases._revoked", lambda _: frozenset({"site/private/2"}))
    states = {(row["name"], row["version"]): row["state"] for row in releases(workspace, date(2026, 11, 20))}
    assert states[("old", 7)] == "published, moved away since"
    assert states[("private", 2)] == "revoked"


def test_without_nights_the_runs_logs_tell(workspace: Path) -> None:
    (workspace / "nights" / "nights.jsonl").unlink()
    run = workspace / "runs" / "nightly"
    digest = Store(workspace / "store").put(UtilityReport((score("private", 0.75),), 30, "x"))
    with logged(run, "utility") as tell:
        tell(Made((digest,), 1.0, reused=False))
    with logged(run, "floor"):  # a gate makes nothing, so no page counts it
        pass
    with pytest.raises(DataError), logged(run, "audit"):
        raise DataError("no")
    data = gather(workspace, now=NOW)
    assert (data["runs"][0]["state"], data["runs"][0]["stages"]) == ("stopped at audit", 1)
    assert data["utility"][0]["points"][0]["released"]["mean"] == 0.75


def test_a_page_that_cannot_be_made_changes_no_outcome(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="the night's own"), watched(tmp_path / "absent"):
        raise DataError("the night's own")
    assert "could not be made" in capsys.readouterr().err


@pytest.mark.parametrize("there_is_a_browser", [True, False])
def test_open_shows_the_file_and_serves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_is_a_browser: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or there_is_a_browser)
    (tmp_path / "a b").mkdir()
    answer = CliRunner().invoke(app, ["watch", "--open", "--out", str(tmp_path / "a b")], catch_exceptions=False)
    assert answer.exit_code == 0
    assert opened == [(tmp_path / "a b" / "watch" / PAGE).resolve().as_uri()]
    assert ("no browser was found" in answer.stderr) is not there_is_a_browser
    CliRunner().invoke(app, ["watch", "--out", str(tmp_path / "a b")], catch_exceptions=False)
    assert len(opened) == 1


def test_the_first_tile_says_what_to_do(workspace: Path) -> None:
    def todo() -> str:
        page = write_watch(workspace, now=NOW).read_text(encoding="utf-8")
        return re.sub(r"<[^>]+>", " ", page.split('class="todo"')[1].split("</dd>")[0])

    assert "Look into the last scheduled run" in todo()
    assert "exit code 11" in todo()
    lines = (workspace / "nights" / "nights.jsonl").read_text().splitlines(keepends=True)
    (workspace / "nights" / "nights.jsonl").write_text("".join(lines[:3]))
    assert "Read the report nightly: density membership did not hold" in " ".join(todo().split())
    (workspace / FILE_NAME).unlink()
    assert "Approve or refuse" in todo()
    assert "1 waiting: private v3" in todo()
    shutil.rmtree(workspace / "proposals")
    assert "Nothing" in todo()


def test_one_run_is_drawn_as_points_and_each_run_leads_to_its_report(workspace: Path) -> None:
    night = (workspace / "nights" / "nights.jsonl").read_text().splitlines(keepends=True)[0]
    (workspace / "nights" / "nights.jsonl").write_text(night)
    (workspace / "runs" / "nightly" / "report.html").write_text("the report")
    page = write_watch(workspace, now=NOW).read_text(encoding="utf-8")
    utility = page.split('id="utility"')[1].split("</section>")[0]
    assert utility.count("<circle") >= 2  # the released set and full data, a dot each
    assert page.count('<a href="../runs/nightly/report.html">nightly</a>') >= 1
    (workspace / "runs" / "nightly" / "report.html").unlink()
    assert "../runs/" not in write_watch(workspace, now=NOW).read_text(encoding="utf-8")
