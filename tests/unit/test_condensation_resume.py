"""Every optimising condenser, interrupted and started again with the same checkpoint, ends with the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from condensation.kernel_matching import KernelMatching
from condensation.loop import WINDOW_STEPS
from pipeline.core.digest import digest_array
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import OnStep
from pipeline.core.types import EncodedCohort, Provenance, Task

NOISE = NoiseSource(Secret(bytes(32), "noise"), "cohort")
STEPS = WINDOW_STEPS + 20
OPTIONS: dict[str, dict[str, Any]] = {
    "characteristic_function": {"maps": ("summaries",), "pool_size": 2},
    "distribution_matching": {"networks": ("vit-a", "rnn-b"), "batch_size": 8},
    "gradient_matching": {"networks": ("rnn-b",), "pool_size": 2},
    "kernel_matching": {"maps": ("summaries", "rnn-b"), "pool_size": 2, "labels": "learned"},
    "trajectory_matching": {"network": "rnn-b", "experts": 2, "marks": 2, "mark_every": 2, "student_steps": 1},
}
METHODS: dict[str, Callable[..., Any]] = {
    entry.name: partial(entry.load(), **OPTIONS[entry.name], iterations=STEPS)
    for entry in entry_points(group="decoct.condensers")
    if entry.name in OPTIONS
}


class Interrupted(Exception):
    pass


def cohort(n_tasks: int = 2) -> EncodedCohort:
    draws = np.random.default_rng(0)
    labels = draws.choice([0.0, 1.0, np.nan], (40, n_tasks)).astype(np.float32)
    labels[:, 0] = np.arange(40) % 2
    return EncodedCohort(
        features=draws.uniform(0, 1, (40, 4, 2)).astype(np.float32),
        labels=labels,
        subject_index=np.arange(40, dtype=np.int32),
        split=np.zeros(40, np.int8),
        channels=("a", "b"),
        tasks=tuple(Task(f"task{i}") for i in range(n_tasks)),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def digests(method: str, on_step: OnStep = lambda *_: None, seed: int = 0, **options: Any) -> tuple[str, str]:
    found = METHODS[method](**options).condense(cohort(), n_per_class=3, seed=seed, noise=NOISE, on_step=on_step)
    return digest_array(found.features), digest_array(found.labels)


@pytest.mark.parametrize("method", METHODS)
def test_resumes_to_the_same_bytes_and_refuses_another_seed(method: str, tmp_path: Path) -> None:
    state = tmp_path / "state.npz"

    def interrupt(step: int, steps: int, loss: float) -> None:
        if step > WINDOW_STEPS:
            raise Interrupted

    with pytest.raises(Interrupted):
        digests(method, interrupt, checkpoint=state)
    steps: list[int] = []
    resumed = digests(method, lambda step, *_: steps.append(step), checkpoint=str(state))
    assert steps == [WINDOW_STEPS + 10, STEPS]
    assert resumed == digests(method)
    with pytest.raises(ConfigError, match="another run"):
        digests(method, seed=1, checkpoint=state)


def test_where_the_checkpoint_lies_is_no_part_of_the_result(tmp_path: Path) -> None:
    condense = partial(KernelMatching, maps=("summaries",), pool_size=1, iterations=2)
    one, two = (
        condense(checkpoint=path).condense(cohort(), n_per_class=2, seed=0, noise=NOISE)
        for path in (None, tmp_path / "state.npz")
    )
    assert one.provenance == two.provenance
    assert digest_array(one.features) == digest_array(two.features)
