"""Lists of what a clinical score reads: parsed from a mapping, read off a series, described to a receiver."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from condensation.private.channels import PublicChannels, public_channels
from condensation.private.teacher.condenser import PrivateTeacher
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.risk import teacher_risks
from pipeline.core.teacher_form import problem
from pipeline.core.types import EncodedCohort, Provenance, ScoreItem, Task
from pipeline.ingest.mapping.load import load_mapping

STEPS = 8
NAMES = ("hr", "creatinine", "age", "unit:a", "unit:b")
TRANSFORMS: tuple[dict[str, Any], ...] = (
    {"kind": "imputation", "public": True, "never_observed": {"hr": 80.0, "creatinine": 0.9, "age": 60.0}},
    {
        "kind": "scaling",
        "public": True,
        "channels": list(NAMES),
        "low": [30, 0, 15, 0, 0],
        "high": [180, 8, 95, 1, 1],
        "units": ["/min", "mg/dL", "years", "0 or 1", "0 or 1"],
        "static": ["age", "unit:a", "unit:b"],
    },
)
ITEMS = (
    ScoreItem("hr", "max", "whole", "above"),
    ScoreItem("hr", "min", "second_half", "below"),
    ScoreItem("creatinine"),
    ScoreItem("creatinine", "mean", "first_half"),
    ScoreItem("creatinine", "max", "whole", "above"),
    ScoreItem("age"),
    ScoreItem("unit"),
)
DEATH = Task("death", score_items=ITEMS)


def known(*tasks: Task, transforms: tuple[dict[str, Any], ...] = TRANSFORMS) -> PublicChannels:
    return public_channels(NAMES, transforms, STEPS, 1.0, tasks)


def independent(series: np.ndarray) -> np.ndarray:
    """By hand, stay by stay."""

    def lg(x: float) -> float:
        return float(np.log1p(15 * x) / np.log(16))

    hr, normal_hr, normal_creatinine = series[..., 0], round(50 / 150 * 1024) / 1024, round(0.9 / 8 * 1024) / 1024
    rows = []
    for stay in range(len(series)):
        late = series[stay, 6:]
        rows.append([
            max(hr[stay].max() - normal_hr, 0.0),
            max(normal_hr - hr[stay, 4:].min(), 0.0),
            lg(late[:, 1].mean()),
            lg(series[stay, :4, 1].mean()),
            max(series[stay, :, 1].max() - normal_creatinine, 0.0),
            late[:, 2].mean(),
            late[:, 3].mean(),
            late[:, 4].mean(),
        ])  # fmt: skip
    return np.array(rows) - 0.5


def test_items_are_what_they_say_and_the_receiver_reads_the_same() -> None:
    series = np.random.default_rng(0).uniform(size=(40, STEPS, len(NAMES)))
    channels = known(DEATH)
    expected = independent(series)
    np.testing.assert_allclose(channels.features(series), expected, atol=1e-12)
    teacher = np.random.default_rng(1).normal(size=(1, 1 + channels.n_features))
    risks = teacher_risks(series, teacher, channels.of_features(), NAMES)
    np.testing.assert_allclose(risks, 1 / (1 + np.exp(-(expected @ teacher[:, 1:].T + teacher[:, 0]))), atol=1e-12)


def test_several_tasks_read_all_that_one_of_them_reads() -> None:
    bare, other = Task("stay"), Task("other", score_items=(ScoreItem("creatinine"), ScoreItem("hr")))
    named = [item["channel"] for item in known(DEATH, other).items]
    assert len(named) == 9
    assert named[-1] == "hr"  # "creatinine" once
    assert {"hr", "creatinine", "age"} <= {
        item["channel"] for item in known(other, bare).items if item["statistic"] == "mean"
    }


def test_without_a_list_and_after_an_encoding_every_level_is_read() -> None:
    encoded = (*TRANSFORMS, {"kind": "random_projection", "public": True})
    for channels in (known(), known(Task("death")), known(DEATH, transforms=encoded)):
        assert channels.items == ()
        assert channels.n_features == len(NAMES)
        assert "items" not in channels.describe()
    assert known(DEATH).digest() != known().digest()


def test_a_variable_that_is_no_channel_is_an_error() -> None:
    with pytest.raises(ConfigError, match="reads lactate, which is no channel"):
        known(Task("death", score_items=(ScoreItem("lactate"),)))


def test_one_step_is_enough() -> None:
    channels = public_channels(NAMES, TRANSFORMS, 1, 1.0, (DEATH,))
    assert channels.features(np.zeros((2, 1, len(NAMES)))).shape == (2, 7)  # the two windows of creatinine are one
    assert problem(channels.of_features(), NAMES, 1) == ""


def cohort(n: int) -> EncodedCohort:
    draws = np.random.default_rng(2)
    features = draws.uniform(size=(n, STEPS, len(NAMES)))
    features[:, :, 2:] = features[:, :1, 2:].round()
    return EncodedCohort(
        features=features.astype(np.float32),
        labels=(draws.uniform(size=(n, 1)) < features[:, :, 0].max(axis=1, keepdims=True) ** 8).astype(np.float32),
        subject_index=np.arange(n, dtype=np.int32),
        split=np.zeros(n, np.int8),
        channels=NAMES,
        tasks=(DEATH,),
        step_hours=1.0,
        transforms=TRANSFORMS,
        provenance=Provenance("test"),
    )


def test_a_private_teacher_learns_what_only_the_list_can_see() -> None:
    """The event is a high heart rate at any time: the worst value shows it, the level of the last quarter hardly."""
    made, seen = cohort(1500), cohort(3000)
    scores = {}
    for name, tasks in (("listed", (DEATH,)), ("levels", (Task("death"),))):
        noise = NoiseSource(Secret(bytes(32), "noise"), "cohort")
        given = dataclasses.replace(made, tasks=tasks)
        found = PrivateTeacher(epsilon=8.0, delta=1e-6).condense(given, n_per_class=20, seed=0, noise=noise)
        assert found.teacher is not None
        assert found.teacher_features is not None
        risks = teacher_risks(seen.features, found.teacher, found.teacher_features, NAMES)[:, 0]
        events = seen.labels[:, 0] > 0
        scores[name] = float((risks[events][:, None] > risks[~events]).mean())
    assert scores["listed"] > scores["levels"] + 0.05


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"more": 1}, "missing or unknown keys"),
        ({"channel": "lactate"}, "do not have"),
        ({"channel": ["hr"]}, "do not have"),
        ({"statistic": "median"}, "not known here"),
        ({"side": "left"}, "not known here"),
        ({"statistic": ["min"]}, "not known here"),
        ({"steps": [0, STEPS + 1]}, "do not have"),
        ({"steps": [3, 3]}, "do not have"),
        ({"steps": [-1, 3]}, "do not have"),
        ({"steps": [0, True]}, "steps are none"),
        ({"steps": "08"}, "steps are none"),
        ({"normal": 0.3}, "normal value is none"),  # not on the grid
        ({"normal": 2.0}, "normal value is none"),
        ({"normal": float("nan")}, "normal value is none"),
        ({"side": "level"}, "does not use"),
        ({"statistic": "min", "steps": [4, 8], "side": "below"}, "twice"),
    ],
)
def test_an_item_that_nobody_can_score_by_is_refused(change: dict[str, Any], sentence: str) -> None:
    told: dict[str, Any] = known(DEATH).of_features()
    assert problem(told, NAMES, STEPS) == ""
    assert sentence in problem({**told, "items": [{**told["items"][0], **change}, *told["items"][1:]]}, NAMES, STEPS)


def test_lists_and_versions_that_are_none_are_refused() -> None:
    told: dict[str, Any] = known(DEATH).of_features()
    for items in ([], "hr", [1]):
        assert problem({**told, "items": items}, NAMES, STEPS)
    assert "not known here" in problem({**told, "version": 1}, NAMES, STEPS)
    assert "not known here" in problem({**told, "kind": ["late_level_logistic"]}, NAMES, STEPS)
    noise = NoiseSource(Secret(bytes(32), "noise"), "cohort")
    made = PrivateTeacher(epsilon=8.0, delta=1e-6).condense(cohort(50), n_per_class=2, seed=0, noise=noise)
    with pytest.raises(DataError, match="an item twice"):
        dataclasses.replace(made, teacher_features={**told, "items": [*told["items"], told["items"][0]]})


# --- in a mapping -----------------------------------------------------------------------------------------------------

VARIABLES = """
[variables]
hr = { unit = "/min", plausible = [5, 300], scale = [30, 180], normal = 80 }
[statics]
age = { unit = "years", plausible = [0, 120], scale = [15, 95], normal = 60 }
unit = { unit = "kind", plausible = [1, 2], scale = [1, 2], normal = 1, categories = { 1 = "a", 2 = "b" } }
"""


def mapping(tmp_path: Path, items: str, head: str = "", variables: str = VARIABLES) -> Any:
    path = tmp_path / "own.toml"
    task = f'[tasks]\ndeath = {{ kind = "binary", column = "died"{items} }}\n' if items != "none" else ""
    path.write_text(head + variables + task)
    return load_mapping(str(path))


def test_a_mapping_lists_items_by_task(tmp_path: Path) -> None:
    listed = '{ variable = "hr", window = "whole", statistic = "max", side = "above" }, { variable = "unit" }'
    found = mapping(tmp_path, f", score_items = [{listed}]").score_items
    assert found == {"death": (ScoreItem("hr", "max", "whole", "above"), ScoreItem("unit"))}
    assert mapping(tmp_path, "").score_items == {}


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ("[]", "a list of tables"),
        ('"hr"', "a list of tables"),
        ("[1]", "must be a table"),
        ("[{}]", "lacks the key variable"),
        ('[{ variable = "HR" }]', "no variable of the mapping; did you mean hr"),
        ('[{ variable = "hr", windows = "late" }]', "unknown key windows; did you mean window"),
        ('[{ variable = "hr", window = "last" }]', "window is one of late, first_half"),
        ('[{ variable = "hr", side = "up" }]', "side is one of level"),
        ('[{ variable = "hr", statistic = "median" }]', "statistic is one of mean"),
        ('[{ variable = "age", window = "whole" }]', "the same in every step"),
        ('[{ variable = "unit", side = "above" }]', "categories"),
        ('[{ variable = "hr" }, { variable = "hr", window = "late" }]', "an item twice"),
    ],
)
def test_a_list_that_says_nothing_is_refused(tmp_path: Path, items: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        mapping(tmp_path, f", score_items = {items}")


def test_a_mapping_on_a_base_leaves_out_what_it_has_no_variable_for(tmp_path: Path) -> None:
    base = load_mapping("physionet2012").score_items["in_hospital_death"]
    fewer = 'base = "physionet2012"\n[variables]\n'
    fewer += 'HR = { unit = "/min", plausible = [5, 300], scale = [30, 180], normal = 80 }\n'
    fewer += '[statics]\nage = { unit = "years", plausible = [0, 120], scale = [15, 95], normal = 60 }\n'
    found = mapping(tmp_path, "none", head=fewer, variables="").score_items
    assert found["in_hospital_death"] == tuple(item for item in base if item.variable in ("HR", "age"))
    assert mapping(tmp_path, "", head='base = "physionet2012"\n', variables="").score_items == {}
