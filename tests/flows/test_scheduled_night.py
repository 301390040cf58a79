"""Scheduled nights through a real Prefect server: one by a work pool's worker, one by `decoct schedule` itself.

The server, the worker and the scheduler are processes as a hospital starts them, the deployment is the shipped file's.
Nobody waits for 2 o'clock: the server's own next run is moved to now. What the server shows is read as its page reads
it; then its database is searched for planted ids, values and keys.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prefect.blocks.webhook import Webhook
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from flows.environment import TELEMETRY_OFF, code_version
from flows.nights.night import read_record
from flows.workspace.job import KEY_PURPOSES, key_path
from pipeline.core.keys.secrets import Secret, write_secret

pytestmark = pytest.mark.slow
STAYS = 100
STAY, PERSON, VALUE, SOURCE = "QZSTAY", "Quackenfeather", "87.40625", "ward-7b-quokka"
KEYS = {purpose: bytes([number] * 3 + [0xA7, 0x5C] * 14 + [number]) for number, purpose in enumerate(KEY_PURPOSES, 65)}
AUTOMATIONS = Path(__file__).parents[2] / "docs" / "how-to" / "prefect" / "automations.yaml"
WAIT_SECONDS = 240  # on a machine that is busy with other tests
MAPPING = """
description = "test"
[variables]
HR = { unit = "/min", plausible = [10, 320], scale = [30, 180], normal = 80 }
[tasks]
died = { kind = "binary", column = "died", description = "death" }
"""
CONFIG = """
name = "{name}"
workspace = "work"
[source]
kind = "long_table"
events = "{source}/events.csv"
stays = "{source}/stays.csv"
subject_column = "subject_id"
split_column = "split"
[cohort]
mapping = "mapping.toml"
n_steps = 2
split = { kind = "given" }
[encode.raw]
kind = "identity"
[condense.private]
kind = "private_moments"
n_per_class = 5
[utility]
models = ["logistic_regression"]
n_seeds = 1
n_random_draws = 1
[audit]
max_targets = 10
n_bootstrap = 20
[release]
artefact = "private"
policy = "policy.toml"
licence = "CC0-1.0"
site = "{name}"
"""


def make_site(folder: Path, *, broken: bool) -> Path:
    """A hospital's folder, with marked people; `broken`: many values that no heart rate has."""
    rng = np.random.default_rng(0)
    (folder / SOURCE).mkdir(parents=True)
    with (folder / SOURCE / "events.csv").open("w", newline="") as events:
        table = csv.writer(events)
        table.writerow(["stay_id", "hours", "variable", "value"])
        table.writerow([f"{STAY}0003", 0.7, "HR", VALUE])
        for stay in range(STAYS):
            for hour in range(4):
                table.writerow([f"{STAY}{stay:04d}", hour + 0.5, "HR", f"{rng.uniform(60, 120):.2f}"])
    with (folder / SOURCE / "stays.csv").open("w", newline="") as stays:
        table = csv.writer(stays)
        table.writerow(["stay_id", "subject_id", "died", "split"][: 3 if broken else 4])
        for stay in range(STAYS):
            split = ("train", "train", "train", "tuning", "held_out")[stay % 5]
            row = [f"{STAY}{stay:04d}", f"{PERSON}-{stay}", int(rng.random() < 0.5), split]
            table.writerow(row[: 3 if broken else 4])
    demo = (files("pipeline.sharing") / "policies" / "demo.toml").read_text(encoding="utf-8")
    demo = demo.replace('name = "demo"', 'name = "open"')
    opened = re.sub(r"max_upper = \S+", 'max_upper = "any"', demo)  # what is tested is what is shown, not the gate
    opened = opened.replace('["near_copies:count", "density_membership:auroc"]', '["near_copies:count"]')
    (folder / "policy.toml").write_text(opened, encoding="utf-8")
    (folder / "mapping.toml").write_text(MAPPING, encoding="utf-8")
    text = CONFIG.replace("{name}", folder.name).replace("{source}", SOURCE)
    (folder / "night.toml").write_text(text, encoding="utf-8")
    for purpose, raw in KEYS.items():
        write_secret(key_path(folder / "work", purpose), Secret(raw, purpose))
    return folder / "night.toml"


