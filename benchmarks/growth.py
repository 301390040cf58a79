"""How a whole night grows with the cohort: `python benchmarks/growth.py [--sizes N ...] [--folder F] [--cluster]`.

Cohorts of 50,000, 200,000, 500,000 and 1,000,000 stays go through the stages that read and keep every stay: ingest
(with the contract of its events), the cohort's contract, prepare, encode (RQE), the encoding's contract, private
condensing. The stays are the 8,000 of PhysioNet 2012 drawn with replacement under new ids, each its own subject, their
events as they were recorded, in parquet files of 20,000 stays each: plain resampling, so a larger cohort is no harder
to read and no richer, and says nothing about what condensing it is worth. Each stage runs in a process of its own on
two threads and is the real one, with the store, the ledger and the keys of a workspace.

Told of each stage: seconds; the peak of RssAnon, which is what the process (with --cluster its workers, too) holds
itself; the peak of resident pages, in which pages of mapped files count for as long as the system has room for them.
`growth` is the slope of the logarithm over that of the number of stays, 1 = linear, and
`seconds_per_stay_against_smallest` its plain form. `--cluster` makes prepare and encode on two local worker processes,
kills one of them with SIGKILL in the middle of encode, and says whether the arrays have the digests of the run on
threads.

Finished stages are kept in the result file and a run goes on where it stopped, size by size; what a size needs on the
disk (about 40 GB per million stays at its worst) is printed before it starts, with the time it will take, and deleted
after it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (50_000, 200_000, 500_000, 1_000_000)
STAGES = ("ingest", "validate cohort", "prepare", "encode rqe", "validate rqe", "condense private")
MAPS = ("prepare", "encode rqe")
SHARD_STAYS, SEED, SAMPLE_SECONDS, N_STEPS = 20_000, 0, 0.05, 48
BYTES_PER_STAY = 40_000  # on the disk at the worst moment, when the encoding is stored
MICROSECONDS_PER_STAY = 2_000  # all stages, on a machine with nothing else to do; replaced by what was measured
LAYOUT = """
[layout]
[layout.stays]
file = "stays"
stay = "stay_id"
subject = "subject_id"
[[layout.events]]
file = "events"
key = "stay_id"
time = "hours"
time_unit = "hours"
code = "variable"
value = "value"
"""


def write_source(folder: Path, n_stays: int) -> None:
    """`stays.parquet`, `events/*.parquet` and the mapping that reads them."""
    import polars as pl

    from pipeline.ingest.mapping import load as mappings
    from pipeline.ingest.sources.embedded import read_embedded

    real = read_embedded()
    order = real.events["stay_id"].cast(pl.Enum(real.stays["stay_id"])).to_physical().to_numpy()
    events = real.events[np.argsort(order, kind="stable")].drop("stay_id")
    edges = np.searchsorted(np.sort(order), np.arange(real.stays.height + 1))
    drawn = np.random.default_rng(SEED).integers(real.stays.height, size=n_stays)
    (folder / "events").mkdir(parents=True)
    ids = np.arange(n_stays, dtype=np.int64) + 10**8
    outcomes = real.stays.drop("stay_id", "subject_id")[drawn]
    outcomes.with_columns(stay_id=pl.Series(ids), subject_id=pl.Series(ids)).write_parquet(folder / "stays.parquet")
    for shard, first in enumerate(range(0, n_stays, SHARD_STAYS)):
        rows = drawn[first : first + SHARD_STAYS]
        lengths = edges[rows + 1] - edges[rows]
        places = np.repeat(edges[rows] - np.append(0, np.cumsum(lengths)[:-1]), lengths) + np.arange(lengths.sum())
        frame = events[places].with_columns(stay_id=pl.Series(np.repeat(ids[first : first + SHARD_STAYS], lengths)))
        frame.write_parquet(folder / "events" / f"{shard:03}.parquet", compression="zstd")
    text = (Path(mappings.__file__).parent / "mappings" / "physionet2012.toml").read_text(encoding="utf-8")
    (folder / "mapping.toml").write_text(text + LAYOUT, encoding="utf-8")


def job_of(place: Path, cluster: bool) -> Any:
    """The job of a size; its workspace lies in `place`."""
    from flows.workspace.job import KEY_PURPOSES, key_path, new_job
    from pipeline.core.config import parse_config
    from pipeline.core.keys.secrets import Secret, write_secret

    raw = {
        "name": "growth",
        "device": "cpu",
        "workspace": str(place / "workspace"),
        "source": {"kind": "tables", "folder": str(place / "source")},
        "cohort": {
            "mapping": str(place / "source" / "mapping.toml"),
            "tasks": ["in_hospital_death"],
            "n_steps": N_STEPS,
        },
        "encode": {"rqe": {"kind": "quantum"}},
        "condense": {"private": {"kind": "private_moments", "input": "rqe", "n_per_class": 40}},
        "release": {"artefact": "private", "policy": "demo", "licence": "ODbL-1.0"},
        "compute": {"kind": "local" if cluster else "threads", "workers": 2},
    }
    config = parse_config(raw, "the benchmark's configuration", place)
    for number, purpose in enumerate(KEY_PURPOSES, start=1):  # the same in every workspace, to compare digests
        if not key_path(config.workspace, purpose).exists():
            write_secret(key_path(config.workspace, purpose), Secret(bytes([number]) * 32, purpose))
    return new_job(config)


def run_cell(place: Path, stage: str, made: dict[str, list[str]], cluster: bool) -> dict[str, Any]:
    """One stage in this process: its digests, seconds and peaks."""
    from flows.stages.condense import condense
    from flows.stages.encode import encode
    from flows.stages.ingest import ingest
    from flows.stages.prepare import prepare
    from flows.stages.validate import validate
    from pipeline.store import Made

    job = job_of(place, cluster)
    before = {name: Made(tuple(digests), 0.0, True) for name, digests in made.items()}
    work = {
        "ingest": lambda: ingest(job),
        "validate cohort": lambda: validate(job, "cohort", before["ingest"]),
        "prepare": lambda: prepare(job, before["ingest"]),
        "encode rqe": lambda: encode(job, "rqe", before["prepare"]),
        "validate rqe": lambda: validate(job, "rqe", before["encode rqe"]),
        "condense private": lambda: condense(job, "private", before["encode rqe"], None),
    }[stage]
    killed: list[dict[str, Any]] = []
    if cluster and stage == MAPS[-1]:
        threading.Thread(target=kill_one_worker, args=(job, killed), daemon=True).start()
    with peaks() as peak:
        begun, spent = time.monotonic(), time.process_time()
        found = work()
        seconds, cpu = time.monotonic() - begun, time.process_time() - spent
    told = {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "digests": list(found.digests)}
    arrays = job.store.describe(found.first).get("arrays", {})
    return (
        told
        | {"arrays": arrays, "worker_killed": killed[0] if killed else None}
        | {
            "peak_own_mib": round(peak[0]),
            "peak_resident_mib": round(peak[1]),
        }
    )


def kill_one_worker(job: Any, killed: list[dict[str, Any]]) -> None:
    """SIGKILL to a worker when a quarter of its stage's blocks are made and others are not."""
    from flows import compute

    while not compute._client.cache_info().currsize:
        time.sleep(SAMPLE_SECONDS)
    client = compute._client(job.config.compute)
    while True:
        states = [future.status for future in list(client.futures.values())]
        done = states.count("finished")
        if done and done >= len(states) // 4:
            break
        time.sleep(SAMPLE_SECONDS)
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    killed.append({"blocks": len(states), "made_before": done})


