"""`decoct watch`: what a workspace's runs came to, gathered and written as two static files.

    workspace/watch/  index.html  for people      figures.json  the same for programs

Restricted like the site's report: aggregates computed from patients, cells of fewer than ten held back; no row, no
identifier, no key, no path.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from flows.environment import code_version
from flows.progress import say
from flows.watch.figures import LAST, Stamped, audit_trends, configurations, drift_reports, utility_trends
from flows.watch.releases import budget_spent, releases
from flows.workspace.job import CONFIG_FILE, REPORT_PAGE, REPORTS
from flows.workspace.logs import read_log as read_stages
from pipeline.core.errors import DecoctError, EnvironmentProblem, UsageError
from pipeline.core.files.whole import put_whole
from pipeline.report.suppress import SUPPRESSED
from pipeline.report.watch import SCHEMA, watch_page

FOLDER: Final = "watch"
PAGE: Final = "index.html"
FIGURES: Final = "figures.json"
NIGHTS: Final = Path("nights") / "nights.jsonl"
MAX_SENTENCE: Final = 400
_NAME: Final = re.compile(r"[\w-]+")
_PATH: Final = re.compile(r"(?:(?<![\w/.<])/|[\w.~-]+/(?=[\w.~-]+/))(?:[\w.~-]+/)*(?=[\w.~-])")
_STAY_FILE: Final = re.compile(r"[^\s/]+\.txt\b")  # named by the stay whose records it holds
_FEW: Final = re.compile(
    r"(?<![\d.,])[1-9](?= (?:stays?|subjects?|patients?|people|persons?|rows?|records?|values?|cells?)\b)"
)

Data = dict[str, Any]


def write_watch(workspace: Path, *, now: datetime | None = None) -> Path:
    """Gather, and write both files whole; returns the page.

    Raises:
        UsageError: there is no workspace. EnvironmentProblem: the files cannot be written.
    """
    if not workspace.is_dir():
        raise UsageError(f"there is no workspace at {workspace}; name it with --out")
    data = gather(workspace, now=now or datetime.now(tz=UTC))
    folder = workspace / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        put_whole(folder / FIGURES, (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
        put_whole(folder / PAGE, watch_page(data).encode())
        for name in (FIGURES, PAGE):
            (folder / name).chmod(0o600)
    except OSError as error:
        raise EnvironmentProblem(f"the watch page in {folder} cannot be written: {error.strerror}") from None
    return folder / PAGE


@contextmanager
def watched(workspace: Path) -> Iterator[None]:
    """Rebuild the page when the block ends, however it ends; a page that cannot be made changes no outcome."""
    try:
        yield
    finally:
        try:
            write_watch(workspace)
        except Exception as error:  # the night's own outcome counts, and its exit code
            say(f"  the watch page could not be made: {type(error).__name__}")


def gather(workspace: Path, *, now: datetime) -> Data:
    """Everything on the page, as plain JSON data; a part that cannot be read is named, and the others are shown."""
    unread: list[str] = []

    def part(name: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (DecoctError, OSError, ValueError, KeyError, TypeError) as error:
            unread.append(f"{name} ({type(error).__name__})")
            return []

    nights = part("the nights' record", lambda: read_nights(workspace / NIGHTS))
    configs = configurations(workspace)
    logs = {folder.name: read_stages(folder) for folder in sorted((workspace / "runs").glob("*")) if folder.is_dir()}
    return {
        "schema": SCHEMA,
        "access": "restricted",
        "made": now.isoformat(timespec="seconds"),
        "code_version": code_version(),
        "nights": [_night(workspace, entry) for entry in reversed(nights[-LAST:])],
        "reports": sorted(path.parent.name for path in (workspace / "runs").glob(f"*/{REPORT_PAGE}")),
        "runs": [_run(workspace, name, lines) for name, lines in logs.items()],
        "releases": part("the releases", lambda: releases(workspace, now.date())),
        "audit": part("the audit history", lambda: audit_trends(workspace, configs, os.environ)),
        "utility": utility_trends(workspace, configs, _made(nights, logs, "utility")),
        "drift": drift_reports(workspace, _made(nights, logs, "drift")),
        "ledger": part("the ledger", lambda: budget_spent(workspace, keep=True)) or None,
        "unread": unread,
    }


def read_nights(path: Path) -> list[Data]:
    """The nights' record, oldest first: JSON lines; what a killed writer left of one is not read. [] = no record."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    entries = []
    for line in raw.split(b"\n"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and ("started" in entry or "ended" in entry):
            entries.append(entry)
    return entries


def _night(workspace: Path, entry: Mapping[str, Any]) -> Data:
    """What is shown of a line, whatever else it holds; `report` is the night's own page, below the workspace."""
    release = entry.get("release")
    if isinstance(release, Mapping):
        release = f"{release.get('name', '')} v{release.get('version', '')}"
    elif release and entry.get("version") and not str(release).endswith(f"v{entry['version']}"):
        release = f"{release} v{entry['version']}"
    night, run = str(entry.get("night", entry.get("id", "")))[:60], str(entry.get("run", entry.get("name", "")))[:60]
    own = Path("runs") / run / REPORTS / f"{night}.html"
    return {
        "night": night,
        "run": run,
        "report": own.as_posix() if _NAME.fullmatch(night) and (workspace / own).is_file() else "",
        "started": str(entry.get("started", ""))[:40],
        "seconds": _seconds_between(entry.get("started"), entry.get("ended")),
        "state": str(entry.get("state", "") or "unknown")[:40],
        "exit_code": entry["exit_code"] if isinstance(entry.get("exit_code"), int) else None,
        "sentence": clean(str(entry.get("sentence") or "")),
        "release": str(release or "")[:120],
    }


def _seconds_between(start: Any, end: Any) -> float | None:
    try:
        return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 1)
    except (TypeError, ValueError):
        return None


