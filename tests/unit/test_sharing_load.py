"""Three lines from a bundle to a trained model, without the heavy parts of Decoct."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from decoct import load, read_bundle, verify
from pipeline.core.errors import ReleaseRefused, UsageError
from pipeline.core.types import CondensedSet
from pipeline.sharing.receive.received import Received

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-2"
BUNDLE, ROOT = GOLDEN / "st-elsewhere-plain-v1", GOLDEN / "root.json"
DAY = datetime.date(2026, 3, 10)

SCRIPT = f"""
import datetime, json, sys
before = set(sys.modules)
from decoct import load
data = load({str(BUNDLE)!r}, {str(ROOT)!r}, today=datetime.date(2026, 3, 10))
X, y, weight = data.X_y("death")
top = lambda: sorted({{name.split(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names))
light = top()
from sklearn.linear_model import LogisticRegression
model = LogisticRegression(max_iter=100).fit(X, y, weight)
after_sklearn = set(sys.modules)
features, labels = next(iter(__import__("torch").utils.data.DataLoader(data.torch_dataset("death"), batch_size=8)))
heavy = [name for name in ("prefect", "pydantic", "polars", "great_expectations", "pennylane", "flows")
         if name in sys.modules]
print(json.dumps({{"light": light, "X": X.shape, "score": model.score(X, y), "torch": list(features.shape),
                  "torch_before": "torch" in after_sklearn, "heavy": heavy}}))
"""


def test_three_lines_load_numpy_and_the_verifier_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, timeout=300)
    told = json.loads(done.stdout)
    allowed = {
        "decoct",
        "pipeline",
        "numpy",
        "safetensors",
        "cryptography",
        "rfc8785",
        "_cffi_backend",
        "_openssl",
        "packaging",
    }
    assert set(told["light"]) - allowed == set()
    assert told["torch_before"] is False
    assert told["X"] == [40, 6]
    assert told["score"] >= 0.5
    assert told["torch"] == [8, 3, 2]
    assert told["heavy"] == []


def test_load_verifies_and_its_day_is_today() -> None:
    data = load(str(BUNDLE), str(ROOT), today=DAY)
    assert data.features.dtype == data.labels.dtype == np.float32
    assert (data.features.shape, data.labels.shape) == ((40, 3, 2), (40, 1))
    assert (data.channels, data.tasks) == (("heart_rate", "lactate"), ("death",))
    with pytest.raises(ReleaseRefused, match="expired"):
        load(BUNDLE, ROOT, today=datetime.date(2100, 1, 1))
    with pytest.raises(ReleaseRefused, match="no trust root"):
        load(BUNDLE, GOLDEN / "absent.toml", today=DAY)


def test_verify_tells_who_signed_and_loads_no_array_library() -> None:
    assert verify(BUNDLE, ROOT, today=DAY).signed_by.name == load(BUNDLE, ROOT, today=DAY).bundle.signed_by.name
    with pytest.raises(ReleaseRefused, match="expired"):
        verify(str(BUNDLE), str(ROOT), today=datetime.date(2100, 1, 1))
    script = f"""
import datetime, sys
from decoct import verify
verify({str(BUNDLE)!r}, {str(ROOT)!r}, today=datetime.date(2026, 3, 10))
print([name for name in ("numpy", "safetensors", "torch", "pydantic", "flows") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_read_bundle_gives_the_type_that_was_released(monkeypatch: pytest.MonkeyPatch) -> None:
    made = read_bundle(BUNDLE, ROOT, today=DAY)
    assert isinstance(made, CondensedSet)
    np.testing.assert_array_equal(made.features, load(BUNDLE, ROOT, today=DAY).features)
    rows = {**load(BUNDLE, ROOT, today=DAY).manifest, "release": {"kind": "encoded"}}
    monkeypatch.setattr(Received, "manifest", property(lambda _: rows))
    with pytest.raises(UsageError, match="holds encoded data"):
        read_bundle(BUNDLE, ROOT, today=DAY)
