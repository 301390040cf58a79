"""Every fenced block of README and docs is run, or read by what it is for; what is not is listed with its reason.

A block that neither this file nor the named test knows is a failure: whoever writes one says here how it is kept true.
"""

from __future__ import annotations

import datetime
import functools
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import decoct
from flows.templates import brief_config
from pipeline.core.config import Config, parse_config
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "bundle-2"
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_ELSEWHERE = {  # page -> the test that runs its Python, files and commands
    "README.md": "tests/docs/test_docs.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
    "docs/how-to/read-tables.md": "tests/unit/test_ingest_tutorial.py",
    "docs/how-to/encode-in-a-pipeline.md": "tests/contract/test_transformers_sklearn.py",
    "docs/how-to/your-own-condenser.md": "tests/contract/test_plug_in_condensers.py",
    "docs/keys.md": "tests/unit/test_keys_page.py",
    "docs/how-to/every-night.md": "tests/unit/test_lost.py",
    "docs/bundle-format.md": "tests/privacy/test_bundle_format.py",
}
NOT_RUN = {  # page, words in the block -> why nothing runs it
    ("docs/index.md", "ICU records -> encode"): "a drawing",
    ("README.md", "ICU records -> encode"): "a drawing",
    ("docs/how-to/audit-other-data.md", "$ decoct audit-tables"): "a recorded session of a minute",
    ("docs/how-to/audit-other-data.md", "decides T6"): "lines of that session",
    ("docs/how-to/audit-other-data.md", "$ decoct audit-history"): "a recorded session of the same folder",
    (
        "docs/trust.md",
        "threshold = 2",
    ): "a list of people's keys; other tests draft roots from such",
    ("docs/how-to/receive-a-bundle.md", "received.score("): "wants stays and a model of your own",
    ("docs/how-to/your-own-condenser.md", "entry-points"): "a part of another distribution's pyproject.toml",
}


class Block(NamedTuple):
    page: str
    kind: str
    text: str


BLOCKS = [
    Block(page.relative_to(ROOT).as_posix(), kind.strip(), text)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for kind, text in FENCE.findall(page.read_text(encoding="utf-8"))
]


def excused(block: Block) -> bool:
    return any(block.page == page and words in block.text for page, words in NOT_RUN)


def of(page: str, kind: str) -> list[str]:
    return [block.text for block in BLOCKS if (block.page, block.kind) == (page, kind)]


def settings(block: Block) -> dict[str, Any] | None:
    """A block of TOML that holds tables of a run's configuration; None for anything else."""
    if block.kind != "toml" or excused(block):
        return None
    raw = tomllib.loads(block.text)
    return raw if set(raw) <= set(Config.model_fields) else None


RUN_HERE = {
    ("docs/index.md", "python"),
    ("docs/how-to/own-data.md", "csv"),
    ("docs/how-to/own-data.md", "toml"),
    ("docs/audit.md", "python"),
    ("docs/grouping.md", "python"),
    ("docs/how-to/receive-a-bundle.md", "python"),
    ("docs/how-to/audit-other-data.md", "python"),
}


def test_no_block_is_forgotten_and_no_excuse_is_stale() -> None:
    assert len(BLOCKS) > 50
    for page, words in NOT_RUN:
        assert any(block.page == page and words in block.text for block in BLOCKS), (page, words)
    for test in RUN_ELSEWHERE.values():
        assert (ROOT / test).exists(), test
    for block in BLOCKS:
        known = excused(block) or block.page in RUN_ELSEWHERE or (block.page, block.kind) in RUN_HERE
        assert known or settings(block) is not None or _mapping_part(block), block


def test_python_stands_in_fences_and_the_first_pages_block_is_the_readmes() -> None:
    assert of("docs/index.md", "python") == of("README.md", "python")
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        outside = FENCE.sub("", page.read_text(encoding="utf-8"))
        assert not re.search(r"^    (from \w+ import|import \w+$)", outside, re.MULTILINE), page


