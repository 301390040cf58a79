"""From series to embedded windows to a circuit's outputs, by numpy on the CPU, by torch on other devices.

Of a block of windows a contiguous plane per wire is made, the angles, and given to an engine; its rows become the
windows' components. Blocks bound the memory: besides input and output at most `_DEVICE_BYTES` are held, on the CPU a
few megabytes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float, Float64
from threadpoolctl import ThreadpoolController

from encoders.circuits.engines import Engine
from encoders.windows import EncodeBlock, Geometry, encode_windows, encoding_of, window_blocks
from pipeline.core.errors import EnvironmentProblem

_CPU_WINDOWS: Final = 1 << 14  # of a block: its sines and cosines stay in a core's cache
_MOST_THREADS: Final = 8  # each holds a block and what an engine makes of it
_DEVICE_BYTES: Final = 192 << 20


@final
@dataclass(frozen=True, eq=False, repr=False)
class WindowCircuits:
    """One circuit for all lanes, or one for each; value v is embedded as the angle scale * v + offset."""

    engines: tuple[Engine, ...]
    components: int
    geometry: Geometry
    scale: float
    offset: float

    def __repr__(self) -> str:
        return f"WindowCircuits(<{len(self.engines)}>)"

    def window_map(
        self, windows: Float[np.ndarray, "n position"], channel: int = 0
    ) -> Float64[np.ndarray, "n component"]:
        """What single windows encode to, in float64."""
        engine = self.engines[channel if len(self.engines) > 1 else 0]
        angles = self.scale * np.ascontiguousarray(windows.T, np.float64) + self.offset
        return np.stack(list(engine.rows(angles)), axis=1)

    def encoded_array(
        self, features: Float[np.ndarray, "stay step channel"], device: str = "cpu", threads: int | None = None
    ) -> Float[np.ndarray, "stay row column"]:
        """All windows of an array, block by block on the CPU (numpy) or another device (torch).

        On the CPU blocks are shared among `threads` (None: as many as torch is allowed, at most 8) where one circuit
        serves all lanes. Matrix products run on one thread of their library each, so that no number depends on threads.

        Raises:
            EnvironmentProblem: torch cannot use the device here.
        """
        on_cpu = usable_device(device).type == "cpu"
        windows = _CPU_WINDOWS if on_cpu else self._device_windows(features.dtype.itemsize)
        block_values = windows * self.geometry.width
        with _blas().limit(limits=1):
            if len(self.engines) > 1:
                return self._by_lane(features, device, block_values)
            return encode_windows(
                features,
                self.geometry,
                self.components,
                self._block_encoder(self.engines[0], device),
                block_values=block_values,
                padding="edge",
                threads=(threads or min(torch.get_num_threads(), _MOST_THREADS)) if on_cpu else 1,
            )

    def _by_lane(self, features: np.ndarray, device: str, block_values: int) -> np.ndarray:
        encoded = encoding_of(features, self.geometry, self.components)
        slots = self.geometry.slots(encoded, self.components)
        for lane, engine in enumerate(self.engines):
            encode_block = self._block_encoder(engine, device)
            alone = features[:, :, lane : lane + 1]
            for stays, columns, block in window_blocks(alone, self.geometry, block_values, "edge"):
                encode_block(block, slots[stays, columns][..., lane : lane + 1])
        return encoded

    def _block_encoder(self, engine: Engine, device: str) -> EncodeBlock:
        on_cpu = torch.device(device).type == "cpu"

        def encode_block(block: np.ndarray, out: np.ndarray) -> None:
            stays, windows, width, lanes = block.shape
            planes = np.empty((width, stays, windows, lanes), block.dtype)
            np.multiply(block.transpose(2, 0, 1, 3), self.scale, out=planes)
            if self.offset:
                planes += self.offset
            angles = planes.reshape(width, -1)
            rows = engine.rows(angles if on_cpu else torch.from_numpy(angles).to(device))
            for component, row in enumerate(rows):
                values = row if on_cpu else row.cpu().numpy()
                out[:, :, component] = values.reshape(stays, windows, lanes)

        return encode_block

    def _device_windows(self, itemsize: int) -> int:
        """Windows of a block on a device: angles, sines, intermediate rows and outputs, within the bytes allowed."""
        return max(1, _DEVICE_BYTES // (itemsize * (6 * self.geometry.width + 2 * self.components)))


@functools.cache
def _blas() -> ThreadpoolController:
    """Finding the libraries takes milliseconds, limiting them microseconds."""
    return ThreadpoolController().select(user_api="blas")


def usable_device(device: str) -> torch.device:
    """The device.

    Raises:
        EnvironmentProblem: torch does not know it, or it is not there.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise EnvironmentProblem(f"torch cannot use the device {device!r} on this machine") from None