class Server:
    """A Prefect server of this test's own, what is started beside it, and the questions that its page asks."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url, self.home, self.started = f"http://127.0.0.1:{self.port}/api", folder, list[subprocess.Popen[bytes]]()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = kept | TELEMETRY_OFF | {
            "PREFECT_HOME": str(folder),
            "PREFECT_API_URL": self.url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",  # how long SQLite waits for a lock
            "PREFECT_CLI_PROMPT": "false",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def start(self, *words: str) -> None:
        """A process that stays, with all its children, until the test ends."""
        log = (self.home / f"{words[-1].replace('/', '_')}.{len(self.started)}.log").open("wb")
        with log:
            command = [sys.executable, "-m", *words]
            self.started.append(
                subprocess.Popen(
                    command, env=self.environment, cwd=self.home, stdout=log, stderr=log, start_new_session=True
                )
            )

    def call(self, *words: str) -> None:
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, env=self.environment, cwd=self.home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout

    def ask(self, path: str, question: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            None if question is None else json.dumps(question).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def until(self, look: Callable[[], Any]) -> Any:
        """What `look` finds, as soon as it finds something."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError):
                if found := look():
                    return found
            time.sleep(0.2)
        raise AssertionError("".join(path.read_text(errors="replace")[-3000:] for path in self.home.glob("*.log")))

    def tonight(self, deployment: str) -> str:
        """Move the deployment's next run, which the server has planned by its schedule, to now; its id."""
        wanted = {
            "deployments": {"name": {"any_": [deployment]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        planned = self.until(lambda: self.ask("/flow_runs/filter", wanted | {"sort": "EXPECTED_START_TIME_ASC"}))
        assert {run["auto_scheduled"] for run in planned} == {True}
        hours = {
            datetime.fromisoformat(run["expected_start_time"]).astimezone(UTC).strftime("%H:%M") for run in planned
        }
        assert hours == {"02:00"}
        now = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(tz=UTC).isoformat()}}
        self.ask(f"/flow_runs/{planned[0]['id']}/set_state", {"state": now, "force": True})
        return str(planned[0]["id"])

    def ended(self, run: str) -> dict[str, Any]:
        """The run, once its worker has let go of it."""

        def look() -> Any:
            found = self.ask(f"/flow_runs/{run}")
            return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        return dict(self.until(look))

    def shown(self, run: str) -> tuple[dict[str, tuple[str, str]], dict[str, Any], str]:
        """Of a run: its tasks' states and messages, its artifacts by key, its log."""
        of_run = {"flow_runs": {"id": {"any_": [run]}}}
        tasks = self.ask("/task_runs/filter", of_run)
        artifacts = self.ask("/artifacts/filter", of_run)
        log = self.ask("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
        states = {task["name"]: (task["state_name"], task["state"]["message"] or "") for task in tasks}
        return states, {made["key"]: made["data"] for made in artifacts}, "\n".join(line["message"] for line in log)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "prefect").mkdir()
    found = Server(tmp_path / "prefect")
    found.start("prefect", "server", "start", "--host", "127.0.0.1", "--no-ui", "--port", str(found.port))
    try:
        yield found
    finally:
        for process in reversed(found.started):  # the server last
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the group that it was started with
            process.wait()


def automate(server: Server) -> None:
    """Both automations of the documentation, with a webhook block of the server's."""
    with temporary_settings({PREFECT_API_URL: server.url}):
        block = str(Webhook(url=SecretStr("http://127.0.0.1:9/")).save("decoct-night"))  # nobody listens there
    told = yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8").replace("WEBHOOK-BLOCK-ID", block))
    for automation in told["automations"]:
        made = server.ask("/automations/", AutomationCore.model_validate(automation).model_dump(mode="json"))
        assert (made["name"], made["enabled"]) == (automation["name"], True)


def shows_what_it_was(
    server: Server, config: Path, run: dict[str, Any], page: str, tasks: dict[str, tuple[str, str]]
) -> None:
    """A night that was released, as the client reads it: name, tags, version, attacks, and what it is about."""
    (night,) = read_record(config.parent / "work")
    assert run["name"] == f"icu {night.night}"
    ours = ["site:icu", "configuration:icu", "policy:open"]
    assert set(run["tags"]) == {*ours, "outcome:released", "auto-scheduled"}
    deployed = server.ask("/deployments/name/decoct-night/icu")
    assert (set(deployed["tags"]), deployed["version"], deployed["concurrency_options"]["collision_strategy"]) == (
        set(ours),
        code_version(),
        "ENQUEUE",
    )
    asked = deployed["parameter_openapi_schema"]["properties"]
    assert set(asked) == {"config", "min_new_subjects", "look_only"}
    assert asked["look_only"]["type"] == "boolean"
    attacks = [name for name in tasks if name.endswith(" on private")]
    assert "near_copies on private" in attacks
    assert [name for name in attacks if tasks[name][0] == "NotRun"]
    kinds = server.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    keys = {one["name"]: one["task_key"] for one in kinds}
    assert keys["encode raw"] == "decoct.encode"
    assert keys["condense private"] == "decoct.condense"
    assert "stage:audit" in next(one["tags"] for one in kinds if one["name"] == "audit")
    assert re.search(r"\| near_copies \| private \| \w+ \| (PASS|FAIL|INCONCLUSIVE) \|", page)
    assert "| policy open | PASS |" in page
    assert "| drift | no released cohort to compare with |" in page
    assert "| utility | measured; no floor is set |" in page
    assert re.search(r"\| epsilon left \| \d+\.\d of \d", page)


def figures(site: Path) -> set[str]:
    """What models and attacks reached, to six digits."""
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, float) and len(digits := f"{value:.6f}".rstrip("0")) > 6:
            found.add(digits)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(inner)

    record = json.loads((site / "work" / "runs" / site.name / "report.json").read_bytes())
    look([record["utility"], record["leakage"]])
    assert len(found) > 20
    return found


