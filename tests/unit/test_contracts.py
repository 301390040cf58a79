"""Data contracts: each rule fires on a planted fault, sound data pass, and no value or id is ever said."""

from __future__ import annotations

import dataclasses
import gc
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from pipeline.core.errors import DataError
from pipeline.core.types import (
    Cohort,
    CondensedSet,
    ContractResult,
    EncodedCohort,
    Provenance,
    Split,
    Task,
    Variable,
)
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.validation import contracts
from pipeline.validation.expectations import (
    COUNTS_ONLY,
    Table,
    among,
    between,
    great_expectations,
    known,
    let_go,
    run_suite,
    unique,
    validated,
)

VARIABLES = (
    Variable("HR", "bpm", 20, 300, 30, 180, 80),
    Variable("Urine", "mL", 0, 1000, 0, 500, 60, "sum"),
)
TASKS = (Task("death"), Task("long_stay"))
SCALED = ({"kind": "imputation", "public": True}, {"kind": "scaling", "public": True})


def events(**changes: list[Any]) -> dict[str, list[Any]]:
    sound = {
        "stay_id": ["p1", "p1", "p2", "p2"],
        "hours": [0.0, 1.5, 0.0, 47.0],
        "variable": ["HR", "Urine", "HR", "HR"],
        "value": [70.0, 100.0, 90.0, 95.0],
    }
    return {**sound, **changes}


def cohort(n: int = 40) -> Cohort:
    draw = np.random.default_rng(0)
    values = np.stack([draw.uniform(60, 120, (n, 6)), draw.uniform(0, 200, (n, 6))], axis=2).astype(np.float32)
    values[draw.random(values.shape) < 0.3] = np.nan
    return Cohort(
        values=values,
        observed=np.isfinite(values),
        static=np.zeros((n, 0), np.float32),
        labels=np.stack([np.arange(n) % 2, np.arange(n) % 3 == 0], axis=1).astype(np.float32),
        stay_ids=np.array([f"stay-{i}" for i in range(n)]),
        subject_ids=np.array([f"subject-{i}" for i in range(n)]),
        split=(np.arange(n) % 5 % 3).astype(np.int8),
        variables=VARIABLES,
        static_variables=(),
        tasks=TASKS,
        step_hours=1.0,
        provenance=Provenance("test"),
    )


def encoded(**changes: Any) -> EncodedCohort:
    raw = cohort()
    features = np.random.default_rng(1).random((40, 6, 2), dtype=np.float32)
    sound = EncodedCohort(
        features, raw.labels, raw.subject_index, raw.split, ("HR", "Urine"), TASKS, 1.0, SCALED, Provenance("test")
    )
    return dataclasses.replace(sound, **changes)


def condensed(**changes: Any) -> CondensedSet:
    features = np.random.default_rng(2).random((6, 4, 2), dtype=np.float32)
    labels = np.array([[0, 0.2]] * 3 + [[1, 0.9]] * 3, dtype=np.float32)
    sound = CondensedSet(
        features, labels, ("HR", "Urine"), TASKS, 1.0, SCALED, "centroids", True, None, Provenance("test")
    )
    return dataclasses.replace(sound, **changes)


def broken(result: ContractResult) -> dict[str, tuple[int, int, bool]]:
    """Column -> (unexpected, n, critical) of the rules that failed."""
    return {o.column: (o.unexpected_count, o.n, o.critical) for o in result.outcomes if not o.success}


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_sound_data_pass_every_rule(frame: Any) -> None:
    assert broken(contracts.check_events(frame(events()), VARIABLES)) == {}
    for result in (
        contracts.check_cohort(cohort()),
        contracts.check_encoded(encoded()),
        contracts.check_condensed(condensed()),
    ):
        assert broken(result) == {}
        assert result.success
        assert len(result.outcomes) > 8
        contracts.require(result)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"stay_id": ["p1", None, " ", "p2"]}, {"stay_id": (2, 4, True)}),
        ({"hours": [0.0, None, 0.0, float("inf")]}, {"hours": (2, 4, True)}),
        ({"hours": [0.0, -3.0, 0.0, 4.0]}, {"hours": (1, 4, False)}),
        ({"variable": ["HR", "Urine", "HR", None]}, {"variable": (1, 4, True)}),
        ({"variable": ["HR", "Age", "HR", "HR"]}, {"code": (1, 4, False)}),
        ({"value": [70.0, 100.0, float("nan"), 95.0]}, {"value": (1, 4, True)}),
        ({"value": [19.0, 100.0, 90.0, 735.0]}, {"plausible": (2, 4, False)}),
        ({"hours": [0.0, 1.5, 7.0, 7.0]}, {"repeat": (2, 4, False)}),
    ],
)
def test_faults_of_events_are_counted(fault: dict[str, list[Any]], expected: dict[str, Any]) -> None:
    result = contracts.check_events(pl.DataFrame(events(**fault), strict=False), VARIABLES)
    assert broken(result) == expected
    assert result.success == (not any(critical for _, _, critical in expected.values()))


