"""T4 against an encoder that draws a new map for every window, as the notebook published with [Enc] does.

If the maps come from the key and the window's place in the array, whoever holds the key and guesses the place computes
them again: he encodes arrays of his own making there. If they come from nowhere, norms survive: a constant window's
norm is its value times the square root of the window, but for the matrix's own spread.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.audit.encodings.denoising import learned_smoothing, output_noise
from pipeline.audit.encodings.inverse import Dictionary, Windows, by_group_regression
from pipeline.audit.encodings.windows import Layout
from pipeline.audit.scene import Encode, EncodingScene

MAX_WINDOW = 64  # every input of a window costs an encoding of the whole array
PRIOR_VARIANCE = 0.05  # of a value in [0, 1]: about a uniform one's


def redrawn_inversions(scene: EncodingScene, layout: Layout) -> tuple[float, Mapping[str, np.ndarray]]:
    """The noise on the outputs, and every method's estimate of the targets `(stay, step, channel)`."""
    encoded = scene.encode(scene.own)
    noise = output_noise(scene, encoded)
    guess = scene.own.mean(axis=(0, 1), dtype=np.float64)
    found = {"channel means": np.broadcast_to(guess, scene.targets.shape)}
    found |= _from_norms(scene, layout, encoded, noise)
    if scene.target_rows is not None and layout.stride == layout.window <= MAX_WINDOW:
        found["maps computed again"] = _computed_again(scene, layout, scene.target_rows, noise)
    return noise, found


def _from_norms(scene: EncodingScene, layout: Layout, encoded: np.ndarray, noise: float) -> dict[str, np.ndarray]:
    """Windows regressed on their encoding's norm, per group, then smoothed as learned on the attacker's patients."""
    rng = np.random.default_rng(0)
    noisy = encoded + noise * rng.standard_normal(encoded.shape)
    plain = layout.cut(scene.own).astype(np.float64)
    groups, weight = layout.groups(len(scene.own)), np.ones(len(plain))
    known = Dictionary(plain, _norms(layout.cut_encoded(noisy)), groups, weight)

    def estimate(outputs: np.ndarray) -> np.ndarray:
        rows = _norms(layout.cut_encoded(outputs))
        seen = Windows(rows, layout.groups(len(outputs)), np.arange(len(rows)), np.ones(len(rows)))
        return layout.join(by_group_regression(known, seen, 0.0, np.full((len(rows), layout.window), 0.5)))

    alone = estimate(scene.encoded_targets)
    return {"norms": alone, "norms, smoothed": learned_smoothing(estimate(noisy), scene.own, alone)}


def _norms(cells: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(cells, axis=1)
    return np.stack([norms, norms**2], axis=1)


def _computed_again(scene: EncodingScene, layout: Layout, places: np.ndarray, noise: float) -> np.ndarray:
    """Ridge with every window's own map, which the key gives at the window's place in the array that was encoded."""
    size = int(places.max()) + 1
    offset = _at(scene.encode, layout, np.zeros(layout.window), size, places)
    columns = [_at(scene.encode, layout, unit, size, places) - offset for unit in np.eye(layout.window)]
    maps = np.stack(columns, axis=2)  # (window, output, input)
    wanted = layout.cut_encoded(scene.encoded_targets).astype(np.float64) - offset - 0.5 * maps.sum(axis=2)
    gram = np.einsum("nki,nkj->nij", maps, maps)
    gram += np.eye(layout.window) * max(noise**2 / PRIOR_VARIANCE, 1e-9)
    moved = np.linalg.solve(gram, np.einsum("nki,nk->ni", maps, wanted)[..., None])[..., 0]
    return np.asarray(np.clip(layout.join(0.5 + moved), 0, 1))


def _at(encode: Encode, layout: Layout, window: np.ndarray, size: int, places: np.ndarray) -> np.ndarray:
    """What every window at `places` of an array of `size` stays would have become, had it been `window`."""
    stay = layout.join(np.broadcast_to(window.astype(np.float32), (layout.lanes * layout.slots, layout.window)))
    series = np.broadcast_to(stay, (size, *stay.shape[1:]))
    return layout.cut_encoded(encode(np.ascontiguousarray(series))[places]).astype(np.float64)


def planted_redraws(scene: EncodingScene, layout: Layout) -> dict[str, tuple[Encode, np.ndarray]]:
    """Encoders that redraw and hide nothing, with targets they are tried on.

    A factor drawn by the place in the array, for the recomputation; and the identity on constant windows, for the
    norms.
    """
    windows = layout.cut(scene.targets)
    constant = layout.join(np.repeat(windows.mean(axis=1, keepdims=True), layout.window, axis=1))

    def scaled(series: np.ndarray) -> np.ndarray:
        factors = np.random.default_rng(5).uniform(0.5, 2, (len(series), 1, 1)).astype(np.float32)
        return layout_padded(series, layout) * factors

    found = {"norms of constants": (lambda series: layout_padded(series, layout), constant)}
    if scene.target_rows is not None and layout.stride == layout.window <= MAX_WINDOW:
        found["a factor by place"] = (scaled, scene.targets)
    return found


def layout_padded(series: np.ndarray, layout: Layout) -> np.ndarray:
    """Every window as it is, in the shape of an encoding."""
    cells = layout.cut(series).reshape(len(series), layout.lanes, -1)
    return np.swapaxes(cells, 1, 2) if layout.axis == "time" else cells