def test_scheduled_nights_are_readable_at_the_server_and_it_learns_nothing_of_a_patient(
    server: Server, tmp_path: Path
) -> None:
    good, bad = make_site(tmp_path / "icu", broken=False), make_site(tmp_path / "ward", broken=True)
    server.until(lambda: server.ask("/health"))
    server.start("prefect", "worker", "start", "--type", "process", "--pool", "decoct")
    server.start("flows.cli", "schedule", "--config", str(bad))
    server.call("flows.cli", "schedule", "--config", str(good), "--write", str(tmp_path / "prefect.yaml"))
    server.until(lambda: server.ask("/work_pools/decoct"))
    server.call("prefect", "deploy", "--all", "--prefect-file", str(tmp_path / "prefect.yaml"))
    automate(server)
    runs = [server.tonight("icu"), server.tonight("ward")]

    refused = server.ended(runs[1])
    server.until(lambda: server.shown(runs[1])[0])  # the server learns of tasks by events, which may come after the end
    tasks, artifacts, log = server.shown(runs[1])
    assert (refused["state_type"], refused["state_name"]) == ("FAILED", "Refused")
    assert re.match(r"exit code 11: … .*split", refused["state"]["message"])
    assert list(tasks) == ["ingest"]
    assert tasks["ingest"][0] == "Failed"
    assert "exit code 11: " in tasks["ingest"][1]
    assert "exit code 11," in artifacts["decoct-night-ward"]
    assert artifacts["decoct-progress-ward"] == 0.0
    assert "decoct-report-ward" not in artifacts  # there is none of tonight

    released = server.ended(runs[0])
    tasks, artifacts, log = server.shown(runs[0])
    assert (released["state_name"], released["state"]["message"]) == ("Released", "icu-private-v1 is released")
    assert {state for state, _ in tasks.values()} <= {"Completed", "NotRun"}
    stages = {"ingest", "validate cohort", "drift", "encode raw", "condense private", "utility", "audit", "gate"}
    assert stages < set(tasks)
    assert artifacts["decoct-progress-icu"] == 100.0
    assert (good.parent / "work/runs/icu/report.html").as_uri() in artifacts["decoct-report-icu"]
    assert re.search(r"\| audit \| `[0-9a-f]{12}` \| \d+\.\d \|", artifacts["decoct-night-icu"])
    assert re.search(r"condense private made [0-9a-f]{12} in ", log)
    shows_what_it_was(server, good, released, artifacts["decoct-night-icu"], tasks)

    for site in (good.parent, bad.parent):
        digests = [digest for night in read_record(site / "work") for made in night.digests.values() for digest in made]
        shown = " ".join([*map(str, artifacts.values()), log])
        assert [digest for digest in digests if digest[:8] in shown] == []
    database = b"".join(path.read_bytes() for path in sorted(server.home.glob("prefect.db*")))
    assert b"condense private" in database
    hidden = [STAY, PERSON, VALUE, SOURCE] + [raw.hex() for raw in KEYS.values()]
    hidden += sorted(figures(good.parent))
    hidden += [digest[:12] for made in read_record(good.parent / "work")[-1].digests.values() for digest in made]
    assert [word for word in hidden if word.encode().lower() in database.lower()] == []
    assert [purpose for purpose, raw in KEYS.items() if raw in database] == []
