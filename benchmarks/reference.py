"""What several benchmarks share: the published split of the 8,000 stays, a ratio of scores, the machine in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from pipeline.core.types import Split, UtilityReport


def reference_split(n_stays: int) -> np.ndarray:
    """P12-8000's split of positions, sets A then B in RecordID order: two 20 % splits, seed 42."""
    rest, held_out = train_test_split(np.arange(n_stays), test_size=0.2, random_state=42)
    _, tuning = train_test_split(rest, test_size=0.2, random_state=42)
    split = np.full(n_stays, int(Split.TRAIN), np.int8)
    split[tuning], split[held_out] = int(Split.TUNING), int(Split.HELD_OUT)
    return split


def retention(report: UtilityReport, training_set: str, model: str, task: str) -> float | None:
    """Chance-corrected retention (A_c - .5) / (A_full - .5) of mean AUROCs; None without a ceiling above chance."""
    condensed = report.score(training_set, model, "auroc", task)
    full = report.score("full_data", model, "auroc", task)
    if condensed is None or full is None or not full.mean > 0.5:
        return None
    return (condensed.mean - 0.5) / (full.mean - 0.5)


def machine(*modules: ModuleType) -> dict[str, Any]:
    """Processor, load, and the versions of Python and of the modules that the figures depend on."""
    return {
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {module.__name__: module.__version__ for module in modules},
    }


def _cpu_name() -> str:
    """The processor's model name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
