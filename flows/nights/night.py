"""A night: the road under the workspace's lock, resumed, put on record however it ends, and told to those who asked.

    workspace/nights/nights.jsonl   a line per night, append-only and chained, on the disk before anybody is told
    workspace/nights/open.json      the night that is under way: whoever finds it under the lock found a killed one

What is recorded: names, times, digests, our own sentences; nothing about a patient, no count below ten.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, final

from flows.nights.forecast import FREE
from flows.nights.notices import told_of
from flows.nights.notify import notify
from flows.nights.pinned import require_pinned
from flows.stopping import begun, exit_code
from flows.workspace import accepted
from flows.workspace.job import REPORT_PAGE, REPORTS, Job, new_job
from flows.workspace.locks import workspace_lock
from flows.workspace.logs import labelled
from flows.workspace.releases import is_proposal, place
from pipeline.core.config import Config
from pipeline.core.errors import DecoctError, EnvironmentProblem, Held
from pipeline.core.files.chained import read_chain, writing
from pipeline.core.files.whole import put_whole
from pipeline.core.redaction import scrubbed
from pipeline.core.types import ReleaseRecord
from pipeline.store import Made

RECORD_FILE: Final = "nights.jsonl"
OPEN_FILE: Final = "open.json"
KEPT_REPORTS: Final = 30
"""Pages of nights that stay in a run's folder."""
REFUSED: Final = frozenset({11, 12, 13, 14, 16, 17})
"""Exit codes of the gates: data contract, utility floor, leakage, policy, drift, budget."""
GOOD: Final = frozenset({"released", "proposed", "unchanged", "held"})

WalkRoad = Callable[[Job, dict[str, Made[Any]]], object]


@final
@dataclass(frozen=True)
class Night:
    """One line of the record. `release` and `version`: what it released, or found released; "" and 0 = nothing."""

    night: str
    run: str
    started: str  # ISO 8601, UTC
    ended: str
    state: str  # released, proposed, unchanged, held, refused, failed, interrupted, killed
    exit_code: int
    sentence: str
    config: str  # digest of the configuration
    digests: Mapping[str, list[str]]  # of what each stage made, by its label
    seconds: Mapping[str, float]  # that each stage took this night; 0 = found in the store
    wall_seconds: float
    release: str
    version: int


def run_night(config: Config, walk_road: WalkRoad) -> Night:
    """Walk the road once, unattended; whatever a stage raises is the night's outcome, and is returned, not raised.

    Raises:
        ConfigError: the configuration names other programs than were pinned; nothing was begun.
        EnvironmentProblem: somebody else works in the workspace, or the record cannot be read or written.
        KeyboardInterrupt: after the night was put on record as interrupted.
    """
    with workspace_lock(config.workspace, "decoct night"):
        _close_killed(config)
        require_pinned(config)
        night = _begin(config)
        clock, made = time.monotonic(), dict[str, Made[Any]]()
        told = {known.release for known in read_record(config.workspace)}
        try:
            with scrubbed("the night"), labelled(night=night.night):
                job = replace(new_job(config, resume=True), night=True)
                walk_road(job, made)
            outcome = _done(job, made, told)
        except BaseException as error:
            outcome = _stopped(error)
            if isinstance(error, DecoctError) and not begun():
                return _finish(config, _ended(night, made, clock, outcome))
            _finish(config, _ended(night, made, clock, outcome))
            raise
        return _finish(config, _ended(night, made, clock, outcome))


def read_record(workspace: Path) -> tuple[Night, ...]:
    """All nights of a workspace, oldest first.

    Raises:
        EnvironmentProblem: the record is damaged.
    """
    names = list(Night.__annotations__)
    entries = [entry for entry in read_chain(_record(workspace)).entries if entry["what"] == "night"]
    return tuple(Night(**{name: entry[name] for name in names}) for entry in entries)


def begun_since(config: Config, moment: datetime) -> bool:
    """Whether a night of this configuration began at the moment or later, the one under way among them.

    Raises:
        EnvironmentProblem: the record is damaged, or what is under way cannot be read.
    """
    nights = [*read_record(config.workspace), *filter(None, [under_way(config)])]
    return any(
        night.run == config.name and datetime.fromisoformat(night.started) >= moment.replace(microsecond=0)
        for night in nights
    )


def _begin(config: Config) -> Night:
    started = _now()
    name = f"{started[:19].replace(':', '').replace('-', '')}-{secrets.token_hex(3)}"
    digest = Job(config, config.workspace, resume=True).config_digest
    night = Night(name, config.name, started, "", "open", 0, "", digest, {}, {}, 0.0, "", 0)
    try:
        _open(config).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        put_whole(_open(config), json.dumps(asdict(night)).encode())
    except OSError as error:
        raise EnvironmentProblem(f"{_open(config)} cannot be written: {error.strerror}") from None
    return night


