"""Windows times matrices, in blocks, with results that depend neither on the blocks nor on the number of threads.

A matrix product adds in an order that its library chooses by the shape of the problem and its threads: a row alone
would come out otherwise than among others in the last bit. So every product here has a shape that depends on the layout
alone (tiles of rows, the last one filled up with zeros) and runs on one thread of the library, while the blocks are
shared among threads of ours.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from threadpoolctl import ThreadpoolController

from encoders.windows import EncodeBlock, Geometry, encode_windows
from pipeline.core.options.encoders import Axis

_MOST_THREADS: Final = 8  # each holds a few blocks
_BLOCK_VALUES: Final = 1 << 20
_ROW_VALUES: Final = 1 << 16  # of rows held in float64
_TENSOR_VALUES: Final = 1 << 22


def products(
    features: Float[np.ndarray, "stay step channel"],
    geometry: Geometry,
    weights: Float[np.ndarray, "matrix component width"],
    *,
    per_channel: bool,
) -> Float[np.ndarray, "stay row column"]:
    """Every window times the one matrix, or the one of its channel, on as many threads as torch is allowed."""
    tile = geometry.width * _rows_at_once(geometry.width)
    with _blas().limit(limits=1):
        return encode_windows(
            features,
            geometry,
            weights.shape[1],
            _by_channel(weights) if per_channel else _by_matrix(weights[0], geometry.axis),
            block_values=-(-_BLOCK_VALUES // tile) * tile if geometry.axis == "record" else _BLOCK_VALUES,
            padding="constant",
            threads=min(torch.get_num_threads(), _MOST_THREADS),
        )


@functools.cache
def _blas() -> ThreadpoolController:
    """Finding the libraries takes milliseconds, limiting them microseconds."""
    return ThreadpoolController().select(user_api="blas")


def _by_matrix(weights: Float[np.ndarray, "component width"], axis: Axis) -> EncodeBlock:
    """One matrix for all windows: along time a product per window, else per tile of windows."""

    def over_lanes(block: np.ndarray, out: np.ndarray) -> None:
        np.matmul(weights, block, out=out)

    def over_rows(block: np.ndarray, out: np.ndarray) -> None:
        rows = block.transpose(0, 3, 1, 2).reshape(-1, weights.shape[1])
        by_row = out.transpose(0, 3, 1, 2)
        if by_row.flags.c_contiguous:
            _row_products(rows, weights, by_row.reshape(-1, len(weights)))
        else:
            products = np.empty(by_row.shape, out.dtype)
            _row_products(rows, weights, products.reshape(-1, len(weights)))
            by_row[...] = products

    return over_lanes if axis == "time" else over_rows


def _by_channel(weights: Float[np.ndarray, "lane component width"]) -> EncodeBlock:
    """A matrix for every lane."""
    by_position = np.ascontiguousarray(weights.transpose(2, 1, 0))  # (width, component, lane)

    def over_lanes(block: np.ndarray, out: np.ndarray) -> None:
        np.einsum("swpl,pcl->swcl", block, by_position, out=out)  # adds position after position, lanes side by side

    return over_lanes


def _rows_at_once(width: int) -> int:
    """Rows of a tile: few enough to be filled up cheaply, and a multiple of a library's register blocks."""
    return 192 if width <= 1 << 15 else 24 if width <= 1 << 18 else 1


def _row_products(
    rows: Float[np.ndarray, "row width"],
    weights: Float[np.ndarray, "component width"],
    out: Float[np.ndarray, "row component"],
) -> None:
    """rows @ weights.T; what is left after whole tiles of rows is filled up with zeros to one more.

    In float64 whatever the rows are: in float32 OpenBLAS's AVX2 kernels round a row by its place in the tile.
    """
    width = rows.shape[1]
    tile = _rows_at_once(width)
    at_once = tile * max(1, _ROW_VALUES // (tile * width))
    transposed = np.asarray(weights, np.float64).T
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        filled = np.zeros((-(-len(some) // tile) * tile, width))
        filled[: len(some)] = some
        products = filled.reshape(-1, tile, width) @ transposed
        out[start : start + at_once] = products.reshape(-1, len(weights))[: len(some)]


def tensor_products(
    features: torch.Tensor, geometry: Geometry, weights: torch.Tensor, device: torch.device | str
) -> torch.Tensor:
    """As the products above, with one of `weights` or one per lane, on `device`; the result is where `features` is.

    In blocks of stays, so that the device holds a block and its encoding besides what is there already.
    """
    stays, steps, channels = features.shape
    width, components = weights.shape[2], weights.shape[1]
    positions = geometry.positions(steps, channels)
    encoded = features.new_empty(geometry.encoded_shape((stays, steps, channels), components))
    weights = weights.to(device)
    at_once = max(1, _TENSOR_VALUES // max(1, steps * channels * max(1, width // geometry.stride)))
    for start in range(0, stays if positions else 0, at_once):
        block = features[start : start + at_once].to(device)
        lanes = {"time": block, "variables": block.transpose(1, 2)}.get(geometry.axis, block.reshape(len(block), -1, 1))
        filled = torch.nn.functional.pad(lanes, (0, 0, 0, geometry.padding(positions)))
        windows = filled.unfold(1, width, geometry.stride)  # (stay, window, lane, width)
        shared = len(weights) == 1
        products = windows @ weights[0].mT if shared else torch.einsum("swlj,lkj->swlk", windows, weights)
        rows = products.transpose(2, 3).reshape(len(block), -1, lanes.shape[2])
        encoded[start : start + at_once] = rows.transpose(1, 2) if geometry.axis != "time" else rows
    return encoded
