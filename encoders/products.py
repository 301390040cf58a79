"""Windows times matrices, in blocks, with results that depend neither on the blocks nor on the number of threads.

A matrix product adds in an order that its library chooses by the shape of the problem: a row alone would come out
otherwise than among others in the last bit. So every product here has a shape that depends on the layout alone
(`_ROWS` rows at a time, filled up with zeros), and at most `_DEPTH` products are added by the library; the partial sums
are added here.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from jaxtyping import Float

from encoders.random_matrices import MatrixLaw
from encoders.windows import Axis, EncodeBlock, Geometry, window_blocks

_ROWS: Final = 192  # a multiple of every register block that BLAS libraries are known to use
_DEPTH: Final = 128
_FRESH_VALUES: Final = 1 << 16  # matrix entries drawn at once; part of the definition of a fresh projection
_TENSOR_VALUES: Final = 1 << 22


def matrix_products(weights: Float[np.ndarray, "component width"], axis: Axis) -> EncodeBlock:
    """One matrix for all windows: along time a product per window, else per `_ROWS` windows."""

    def over_lanes(block: np.ndarray, out: np.ndarray) -> None:
        np.matmul(weights[:, :_DEPTH], block[:, :, :_DEPTH], out=out)
        for start in range(_DEPTH, weights.shape[1], _DEPTH):
            out += weights[:, start : start + _DEPTH] @ block[:, :, start : start + _DEPTH]

    def over_rows(block: np.ndarray, out: np.ndarray) -> None:
        rows = block.transpose(0, 3, 1, 2).reshape(-1, weights.shape[1])
        by_row = out.transpose(0, 3, 1, 2)
        if by_row.flags.c_contiguous:
            _row_products(rows, weights, by_row.reshape(-1, len(weights)))
        else:
            by_row[...] = _row_products(rows, weights).reshape(by_row.shape)

    return over_lanes if axis == "time" else over_rows


def channel_products(weights: Float[np.ndarray, "lane component width"]) -> EncodeBlock:
    """A matrix for every lane."""

    def over_each_lane(block: np.ndarray, out: np.ndarray) -> None:
        for lane, matrix in enumerate(weights):
            rows = block[..., lane].reshape(-1, matrix.shape[1])
            out[..., lane] = _row_products(rows, matrix).reshape(out.shape[:3])

    return over_each_lane


def _row_products(
    rows: Float[np.ndarray, "row width"], weights: Float[np.ndarray, "component width"], out: np.ndarray | None = None
) -> Float[np.ndarray, "row component"]:
    """rows @ weights.T, in `out` if given."""
    whole = len(rows) // _ROWS * _ROWS
    result = np.empty((len(rows), len(weights)), rows.dtype) if out is None else out
    if whole:
        _tiles(rows[:whole], weights, result[:whole])
    if whole < len(rows):
        filled = np.zeros((_ROWS, rows.shape[1]), rows.dtype)
        filled[: len(rows) - whole] = rows[whole:]
        last = np.empty((_ROWS, len(weights)), rows.dtype)
        _tiles(filled, weights, last)
        result[whole:] = last[: len(rows) - whole]
    return result


def _tiles(rows: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    tiles, results = rows.reshape(-1, _ROWS, rows.shape[1]), out.reshape(-1, _ROWS, len(weights))
    np.matmul(tiles[:, :, :_DEPTH], weights[:, :_DEPTH].T, out=results)
    for start in range(_DEPTH, weights.shape[1], _DEPTH):
        results += tiles[:, :, start : start + _DEPTH] @ weights[:, start : start + _DEPTH].T


def fresh_products(
    features: Float[np.ndarray, "stay step channel"], geometry: Geometry, law: MatrixLaw, stream: bytes
) -> Float[np.ndarray, "stay row column"]:
    """A matrix for every window, drawn by its place: the label has the stay and the first window of a draw.

    A draw holds the matrices of as many consecutive windows of a stay as make `_FRESH_VALUES` entries, lane after lane
    of each window.
    """
    encoded = np.empty(geometry.encoded_shape(features.shape, law.components), features.dtype)
    slots = geometry.slots(encoded, law.components)
    n_lanes = slots.shape[3]
    at_once = max(1, _FRESH_VALUES // max(1, law.components * law.width * n_lanes))
    for stay in range(len(features)):
        alone = features[stay : stay + 1]
        for _, columns, block in window_blocks(alone, geometry, at_once * law.width * n_lanes, "constant"):
            count = block.shape[1] * n_lanes
            matrices = law.draw(stream, f"stay {stay} window {columns.start}", count)
            windows = block[0].transpose(0, 2, 1).reshape(count, law.width, 1)
            products = matrices.astype(features.dtype) @ windows
            slots[stay, columns] = products.reshape(-1, n_lanes, law.components).transpose(0, 2, 1)
    return encoded


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