def descendants(pid: int) -> list[int]:
    """Processes below one, by /proc."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def memory_mib(pid: int) -> tuple[float, float]:
    """RssAnon and VmRSS of a process; nothing of one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0, 0.0
    told = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("RssAnon", "VmRSS"))}
    return int(told.get("RssAnon", 0)) / 1024, int(told.get("VmRSS", 0)) / 1024


@contextmanager
def peaks() -> Iterator[list[float]]:
    """The largest RssAnon and VmRSS seen while inside, of this process and those below it together."""
    peak, done = [0.0, 0.0], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            seen = [memory_mib(pid) for pid in (os.getpid(), *descendants(os.getpid()))]
            peak[0] = max(peak[0], sum(one for one, _ in seen))
            peak[1] = max(peak[1], sum(all_of_it for _, all_of_it in seen))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def growth(runs: dict[str, Any]) -> dict[str, Any]:
    """Slopes over the finished sizes, of the time of each stage and of all."""
    sizes = sorted((int(size) for size, run in runs.items() if set(run["stages"]) >= set(STAGES)))
    if len(sizes) < 2:
        return {}
    seconds = {stage: [runs[str(n)]["stages"][stage]["seconds"] for n in sizes] for stage in STAGES}
    seconds["all"] = [sum(column) for column in zip(*seconds.values(), strict=True)]
    slope = {name: np.polyfit(np.log(sizes), np.log(np.maximum(one, 0.1)), 1)[0] for name, one in seconds.items()}
    share = [round(s / n / (seconds["all"][0] / sizes[0]), 2) for n, s in zip(sizes, seconds["all"], strict=True)]
    peak = [max(runs[str(n)]["stages"][stage]["peak_own_mib"] for stage in STAGES) for n in sizes]
    return {
        "sizes": sizes,
        "seconds": {name: round(float(one), 2) for name, one in slope.items()},
        "seconds_per_stay_against_smallest": share,
        "peak_own_mib": peak,
    }


