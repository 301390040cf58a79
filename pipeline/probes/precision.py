"""How networks calculate on an accelerator: in full float32 unless somebody asks for less.

torch lets cuDNN's convolutions and recurrent layers round their float32 inputs to TF32, ten bits of mantissa, without
being asked. Here they do not, so that a GPU and a CPU come to the same results but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, get_args

import torch

from pipeline.core.errors import ConfigError
from pipeline.core.options.condensers import Precision

_FLAGS: Final[dict[Precision, str]] = {"float32": "ieee", "tf32": "tf32"}


def check_precision(precision: Precision, device: str) -> None:
    """Raises ConfigError: an unknown precision, or TF32 on a device that has none."""
    if precision not in _FLAGS:
        raise ConfigError(f"precision must be among {', '.join(get_args(Precision))}")
    if precision == "tf32" and not device.startswith("cuda"):
        raise ConfigError(f"precision tf32 needs a CUDA device, not {device}")


@contextmanager
def arithmetic(precision: Precision = "float32") -> Iterator[None]:
    """Matrix products, convolutions and recurrent layers in `precision` while inside; also a decorator."""
    cudnn: Any = torch.backends.cudnn  # whose stubs do not know all of it
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = _FLAGS[precision]
        yield
    finally:
        for kind, flag in zip(kinds, before, strict=True):
            kind.fp32_precision = flag
