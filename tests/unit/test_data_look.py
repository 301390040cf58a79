"""The look at the data: figures by hand, nothing about fewer than ten stays, a page that holds what the data hold."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.embedded import read_embedded
from pipeline.report.data_look import look_at, look_html, look_json


@pytest.fixture(scope="module")
def made() -> tuple[Cohort, IngestReport]:
    tables = read_embedded(sets=("a",), max_stays=400)
    split = np.arange(400) % 3
    tasks = ("in_hospital_death", "los_gt_7d")
    return build_cohort(
        tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, tasks=tasks, split=split.astype(np.int8)
    )


def test_figures_by_hand(made: tuple[Cohort, IngestReport]) -> None:
    cohort, report = made
    look = look_at(cohort, report)
    names = [variable.name for variable in cohort.variables]
    row = next(row for row in look["variables"] if row["name"] == "HR")
    heart = cohort.values[:, :, names.index("HR")]
    measured = np.isfinite(heart).any(axis=1)
    means = np.nanmean(heart[measured].astype(np.float64), axis=1)
    assert row["stays"] == int(measured.sum())
    assert row["quantiles"] == [float(f"{np.quantile(means, q):.3g}") for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
    assert row["over_time"][5] == pytest.approx(np.isfinite(heart[:, 5]).mean(), abs=2e-3)
    assert look["splits"] == {"train": 134, "tuning": 133, "held_out": 133}
    assert look["ingest"]["rows_read"] == report.rows_read
    assert look["subjects"] is None


def test_small_sites_are_not_counted(made: tuple[Cohort, IngestReport]) -> None:
    sites = np.array(["north"] * 391 + ["south"] * 9)
    look = look_at(dataclasses.replace(made[0], sites=sites), made[1])
    assert look["sites"] == {"north": "withheld", "south": "<10"}  # or 400 - 391 would tell
    assert "391" not in look_html(look)


def test_nothing_is_told_of_fewer_than_ten_stays(made: tuple[Cohort, IngestReport]) -> None:
    cohort, report = made
    observed = np.zeros_like(cohort.observed)
    observed[:9, 3, :] = True  # nine stays, one cell each
    values = np.where(observed, np.float32(77.25), np.float32(np.nan))
    few = dataclasses.replace(cohort, values=values, observed=observed)
    few_report = dataclasses.replace(report, coverage={v.name: 9 / 400 for v in cohort.variables})
    look = look_at(few, few_report)
    for row in look["variables"]:
        assert row["stays"] == row["share_of_stays"] == row["share_of_cells"] == row["over_time"][3] == "<10"
        assert row["quantiles"] == ["<10"] * 5
        assert row["stays_outside_clinical_range"] in ("<10", 0.0)
    assert "77.2" not in look_html(look)
    assert "77.2" not in look_json(look).decode()


def test_outer_quantiles_need_more_stays(made: tuple[Cohort, IngestReport]) -> None:
    cohort, report = made
    observed = np.zeros_like(cohort.observed)
    observed[:40, 0, :] = True
    values = np.where(observed, np.float32(50), np.float32(np.nan))
    look = look_at(dataclasses.replace(cohort, values=values, observed=observed), report)
    assert look["variables"][0]["quantiles"] == ["<10", 50.0, 50.0, 50.0, "<10"]


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def test_the_page_is_whole_and_stays_offline(made: tuple[Cohort, IngestReport]) -> None:
    look = look_at(*made)
    page = look_html(look)
    parser = _Text()
    parser.feed(page)
    for variable in made[0].variables:
        assert variable.name in parser.text
    assert "script" not in parser.tags
    assert "http:" not in page
    assert "https:" not in page
    ids = {*made[0].stay_ids.tolist()}
    assert not ids & {word for text in parser.text for word in text.split()}
    assert json.loads(look_json(look)) == json.loads(json.dumps(look))
    assert look_html(json.loads(look_json(look))) == page
