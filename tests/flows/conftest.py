"""One Prefect test server for all flow tests, and one small real job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from flows.workspace.job import KEY_PURPOSES, key_path
from pipeline.core.config import Config, parse_config
from pipeline.core.keys.secrets import Secret, write_secret

POLICY = "trial.toml"
SMALL_JOB: dict[str, Any] = {
    "name": "small",
    "source": {"kind": "embedded", "sets": ["a"], "max_stays": 900},
    "cohort": {"tasks": ["in_hospital_death", "los_gt_7d", "death_365d"]},
    "encode": {"raw": {"kind": "identity"}, "rqe": {"kind": "quantum"}},
    "condense": {
        "private": {"kind": "private_moments", "n_per_class": 20},
        "centroids": {"kind": "centroids", "input": "rqe", "n_per_class": 20, "tasks": "group"},
    },
    "utility": {"models": ["logistic_regression"], "n_seeds": 1, "n_random_draws": 1},
    "group": {"n_inits": 1, "max_groups": 2},
    "audit": {"max_targets": 60, "n_bootstrap": 100},
    "release": {"artefact": "private", "policy": POLICY, "site": "test site", "licence": "ODbL-1.0"},
}


def trial_policy() -> str:
    """The demo's policy with a wider limit: at a few hundred stays the interval alone reaches the demo's."""
    demo = (files("pipeline.sharing") / "policies" / "demo.toml").read_text(encoding="utf-8")
    wider = demo.replace('name = "demo"', 'name = "trial"').replace("max_upper = 0.60", "max_upper = 0.75")
    assert wider.count("trial") == wider.count("0.75") == 1
    return wider


@pytest.fixture(scope="session")
def small_job() -> Callable[..., Config]:
    """Makes the small job in a workspace, with some tables replaced."""

    def make(workspace: Path, **changes: Any) -> Config:
        (workspace / POLICY).write_text(trial_policy(), encoding="utf-8")
        return parse_config(SMALL_JOB | {"workspace": str(workspace)} | changes, "the test's configuration", workspace)

    return make


@pytest.fixture(scope="session")
def fixed_keys() -> Callable[[Path], None]:
    """Gives a workspace known keys: at this size a gate that is right may still refuse by chance, run by run."""

    def write(workspace: Path) -> None:
        for number, purpose in enumerate(KEY_PURPOSES, start=1):
            write_secret(key_path(workspace, purpose), Secret(bytes([number]) * 32, purpose))

    return write


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield
