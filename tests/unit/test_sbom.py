"""`make sbom`: what is installed, by cyclonedx-bom, in a form that others' tools read."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_bill_names_what_is_installed_and_is_valid(tmp_path: Path) -> None:
    bill = tmp_path / "bill.json"
    words = [f"BIN={Path(sys.executable).parent}", "STAMP=pyproject.toml", f"SBOM={bill}"]
    made = subprocess.run(["make", "sbom", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    text = bill.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    told = json.loads(text)
    assert (told["metadata"]["component"]["name"], told["metadata"]["component"]["type"]) == ("decoct", "application")
    versions = {component["name"]: component["version"] for component in told["components"]}
    for name in ("torch", "numpy", "prefect", "cryptography", "scikit-learn"):
        assert versions[name] == version(name)
    refs = {component["bom-ref"] for component in told["components"]} | {told["metadata"]["component"]["bom-ref"]}
    assert {row["ref"] for row in told["dependencies"]} <= refs
    ours = next(row for row in told["dependencies"] if row["ref"] == told["metadata"]["component"]["bom-ref"])
    assert any(ref.startswith("numpy==") for ref in ours["dependsOn"])
    assert str(tmp_path) not in text
