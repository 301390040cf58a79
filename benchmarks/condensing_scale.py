"""How condensing grows with the cohort: `python benchmarks/condensing_scale.py [--million] [--folder F]`.

Cohorts of 5,000, 50,000 and 500,000 stays (1,000,000 with --million) of 48 hourly steps x 44 channels, float32: the
5,120 training stays of P12-8000 (in-hospital death) drawn with replacement, each value moved by a uniform jitter of at
most `JITTER` and kept in [0, 1]. They lie in one file that is mapped, never loaded; a smaller cohort is its beginning.
Every cell runs in a process of its own, on one thread, 40 samples per class, every method at its defaults. Memory: the
peak of RssAnon (what the process itself holds) and the peak of all resident pages, in which the mapped file's pages
count as long as the system has room for them; both with the interpreter and its libraries. `condensing` is the peak of
RssAnon less what was held before. Time: CPU seconds of condensing.
The file needs 4.2 GB on disk (8.4 GB with --million) and is deleted at the end. Finished cells are kept in the result
file, and a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
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

SIZES, MILLION = (5_000, 50_000, 500_000), 1_000_000
N_STEPS, N_CHANNELS, JITTER, SEED, N_PER_CLASS = 48, 44, 0.005, 0, 40
METHODS = ("random", "private moments", "kernel matching", "centroids")
WRITE_STAYS, SAMPLE_SECONDS = 5_000, 0.02


def write_cohort(folder: Path, n_stays: int) -> None:
    """`features` (raw float32) and `labels.npy`; a prefix of either is a smaller cohort."""
    from condensing import TASK, load

    from pipeline.core.types import Split

    real = load((TASK,)).part(Split.TRAIN)
    draws = np.random.default_rng(SEED)
    rows = draws.integers(len(real.features), size=n_stays)
    with (folder / "features").open("wb") as file:
        for start in range(0, n_stays, WRITE_STAYS):
            chunk = real.features[rows[start : start + WRITE_STAYS]]
            jitter = (draws.random(chunk.shape, dtype=np.float32) - 0.5) * (2 * JITTER)
            file.write(np.clip(chunk + jitter, 0, 1).data)
    np.save(folder / "labels.npy", real.labels[rows])


def mapped_cohort(folder: Path, n_stays: int) -> Any:
    """The first `n_stays` of the file as training stays."""
    from pipeline.core.types import EncodedCohort, Provenance, Task

    shape = (n_stays, N_STEPS, N_CHANNELS)
    return EncodedCohort(
        features=np.memmap(folder / "features", np.float32, "r", shape=shape),
        labels=np.load(folder / "labels.npy")[:n_stays],
        subject_index=np.arange(n_stays, dtype=np.int32),
        split=np.zeros(n_stays, np.int8),
        channels=tuple(f"channel{i}" for i in range(N_CHANNELS)),
        tasks=(Task("in_hospital_death"),),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("benchmark"),
    )


def condenser(method: str) -> Any:
    """The method at its defaults; imports only what it needs."""
    if method == "private moments":
        from condensation.private.condenser import PrivateMoments

        return PrivateMoments()
    if method == "kernel matching":
        from condensation.kernel_matching import KernelMatching

        return KernelMatching()
    from condensation.coresets import Centroids, RandomReal

    return RandomReal() if method == "random" else Centroids()


def run_cell(folder: Path, method: str, n_stays: int) -> dict[str, Any]:
    """Condense once in this process."""
    from pipeline.core.keys.noise import NoiseSource
    from pipeline.core.keys.secrets import Secret
    from pipeline.core.protocols import ignore_step

    made = condenser(method)
    noise = NoiseSource(Secret(bytes(32), "noise"), "benchmark")  # no secret: a stranger must get the same
    before = status_mib("RssAnon")
    with peak_own_memory() as peak:
        cohort = mapped_cohort(folder, n_stays)
        begun, wall = time.process_time(), time.monotonic()
        condensed = made.condense(
            cohort, n_per_class=N_PER_CLASS, seed=SEED, noise=noise, device="cpu", on_step=ignore_step
        )
        spent, waited = time.process_time() - begun, time.monotonic() - wall
    return {
        "method": method,
        "stays": n_stays,
        "samples": len(condensed.features),
        "cpu_seconds": round(spent, 2),
        "wall_seconds": round(waited, 1),
        "cpu_microseconds_per_stay": round(spent / n_stays * 1e6, 1),
        "peak_own_mib": round(peak[0]),
        "condensing_mib": round(peak[0] - before),
        "peak_rss_mib": round(status_mib("VmHWM")),
    }


def status_mib(name: str) -> float:
    """A line of this process's status in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


@contextmanager
def peak_own_memory() -> Iterator[list[float]]:
    """The largest RssAnon seen while inside, looked at every `SAMPLE_SECONDS`."""
    peak, done = [status_mib("RssAnon")], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], status_mib("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def growth(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Method -> exponents: least-squares slope of the logarithm over that of the number of stays; 1 = linear."""
    found: dict[str, Any] = {}
    for method in METHODS:
        rows = [cell for cell in cells if cell["method"] == method]
        if len({row["stays"] for row in rows}) > 1:
            sizes = np.log([row["stays"] for row in rows])
            found[method] = {
                name: round(float(np.polyfit(sizes, np.log([max(row[name], 0.01) for row in rows]), 1)[0]), 2)
                for name in ("cpu_seconds", "peak_own_mib")
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", action="store_true", help="1,000,000 stays as well")
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of stays instead of those above")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folder", type=Path, help="where the file is made (default: the system's temporary folder)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "condensing_scale.json")
    parser.add_argument("--cell", nargs=3, metavar=("FOLDER", "METHOD", "STAYS"), help="one cell (used internally)")
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(run_cell(Path(options.cell[0]), options.cell[1], int(options.cell[2]))))
        return
    sizes = options.sizes or [*SIZES, *([MILLION] if options.million else [])]
    measure(sizes, options.methods, options.folder, options.out)


def measure(sizes: list[int], methods: list[str], place: Path | None, out: Path) -> None:
    """Write the file, run the cells that are missing, small ones first, and keep each as it comes."""
    import sklearn
    import torch
    from reference import machine

    result = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"cells": []}
    done = {(cell["method"], cell["stays"]) for cell in result["cells"]}
    missing = [(method, size) for size in sorted(sizes) for method in methods if (method, size) not in done]
    if not missing:
        return
    bytes_needed = max(size for _, size in missing) * N_STEPS * N_CHANNELS * 4
    with tempfile.TemporaryDirectory(prefix="decoct-scale-", dir=place) as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 2 * bytes_needed:
            raise SystemExit(f"{folder} needs {2 * bytes_needed / 1e9:.0f} GB free")
        write_cohort(folder, max(size for _, size in missing))
        for method, size in missing:
            asked = [sys.executable, __file__, "--cell", str(folder), method, str(size)]
            told = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
            result["cells"].append(json.loads(told.splitlines()[-1]))
            result |= {
                "benchmark": "condensing_scale",
                "machine": {**machine(np, torch, sklearn), "threads_used": 1},
                "series": [N_STEPS, N_CHANNELS],
                "jitter": JITTER,
                "growth_exponents": growth(result["cells"]),
            }
            out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(told.strip(), flush=True)


if __name__ == "__main__":
    main()