def _mapping_part(block: Block) -> bool:
    return block.kind == "toml" and set(tomllib.loads(block.text)) == {"layout"}


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if settings(b) is not None], ids=lambda b: f"{b.page}: {b.text[:20]}"
)
def test_a_block_of_configuration_is_one(block: Block, tmp_path: Path) -> None:
    raw, shown = tomllib.loads(brief_config()), settings(block)
    assert shown is not None
    raw["release"]["licence"] = "CC0-1.0"
    for table, keys in shown.items():
        joined = table in ("condense", "encode", "release", "cohort") and isinstance(raw.get(table, {}), dict)
        raw[table] = {**raw.get(table, {}), **keys} if joined else keys
    raw["encode"] |= {c["input"]: {"kind": "identity"} for c in raw["condense"].values() if "input" in c} | raw[
        "encode"
    ]
    if any(table.get("tasks") == "each_group" for table in raw["condense"].values()):
        raw["group"] = {"decide": "private_moments", "moments": "all"}
        raw["condense"]["all"] = {"kind": "private_moments", "tasks": "all"}
    for table in raw["condense"].values():
        table.setdefault("input", "raw")
    if raw["release"].get("artefact") not in raw["condense"]:
        raw["release"]["artefact"] = next(iter(raw["condense"]))
    parse_config(raw, block.page, tmp_path)


@pytest.mark.parametrize("page", ["docs/audit.md", "docs/grouping.md"])
def test_what_is_read_from_a_workspace_is_read(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "decoct-work" / "store" / "objects").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for text in of(page, "python"):
        exec(text, {})


def test_the_two_tables_and_the_mapping_of_ones_own_data_are_read(tmp_path: Path) -> None:
    events, stays = of("docs/how-to/own-data.md", "csv")
    mapped, listed, configured = of("docs/how-to/own-data.md", "toml")
    label = next(line for line in mapped.splitlines() if line.startswith("died = "))
    mapped = mapped.replace(f"[tasks]\n{label}", "") + listed  # the task in its longer form
    for name, text in {"events.csv": events, "stays.csv": stays, "ward.toml": mapped}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    raw = tomllib.loads(brief_config()) | tomllib.loads(configured)
    config = parse_config(raw, "the page", tmp_path)
    mapping = load_mapping(config.cohort.mapping)
    tables = read_source(mapping=mapping, until_hours=48.0, **config.source.model_dump())
    split = np.zeros(tables.stays.height, dtype=np.int8)
    cohort, report = build_cohort(tables, mapping, step_hours=1.0, n_steps=48, split=split)
    assert [variable.name for variable in cohort.variables] == ["HR", "MAP", "Lactate", "Urine"]
    assert cohort.stay_ids.tolist() == ["1001", "1002"]
    assert cohort.labels[:, 0].tolist() == [0, 1]
    assert cohort.values[0, 1, 2] == pytest.approx(2.4)
    assert (report.rows_read, dict(report.rows_dropped)) == (4, {})
    assert [item.variable for item in cohort.tasks[0].score_items] == ["HR", "MAP", "age"]


def test_a_receivers_lines_run_on_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    read = functools.partial(decoct.load, today=datetime.date(2026, 3, 10))
    monkeypatch.setitem(vars(decoct), "load", read)  # the vectors' own day
    names: dict[str, Any] = {}
    first, second, *without_our_code = of("docs/how-to/receive-a-bundle.md", "python")
    assert len(without_our_code) == 3  # tests/privacy/test_bundle_real.py runs them on a real set
    for text in (first, second):
        text = text.replace("st-elsewhere-private-v1", str(GOLDEN / "st-elsewhere-plain-v1"))
        text = text.replace('"trust-root.json"', repr(str(GOLDEN / "root.json"))).replace('"died"', '"death"')
        exec(text.replace("range(60)", "range(2)"), names)
    assert names["loss"].isfinite()


def test_the_lines_on_other_peoples_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    three_lines, makes_tables, rounds = of("docs/how-to/audit-other-data.md", "python")
    assert "example_cohort" in makes_tables  # tests/unit/test_direct.py runs it
    rng = np.random.default_rng(0)
    people = [pd.DataFrame(rng.normal(size=(n, 6)), columns=list("abcdef")) for n in (120, 60, 120)]
    names = dict(zip(("real", "synthetic", "holdout"), people, strict=True))
    exec(three_lines, names)
    assert names["found"].decision.verdict in ("PASS", "FAIL", "INCONCLUSIVE")  # type: ignore[attr-defined]
    exec(rounds, {"shared": people[1]})
    shared = pd.read_csv("shared.csv")
    assert shared.shape == (60, 6)
    assert shared["a"].is_monotonic_increasing