def measure(size: int, place: Path, result: dict[str, Any], out: Path, cluster: bool) -> None:
    """The stages of a size that are missing; each is kept as it comes."""
    runs = result.setdefault("cluster_runs" if cluster else "runs", {})
    run = runs.setdefault(str(size), {"stages": {}})
    if set(run["stages"]) >= set(STAGES):
        return
    known = [sum(s["seconds"] for s in r["stages"].values()) / int(n) for n, r in runs.items() if len(r["stages"]) > 5]
    seconds = size * (known[-1] if known else MICROSECONDS_PER_STAY / 1e6)
    free, needed = shutil.disk_usage(place).free, size * BYTES_PER_STAY
    print(f"{size} stays: about {seconds / 60:.0f} min and {needed / 1e9:.0f} GB on the disk ({free / 1e9:.0f} free)")
    if free < needed * 1.2:
        raise SystemExit(f"{place} needs {needed * 1.2 / 1e9:.0f} GB free")
    spot = place / str(size)
    if not (spot / "written").exists():
        shutil.rmtree(spot, ignore_errors=True)
        begun = time.monotonic()
        write_source(spot / "source", size)
        run["stages"] = {}
        run["source"] = {"seconds": round(time.monotonic() - begun, 1), "mib": mib_of(spot / "source")}
        (spot / "written").touch()
    for stage in STAGES:
        if stage in run["stages"]:
            continue
        made = {name: told["digests"] for name, told in run["stages"].items()}
        asked = [sys.executable, __file__, "--cell", str(spot), stage, json.dumps(made), str(int(cluster))]
        told = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
        run["stages"][stage] = json.loads(told.splitlines()[-1]) | {"disk_mib": mib_of(spot)}
        save(result, out)
        print(
            f"  {stage:<17} {json.dumps({k: v for k, v in run['stages'][stage].items() if k[0] in 'sp'})}", flush=True
        )
        if stage == "ingest":
            shutil.rmtree(spot / "source" / "events")
        if stage == "encode rqe":  # its arrays are not looked at again
            digest = run["stages"]["prepare"]["digests"][0]
            (spot / "workspace" / "store" / "objects" / digest[:2] / digest / "arrays.safetensors").unlink()
    if cluster and str(size) in result.get("runs", {}):
        alone = result["runs"][str(size)]["stages"]
        run["same_arrays_as_on_threads"] = {
            s: run["stages"][s]["arrays"] == alone[s]["arrays"] for s in ("ingest", *MAPS)
        }
        run["seconds_against_threads"] = {s: round(run["stages"][s]["seconds"] / alone[s]["seconds"], 2) for s in MAPS}
        save(result, out)
    shutil.rmtree(spot)


def mib_of(folder: Path) -> int:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20)


def save(result: dict[str, Any], out: Path) -> None:
    import sklearn
    import torch
    from reference import machine

    result |= {
        "benchmark": "growth",
        "machine": {**machine(np, torch, sklearn), "threads_used": 2},
        "resampling": "with replacement, new ids, nothing else changed",
        "growth": growth(result.get("runs", {})),
    }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="numbers of stays")
    parser.add_argument("--cluster", action="store_true", help="prepare and encode on two workers, one of them killed")
    parser.add_argument("--folder", type=Path, help="where the cohorts lie (default: the system's temporary folder)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "growth.json")
    parser.add_argument("--cell", nargs=4, metavar=("PLACE", "STAGE", "MADE", "CLUSTER"), help="used internally")
    options = parser.parse_args()
    if options.cell:
        place, stage, made, cluster = options.cell
        print(json.dumps(run_cell(Path(place), stage, json.loads(made), cluster == "1")))
        return
    result = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    place = options.folder or Path(tempfile.gettempdir()) / "decoct-growth"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    for size in sorted(options.sizes):
        measure(size, place, result, options.out, options.cluster)


if __name__ == "__main__":
    main()
