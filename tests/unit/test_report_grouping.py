"""The grouping part of the page: order, shades, regret against the ceiling, and how the groups were chosen."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.codec import to_plain
from pipeline.core.types import Grouping, GroupsCompared, GroupValidation
from pipeline.report.grouping import CHOSEN, grouping_view
from pipeline.report.render import environment

TASKS = ("a", "b", "c")
VALIDATION = GroupValidation(
    chosen=(("a", "c"), ("b",)),
    identifiable=True,
    verdict="A grouping is identifiable.",
    reliability=0.5,
    reliability_low=0.2,
    gain=0.02,
    gain_low=0.01,
    gain_high=0.03,
    task_gains=(0.03, 0.0, 0.03),
    share_gaining=(0.9, 1.0, 0.9),
    harmed=("b",),
    together=((1.0, 0.1, 0.8), (0.1, 1.0, 0.2), (0.8, 0.2, 1.0)),
    n_trained=7,
    n_seeds=4,
    share_at_limit=0.0,
    compared=(
        GroupsCompared("all tasks together", 1, 0.01, 0.0, 0.02),
        GroupsCompared("validation, at most 2 groups", 2, 0.02, 0.01, 0.03),
        GroupsCompared("ceiling", 2, 0.025, 0.015, 0.035),
    ),
)


def grouping(**changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "tasks": TASKS,
        "method": "samplewise",
        "affinity": ((0.0, 1.5, 0.5), (1.5, 0.0, 1.0), (0.5, 1.0, 0.0)),
        "control_method": "label_hamming",
        "control": ((0.0, 0.2, 0.1), (0.2, 0.0, 0.1), (0.1, 0.1, 0.0)),
        "rank_correlation": 0.5,
        "groups": (("a", "c"), ("b",)),
        "control_groups": (("a",), ("b", "c")),
        "objective": 0.5,
        "n_stays": 100,
        "validation": VALIDATION,
        **changes,
    }
    plain: dict[str, Any] = to_plain(Grouping(**facts))
    return plain


def page(data: dict[str, Any]) -> str:
    return environment().get_template("grouping.html.j2").render(grouping=grouping_view(data))


def test_group_mates_lie_side_by_side_and_shades_follow() -> None:
    view = grouping_view(grouping())
    assert view is not None
    affinity, control, together = view["tables"]
    assert [line["task"] for line in affinity["lines"]] == ["a", "c", "b"]
    assert [cell and cell["shade"] for cell in affinity["lines"][0]["cells"]] == [None, 1.0, 0.0]
    assert [cell and cell["shade"] for cell in together["lines"][0]["cells"]] == [None, 0.8, 0.1]
    assert control["role"] == "Label-only control"


def test_regret_is_held_against_the_ceiling() -> None:
    view = grouping_view(grouping())
    assert view is not None
    regret = {row["name"]: row["regret"] for row in view["compared"]}
    assert regret["each task alone"] == 1
    assert regret["all tasks together"] == pytest.approx(0.6)
    assert regret["validation, at most 2 groups"] == pytest.approx(0.2)
    assert regret["ceiling"] == 0
    assert [row["name"] for row in view["compared"] if row["chosen"]] == ["validation, at most 2 groups"]
    worthless = to_plain(VALIDATION) | {"compared": [{**to_plain(VALIDATION.compared[0]), "gain": -0.1}]}
    told = grouping_view(grouping() | {"validation": worthless})
    assert told is not None
    assert all(row["regret"] is None for row in told["compared"])


def test_the_page_says_who_chose_who_is_harmed_and_draws_the_front() -> None:
    html = page(grouping())
    assert CHOSEN["real_stays"] in html
    assert "Significantly harmed by their group: b." in html
    assert html.count("<svg") == 1
    assert "all tasks together: 1 groups, 1.00 %" in html
    assert "Co-assignment" in html


def test_groups_without_a_look_have_no_maps() -> None:
    nothing: dict[str, Any] = {"affinity": (), "control": (), "control_groups": (), "validation": None}
    html = page(grouping(**nothing, method="fixed", control_method="", n_stays=0, chosen="fixed"))
    assert CHOSEN["fixed"] in html
    assert "<table" not in html
    assert page_is_empty()


def page_is_empty() -> bool:
    return not environment().get_template("grouping.html.j2").render(grouping=grouping_view(None)).strip()