def test_source_names_are_translated_and_no_event_is_critical() -> None:
    frame = pl.DataFrame(events(variable=["heart", "Urine", "heart", "heart"]))
    assert broken(contracts.check_events(frame, VARIABLES))["code"][0] == 3
    assert broken(contracts.check_events(frame, VARIABLES, source_names={"heart": "HR"})) == {}
    assert broken(contracts.check_events(frame.clear(), VARIABLES)) == {"(events)": (1, 0, True)}
    with pytest.raises(DataError, match="lack the column value"):
        contracts.check_events(frame.drop("value"), VARIABLES)
    with pytest.raises(DataError, match="column value holds values that are not numbers"):
        contracts.check_events(pd.DataFrame(events(value=["x"] * 4)), VARIABLES)


def test_faults_of_a_cohort_are_found() -> None:
    sound = cohort()
    values, labels, split = sound.values.copy(), sound.labels.copy(), sound.split.copy()
    values[3, 0, 0] = 999  # above HR's plausible range
    values[5] = np.nan
    labels[7, 1] = 2
    labels[split == Split.TRAIN, 0] = 0
    split[9] = 7
    faulty = dataclasses.replace(sound, values=values, observed=np.isfinite(values), labels=labels, split=split)
    result = contracts.check_cohort(faulty)
    assert broken(result) == {
        "observed_cells": (1, 40, False),
        "split": (1, 40, True),
        "label:long_stay": (1, 40, True),
        "plausible_max (HR)": (1, 2, True),
        "train_rarer_class (death)": (1, 1, True),
    }
    with pytest.raises(DataError, match=r"cohort contract .* split: 1 of 40 break the rule"):
        contracts.require(result)


def test_a_cohort_that_nothing_can_be_tested_on_is_refused_before_privacy_is_spent() -> None:
    """Case 19: it was said by the utility, after the private set had drawn its noise."""
    sound = cohort()
    labels = sound.labels.copy()
    labels[sound.split == Split.HELD_OUT] = 0
    with pytest.raises(DataError, match="two different labels among the held-out stays"):
        contracts.require(contracts.check_cohort(dataclasses.replace(sound, labels=labels)))
    labels[:, 1] = sound.labels[:, 1]  # one task that can be tested is enough
    contracts.require(contracts.check_cohort(dataclasses.replace(sound, labels=labels)))


def test_a_subject_in_two_splits_is_found() -> None:
    torn = cohort()
    torn.subject_ids[1] = torn.subject_ids[0]  # behind the constructor's back
    assert broken(contracts.check_cohort(torn)) == {"splits_of_subject": (2, 40, True)}


def test_faults_of_an_encoded_cohort_are_found() -> None:
    features = encoded().features.copy()
    features[0, 0, 1] = 1.5
    assert broken(contracts.check_encoded(encoded(features=features))) == {"max (Urine)": (1, 2, True)}
    keyed = (*SCALED, {"kind": "random_projection", "public": True})
    assert broken(contracts.check_encoded(encoded(features=features, transforms=keyed))) == {}
    spoilt = encoded()
    spoilt.features[0, 0, 0] = np.nan
    assert broken(contracts.check_encoded(spoilt)) == {"not_finite (HR)": (1, 2, True)}
    no_test = encoded(split=np.zeros(40, np.int8))
    assert broken(contracts.check_encoded(no_test))["stays (tuning, held_out)"] == (2, 3, True)


def test_faults_of_a_condensed_set_are_found() -> None:
    features = condensed().features.copy()
    features[1] = features[0]
    features[2, 0, 0] = 1.4
    features[:, :, 1] = 0.5
    assert broken(contracts.check_condensed(condensed(features=features))) == {
        "sample": (2, 6, False),
        "sd (Urine)": (1, 2, False),
        "max (HR)": (1, 2, False),
    }
    one_class = condensed(labels=np.ones((6, 2), np.float32))
    result = contracts.check_condensed(one_class)
    assert broken(result)["label_spread (death)"] == (1, 1, True)
    assert broken(result)["label_spread (long_stay)"] == (1, 1, False)
    features[0] = 1e5
    assert not contracts.check_condensed(condensed(features=features)).success


