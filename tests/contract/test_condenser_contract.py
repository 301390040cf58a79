"""What every condenser registered under `decoct.condensers` promises, at its defaults and at extremes.

Every condenser is made as a configuration's table makes it, and runs at the defaults that users get.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from flows import registry
from pipeline.core.config import CONDENSE_TABLES, condense_table
from pipeline.core.digest import digest_array
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import Condenser, ignore_step
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance, Task

REGISTERED = registry.names(registry.CONDENSERS)
FAST: dict[str, dict[str, Any]] = {  # a loop's length is not its contract
    "distribution_matching": {"iterations": 2},
    "characteristic_function": {"iterations": 2, "pool_size": 2},
    "gradient_matching": {"iterations": 2, "pool_size": 2, "training_steps": (0, 1)},
    "kernel_matching": {"iterations": 2, "pool_size": 3},
    "trajectory_matching": {"iterations": 2, "experts": 1, "mark_every": 1, "marks": 2},
}
PRIVATE = {"private_moments", "private_stream", "private_teacher"}
FROM_RECORDS = {"centroids", "herding", "random_real"}
FEWEST = {"gaussian": 10}  # stays of a class, whatever the number of samples
EXTREMES: list[tuple[str, dict[str, Any]]] = [
    ("characteristic_function", {"initialisation": "noise", "maps": ("summaries",), "pool_stays": 1}),
    ("distribution_matching", {"initialisation": "noise"}),
    ("distribution_matching", {"match": "output", "networks": ("published-tcn-g",), "initialisation": "noise"}),
    ("distribution_matching", {"scale": "cohort", "networks": ("published-trsf-b",), "initialisation": "noise"}),
    ("distribution_matching", {"initialisation": "gaussian", "networks": ("tcn-a",)}),
    ("distribution_matching", {"initialisation": "real", "networks": ("lstm-b",)}),
    ("distribution_matching", {"initialisation": "centroids", "networks": ("vit-b",), "batch_size": 1}),
    ("gradient_matching", {"initialisation": "noise", "networks": ("vit-b",)}),
    ("kernel_matching", {"labels": "hard", "initialisation": "noise", "maps": ("summaries",)}),
    ("kernel_matching", {"labels": "learned", "initialisation": "real", "components": 2, "maps": ("gru",)}),
    ("private_moments", {"epsilon": 0.01, "delta": 1e-9, "clip_norm": 10.0}),
    ("private_moments", {"epsilon": 100.0, "clip_norm": 0.01}),
    ("private_stream", {"epsilon": 0.01, "horizon": 1}),
    ("private_stream", {"epsilon": 90.0, "delta": 1e-9, "entries": 3, "separation": 7, "window": 30}),
    ("private_teacher", {"epsilon": 0.01, "delta": 1e-9}),
    ("private_teacher", {"epsilon": 100.0}),
    ("trajectory_matching", {"initialisation": "real", "network": "gru"}),
]
EVERY = [(name, {}) for name in REGISTERED] + [(name, options) for name, options in EXTREMES if name in REGISTERED]
NAMES = [f"{name}-{i}" for i, (name, _) in enumerate(EVERY)]
every_condenser = pytest.mark.parametrize(("name", "options"), EVERY, ids=NAMES)


def cohort(n: int = 40, n_events: int = 16, n_steps: int = 6, n_channels: int = 3, n_tasks: int = 2) -> EncodedCohort:
    draws = np.random.default_rng(n)
    labels = draws.choice([0.0, 1.0, np.nan], (n, n_tasks)).astype(np.float32)
    labels[:, 0] = np.arange(n) < n_events
    return EncodedCohort(
        features=draws.uniform(size=(n, n_steps, n_channels)).astype(np.float32),
        labels=labels,
        subject_index=np.arange(n, dtype=np.int32),
        split=np.zeros(n, np.int8),
        channels=tuple(f"channel{i}" for i in range(n_channels)),
        tasks=tuple(Task(f"task{i}") for i in range(n_tasks)),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def made(name: str, options: dict[str, Any]) -> Condenser:
    """As a run makes it: from a table of the configuration, a plug-in's with its settings."""
    asked = {**FAST.get(name, {}), **options}
    if name not in CONDENSE_TABLES:
        asked = {"settings": asked}
    condenser = registry.condenser(condense_table(name, **asked))
    assert isinstance(condenser, Condenser)
    return condenser


def condense(
    name: str, options: dict[str, Any], encoded: EncodedCohort, n_per_class: int = 4, seed: int = 0
) -> CondensedSet:
    noise = NoiseSource(Secret(bytes(32), "noise"), "cohort")
    return made(name, options).condense(
        encoded, n_per_class=n_per_class, seed=seed, noise=noise, device="cpu", on_step=ignore_step
    )


