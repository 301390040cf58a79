"""kill -9 at random moments of a night: `python benchmarks/kill_night.py [--kills 100] [--stays 1500] [--out FILE]`.

One night walks undisturbed in a workspace. Then, for each kill, a child process begins the same night in a workspace
with the same keys and is killed: every second time at a random moment of the night, else at a random moment of a stage
drawn at random, as nine tenths of a night are its audit; another child goes on, unharmed. Every artefact must then have
the digest that it has undisturbed, one release must be there (of the next version, if the killed night had put one into
the log: a number is never used twice), the ledger must hold one query, and the record must tell of both nights. The
road, the audit and the gates are the real ones; the stays are real (PhysioNet 2012, set A).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import great_expectations  # here, so that no child has to import it
from reference import machine

from flows.environment import code_version
from flows.nights.night import Night, read_record, run_night
from flows.run import walk_until
from flows.workspace.job import KEY_PURPOSES, key_path
from flows.workspace.logs import read_log
from pipeline.core.config import Config, parse_config
from pipeline.core.files.chained import read_chain
from pipeline.core.keys.secrets import Secret, write_secret
from pipeline.sharing.policy.ledger import ledger_path
from pipeline.sharing.trust.log import log_path

NOT_REPEATED = {"release"}  # a bundle is dated; what it holds is compared through its candidate
TABLES: dict[str, Any] = {
    "name": "nightly",
    "cohort": {"tasks": ["in_hospital_death"], "step_hours": 4.0, "n_steps": 12},
    "encode": {"raw": {"kind": "identity"}},
    "condense": {"private": {"kind": "private_moments", "input": "raw", "n_per_class": 10}},
    "utility": {"models": ["logistic_regression"], "n_seeds": 1, "n_random_draws": 1},
    "audit": {"max_targets": 40, "n_bootstrap": 60},
    "release": {"artefact": "private", "policy": "trial.toml", "site": "site", "licence": "ODbL-1.0"},
}


def prepared(folder: Path, stays: int) -> Config:
    """An empty workspace with known keys, and a policy that some hundred stays can pass."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    demo = (files("pipeline.sharing") / "policies" / "demo.toml").read_text(encoding="utf-8")
    text = demo.replace('name = "demo"', 'name = "trial"').replace("max_upper = 0.60", "max_upper = 1.0")
    (folder / "trial.toml").write_text(text, encoding="utf-8")
    source = {"kind": "embedded", "sets": ["a"], "max_stays": stays}
    config = parse_config({**TABLES, "source": source, "workspace": str(folder / "work")}, "the benchmark", folder)
    for number, purpose in enumerate(KEY_PURPOSES, start=1):
        write_secret(key_path(config.workspace, purpose), Secret(bytes([number]) * 32, purpose))
    return config


def begun(config: Config) -> int:
    """A child process that walks the night; returns its process id."""
    child = os.fork()
    if child:
        return child
    with contextlib.suppress(BaseException), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        run_night(config, lambda job, made: walk_until(job, made=made))
    os._exit(0)


def told(night: Night) -> dict[str, list[str]]:
    return {label: digests for label, digests in night.digests.items() if label not in NOT_REPEATED}


def killed(config: Config, after: float) -> str:
    """Kill a night and walk it again; returns the last stage that had ended. Raises what is wrong."""
    child = begun(config)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)  # a child that has ended waits to be asked, so this is no other process
    _, status = os.waitpid(child, 0)
    stages = [line["stage"] for line in read_log(config.workspace / "runs" / config.name)]
    os.waitpid(begun(config), 0)
    return (stages[-1] if stages else "nothing") if os.WIFSIGNALED(status) else "not killed"


def check(config: Config, whole: Night, where: str) -> None:
    record = read_record(config.workspace)
    last = record[-1]
    others = [label for label in {**told(last), **told(whole)} if told(last).get(label) != told(whole).get(label)]
    assert not others, f"killed after {where}: other digests of {', '.join(others)}"
    assert last.exit_code == whole.exit_code, where
    log = read_chain(log_path(config.workspace)).entries
    burnt = sum(entry["what"] == "propose" for entry in log) - 1  # announced by the killed night, then never used
    assert burnt in (0, 1), where
    assert last.version == whole.version + burnt, where
    bundles = [path.name for path in (config.workspace / "releases").glob("[!.]*")]
    assert bundles == [whole.release.replace(f"-v{whole.version}", f"-v{last.version}")], where
    queries = [entry for entry in read_chain(ledger_path(config.workspace)).entries if entry["what"] == "reserve"]
    assert len(queries) == 1, where
    states = [night.state for night in record]
    assert states[:-1] in ([], ["killed"], [whole.state]), where  # []: before the night had put itself on record


def measure(base: Path, kills: int, stays: int, seed: int) -> Iterator[dict[str, Any]]:
    """Kill `kills` nights; after each: after which stages they were, and what the undisturbed night came to."""
    draws = random.Random(seed)
    code_version()  # kept by every child: digests name the code, and somebody may be editing it
    config = prepared(base / "whole", stays)
    begin = time.monotonic()
    os.waitpid(begun(config), 0)
    seconds = time.monotonic() - begin
    (whole,) = read_record(config.workspace)
    walked = [line["stage"] for line in read_log(config.workspace / "runs" / config.name)]
    lengths = [whole.seconds[label] for label in dict.fromkeys(walked) if label in whole.seconds]
    undisturbed = {"state": whole.state, "exit_code": whole.exit_code, "artefacts": len(told(whole))}
    found: Counter[str] = Counter()
    while (so_far := sum(found.values()) - found["not killed"]) < kills:
        config = prepared(base / "killed", stays)
        where = killed(config, moment(lengths, seconds, draws) if so_far % 2 else draws.uniform(0, seconds))
        check(config, whole, where)
        found[where] += 1
        print(f"{sum(found.values())} nights, the last killed after: {where}", file=sys.stderr, flush=True)
        yield {
            "kills": sum(found.values()) - found["not killed"],
            "stays": stays,
            "seconds_of_a_night": round(seconds, 1),
            "undisturbed": undisturbed,
            "last_stage_that_had_ended": dict(found),
            "same_digests": sum(found.values()) - found["not killed"],
        }


def moment(lengths: list[float], seconds: float, draws: random.Random) -> float:
    """A moment of a stage that is drawn first; what the night takes besides its stages is its beginning."""
    place = draws.randrange(len(lengths))
    return seconds - sum(lengths[place:]) + draws.uniform(0, lengths[place])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stays", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for result in measure(Path(folder), options.kills, options.stays, options.seed):
            text = json.dumps(result | {"machine": machine(great_expectations)}, indent=2)
            if options.out:
                options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
