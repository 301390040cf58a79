"""The device that networks and moments are made on."""

from __future__ import annotations


def device(wanted: str) -> str:
    """`auto` is the accelerator torch has, else the CPU."""
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
