"""Which device `auto` is: the CPU where no card has a driver, without a question to torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from flows.compute.devices import device


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is always asked")
@pytest.mark.parametrize(
    ("there", "chosen"), [("null", "cpu"), ("nvme0", "cpu"), ("nvidiactl", "cuda"), ("dxg", "cuda"), ("kfd", "cuda")]
)
def test_torch_is_asked_where_a_driver_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (tmp_path / there).touch()
    assert device("auto", tmp_path) == chosen
    assert device("cuda:1", tmp_path) == "cuda:1"
