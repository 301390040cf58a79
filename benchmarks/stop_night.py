"""Stop a night in each of its stages: `python benchmarks/stop_night.py [--prefect] [--quick] [--out FILE]`.

A night is a process in a terminal of its own (a pseudo-terminal, whose foreground group it is). As a stage
begins the process is halted, so that a stage of a millisecond can be met; a slow one then works on for a
part, drawn at random, of what it takes undisturbed. Then Ctrl-C is typed, or the terminal is closed, or, as systemd
stops a unit, each of its processes is sent SIGTERM, Prefect's temporary server among them. Every night begins where the
one before was stopped. The last walks to its end, and has to have made what an undisturbed one makes under the same
keys. `--quick`: two attacks instead of all, and each stage is stopped once, in one of the three ways in turn.
"""

from __future__ import annotations

import argparse
import atexit
import itertools
import json
import os
import pty
import random
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, final

import great_expectations  # here, so that no child has to import it
from reference import machine

import flows.run
from flows import registry
from flows.cli.start import main as command_line
from flows.environment import TELEMETRY_OFF, code_version
from flows.nights.night import read_record
from flows.run import labels
from flows.stopping import SENTENCE
from flows.workspace.job import KEY_PURPOSES, key_path
from flows.workspace.logs import read_log
from pipeline.audit.sets.membership import Membership
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.core.config import load_config
from pipeline.core.keys.secrets import Secret, write_secret

CONFIG = """
name = "small"
workspace = "work"
source = { kind = "embedded", sets = ["a"], max_stays = 800 }
cohort = { tasks = ["in_hospital_death"], step_hours = 4.0, n_steps = 12 }
encode.raw = { kind = "identity" }
condense.private = { kind = "private_moments", n_per_class = 10 }
utility = { models = ["logistic_regression"], n_seeds = 1, n_random_draws = 1 }
audit = { max_targets = 20, n_bootstrap = 20 }
release = { artefact = "private", policy = "trial.toml", site = "site", licence = "ODbL-1.0" }
"""
CODES = {"Ctrl-C": 130, "SIGTERM": 143, "closed": 129}
STOP_SECONDS = 3.0
SLOW_SECONDS = 0.3
NOT_REPEATED = {"release", "report"}  # they hold the time, or come after the gate
WAIT_SECONDS = 600


@final
@dataclass
class Ended:
    """How a process in a terminal ended, what it wrote, and the seconds from its stop to its end; None: not stopped."""

    code: int  # -1: it did not
    written: bytearray = field(default_factory=bytearray)
    seconds: float | None = None
    left: list[int] = field(default_factory=list)


def prepared(folder: Path) -> Path:
    """A configuration that a few hundred stays can pass, and known keys."""
    folder.mkdir(parents=True)
    demo = (files("pipeline.sharing") / "policies" / "demo.toml").read_text(encoding="utf-8")
    text = demo.replace('name = "demo"', 'name = "trial"').replace("max_upper = 0.60", "max_upper = 1.0")
    (folder / "trial.toml").write_text(text, encoding="utf-8")
    (folder / "run.toml").write_text(CONFIG, encoding="utf-8")
    for number, purpose in enumerate(KEY_PURPOSES, start=1):
        write_secret(key_path(folder / "work", purpose), Secret(bytes([number]) * 32, purpose))
    return folder


def walked(folder: Path, words: list[str], label: str = "", delay: float = 0.0, way: str = "") -> Ended:
    """A command in a terminal of its own, stopped in the stage of this label."""
    pid, master = pty.fork()
    if not pid:
        _be_the_night(folder, words, label, delay > 0)
    ended, begin, at_end = Ended(-1), 0.0, time.monotonic() + WAIT_SECONDS
    there: list[int] = []
    try:
        while time.monotonic() < at_end:
            if way != "closed" or not begin:
                _read(master, ended.written)
            done, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if done and os.WIFSTOPPED(status):
                there = family(pid)
                if delay:
                    os.kill(pid, signal.SIGCONT)
                    time.sleep(delay)
                begin = time.monotonic()
                if way == "Ctrl-C":
                    os.write(master, b"\x03")
                elif way == "closed":
                    os.close(master)
                else:
                    for one in reversed(there):  # the server first
                        with suppress(ProcessLookupError):
                            os.kill(one, signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)
            elif done:
                ended.code = os.waitstatus_to_exitcode(status)
                ended.seconds = time.monotonic() - begin if begin else None
                break
            time.sleep(0.01)
    finally:
        while (left := [one for one in there if one != pid and _runs(one)]) and time.monotonic() < begin + STOP_SECONDS:
            time.sleep(0.05)  # those that it has ended are given the same time as it was
        ended.left = left
        for one in [*left, *([pid] if ended.code == -1 else [])]:
            os.kill(one, signal.SIGKILL)
        with suppress(OSError):  # it was closed
            _read(master, ended.written)
            os.close(master)
    return ended