def clean(sentence: str) -> str:
    """A sentence for the page: paths cut to their last name, files of single stays and small counts held back."""
    return _FEW.sub(SUPPRESSED, _PATH.sub("…/", _STAY_FILE.sub("….txt", sentence)))[:MAX_SENTENCE]


def _run(workspace: Path, name: str, lines: tuple[Data, ...]) -> Data:
    """How the newest walk of a run ended: the lines that one process wrote last."""
    walk: list[Data] = []
    for line in reversed(lines):
        if walk and line.get("pid") != walk[0].get("pid"):
            break
        walk.append(line)
    walk.reverse()
    if not walk:
        folder = workspace / "runs" / name
        state = "no stage has ended yet" if (folder / CONFIG_FILE).exists() else "no run of this version"
        state = "reported, without a log" if (folder / "report.json").exists() else state
        return {"run": name, "state": state, "at": "", "stages": 0, "reused": 0, "seconds": None, "sentence": ""}
    last = walk[-1]
    ended = f"ended after {last.get('stage')}" if last.get("stage") != "gate" else "done"
    if last.get("exit_code") or last.get("sentence"):
        ended = f"{'stopped' if last.get('exit_code') else 'held'} at {last.get('stage')}"
    return {
        "run": name,
        "state": ended,
        "at": str(last["time"])[:19],
        "stages": sum(bool(line.get("digests")) for line in walk),  # as terminal and report: those that make something
        "reused": sum(bool(line.get("reused")) for line in walk),
        "seconds": round(sum(float(line.get("seconds") or 0) for line in walk), 1),
        "sentence": clean(str(last.get("sentence") or "")),
    }


def _made(nights: list[Data], logs: Mapping[str, tuple[Data, ...]], label: str) -> list[Stamped]:
    """When which run made a stage's artefacts: from the nights' record, or else from the runs' logs."""
    found: list[Stamped] = []
    for entry in nights:
        digests = (entry.get("digests") or {}).get(label) or []
        at, run = str(entry.get("ended") or entry.get("started")), str(entry.get("run", entry.get("name", "")))
        found += [(at, run, str(digest)) for digest in ([digests] if isinstance(digests, str) else digests)]
    known = {name for _, name, _ in found}
    for name, lines in logs.items():
        for line in lines if name not in known else ():
            if line.get("stage") == label:
                found += [(str(line["time"]), name, str(digest)) for digest in line.get("digests") or ()]
    return sorted(found)
