"""What a command loads: an early stage does not wait for the libraries of the later ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RUN = """
name = "small"
[source]
kind = "tables"
folder = "src"
[cohort]
mapping = "m.toml"
n_steps = 24
[cohort.split]
kind = "given"
[encode.raw]
kind = "identity"
[condense.private]
kind = "private_moments"
input = "raw"
[release]
artefact = "private"
licence = "ODbL-1.0"
"""
MAPPING = """
[layout.stays]
file = "stays"
stay = "stay"
split = "split"
[[layout.events]]
file = "lab"
key = "stay"
time = "hour"
time_unit = "hours"
code = "code"
value = "value"
[variables]
HR = { unit = "/min", plausible = [10, 300], scale = [30, 180], normal = 75 }
[tasks]
died = { kind = "binary", column = "died" }
"""
LOADED = """
import json, sys
from flows.cli.start import main
sys.argv[1:] = ["ingest", "run.toml"]
try:
    main()
except SystemExit as end:
    print(json.dumps({"code": end.code, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def test_ingest_loads_neither_torch_nor_prefect_nor_sklearn(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    parts = ("train", "tuning", "held_out")
    stays = [f"S{i},{parts[i // 4]},{i % 2}" for i in range(12)]
    (tmp_path / "src/stays.csv").write_text("\n".join(["stay,split,died", *stays]))
    rows = [f"S{i},2,HR,{80 + i}" for i in range(12)]
    (tmp_path / "src/lab.csv").write_text("\n".join(["stay,hour,code,value", *rows]))
    (tmp_path / "run.toml").write_text(RUN)
    (tmp_path / "m.toml").write_text(MAPPING)
    ended = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["code"] == 0, ended.stderr
    assert {"numpy", "polars"} <= set(found["loaded"])
    assert not {"torch", "prefect", "sklearn", "pennylane", "dp_accounting", "great_expectations"} & set(
        found["loaded"]
    )


def test_the_help_of_all_commands_loads_no_library_of_a_stage() -> None:
    asked = "import json, sys, flows.cli.main; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    assert not {"numpy", "pydantic", "polars", "rich.console", "torch"} & set(json.loads(ended.stdout))
