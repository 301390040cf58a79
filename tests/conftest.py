"""Shared by all tests, before any heavy library is imported: telemetry off, nothing written to the user's home."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from flows.environment import quiet

_HOME = tempfile.TemporaryDirectory(prefix="decoct-tests-")
os.environ["PREFECT_HOME"] = str(Path(_HOME.name) / "prefect")
os.environ["MPLCONFIGDIR"] = str(Path(_HOME.name) / "matplotlib")
quiet()

HEAVY = frozenset(
    {
        "test_audit_bytes",
        "test_audit_covert",
        "test_audit_disguises",
        "test_audit_inversion",
        "test_benchmark_encoding_paper",
        "test_condensation_roles",
        "test_condensation_scale",
        "test_condensation_standard",
        "test_contracts",
        "test_custody",
        "test_direct",
        "test_doctor",
        "test_encoders_circuits",
        "test_encoders_dense",
        "test_encoders_leakage",
        "test_encoders_quantum",
        "test_encoders_randomise",
        "test_face",
        "test_fleet",
        "test_grouping_validated",
        "test_ingest_account",
        "test_ingest_corrupted",
        "test_ingest_generated",
        "test_ingest_hunted",
        "test_ingest_incremental",
        "test_ingest_incremental_tables",
        "test_ingest_quiet_faults",
        "test_ingest_readers",
        "test_ingest_real",
        "test_ingest_suggest",
        "test_install_files",
        "test_light_receiver",
        "test_lost",
        "test_probes_training",
        "test_regression_tasks",
        "test_report",
        "test_sharing_ledger",
        "test_sharing_load",
        "test_sharing_streams",
        "test_site",
        "test_site_contract",
        "test_stay_blocks",
        "test_stay_lengths",
        "test_typed_road",
        "test_utility",
        "test_watch_page",
    }
)
"""Modules of unit tests that take seconds; `make quick` leaves them out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in HEAVY:
            item.add_marker(pytest.mark.heavy)
