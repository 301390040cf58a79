"""From a bundle's folder to the first training step: `python benchmarks/receiving.py [--runs 5] [--out FILE]`.

The bundle is tests/golden's plain one: nearly all time goes into imports, so each run is a new process. Beside the
whole (wall clock from the start of the interpreter), the parts: `load` (imports, verification, arrays), then either
scikit-learn's logistic regression or one optimizer step of a small torch network, each with its import. `cpu` is the
process's own time, which a busy machine stretches less than the wall clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from reference import machine

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "bundle-2"
BUNDLE = GOLDEN / "st-elsewhere-plain-v1"
BEGIN = f"""
import datetime, json, sys, time
begun = time.perf_counter()
from decoct import load
data = load({str(BUNDLE)!r}, {str(GOLDEN / "root.json")!r}, today=datetime.date(2026, 3, 10))
loaded = time.perf_counter()
"""
SKLEARN = """
from sklearn.linear_model import LogisticRegression
X, y, weight = data.X_y("death")
imported = time.perf_counter()
LogisticRegression(max_iter=1000).fit(X, y, weight)
"""
TORCH = """
import torch
imported = time.perf_counter()
batches = torch.utils.data.DataLoader(data.torch_dataset("death"), batch_size=16)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(1))
series, labels = next(iter(batches))
network(series)
optimizer = torch.optim.Adam(network.parameters())
torch.nn.functional.binary_cross_entropy_with_logits(network(series), labels).backward()
optimizer.step()
"""
END = """
trained = time.perf_counter()
heavy = [name for name in ("prefect", "pydantic", "polars", "great_expectations", "pennylane") if name in sys.modules]
parts = {"load": loaded - begun, "import": imported - loaded, "train": trained - imported}
print(json.dumps({**parts, "cpu": time.process_time(), "heavy": heavy}))
"""


def measured(script: str, runs: int) -> dict[str, Any]:
    rows = []
    for _ in range(runs + 1):  # the first one warms the disk's cache
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        rows.append({**json.loads(done.stdout), "whole": time.perf_counter() - started})
    seconds = {
        part: {
            "median": round(statistics.median(row[part] for row in rows[1:]), 3),
            "least": round(min(row[part] for row in rows[1:]), 3),
            "most": round(max(row[part] for row in rows[1:]), 3),
        }
        for part in ("load", "import", "train", "whole", "cpu")
    }
    return {"seconds": seconds, "heavy_parts_imported": sorted({name for row in rows for name in row["heavy"]})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "receiving.json")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "benchmark": "receiving",
        "machine": machine(np, sklearn, torch),
        "runs": options.runs,
        "bundle_bytes": sum(file.stat().st_size for file in BUNDLE.iterdir()),
    }
    for name, script in (("scikit-learn", SKLEARN), ("torch", TORCH)):
        result[name] = measured(BEGIN + script + END, options.runs)
        print(f"{name:<13} {json.dumps(result[name]['seconds'])}", flush=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
