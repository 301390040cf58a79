"""One Prefect test server for all flow tests, and one small real job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.config import Config, parse_config

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
    "release": {"artefact": "private", "policy": "demo", "site": "test site"},
}


@pytest.fixture(scope="session")
def small_job() -> Callable[..., Config]:
    """Makes the small job in a workspace, with some tables replaced."""

    def make(workspace: Path, **changes: Any) -> Config:
        return parse_config(SMALL_JOB | {"workspace": str(workspace)} | changes, "the test's configuration", workspace)

    return make


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield
