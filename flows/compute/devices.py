"""The device that networks and moments are made on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

DRIVERS: Final = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "dxg", "kfd")
"""Under /dev on Linux one of these, wherever torch finds a card: NVIDIA's, its boards', Windows' below, AMD's."""


def device(wanted: str, devices: Path = Path("/dev")) -> str:
    """`auto` is the accelerator torch has, else the CPU; where there is no driver torch, two seconds, is not asked."""
    if wanted != "auto":
        return wanted
    if sys.platform == "linux" and not any(any(devices.glob(name)) for name in DRIVERS):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
