"""A condensed set for each group: one release of moments pays for the groups and for all their sets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.run import walk_until
from flows.stages import audit as audit_stage
from flows.stages.artefacts import condensed_sets
from flows.stages.attacks.scenes import attack_all
from flows.stages.condense import of_tasks, wanted_parts
from flows.workspace.job import new_job
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.core.config import condense_table, parse_config
from pipeline.core.errors import ConfigError
from pipeline.core.types import CondensedSet, Grouping, LeakageReport, Moments, Provenance, Task, UtilityReport

TASKS = ("in_hospital_death", "los_gt_7d", "sofa_ge_10", "saps1_ge_18")


def plan(**more: Any) -> dict[str, Any]:
    private = {"kind": "private_moments", "n_per_class": 8}
    return {
        "name": "grouped",
        "source": {"kind": "embedded", "sets": ["a"], "max_stays": 400},
        "cohort": {"tasks": list(TASKS)},
        "encode": {"raw": {"kind": "identity"}},
        "group": {"decide": "private_moments", "moments": "grouped", "max_groups": 2},
        "condense": {
            "together": {**private, "tasks": "all"},
            "grouped": {**private, "tasks": "each_group"},
            "single": {**private, "tasks": "each_task"},
            "mates": {**private, "tasks": "group"},
        },
        "utility": {"models": ["logistic_regression"], "n_seeds": 1},
        "release": {"artefact": "together", "licence": "CC0-1.0"},
        **more,
    }


@pytest.mark.slow
def test_one_release_of_moments_serves_the_groups_and_their_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(plan(), "a test", tmp_path)
    job = new_job(config.model_copy(update={"workspace": tmp_path / "work"}))
    made = walk_until(job, "validate")
    grouping = job.only(made["group"], Grouping)
    assert grouping.chosen == "private_moments"
    assert {task for group in grouping.groups for task in group} == set(TASKS)
    assert len(grouping.groups) == 2

    grouped, single = (condensed_sets(job, made[f"condense {name}"]) for name in ("grouped", "single"))
    assert {tuple(task.name for task in one.tasks) for one in grouped} == {
        tuple(name for name in TASKS if name in group) for group in grouping.groups
    }
    assert grouped[0].tasks[0].name == TASKS[0]
    assert [one.tasks[0].name for one in single] == list(TASKS)
    together = job.only(made["condense together"], CondensedSet)
    assert all(one.guarantee == together.guarantee for one in (*grouped, *single))
    mates = job.only(made["condense mates"], CondensedSet)
    assert mates.tasks == grouped[0].tasks
    assert mates.provenance.config["tasks_chosen"] == "private_moments"

    # one reservation for groups and the three tables with all tasks, one for the set that asks about fewer tasks
    lines = (tmp_path / "work" / "ledger" / "ledger.jsonl").read_text().splitlines()
    assert sum('"what":"reserve"' in line for line in lines) == 2

    report = job.only(made["utility"], UtilityReport)
    told = {(row.training_set, row.task) for row in report.scores}
    assert {(name, task) for name in ("together", "grouped", "single") for task in TASKS} <= told

    monkeypatch.setattr("flows.stages.attacks.scenes.attack_all", partial(attack_all, attacks=(NearCopies(),)))
    tables = {name: made[f"condense {name}"] for name in ("grouped", "together")}
    audit = audit_stage.audit(job, made["prepare"], {"raw": made["encode raw"]}, tables, tables["together"])
    reports = [job.store.get(digest, LeakageReport) for digest in audit.digests]
    assert [report.artefact for report in reports] == ["grouped", "grouped / 2", "together"]
    assert [report.artefact_digest for report in reports[:2]] == list(made["condense grouped"].digests[::2])
    assert all(report.results[0].n == len(one.features) for report, one in zip(reports, grouped, strict=False))


def test_parts_of_a_table() -> None:
    tasks = tuple(Task(name) for name in "abcd")
    grouping = Grouping(
        tuple("abcd"), "fixed", (), "", (), 0.0, (("b", "d"), ("a",), ("c",)), (), 0.0, 0, (), None, "fixed"
    )

    def names(wanted: Any) -> list[str]:
        table = condense_table("private_moments", tasks=wanted)
        return ["".join(task.name for task in part) for part in wanted_parts(table, tasks, grouping)]

    assert names("first") == ["a"]
    assert names("all") == ["abcd"]
    assert names("group") == ["a"]
    assert names("each_group") == ["a", "bd", "c"]
    assert names("each_task") == ["a", "b", "c", "d"]
    assert names(("d", "b")) == ["bd"]
    with pytest.raises(ConfigError, match="tasks name x"):
        names(("x",))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"group": {}}, "outside the privacy account"),
        ({"group": None}, "needs a .group. table"),
        ({"group": {"decide": "fixed"}}, "need each other"),
        ({"group": {"decide": "fixed", "groups": [["a"], ["a"]]}}, "no task twice"),
        ({"group": {"decide": "private_moments", "moments": "mates"}}, "several tasks by itself"),
        ({"release": {"artefact": "grouped", "licence": "x"}}, "a set for each group"),
        ({"release": {"kind": "moments", "artefact": "mates", "licence": "x"}}, "names by itself"),
        ({"group": {"must_link": [["a", "b"]], "cannot_link": [["b", "a"]]}}, "in must_link and in cannot_link"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_config(plan(**change), "a test", tmp_path)


def test_groups_that_were_fixed_may_be_private(tmp_path: Path) -> None:
    config = parse_config(plan(group={"decide": "fixed", "groups": [["los_gt_7d", "sofa_ge_10"]]}), "a test", tmp_path)
    assert config.group is not None
    assert not config.group.looks_at_stays


def test_moments_of_some_tasks_keep_their_rows() -> None:
    tasks = tuple(Task(name) for name in "abc")
    whole = Moments(
        gram=np.eye(3),
        signed_sums=np.arange(9.0).reshape(3, 3),
        signed_counts=np.arange(3.0),
        feature_map={},
        feature_map_digest="",
        channels=("x",),
        tasks=tasks,
        n_steps=1,
        step_hours=1.0,
        transforms=(),
        guarantee=None,
        provenance=Provenance("moments"),
    )
    part = of_tasks(whole, (tasks[2], tasks[0]))
    assert part.tasks == (tasks[2], tasks[0])
    assert part.signed_sums.tolist() == [[6, 7, 8], [0, 1, 2]]
    assert part.signed_counts.tolist() == [2, 0]
    assert part.gram is whole.gram
