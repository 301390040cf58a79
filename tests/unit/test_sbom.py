"""The bill of materials: what is installed, in a form that others' tools read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from flows.doctor.sbom import bill_of_materials, installed, normalised, write_sbom
from pipeline.core.errors import EnvironmentProblem

NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


def test_it_is_valid_by_the_standard_s_own_schema(tmp_path: Path) -> None:
    count = write_sbom(tmp_path / "bill.json", now=NOW)
    text = (tmp_path / "bill.json").read_text(encoding="utf-8")
    judge = JsonStrictValidator(SchemaVersion.V1_6)
    assert judge.validate_str(text) is None
    assert judge.validate_str(text.replace('"library"', '"librarian"')) is not None
    assert len(json.loads(text)["components"]) == count > 50


def test_it_names_what_is_installed_and_who_needs_whom() -> None:
    bill = bill_of_materials(NOW)
    versions = {component["name"]: component["version"] for component in bill["components"]}
    for name in ("torch", "numpy", "prefect", "cryptography", "scikit-learn"):
        assert versions[name] == version(name)
    assert "pytest" not in versions  # what only developers need
    needs = {row["ref"]: row["dependsOn"] for row in bill["dependencies"]}
    refs = {component["bom-ref"] for component in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert set(needs) == refs
    assert {ref for wanted in needs.values() for ref in wanted} <= refs
    ours = needs[bill["metadata"]["component"]["bom-ref"]]
    assert f"pkg:pypi/numpy@{version('numpy')}" in ours


def test_licences_are_those_that_packages_state() -> None:
    by_name = {component["name"]: component for component in bill_of_materials(NOW)["components"]}
    stated = [component for component in by_name.values() if component.get("licenses")]
    assert len(stated) / len(by_name) > 0.9
    assert bill_of_materials(NOW)["metadata"]["component"]["licenses"] == [{"expression": "Apache-2.0"}]


def test_equal_installations_give_equal_bytes() -> None:
    assert bill_of_materials(NOW) == bill_of_materials(NOW)
    later = bill_of_materials(NOW.replace(year=2027))
    assert later["serialNumber"] == bill_of_materials(NOW)["serialNumber"]


def test_names_are_compared_as_indices_do() -> None:
    assert normalised("Ruamel.YAML_clib") == "ruamel-yaml-clib"
    assert installed("no-such-package-here") == {}


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        write_sbom(tmp_path / "absent" / "bill.json", now=NOW)
