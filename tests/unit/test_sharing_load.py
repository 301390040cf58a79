"""Three lines from a bundle to a trained model, without the heavy parts of Decoct."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pipeline.sharing
from pipeline.core.errors import ReleaseRefused
from pipeline.sharing import load

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-2"
BUNDLE, ROOT = GOLDEN / "st-elsewhere-plain-v1", GOLDEN / "root.json"
DAY = datetime.date(2026, 3, 10)

SCRIPT = f"""
import datetime, json, sys
before = set(sys.modules)
from pipeline.sharing import load
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
    allowed = {"pipeline", "numpy", "safetensors", "cryptography", "rfc8785", "_cffi_backend", "_openssl", "packaging"}
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


def test_the_package_offers_load_and_nothing_by_accident() -> None:
    with pytest.raises(AttributeError):
        _ = pipeline.sharing.lode  # type: ignore[attr-defined]
