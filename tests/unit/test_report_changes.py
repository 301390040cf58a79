"""What changed since the last release: counted right, and nothing told of fewer than ten people."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from pipeline.core.types import Cohort, Provenance, Task, Variable
from pipeline.report.changes import changes, outline_bytes, outline_of, parse_outline
from pipeline.report.suppress import SUPPRESSED, WITHHELD

KEY = b"k" * 32
VARIABLES = tuple(Variable(name, "u", 0, 1, 0, 1, 0.5) for name in ("HR", "K"))


def cohort(stays: range, *, per_subject: int = 1, without_k: int = 0, known: bool = True) -> Cohort:
    """Stays named by their numbers, the first `without_k` of which have no K."""
    n = len(stays)
    numbers = np.array(list(stays), dtype=np.float32)
    values = np.tile(((numbers % 97) / 97)[:, None, None], (1, 3, 2)).astype(np.float32)
    values[:without_k, :, 1] = np.nan
    return Cohort(
        values=values,
        observed=np.isfinite(values),
        static=np.zeros((n, 0), np.float32),
        labels=np.zeros((n, 1), np.float32),
        stay_ids=np.array([f"s{number}" for number in stays]),
        subject_ids=np.array([f"p{number // per_subject}" for number in stays]),
        split=np.zeros(n, np.int8),
        variables=VARIABLES,
        static_variables=(),
        tasks=(Task("death"),),
        step_hours=1.0,
        provenance=Provenance("ingest"),
        subjects_known=known,
    )


def told(before: Cohort, after: Cohort) -> dict[str, Any]:
    return changes(parse_outline(outline_bytes(outline_of(before, KEY))), outline_of(after, KEY))


def test_what_came_went_and_was_corrected_is_counted() -> None:
    after = cohort(range(50, 280))
    corrected = after.values.copy()
    corrected[:20, 0, 0] += 0.001
    found = told(cohort(range(200)), dataclasses.replace(after, values=corrected, observed=np.isfinite(corrected)))
    assert (found["stays_added"], found["stays_removed"], found["stays_corrected"]) == (80, 50, 20)
    assert (found["subjects_added"], found["subjects_removed"], found["comparable"]) == (80, 50, True)


def test_an_order_of_stays_changes_nothing() -> None:
    one = cohort(range(100))
    order = np.random.default_rng(1).permutation(100)
    fields = ("values", "observed", "static", "labels", "stay_ids", "subject_ids", "split")
    other = dataclasses.replace(one, **{name: getattr(one, name)[order] for name in fields})
    found = told(one, other)
    assert (found["stays_added"], found["stays_removed"], found["stays_corrected"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("before", "after", "stays"),
    [
        (range(100), range(103), (SUPPRESSED, WITHHELD)),  # the totals would tell three
        (range(100), range(9, 150), (WITHHELD, SUPPRESSED)),
        (range(100), range(5, 104), (SUPPRESSED, SUPPRESSED)),
        (range(100), range(100), (0, 0)),
        (range(100), range(10, 120), (20, 10)),
        (range(100), range(110), (10, 0)),
    ],
)
def test_a_small_count_is_not_told_nor_found_by_subtraction(
    before: range, after: range, stays: tuple[Any, Any]
) -> None:
    found = told(cohort(before), cohort(after))
    assert (found["stays_added"], found["stays_removed"]) == stays


def test_stays_and_subjects_that_differ_by_few_are_not_told_together() -> None:
    found = told(cohort(range(100), per_subject=2), cohort(range(100, 140), per_subject=2))
    assert (found["stays_added"], found["subjects_added"]) == (40, 20)
    before, after = cohort(range(100)), cohort(range(100, 140))
    subjects = after.subject_ids.copy()
    subjects[:2] = subjects[0]  # one person with two of the stays
    found = told(before, dataclasses.replace(after, subject_ids=subjects))
    assert (found["stays_added"], found["subjects_added"], found["subjects_removed"]) == (40, WITHHELD, WITHHELD)
    found = told(cohort(range(100), known=False), cohort(range(140), known=False))
    assert (found["stays_added"], found["subjects_added"]) == (40, None)


def test_corrections_of_a_few_and_of_another_grid_are_not_told() -> None:
    one = cohort(range(100))
    values = one.values.copy()
    values[:3, 0, 0] += 0.001
    assert told(one, dataclasses.replace(one, values=values))["stays_corrected"] == SUPPRESSED
    found = told(one, dataclasses.replace(one, step_hours=2.0))
    assert (found["comparable"], found["stays_corrected"]) == (False, None)


def test_shares_are_as_coarse_as_ten_stays() -> None:
    rows = {
        n: told(cohort(range(200), without_k=40), cohort(range(200), without_k=n))["missing"][1] for n in (43, 80, 5)
    }
    assert told(cohort(range(200)), cohort(range(200)))["grain"] == 0.05
    assert rows[43] == {"variable": "K", "before": 0.2, "after": 0.2, "moved": False}
    assert rows[80] == {"variable": "K", "before": 0.2, "after": 0.4, "moved": True}
    assert (rows[5]["after"], rows[5]["moved"]) == (SUPPRESSED, False)
    assert told(cohort(range(5000)), cohort(range(5000)))["grain"] == 0.01


def test_an_outline_names_nobody_and_another_key_matches_nothing() -> None:
    one = cohort(range(100))
    data = outline_bytes(outline_of(one, KEY))
    assert b"s42" not in data
    assert not np.isin(outline_of(one, b"other").stays, outline_of(one, KEY).stays).any()
    assert len(np.unique(outline_of(one, KEY).stays)) == 100


def test_the_page_shows_what_moved_and_no_small_count() -> None:
    from pipeline.report.render import environment

    found = {"release": "site-set-v1", **told(cohort(range(200), without_k=40), cohort(range(5, 240), without_k=90))}
    page = environment().get_template("changes.html.j2").render(data={"changes": found})
    assert "Against the cohort of site-set-v1." in page
    assert "<span>withheld</span>" in page
    assert "<span>&lt;10</span>" in page
    assert ">K</th>" in page
    assert ">HR</th>" not in page
    still = {"release": "site-set-v1", **told(cohort(range(200)), cohort(range(200)))}
    assert "moved by a step of 0.05" in environment().get_template("changes.html.j2").render(data={"changes": still})