def _be_the_night(folder: Path, words: list[str], label: str, works_on: bool) -> None:
    """In the child: the command line itself, halted where the stage begins, after its line in the log."""
    at_most = flows.run.at_most

    def halted(minutes: int, stage: str) -> Any:
        if stage == label:
            os.kill(os.getpid(), signal.SIGSTOP)
            for _ in range(0 if works_on else 50):  # another thread may be given the signal
                time.sleep(0.01)
        return at_most(minutes, stage)

    code = 1
    try:
        for number in CODES.values():
            signal.signal(number - 128, signal.SIG_DFL)
        vars(flows.run)["at_most"] = halted
        os.chdir(folder)
        os.environ |= TELEMETRY_OFF | {"PREFECT_HOME": str(folder / "work" / "prefect")}
        sys.argv = ["decoct", *words]
        command_line()
    except SystemExit as error:
        code = int(error.code or 0)
    finally:  # as the interpreter ends, but for what the parent would still do above this
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        os._exit(code)


def _read(master: int, written: bytearray) -> None:
    with suppress(OSError):  # nobody writes there any more
        while select.select([master], [], [], 0.01)[0]:
            written += os.read(master, 65536)


def family(pid: int) -> list[int]:
    """The process and all that it has started, in whatever session."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found, new = [], [pid]
    while new:
        found += new
        new = [child for one in new for child in parents.get(one, [])]
    return found


def _runs(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def measure(base: Path, words: list[str], ways: list[list[str]], seed: int) -> Iterator[dict[str, Any]]:
    """Each stage with each way to stop it; the ways of one list in turn, in one workspace. Raises what is wrong."""
    draws = random.Random(seed)
    code_version()  # kept by every child: digests name the code, and somebody may be editing it
    whole = prepared(base / "whole")
    said = walked(whole, words).written.decode(errors="replace")
    (undisturbed,) = read_record(whole / "work")
    assert undisturbed.state == "released", said
    took = {line["stage"]: line["seconds"] for line in read_log(whole / "work" / "runs" / "small")}
    for number, several in enumerate(ways):
        folder = prepared(base / str(number))
        for label, way in zip(labels(load_config(folder / "run.toml")), itertools.cycle(several)):
            delay = draws.uniform(0.1, 0.6) * took[label] if took[label] > SLOW_SECONDS else 0.0
            ended = walked(folder, words, label, delay, way)
            check(folder, label, way, ended, fast=not delay)
            yield {"way": way, "stage": label, "after": round(delay, 2), "seconds": round(ended.seconds or 0.0, 2)}
        ended = walked(folder, words)
        again = read_record(folder / "work")[-1]
        assert (ended.code, again.state) == (0, undisturbed.state), ended.written.decode(errors="replace")
        other = [one for one in undisturbed.digests if undisturbed.digests[one] != again.digests.get(one)]
        assert not {*other} - NOT_REPEATED, f"other digests of {', '.join(other)}"


def check(folder: Path, label: str, way: str, ended: Ended, *, fast: bool) -> None:
    """It ended in time, with its code, one sentence where somebody can read it, nobody left, and is on record."""
    said, night = ended.written.decode(errors="replace"), read_record(folder / "work")[-1]
    last = read_log(folder / "work" / "runs" / "small")[-1]
    assert ended.code == CODES[way], (label, ended.code, said)
    assert ended.seconds is not None, (label, said)
    assert ended.seconds < STOP_SECONDS, (label, ended.seconds)
    assert said.count("decoct: ") == (way != "closed"), (label, said)
    assert way == "closed" or said.rstrip().endswith(f"decoct: {SENTENCE}"), (label, said)
    assert not ended.left, (label, ended.left)
    assert (night.state, night.exit_code) == ("interrupted", CODES[way]), (label, night)
    if fast:  # a stage that works on may take less than it took undisturbed on a busier machine
        assert (last["stage"], last.get("sentence")) == (label, "interrupted"), (label, last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefect", action="store_true", help="through Prefect and its temporary server")
    parser.add_argument("--quick", action="store_true", help="two attacks, and each stage once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    words = ["night", "run.toml", *([] if options.prefect else ["--no-prefect"])]
    ways = [list(CODES)] if options.quick else [[way] for way in CODES]
    if options.quick:
        registry.attacks = lambda: (NearCopies(), Membership())
    rows: list[dict[str, Any]] = []
    folder = Path(tempfile.mkdtemp())  # a TemporaryDirectory would be taken away by the first child that ends
    try:
        for row in measure(folder, words, ways, options.seed):
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder)
    slowest = max(row["seconds"] for row in rows)
    found = {
        "prefect": options.prefect,
        "quick": options.quick,
        "stops": len(rows),
        "slowest_seconds": slowest,
        "rows": rows,
    }
    text = json.dumps(found | {"machine": machine(great_expectations)}, indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
