"""Sines and cosines of arrays of numpy and torch, by the faster of the two."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Array = Any
"""A numpy array or a torch tensor, float32 or float64: the encoders' engines take either."""


def cosine_and_sine(angles: Array) -> tuple[Array, Array]:
    """Both, of contiguous angles `(wire, window)`; the cosine takes the place of `angles`.

    On a CPU numpy is faster in float32, torch (four times) in float64; both are exact to the last bit or two.
    """
    if isinstance(angles, np.ndarray):
        sin = np.empty_like(angles)
        if angles.dtype == np.float32:
            np.sin(angles, out=sin)
            return np.cos(angles, out=angles), sin
        for wire, result in zip(torch.from_numpy(angles), torch.from_numpy(sin), strict=True):
            torch.sin(wire, out=result)  # a wire at a time is too little for torch to call more threads in
            torch.cos(wire, out=wire)
        return angles, sin
    device_sin = torch.sin(angles)
    return torch.cos(angles, out=angles), device_sin
