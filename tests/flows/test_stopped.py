"""A run that a terminal or an operating system stops: all processes of its group at once, in the middle of an audit.

The terminal is a real one (a pseudo-terminal that the run's session owns): Ctrl-C is a byte that is typed, a closed
window is the terminal's end. As systemd stops a unit, every process is sent SIGTERM, Prefect's server among them.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from flows.environment import TELEMETRY_OFF
from flows.nights.night import read_record
from flows.run import labels
from flows.stopping import SENTENCE
from flows.workspace.logs import BEGAN, LOG_FILE, read_log
from pipeline.core.config import load_config

pytestmark = pytest.mark.slow
WAIT_SECONDS = 240  # on a machine that is busy with other tests
STOP_SECONDS = 4.0  # two of grace at most; the rest is what a busy machine takes
CONFIG = """
name = "small"
workspace = "work"
source = { kind = "embedded", sets = ["a"], max_stays = 600 }
cohort = { tasks = ["in_hospital_death", "los_gt_7d"] }
encode.raw = { kind = "identity" }
condense.private = { kind = "private_moments", n_per_class = 20 }
utility = { models = ["logistic_regression"], n_seeds = 1, n_random_draws = 1 }
audit = { max_targets = 20, n_bootstrap = 20 }
release = { artefact = "private", policy = "demo", site = "test site", licence = "ODbL-1.0" }
"""
NOT_REPEATED = {"release", "report"}  # they hold the time, or come after the gate


class Terminal:
    """A run in the foreground of a terminal of its own, and what it has written there."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.master, slave = pty.openpty()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        home = {"PREFECT_HOME": str(folder / "work" / "prefect")}
        environment = kept | TELEMETRY_OFF | home | {"OMP_NUM_THREADS": "1"}

        def owns_terminal() -> None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)  # whatever these tests were started to ignore

        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *words],
            cwd=folder, env=kept | environment, start_new_session=True,
            preexec_fn=owns_terminal, stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError):  # it is closed, on the one side or the other
            while True:
                if select.select([self.master], [], [], 0.1)[0]:  # a read that waits would keep a closed one open
                    self._written += os.read(self.master, 4096)

    @property
    def written(self) -> str:
        return self._written.decode(errors="replace").replace("\r", "")

    def end(self) -> str:
        """Whatever it left is ended; all that it wrote."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)
        return self.written

    def processes(self) -> list[int]:
        """The run, and all that it has started, in whatever session."""
        parents: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
        found, new = [], [self.process.pid] if self.process.poll() is None else []
        while new:
            found += new
            new = [child for pid in new for child in parents.get(pid, [])]
        return found


def type_ctrl_c(run: Terminal) -> None:
    os.write(run.master, b"\x03")


def close_window(run: Terminal) -> None:
    os.close(run.master)


def stop_unit(run: Terminal) -> None:
    """As systemd does: all of the unit's processes, the server last that the run would tell its end."""
    for pid in run.processes():
        os.kill(pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, fixed_keys: Callable[[Path], None]
) -> tuple[Path, Mapping[str, list[str]]]:
    """A night to its end, by Prefect: its folder, with keys and Prefect's database, and what each stage made."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "run.toml").write_text(CONFIG, encoding="utf-8")
    fixed_keys(folder / "work")
    run = Terminal(folder, "night", "run.toml")
    try:
        run.process.wait(WAIT_SECONDS)
    finally:
        written = run.end()
    (night,) = read_record(folder / "work")
    assert night.state in ("released", "proposed", "refused"), written
    return folder, night.digests


@pytest.mark.parametrize(
    ("words", "stop", "code", "said"),
    [
        (["run", "run.toml"], type_ctrl_c, 130, True),
        (["night", "run.toml"], stop_unit, 143, True),
        (["night", "run.toml", "--no-prefect"], close_window, 129, False),
    ],
)
def test_stopped_in_an_audit_a_run_ends_in_time_and_resumes_to_the_same(
    undisturbed: tuple[Path, Mapping[str, list[str]]],
    tmp_path: Path,
    words: list[str],
    stop: Callable[[Terminal], None],
    code: int,
    said: bool,
) -> None:
    whole, digests = undisturbed
    shutil.copy(whole / "run.toml", tmp_path)
    for part in ("keys", "prefect"):
        unseen = shutil.ignore_patterns("noise.seen")  # by a ledger that is not copied
        shutil.copytree(whole / "work" / part, tmp_path / "work" / part, ignore=unseen)
    run = Terminal(tmp_path, *words)
    try:
        there = in_audit(run, tmp_path)
        assert (len(there) > 1) == ("--no-prefect" not in words)  # Prefect's server
        begin = time.monotonic()
        stop(run)
        run.process.wait(WAIT_SECONDS)
        seconds = time.monotonic() - begin
    finally:
        written = run.end()
    assert (run.process.returncode, seconds < STOP_SECONDS) == (code, True), (seconds, written)
    assert written.count("decoct: ") == said
    if said:
        assert written.rstrip().endswith(f"decoct: {SENTENCE}"), written
    assert [pid for pid in there if running(pid)] == []
    assert not list((tmp_path / "work" / "store" / "tmp").iterdir())
    last = read_log(tmp_path / "work" / "runs" / "small")[-1]
    assert (last["stage"], last["exit_code"], last["sentence"]) == ("audit", code, "interrupted")
    nights = [(night.state, night.exit_code) for night in read_record(tmp_path / "work")]
    assert nights == ([("interrupted", code)] if words[0] == "night" else [])

    subprocess.run([sys.executable, "-m", "flows.cli", "night", "run.toml", "--no-prefect"], cwd=tmp_path, check=False)
    again = read_record(tmp_path / "work")[-1].digests
    assert list(again) == list(digests)
    assert [label for label in digests if again[label] != digests[label] and label not in NOT_REPEATED] == []


def in_audit(run: Terminal, folder: Path) -> list[int]:
    """Wait until the audit has begun; the processes that are there."""
    end, log = time.monotonic() + WAIT_SECONDS, folder / "work" / "runs" / "small" / LOG_FILE
    while not (log.exists() and any(_begins_audit(line) for line in log.read_text().splitlines())):
        assert time.monotonic() < end, run.written
        assert run.process.poll() is None, run.written
        time.sleep(0.05)
    time.sleep(1.0)
    return run.processes()


def _begins_audit(line: str) -> bool:
    with suppress(ValueError):  # it is just being written
        told = json.loads(line)
        return told["stage"] == "audit" and told["event"] == BEGAN
    return False


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_stopped_in_each_of_its_stages_a_night_ends_in_time_and_resumes_to_the_same(tmp_path: Path) -> None:
    """By `benchmarks/stop_night.py`, which says what is wrong; in a process of its own, as it forks."""
    script, found = Path(__file__).parents[2] / "benchmarks" / "stop_night.py", tmp_path / "found.json"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--out", str(found)],
        env=kept | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=2 * WAIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(found.read_text(encoding="utf-8"))["rows"]
    assert {row["way"] for row in rows} == {"Ctrl-C", "SIGTERM", "closed"}
    (tmp_path / "run.toml").write_text(CONFIG, encoding="utf-8")
    assert [row["stage"] for row in rows] == list(labels(load_config(tmp_path / "run.toml")))
