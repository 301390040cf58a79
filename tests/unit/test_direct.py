"""What a notebook calls: condense and audit in memory, and a look at a workspace."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from condensation.coresets import Centroids
from decoct import (
    KernelMatching,
    Policy,
    PrivateMoments,
    Workspace,
    audit,
    audit_tables,
    condense,
    example_cohort,
    prepare,
)
from flows.workspace.job import CONFIG_FILE
from pipeline.audit.tables.frames import frame_of
from pipeline.audit.tables.scene import Tables, tabular_scene
from pipeline.core.errors import BudgetError, ConfigError, DataError, UsageError
from pipeline.core.types import EncodedCohort, Provenance, Split, Task
from pipeline.sharing.policy.ledger import People, reserve
from pipeline.sharing.policy.load import load_policy
from pipeline.store import Store


@pytest.fixture
def encoded() -> EncodedCohort:
    rng = np.random.default_rng(0)
    labels = (np.arange(240) % 3 == 0).astype(np.float32)[:, None]
    features = np.clip(0.4 + 0.2 * labels[:, :, None] + 0.1 * rng.normal(size=(240, 4, 3)), 0, 1).astype(np.float32)
    split = np.where(np.arange(240) < 200, Split.TRAIN, Split.HELD_OUT).astype(np.int8)
    features[200:] = 0.99  # a condenser that saw held-out stays would show it
    return EncodedCohort(
        features=features,
        labels=labels,
        subject_index=np.arange(1000, 1240, dtype=np.int32),
        split=split,
        channels=("a", "b", "c"),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=({"kind": "public_ranges", "public": True},),
        provenance=Provenance("prepare"),
    )


def test_condense_takes_training_stays_and_says_where_from(encoded: EncodedCohort) -> None:
    made = condense(encoded, "centroids", n_per_class=5, seed=3)
    again = condense(encoded, Centroids(), n_per_class=5, seed=3)
    assert made.features.shape == (10, 4, 3)
    np.testing.assert_array_equal(made.features, again.features)
    assert made.features.max() < 0.95
    assert made.guarantee is None
    assert len(made.provenance.parents) == 1
    assert made.provenance.code_version


def test_options_go_to_the_method_that_is_named(encoded: EncodedCohort) -> None:
    steps: list[int] = []
    made = condense(encoded, n_per_class=4, iterations=2, device="cpu", on_step=lambda step, *_: steps.append(step))
    assert made.method == "kernel_matching"
    assert 0 < max(steps) <= 2
    with pytest.raises(ConfigError, match="does not take the options"):
        condense(encoded, "centroids", no_such_option=1)
    with pytest.raises(ConfigError, match="one that was made has its own"):
        condense(encoded, KernelMatching(), iterations=2)
    with pytest.raises(ConfigError, match=r"no decoct\.condensers entry point is named 'centroid'"):
        condense(encoded, "centroid")


@pytest.mark.parametrize("method", ["private_moments", PrivateMoments(epsilon=5.0)])
def test_no_privacy_noise_is_drawn_without_an_account(encoded: EncodedCohort, method: Any) -> None:
    with pytest.raises(BudgetError, match=r"paid from a site's budget.*decoct condense"):
        condense(encoded, method, n_per_class=4)


def test_a_cohort_without_training_stays_is_refused(encoded: EncodedCohort) -> None:
    with pytest.raises(DataError, match="no training stays"):
        condense(encoded.part(Split.HELD_OUT), "centroids")


def people(n: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    general = rng.normal(size=n)
    return {f"x{i}": general + (1 + i) * rng.normal(size=n) for i in range(4)} | {"sex": rng.choice(["F", "M"], n)}


REAL, HOLDOUT = people(150, 1), people(150, 2)
COPIES = {name: column[:40] for name, column in REAL.items()}


@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame], ids=["polars", "pandas"])
def test_three_lines_find_the_copies_in_anybodys_frames(frame: Callable[[Any], Any]) -> None:
    found = audit(frame(REAL), frame(COPIES), frame(HOLDOUT), name="copies")
    assert found.decision.verdict == "FAIL"
    told = repr(found).splitlines()
    assert told[0] == "audited copies: 40 rows, 5 columns, against 150 real people and 150 others"
    assert any(line.startswith("decides T6: 40 of the 40 samples of copies") for line in told)
    assert any(line.startswith("NOT RUN") for line in told)
    assert told[-1] == "limits  FAIL under policy research"
    assert json.loads(found.to_json())["decision"]["verdict"] == "FAIL"


def test_in_memory_and_in_files_it_is_the_same_audit(tmp_path: Path) -> None:
    numbers = [np.stack([column for name, column in t.items() if name != "sex"], 1) for t in (REAL, COPIES, HOLDOUT)]
    for name, table in zip(("real", "shared", "holdout"), numbers, strict=True):
        frame_of(table, name).write_parquet(tmp_path / f"{name}.parquet")
    strict = Policy.load("strict")
    assert strict == load_policy("strict")
    found = audit(*numbers, policy=strict, seed=4)
    files = (str(tmp_path / f"{name}.parquet") for name in ("real", "shared", "holdout"))
    assert found.to_json() == audit_tables(*files, policy="strict", seed=4).to_json()
    assert found.scene.columns == ("column_0", "column_1", "column_2", "column_3")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (np.zeros((2, 3, 4)), "an array of 3 axes"),
        ([[1.0, 2.0]], "is of type list: give a pandas or polars frame"),
        (pd.DataFrame({"x": [1, "Mrs Smith", {"a": 1}]}), "neither numbers, times nor words"),
    ],
    ids=["axes", "list", "mixed"],
)
def test_what_is_no_table_is_refused_without_a_value(table: Any, told: str) -> None:
    with pytest.raises(DataError, match=told) as refusal:
        audit(pl.DataFrame(REAL), table, pl.DataFrame(HOLDOUT))
    assert "Smith" not in str(refusal.value)
    assert "shared table" in str(refusal.value)


def test_a_workspace_is_looked_at_and_not_written(tmp_path: Path, encoded: EncodedCohort) -> None:
    with pytest.raises(UsageError, match="is not a workspace"):
        Workspace(tmp_path)
    digest = Store(tmp_path / "store").put(encoded)
    (tmp_path / "runs" / "night").mkdir(parents=True)
    (tmp_path / "runs" / "night" / CONFIG_FILE).write_text("{}")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    seen = Workspace(str(tmp_path))
    assert repr(seen).endswith("runs=['night'])")
    assert (seen.runs, seen.releases, seen.balance) == (("night",), (), None)
    assert [(entry.digest, entry.kind) for entry in seen.artefacts] == [(digest, "EncodedCohort")]
    np.testing.assert_array_equal(seen.get(digest[:8]).features, encoded.features)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    budget = load_policy("strict").budget
    gaussian = [{"event": "GaussianDpEvent", "noise_multiplier": 30.0}]
    reserve(tmp_path, "q", gaussian, People(tuple(f"p{i}" for i in range(20)), "subject"), budget, "strict")
    balance = seen.balance
    assert balance is not None
    assert balance["budget"]["epsilon"] == budget.epsilon
    assert 0 < balance["cohorts"][0]["epsilon"] < budget.epsilon


def test_the_page_on_other_peoples_data_makes_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "audit-other-data.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (makes,) = (block for block in blocks if "example_cohort" in block)
    monkeypatch.chdir(tmp_path)
    exec(compile(makes, str(page), "exec"), {})
    sizes = {path.stem: pl.read_parquet(path).shape for path in tmp_path.iterdir()}
    assert sizes == {"real": (1500, 14), "holdout": (1500, 14), "noisy": (400, 13), "fresh": (400, 13)}
    frames = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("real", "fresh", "holdout"))
    tabular_scene(Tables(*frames, subject_column="stay_id"))  # they are tables that can be audited


def test_the_example_is_split_by_patient_the_same_way_everywhere() -> None:
    for none in (0, -1):
        with pytest.raises(UsageError, match="from 1 on"):
            example_cohort(max_stays=none)
    small, larger = example_cohort(max_stays=300), example_cohort(max_stays=400)
    np.testing.assert_array_equal(small.split, larger.split[:300])
    shares = np.bincount(larger.split) / 400
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.07)
    assert prepare(small).features.shape[:2] == (300, 48)