def _close_killed(config: Config) -> None:
    """Put a night on record that ended without a word: power, memory, kill -9."""
    night = under_way(config)
    if night is None or night.night in {known.night for known in read_record(config.workspace)}:
        _open(config).unlink(missing_ok=True)  # nothing of ours, or killed between its last line and this file
        return
    sentence = "killed: it ended without a word, and the next night goes on from its last finished stage"
    _finish(config, replace(night, state="killed", exit_code=137, sentence=sentence))


def under_way(config: Config) -> Night | None:
    """The night that has begun and is not on record yet; None = there is none.

    Raises:
        EnvironmentProblem: what is there cannot be read.
    """
    try:
        return Night(**json.loads(_open(config).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise EnvironmentProblem(
            f"{_open(config)} is damaged: take it away; the killed night is not on record"
        ) from None
    except OSError as error:
        raise EnvironmentProblem(f"{_open(config)} cannot be read: {error.strerror}") from None


def _done(job: Job, made: Mapping[str, Made[Any]], known: set[str]) -> dict[str, Any]:
    """What a road that was walked to its end came to."""
    record = job.only(made["release"], ReleaseRecord)
    bundle = place(job.config.workspace, record.name)
    told: dict[str, Any] = {"exit_code": 0, "release": record.name, "version": record.version}
    if made["release"].reused and record.name in known:
        return told | {"state": "unchanged", "sentence": f"nothing has changed since {record.name}"}
    if bundle is not None and is_proposal(bundle):
        return told | {"state": "proposed", "sentence": f"{record.name} waits for approval"}
    return told | {"state": "released", "sentence": f"{record.name} is released"}


def _stopped(error: BaseException) -> dict[str, Any]:
    if begun() or not isinstance(error, Exception):  # Ctrl-C, or the signal that Prefect makes of a cancelled run
        return {"state": "interrupted", "exit_code": exit_code(), "sentence": "interrupted"}
    if not isinstance(error, DecoctError):
        return {
            "state": "failed",
            "exit_code": DecoctError.exit_code,
            "sentence": f"failed with {type(error).__name__}",
        }
    state = "held" if isinstance(error, Held) else "refused" if error.exit_code in REFUSED else "failed"
    return {"state": state, "exit_code": error.exit_code, "sentence": str(error)}


def _ended(night: Night, made: Mapping[str, Made[Any]], clock: float, outcome: Mapping[str, Any]) -> Night:
    return replace(
        night,
        ended=_now(),
        digests={label: list(item.digests) for label, item in made.items()},
        seconds={label: 0.0 if item.reused else round(item.seconds, 3) for label, item in made.items()},
        wall_seconds=round(time.monotonic() - clock, 3),
        **outcome,
    )


def _finish(config: Config, night: Night) -> Night:
    """On the record first, then told; that somebody could not be told is put on record, and changes nothing."""
    with writing(_record(config.workspace)) as record:
        record.append("night", {**asdict(night), FREE: shutil.disk_usage(config.workspace).free})
    _open(config).unlink(missing_ok=True)
    with suppress(OSError):  # a copy for people
        _keep_report(config.workspace / "runs" / config.name, night)
    record_of = asdict(night)
    if failed := notify(
        config.night, record_of, lambda: told_of(config, record_of, _last_good(config)), good=night.state in GOOD
    ):
        with suppress(EnvironmentProblem), writing(_record(config.workspace)) as record:
            record.append("notice not delivered", {"night": night.night, "ways": list(failed)})
    return night


def _keep_report(folder: Path, night: Night) -> None:
    """The night's own page, which the next night's replaces; the oldest copies go."""
    page, copies = folder / REPORT_PAGE, folder / REPORTS
    if page.exists() and page.stat().st_mtime >= datetime.fromisoformat(night.started).timestamp():
        copies.mkdir(mode=0o700, exist_ok=True)
        put_whole(copies / f"{night.night}.html", page.read_bytes())
        for old in sorted(copies.glob("*.html"), key=lambda path: path.stat().st_mtime_ns)[:-KEPT_REPORTS]:
            old.unlink()


def _last_good(config: Config) -> str:
    """When a night of this configuration ended well, last; "" = none has."""
    nights = reversed(read_record(config.workspace))
    return next((night.ended for night in nights if night.run == config.name and night.state in GOOD), "")


def _now() -> str:
    return datetime.now(tz=UTC).isoformat(timespec="seconds")


def _record(workspace: Path) -> Path:
    return workspace / accepted.NIGHTS / RECORD_FILE


def _open(config: Config) -> Path:
    return config.workspace / accepted.NIGHTS / OPEN_FILE
