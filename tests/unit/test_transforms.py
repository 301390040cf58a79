"""Sets are mixed only when they live in one space."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.errors import DataError
from pipeline.core.transforms import require_same_space

SCALING: dict[str, Any] = {"kind": "scaling", "public": True, "channels": ("hr",), "low": (40.0,), "high": (140.0,)}
ENCODING: dict[str, Any] = {"kind": "quantum", "public": True, "key_fingerprint": "a1", "n_qubits": 4}


def check(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], channels: tuple[str, ...] = ("hr",)) -> None:
    require_same_space(ours, theirs, ("hr",), channels)


def test_the_same_space_read_back_from_json_is_the_same() -> None:
    read_back = {**SCALING, "channels": ["hr"], "low": [40.0], "high": [140.0]}
    check([SCALING, ENCODING], [read_back, dict(ENCODING)])


def test_what_is_local_to_a_site_does_not_matter() -> None:
    subjects = {"kind": "subjects", "known": False, "public": True}
    noisy = {**ENCODING, "noise": {"kind": "gaussian", "noise_sd": 0.1}, "leakage_bound": {"rmse": 0.1}}
    check([SCALING, ENCODING], [subjects, SCALING, noisy])


@pytest.mark.parametrize(
    ("theirs", "channels", "told"),
    [
        ([SCALING, {**ENCODING, "key_fingerprint": "b2"}], ("hr",), "under different keys, a1 and b2"),
        ([SCALING], ("hr",), "one was made by scaling, quantum, the other by scaling"),
        ([{**SCALING, "low": (30.0,)}, ENCODING], ("hr",), "scaling transforms differ in low"),
        ([SCALING, {**ENCODING, "n_qubits": 6}], ("hr",), "quantum transforms differ in n_qubits"),
        ([SCALING, ENCODING], ("sbp",), "other channels"),
    ],
)
def test_another_space_is_refused_and_the_difference_named(
    theirs: list[dict[str, Any]], channels: tuple[str, ...], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        check([SCALING, ENCODING], theirs, channels)