def test_no_value_and_no_id_is_said() -> None:
    frame = pd.DataFrame(events(stay_id=["SENTINEL", None, "p2", "p2"], value=[70.0, 987654.5, None, -987654.5]))
    sound = cohort()
    values = sound.values.copy()
    values[0, 0, 0] = 987654.5
    ids = sound.stay_ids.astype("U20")
    ids[1] = "SENTINEL"
    faulty = dataclasses.replace(sound, values=values, observed=np.isfinite(values), stay_ids=ids)
    faulty.stay_ids[2] = "SENTINEL"  # twice, behind the constructor's back
    faulty.labels[3, 0] = 987654.5
    for result in (contracts.check_events(frame, VARIABLES), contracts.check_cohort(faulty)):
        assert not result.success
        with pytest.raises(DataError) as caught:
            contracts.require(result)
        assert caught.value.exit_code == 11
        for text in (repr(result), str(caught.value)):
            assert "SENTINEL" not in text
            assert "987654" not in text
    assert broken(contracts.check_cohort(faulty))["stay_id"] == (2, 40, True)


def test_nothing_is_printed_and_no_socket_is_opened() -> None:
    program = """
import socket
def refuse(*args, **kwargs): raise SystemExit("a socket was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import numpy as np
from pipeline.validation.expectations import Table, known, run_suite
result = run_suite("s", "a", [Table("row", {"x": np.array([1.0, np.nan])}, (known("x"),))])
assert [o.unexpected_count for o in result.outcomes] == [0, 1]
import pandas as pd
from pipeline.validation.expectations import COUNTS_ONLY, great_expectations, validated
gx = great_expectations()
suite = gx.ExpectationSuite(name="s", expectations=[gx.expectations.ExpectColumnValuesToNotBeNull(column="x")])
found = validated(gx, suite, "row", pd.DataFrame({"x": [1.0, None]}), COUNTS_ONLY)
assert [o.result["unexpected_count"] for o in found.results] == [1]
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_frame_outlives_its_check() -> None:
    """Great Expectations would keep all of them until Python happens to collect, which large blocks do not hasten."""
    gx, apart = great_expectations(), gc.get_freeze_count()
    gc.disable()
    try:
        for _ in range(2):
            suite = gx.ExpectationSuite(
                name="s", expectations=[gx.expectations.ExpectColumnValuesToNotBeNull(column="x")]
            )
            frame = pd.DataFrame({"x": np.zeros(1 << 21)})
            with let_go():
                validated(gx, suite, "row", frame, COUNTS_ONLY)
            del frame
        # Not isinstance: an object's own word for its class may be a library's lazy import.
        held = [found for found in gc.get_objects() if type(found) is pd.DataFrame and len(found) == 1 << 21]
    finally:
        gc.enable()
    assert held == []
    assert gc.get_freeze_count() == apart


def test_our_rules_count_as_great_expectations_does() -> None:
    gx, draw = great_expectations(), np.random.default_rng(18)
    rules = (
        known("x"), unique("x"), among("x", (0, 2), "is 0 or 2"), between("x", -1, 1), between("x", None, 0.5),
        between("x", 1, None), unique("y"), between("y", 0, 0),
    )  # fmt: skip
    for n in (1, 2, 7, 60):
        columns = {"x": draw.integers(-3, 4, n) / 2.0, "y": draw.integers(0, 2, n).astype(float)}
        columns["x"][draw.random(n) < 0.3] = np.nan
        asked = [getattr(gx.expectations, r.kind)(column=r.column, meta={"at": i}, **r.options)
                 for i, r in enumerate(rules)]  # fmt: skip
        suite = gx.ExpectationSuite(name="s", expectations=asked)
        found = validated(gx, suite, "row", pd.DataFrame(columns), COUNTS_ONLY).results
        theirs = {r.expectation_config.meta["at"]: (r.success, r.result["unexpected_count"]) for r in found}
        ours = run_suite("s", "a", [Table("row", columns, rules)]).outcomes[1:]
        assert [(o.success, o.unexpected_count) for o in ours] == [theirs[i] for i in range(len(rules))]
        assert {o.n for o in ours} == {n}


def test_real_stays_keep_the_contracts() -> None:
    tables = read_source("embedded", sets=("a",), max_stays=300)
    mapping = load_mapping("physionet2012")
    found = contracts.check_events(tables.events, mapping.variables)
    contracts.require(found)
    assert found.outcomes[1].n == tables.events.height
    split = np.array([0, 0, 0, 1, 2] * 60, dtype=np.int8)
    real, _ = build_cohort(tables, mapping, step_hours=1.0, n_steps=48, split=split)
    contracts.require(contracts.check_cohort(real))
    contracts.require(contracts.check_encoded(prepare(real)))
