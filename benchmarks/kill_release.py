"""kill -9 at random moments of propose, approve, publish, receive: `python benchmarks/kill_release.py [--kills 200]`.

A child process reserves a query on the ledger, proposes, approves, publishes and receives release after release in one
workspace; it is killed after a random time between none and that of a whole round. Then everything on the disk is
looked at: bundles verify or are not there, log and ledger hold, the receiver's state can be read and its arrays are
whole or not there. The next child goes on from what is left. At the end a round without a kill must succeed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from reference import machine
from sample_release import SIGNERS, SITE, TODAY, audited, propose, root_bytes, trusted

from flows.receiving.reception import record
from flows.receiving.unpack import unpack
from flows.workspace.log import checked_log
from pipeline.sharing.approval import approve, publish
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.gate import AuditedRelease
from pipeline.sharing.policy.ledger import People, reserve, spent_by_cohort
from pipeline.sharing.receive.receipt import read_receipt
from pipeline.sharing.receive.received import receive
from pipeline.sharing.receive.state import STATE_FILE, load_state, memory_of
from pipeline.sharing.receive.verify import read_folder, verify, verify_files
from pipeline.sharing.trust.log import read_log

BUDGET = Budget(1e6, 1e-5, 365)
EVENTS = ({"event": "GaussianDpEvent", "noise_multiplier": 50.0},)
PEOPLE = People(tuple(f"p{number}" for number in range(50)), "subject")


def one_round(base: Path, release: AuditedRelease) -> None:
    """Finish what was begun, then one release from ledger to arrays."""
    site, home = base / "site", base / "home"
    for proposal in visible(site / "proposals"):
        finish(site, proposal)
    version = 1 + max((int(e["version"]) for e in read_log(site).entries if e["what"] == "propose"), default=0)
    reserve(site, f"query {version}", EVENTS, PEOPLE, BUDGET, "house")
    bundle = finish(site, propose(site, release, version))
    received = receive(bundle, home / "root.json", today=TODAY)
    record(received.bundle, home / "root.json", None, TODAY)
    unpack(received, home / bundle.name)


def finish(site: Path, proposal: Path) -> Path:
    """Approve, unless that is done, and publish."""
    _, _, approvers = verify_files(read_folder(proposal), trusted(), today=TODAY, proposal=True, anybody=True)
    if not approvers:
        approve(proposal, signer=SIGNERS["approver"], root=trusted(), today=TODAY, workspace=site, revocations=None)
    return publish(proposal, site / "releases", root=trusted(), today=TODAY, workspace=site, revocations=None)


def visible(folder: Path) -> list[Path]:
    """What somebody sees in a folder: what is staged has a dot before its name."""
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def look(base: Path) -> str:
    """Hold everything on the disk against itself; returns how far the round had come. Raises what is wrong."""
    site, home = base / "site", base / "home"
    memory = memory_of(home / "root.json")
    for proposal in visible(site / "proposals"):
        verify_files(read_folder(proposal), trusted(), today=TODAY, proposal=True, anybody=True)
    for bundle in visible(site / "releases"):
        verify(bundle, trusted(), today=TODAY)
    receipts = [read_receipt(path) for path in sorted((memory / "receipts").glob("*.receipt.json"))]
    log, _ = checked_log(site, receipts)
    spent_by_cohort(site, BUDGET)
    load_state(memory / STATE_FILE)
    received = [entry["statement"] for entry in read_log(memory).entries]
    arrays = [path for path in visible(home) if path.is_dir() and path != memory]
    for folder in arrays:
        told = json.loads((folder / "manifest.json").read_text())
        shapes = {name: list(np.load(folder / f"{name}.npy").shape) for name in told["data"]["arrays"]}
        assert shapes == {name: array["shape"] for name, array in told["data"]["arrays"].items()}
    published = [entry["statement"] for entry in log.entries if entry["what"] == "publish"]
    for bundle in visible(site / "releases"):
        assert verify(bundle, trusted(), today=TODAY).statement in published
    assert len(arrays) <= len(set(received))
    return str(log.entries[-1]["what"]) if log.entries else "nothing"


def killed_round(base: Path, release: AuditedRelease, after: float) -> bool:
    """Run a round in a child and kill it; True when the kill came first."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            one_round(base, release)
            code = 0
        finally:
            os._exit(code)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)  # a child that has ended waits to be asked, so this is no other process
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise AssertionError("a round that nobody killed failed")
    return os.WIFSIGNALED(status)


def prepared(base: Path) -> AuditedRelease:
    """An empty workspace and receiver, and everything imported that a round needs."""
    shutil.rmtree(base, ignore_errors=True)
    (base / "home").mkdir(parents=True)
    (base / "home" / "root.json").write_bytes(root_bytes())
    return audited()


def measure(base: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill until `kills` rounds were killed; returns where they were found."""
    release, draws = prepared(base), random.Random(seed)
    begin = time.monotonic()
    one_round(base, release)
    seconds = time.monotonic() - begin
    found: Counter[str] = Counter()
    rounds = 0
    while sum(found.values()) < kills:
        rounds += 1
        if killed_round(base, release, draws.uniform(0, 1.2 * seconds)):
            found[look(base)] += 1
        if rounds % 20 == 0:  # the log grows with every round: begin anew, so that a round takes as long as the first
            release = prepared(base)
            one_round(base, release)
    one_round(base, release)
    look(base)
    return {"kills": kills, "rounds": rounds, "seconds_of_a_round": round(seconds, 3), "last_line_of_the_log": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder) / "base", options.kills, options.seed) | {"site": SITE, "machine": machine()}
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
