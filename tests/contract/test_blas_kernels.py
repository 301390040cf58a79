"""A stay encoded alone has the bits it has among others, whichever kernel OpenBLAS picks for the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

ENCODERS = [
    ("encoders.quantum:QuantumEncoder", {"template": "StronglyEntanglingLayers", "axis": "variables"}),
    ("encoders.quantum:QuantumEncoder", {"template": "StronglyEntanglingLayers", "n_qubits": 6, "correlations": True}),
    ("encoders.projection:RandomProjectionEncoder", {"axis": "variables", "window": 20, "n_components": 17}),
    ("encoders.projection:RandomProjectionEncoder", {"axis": "record", "n_components": 33}),
]
SCRIPT = """
import dataclasses, importlib, json, sys
import numpy as np
from threadpoolctl import threadpool_info
from pipeline.core.keys.secrets import Secret
from tests.contract.test_encoder_contract import cohort_of

place, _, name = sys.argv[1].partition(":")
encoder = getattr(importlib.import_module(place), name)(**json.loads(sys.argv[2]))
fitted = encoder.fit(cohort_of((1, 48, 44)), Secret(bytes(range(32)), "encoder"))
features = np.random.default_rng(1).random((120, 48, 44)).astype(np.float32)
whole = fitted.encode_array(features)
same = all((fitted.encode_array(features[stay : stay + 1])[0] == whole[stay]).all() for stay in (0, 50, 119))
print(json.dumps([same, [info["architecture"] for info in threadpool_info() if info["internal_api"] == "openblas"]]))
"""


@pytest.mark.parametrize("core_type", ["Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX"])
@pytest.mark.parametrize(("place", "options"), ENCODERS)
def test_a_stay_alone_has_the_same_bits_on_every_kernel(place: str, options: dict[str, object], core_type: str) -> None:
    environment = os.environ | {"OPENBLAS_CORETYPE": core_type, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, place, json.dumps(options)], env=environment, capture_output=True, text=True
    )
    if ran.returncode < 0:
        pytest.skip(f"this processor cannot run {core_type}'s instructions")
    assert ran.returncode == 0, ran.stderr
    same, kernels = json.loads(ran.stdout)
    if not kernels:
        pytest.skip("numpy does not use OpenBLAS here")
    assert same, kernels
