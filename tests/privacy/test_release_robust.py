"""Killed at random moments, altered at random places: nothing half-written, nothing accepted, nothing crashes."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ReleaseRefused

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("fuzz_bundle")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def sample(fuzz: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fuzz.Sample(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
def test_killed_at_random_moments_there_is_nothing_or_a_verifiable_whole(tmp_path: Path) -> None:
    """20 kills here; benchmarks/kill_release.py has the figure for 200."""
    command = [sys.executable, "kill_release.py", "--kills", "20", "--seed", "7", "--out", str(tmp_path / "found.json")]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert sum(found["last_line_of_the_log"].values()) == 20
    assert len(found["last_line_of_the_log"]) >= 2  # the kills fell into different steps


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(draws=st.randoms(use_true_random=False))
def test_altered_bytes_are_refused(draws: random.Random, fuzz: ModuleType, sample: Any) -> None:
    assert fuzz.bytes_case(sample, draws) == "refused"


@settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(draws=st.randoms(use_true_random=False))
def test_odd_values_under_true_signatures_crash_nothing(draws: random.Random, fuzz: ModuleType, sample: Any) -> None:
    before = sorted(path for path in sample.base.rglob("*") if not path.name.startswith("spoilt-"))
    with fuzz.no_hang():
        assert fuzz.structure_case(sample, draws) in ("accepted", "refused")
    assert sorted(path for path in sample.base.rglob("*") if not path.name.startswith("spoilt-")) == before


def test_the_untouched_sample_is_accepted(fuzz: ModuleType, sample: Any) -> None:
    """The control of the two above."""
    fuzz.verify_files(sample.files, fuzz.trusted(), today=fuzz.TODAY)


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "features\x00", "Features", "more"])
def test_no_author_chooses_the_names_of_a_receivers_files(name: str, fuzz: ModuleType, sample: Any) -> None:
    """Arrays become files at the receiver; a name of the signer's choice could leave the folder."""
    manifest = json.loads(sample.files["manifest.json"])
    arrays = manifest["data"]["arrays"]
    manifest["data"]["arrays"] = {name: arrays["features"], "labels": arrays["labels"]}
    files = {**sample.files, "manifest.json": fuzz.rfc8785.dumps(manifest)}
    told = {key: manifest[key] for key in fuzz.PREDICATE_KEYS}
    statement = fuzz.make_statement({key: data for key, data in files.items() if key != fuzz.ENVELOPE}, told)
    files[fuzz.ENVELOPE] = fuzz._signed(fuzz.PAYLOAD_TYPE, statement, "author", "approver")
    with pytest.raises(ReleaseRefused, match="names other arrays"):
        fuzz.verify_files(files, fuzz.trusted(), today=fuzz.TODAY)
