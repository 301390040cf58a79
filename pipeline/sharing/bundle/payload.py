"""An artefact as plain arrays and the plain description that the manifest carries. What is dropped is the point.

Dropped: the cohort's digest and all parents (a hash of patients' data is a membership oracle for whoever can guess the
rest, and labels the noise), the seed, subject codes, splits, the order of rows, and decimals that mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pipeline.core.codec import to_plain
from pipeline.core.teacher_form import STEP
from pipeline.core.types import CondensedSet, EncodedCohort, PrivacyGuarantee, Task
from pipeline.sharing.bundle.payload_form import LABEL_STEP, MISSING, feature_step, header, moments_step
from pipeline.sharing.layout import SHIFT, TEACHER
from pipeline.sharing.policy.rules import Artefact, release_kind

_SECRETIVE: Final = re.compile(r"seed|secret|salt|digest|parent|path|file|folder|workspace|(^|_)key($|_)", re.I)
_HASH_OR_PATH: Final = re.compile(r"[0-9a-fA-F]{32,}|[/\\]")


def payload_arrays(artefact: Artefact) -> dict[str, np.ndarray]:
    """The arrays that leave, by name, in the one form of `pipeline.sharing.bundle.payload_form`.

    condensed, encoded: features float32 (sample, step, channel), labels float32 (sample, task), NaN = missing, rows
    sorted by their own bytes; of a private condensed set also label_shift float64 (task) and teacher (task, 1 +
    feature); moments: gram float64 (feature, feature), signed_sums (task, feature), signed_counts
    (task).
    """
    if isinstance(artefact, CondensedSet | EncodedCohort):
        found = _in_content_order(_on_feature_grid(artefact.features), _on_label_grid(artefact.labels))
        return found | (_beside(artefact) if isinstance(artefact, CondensedSet) else {})
    step = moments_step(guarantee_description(artefact.guarantee))
    sums = {"gram": artefact.gram, "signed_sums": artefact.signed_sums, "signed_counts": artefact.signed_counts}
    return {name: _rounded(array, step).astype("<f8") for name, array in sums.items()}


def payload_bytes(artefact: Artefact) -> bytes:
    """The safetensors file: no code, no metadata, same arrays = same bytes."""
    arrays = payload_arrays(artefact)
    head = header(_described_arrays(arrays))
    return head + b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays))


def data_description(artefact: Artefact) -> dict[str, Any]:
    """Shapes and meanings of the payload's axes, and the transforms from clinical units."""
    steps = artefact.features.shape[1] if isinstance(artefact, CondensedSet | EncodedCohort) else artefact.n_steps
    description: dict[str, Any] = {
        "channels": artefact.channels,
        "tasks": [_described(task) for task in artefact.tasks],
        "n_steps": steps,
        "step_hours": float(artefact.step_hours),
        "transforms": artefact.transforms,
        "arrays": _described_arrays(payload_arrays(artefact)),
    }
    if isinstance(artefact, CondensedSet):
        description["soft_labels"] = artefact.has_soft_labels
        if artefact.teacher_features is not None:
            description[TEACHER] = artefact.teacher_features
    elif not isinstance(artefact, EncodedCohort):
        description["feature_map"] = artefact.feature_map
        description["feature_map_digest"] = artefact.feature_map_digest
    result: dict[str, Any] = to_plain(description)
    return result


def _described_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    return {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in arrays.items()}


def _described(task: Task) -> dict[str, Any]:
    """Name and meaning; of a number also the unit, and the limits that labels 0 and 1 stand for."""
    told = {"name": task.name, "description": task.description}
    if task.kind == "binary":
        return told
    return {**told, "kind": task.kind, "low": float(task.low), "high": float(task.high), "unit": task.unit}


def method_description(artefact: Artefact) -> dict[str, Any]:
    """How the artefact was made, as far as that is public: kind, method, options, code version. No seed, no parents."""
    condensed = artefact if isinstance(artefact, CondensedSet) else None
    from_records = isinstance(artefact, EncodedCohort) if condensed is None else condensed.starts_from_records
    return {
        "kind": release_kind(artefact),
        "method": artefact.provenance.stage if condensed is None else condensed.method,
        "options": public_options(artefact.provenance.config),
        "code_version": artefact.provenance.code_version,
        "starts_from_records": from_records,
    }


def guarantee_description(guarantee: PrivacyGuarantee | None) -> dict[str, Any] | None:
    """The guarantee's fields as plain data."""
    if guarantee is None:
        return None
    return {
        "epsilon": float(guarantee.epsilon),
        "delta": float(guarantee.delta),
        "unit": guarantee.unit,
        "adjacency": guarantee.adjacency,
        "accountant": guarantee.accountant,
        "events": to_plain(guarantee.events),
        "assumed_public": to_plain(guarantee.assumed_public),
    }


def public_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `config` without seeds, keys, paths and hashes; what is in doubt is left out."""
    kept: dict[str, Any] = {}
    for name, value in config.items():
        if _SECRETIVE.search(str(name)):
            continue
        if isinstance(value, Mapping):
            kept[str(name)] = public_options(value)
        elif isinstance(value, list | tuple):
            kept[str(name)] = [item for item in value if _is_plain(item)]
        elif _is_plain(value):
            kept[str(name)] = value
    return kept


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return _HASH_OR_PATH.search(value) is None
    if isinstance(value, float):
        return bool(np.isfinite(value))
    return value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53)


def _rounded(array: np.ndarray, step: float | np.ndarray) -> np.ndarray:
    """The nearest multiples of a power of two; + 0 makes of -0 what 0 is."""
    return np.asarray(np.rint(array.astype(np.float64) / step) * step + 0.0)


def _beside(condensed: CondensedSet) -> dict[str, np.ndarray]:
    """How the labels were balanced, and the teacher, where there are such."""
    found = {SHIFT: condensed.label_shift, TEACHER: condensed.teacher}
    return {name: _rounded(array, STEP).astype("<f8") for name, array in found.items() if array is not None}


def _on_feature_grid(features: np.ndarray) -> np.ndarray:
    """(sample, step, channel), each channel on the grid of its own range."""
    peaks = np.abs(features).max(axis=(0, 1), initial=0.0)
    steps = np.array([feature_step(float(peak)) for peak in peaks])
    return _rounded(features, steps).astype("<f4")


def _on_label_grid(labels: np.ndarray) -> np.ndarray:
    """(sample, task); all missing labels the same NaN."""
    rounded = _rounded(labels, LABEL_STEP).astype("<f4")
    rounded.view("<u4")[np.isnan(labels)] = MISSING
    return rounded


def _in_content_order(features: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Rows sorted by their own bytes: the order of a hospital's database is itself a link to it."""
    rows = np.concatenate([features.reshape(len(features), -1), labels], axis=1)
    packed = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    order = sorted(range(len(packed)), key=lambda row: packed[row].tobytes())
    return {"features": features[order], "labels": labels[order]}
