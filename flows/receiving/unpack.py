"""A received bundle as plain files: one .npy per array and the manifest, for any language that reads numpy's format."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import UsageError
from pipeline.sharing.receive.received import Received


def unpack(received: Received, folder: Path) -> dict[str, list[int]]:
    """Write the arrays and manifest.json into the new folder `folder`; returns the arrays' shapes.

    Raises:
        UsageError: the folder exists already.
    """
    write_arrays(received.arrays, dict(received.manifest), folder)
    return {name: list(array.shape) for name, array in received.arrays.items()}


def write_arrays(arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any], folder: Path) -> None:
    """One .npy per array and manifest.json in the new folder `folder`, whole or not at all.

    Raises:
        UsageError: the folder exists already.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already and is not overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, array in arrays.items():
            np.save(staged / f"{name}.npy", array, allow_pickle=False)
        text = json.dumps(dict(manifest), indent=2, sort_keys=True)
        (staged / "manifest.json").write_text(text + "\n", encoding="utf-8")
        staged.chmod(0o755)
        staged.rename(folder)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def read_arrays(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the manifest that `write_arrays` wrote; nothing in them can be code.

    Raises:
        UsageError: no such folder, or its manifest or an array cannot be read.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        arrays = {file.stem: np.load(file, allow_pickle=False) for file in sorted(folder.glob("*.npy"))}
    except (OSError, ValueError):
        raise UsageError(f"{folder} does not hold a manifest.json and arrays that can be read") from None
    if not isinstance(manifest, dict) or not {"features", "labels"} <= set(arrays):
        raise UsageError(f"{folder} does not hold a manifest.json with features and labels")
    return arrays, manifest
