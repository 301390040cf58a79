"""What a night costs: `python benchmarks/night_costs.py [--stays 4000] [--small] [--no-prefect] [--out FILE]`.

Four nights by `decoct night`, each a process of its own, in one workspace: a full one; an unchanged one; one whose
cohort has 5 % more stays, with `min_new_subjects` above that (held) and without (everything after ingest made anew).
Told are wall clock and the process's own time, which a busy machine stretches less. The stays are those of set A, with
the demo's tables; `--small` takes one encoding, one set and one model.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from kill_night import TABLES
from reference import machine

from flows.templates import demo_config

MORE = 0.05


def written(folder: Path, stays: int, min_new: int, small: bool) -> Path:
    """The configuration of a night on the first so many stays; limits that a few hundred stays can pass."""
    demo = (files("pipeline.sharing") / "policies" / "demo.toml").read_text(encoding="utf-8")
    text = demo.replace('name = "demo"', 'name = "trial"').replace("max_upper = 0.60", "max_upper = 1.0")
    (folder / "trial.toml").write_text(text, encoding="utf-8")
    plan = (
        TABLES if small else demo_config(folder).model_dump(mode="json", exclude_defaults=True, exclude={"workspace"})
    )
    plan = json.loads(json.dumps(plan))
    plan |= {"name": "nightly", "workspace": "work", "night": {"min_new_subjects": min_new}}
    plan["source"] = {"kind": "embedded", "sets": ["a"], "max_stays": stays}
    plan["release"] |= {"policy": "trial.toml"}
    path = folder / "night.toml"
    path.write_text("\n".join(as_toml(plan)), encoding="utf-8")
    return path


def as_toml(table: dict[str, Any], name: str = "") -> list[str]:
    """A table of strings, numbers, lists and tables as TOML: JSON's scalars and lists are TOML's."""
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict | None)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += as_toml(value, f"{name}.{key}" if name else key)
    return lines


def night(config: Path, prefect: bool) -> dict[str, Any]:
    """One night in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "night",
        str(config),
        "--json",
        *([] if prefect else ["--no-prefect"]),
    ]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(done.stdout)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "state": told["state"],
        "wall": round(wall, 1),
        "cpu": round(cpu, 1),
        "road": told["wall_seconds"],
        "seconds": told["seconds"],
        "sentence": told["sentence"][:160],
    }


def measure(folder: Path, stays: int, small: bool, prefect: bool) -> dict[str, Any]:
    """The four nights, and their shares of the full one."""
    more = round(stays * MORE)
    nights = {
        "full": night(written(folder, stays - more, 0, small), prefect),
        "unchanged": night(written(folder, stays - more, 0, small), prefect),
        "five per cent more, held": night(written(folder, stays, 2 * more, small), prefect),
        "five per cent more, made anew": night(written(folder, stays, 0, small), prefect),
    }
    full = nights["full"]
    for found in nights.values():
        found["share_of_wall"] = round(found["wall"] / full["wall"], 3)
        found["share_of_cpu"] = round(found["cpu"] / full["cpu"], 3)
    return {"stays": stays, "small": small, "prefect": prefect, "nights": nights}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stays", type=int, default=4000)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--no-prefect", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.stays, options.small, not options.no_prefect)
    result |= {"machine": machine(), "threads": os.environ.get("OMP_NUM_THREADS", "")}
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
