"""What an interrupted condensation needs to go on: numbers only, in one npz file, replaced in one move.

The file holds unreleased samples that may be near copies of records: it belongs beside the site's own data, and is
never part of a bundle.
"""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from torch import Tensor

from pipeline.core.errors import ConfigError, DataError


@final
@dataclass
class LoopState:
    """The loop after `step` steps; `losses` are those since the last closed window and are never stored."""

    fingerprint: str
    step: int
    best_loss: float
    windows_since_gain: int
    best: tuple[np.ndarray, np.ndarray] | None = None  # features and labels of the best window
    leaves: list[np.ndarray] = field(default_factory=list)
    first: list[np.ndarray] = field(default_factory=list)  # Adam's running means of the gradients
    second: list[np.ndarray] = field(default_factory=list)  # and of their squares
    losses: list[Tensor] = field(default_factory=list)

    @classmethod
    def fresh(cls, fingerprint: str) -> LoopState:
        """Before the first step."""
        return cls(fingerprint, step=0, best_loss=math.inf, windows_since_gain=0)


def save_state(path: str | Path, state: LoopState) -> None:
    """Write `state` beside `path` and move it there, so that an interruption leaves the old file or the new one."""
    path = Path(path)
    arrays = {
        "fingerprint": np.array(state.fingerprint),
        "step": np.array(state.step),
        "best_loss": np.array(state.best_loss),
        "windows_since_gain": np.array(state.windows_since_gain),
    }
    if state.best is not None:
        arrays["best_features"], arrays["best_labels"] = state.best
    for name in ("leaves", "first", "second"):
        arrays |= {f"{name}{i}": array for i, array in enumerate(getattr(state, name))}
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_state(path: str | Path, fingerprint: str) -> LoopState | None:
    """The state at `path`, or None where there is no file.

    Raises:
        ConfigError: another run wrote it. DataError: it cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        state = LoopState(
            fingerprint=str(arrays["fingerprint"]),
            step=int(arrays["step"]),
            best_loss=float(arrays["best_loss"]),
            windows_since_gain=int(arrays["windows_since_gain"]),
            best=(arrays["best_features"], arrays["best_labels"]) if "best_features" in arrays else None,
            leaves=_series(arrays, "leaves"),
            first=_series(arrays, "first"),
            second=_series(arrays, "second"),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise DataError(f"the checkpoint {path.name} cannot be read; delete it to start afresh") from None
    if state.fingerprint != fingerprint:
        raise ConfigError(f"the checkpoint {path.name} belongs to another run; delete it or name another file")
    return state


def _series(arrays: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    return [arrays[f"{name}{i}"] for i in range(len(arrays)) if f"{name}{i}" in arrays]