@every_condenser
def test_shape_labels_and_facts(name: str, options: dict[str, Any]) -> None:
    encoded = cohort()
    found = condense(name, options, encoded)
    assert found.features.shape == (8, 6, 3)
    assert found.features.dtype == np.float32
    assert found.labels.shape == (8, 2)
    assert np.isfinite(found.labels[:, 0]).all()
    assert (found.channels, found.tasks, found.transforms) == (encoded.channels, encoded.tasks, encoded.transforms)
    assert found.method == name
    assert found.provenance.seed == 0
    assert (found.guarantee is not None) == (name in PRIVATE)
    assert not (found.guarantee is not None and found.starts_from_records)


@every_condenser
def test_same_seed_same_bytes_and_input_untouched(name: str, options: dict[str, Any]) -> None:
    encoded = cohort()
    before = digest_array(encoded.features)
    one, two = condense(name, options, encoded), condense(name, options, encoded)
    assert digest_array(one.features) == digest_array(two.features)
    assert digest_array(one.labels) == digest_array(two.labels)
    assert digest_array(encoded.features) == before


@every_condenser
def test_one_sample_per_class_one_step_one_channel(name: str, options: dict[str, Any]) -> None:
    found = condense(name, options, cohort(n_steps=1, n_channels=1, n_tasks=1), n_per_class=1)
    assert found.features.shape == (2, 1, 1)


@every_condenser
def test_a_tiny_class_works_or_says_so(name: str, options: dict[str, Any]) -> None:
    start = name if name in {*FROM_RECORDS, *FEWEST} else getattr(made(name, options), "initialisation", "noise")
    if start != "noise":
        with pytest.raises(DataError, match=rf"class 1 of task task0 .* needs {FEWEST.get(start, 4)}"):
            condense(name, options, cohort(n_events=2))
    else:
        assert condense(name, options, cohort(n_events=2)).features.shape == (8, 6, 3)


@every_condenser
def test_an_empty_class_is_an_error_unless_that_would_leak(name: str, options: dict[str, Any]) -> None:
    if name in PRIVATE:  # an error would be an unaccounted answer about the patients
        assert condense(name, options, cohort(n_events=0)).features.shape == (8, 6, 3)
    else:
        with pytest.raises(DataError, match="class 1"):
            condense(name, options, cohort(n_events=0), n_per_class=1)


@every_condenser
def test_missing_class_labels_are_left_out(name: str, options: dict[str, Any]) -> None:
    encoded = cohort()
    labels = encoded.labels.copy()
    labels[:3, 0] = np.nan
    found = condense(name, options, dataclasses.replace(encoded, labels=labels))
    assert np.isfinite(found.labels[:, 0]).all()


@every_condenser
def test_a_number_beside_the_classes_keeps_its_order(name: str, options: dict[str, Any]) -> None:
    """The second task is the first channel's mean: labels lie in [0, 1], or are missing where a start knows none."""
    encoded = with_number(cohort(n=60, n_events=30), task=1)
    found = condense(name, options, encoded, n_per_class=6)
    known = found.labels[np.isfinite(found.labels)]
    assert known.min() >= 0
    assert known.max() <= 1
    assert found.tasks == encoded.tasks
    if np.isfinite(found.labels[:, 1]).all() and options.get("epsilon", 1) >= 1 and "clip_norm" not in options:
        assert 0.05 < found.labels[:, 1].mean() < 0.95


@every_condenser
def test_a_number_as_the_first_task_is_condensed_or_refused(name: str, options: dict[str, Any]) -> None:
    encoded = with_number(cohort(n=60), task=0)
    if name == "gradient_matching":
        with pytest.raises(ConfigError, match="task0 is a number"):
            condense(name, options, encoded)
        return
    found = condense(name, options, encoded)
    assert found.features.shape == (8, 6, 3)
    assert np.isfinite(found.labels[:, 0]).all()
    assert 0 <= found.labels[:, 0].min() <= found.labels[:, 0].max() <= 1
    if options.get("epsilon", 1) >= 1:  # below, noise may push every label to a limit
        assert found.labels[:, 0].min() < found.labels[:, 0].max()


def with_number(encoded: EncodedCohort, task: int) -> EncodedCohort:
    """The cohort with one task replaced by a number: the first channel's mean, spread over [0, 1]."""
    mean = encoded.features[:, :, 0].mean(axis=1)
    labels = encoded.labels.copy()
    labels[:, task] = (mean - mean.min()) / np.ptp(mean)
    tasks = list(encoded.tasks)
    tasks[task] = Task(tasks[task].name, "", "regression", 0.0, 30.0, "days")
    return dataclasses.replace(encoded, labels=labels, tasks=tuple(tasks))


@every_condenser
def test_zero_samples_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="n_per_class"):
        condense(name, options, cohort(), n_per_class=0)


@every_condenser
def test_progress_ends_at_the_last_step(name: str, options: dict[str, Any]) -> None:
    seen: list[tuple[int, int]] = []
    made(name, options).condense(
        cohort(),
        n_per_class=2,
        seed=0,
        noise=NoiseSource(Secret(bytes(32), "noise"), "cohort"),
        device="cpu",
        on_step=lambda step, steps, loss: seen.append((step, steps)),
    )
    assert seen[-1][0] == seen[-1][1]
