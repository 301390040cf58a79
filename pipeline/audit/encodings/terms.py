"""What the public circuit tells about the map: which products of sines and cosines can occur, and how large they are.

A product-state circuit followed by expectations is linear in the 3^n monomials of (1, cos a x, sin a x), one factor per
input, where a is pi times the width of the embedding's range. With few layers most of them never occur, whatever the
key: an attacker who reads the published code makes encoders under keys of his own and sees which do. Then a few pairs
fix what 3^n unknowns needed 3^n pairs for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audit.encodings.windows import Forward, Layout, forward_map
from pipeline.audit.scene import Encode

MAX_WINDOW = 8  # 3^8 = 6,561 monomials; every surrogate is evaluated at as many windows
CHECKED = 64  # random windows on which the monomials must explain a surrogate
EXPLAINED = 1e-3
OCCURS = 1e-4  # a root mean square coefficient below this is rounding
ROUNDING = 1e-7  # of float32 encodings near 1: noise that every pair has
CUTOFF = 1e-5  # singular values below this share of the largest are rounding: encodings may be float32

_POINTS = np.array([0.0, 0.5, 1.0])


def basis(x: np.ndarray, angle: float) -> np.ndarray:
    """1, cos and sin of `angle` times the values of one input: `(window, 3)`."""
    return np.stack([np.ones_like(x), np.cos(angle * x), np.sin(angle * x)], axis=1)


@dataclass(frozen=True)
class Terms:
    """The monomials that occur under some key, and the spread of their coefficients over keys.

    `digits` `(term, input)`: 0, 1, 2 for 1, cos, sin of `angle` times the input. `scale` `(term, output)`: root mean
    square; 0 = never.
    """

    digits: np.ndarray
    scale: np.ndarray
    angle: float = np.pi

    def features(self, windows: np.ndarray) -> np.ndarray:
        """The monomials of windows `(window, input)`: `(window, term)`."""
        found = np.ones((len(windows), len(self.digits)))
        for place, x in enumerate(windows.T.astype(np.float64)):
            found *= basis(x, self.angle)[:, self.digits[:, place]]
        return found


@dataclass(frozen=True)
class FittedMap:
    """The most plausible map given the pairs, and the root mean square error that it expects on usual windows."""

    forward: Forward
    error: float


def coefficients(forward: Forward, inputs: int, angle: float = np.pi) -> np.ndarray:
    """The monomials' coefficients `(3,) * inputs + (output,)`, from the map at the 3^inputs windows of 0, 1/2, 1."""
    places = np.indices((3,) * inputs).reshape(inputs, -1).T
    values = forward(_POINTS[places], np.zeros(len(places), np.int64))
    found = values.reshape(*(3,) * inputs, -1)
    inverse = np.linalg.inv(basis(_POINTS, angle))
    for axis in range(inputs):
        found = np.moveaxis(np.tensordot(inverse, found, axes=(1, axis)), 0, axis)
    return np.asarray(found)


def public_terms(
    surrogates: Sequence[Encode], layout: Layout, rng: np.random.Generator, angle: float = np.pi
) -> Terms | None:
    """The structure that encoders under made-up keys share, or None: no surrogate, or none of this form.

    Args:
        angle: radians by which the circuit turns for an input of 1.
    """
    inputs = layout.window
    if not surrogates or inputs > MAX_WINDOW:
        return None
    checked = rng.uniform(size=(CHECKED, inputs))
    digits = np.indices((3,) * inputs).reshape(inputs, -1).T
    every = Terms(digits, np.ones((len(digits), 1)), angle)
    squares = np.zeros((len(digits), layout.width))
    for encode in surrogates:
        forward = forward_map(encode, layout, per_channel=True, exact=True)  # all in lane 0: channels may differ
        found = coefficients(forward, inputs, angle).reshape(len(digits), -1)
        told = every.features(checked) @ found
        if np.abs(told - forward(checked, np.zeros(CHECKED, np.int64))).max() > EXPLAINED:
            return None
        squares += found**2
    scale = np.sqrt(squares / len(surrogates))
    scale[scale < OCCURS] = 0
    kept = np.flatnonzero(scale.any(axis=1))
    return Terms(digits[kept], scale[kept], angle) if kept.size else None


def fitted_map(terms: Terms, plain: np.ndarray, encoded: np.ndarray, noise: float, usual: np.ndarray) -> FittedMap:
    """Bayesian least squares of each output on the monomials it can hold: coefficients are normal with `scale`.

    Without noise this is the smallest map, in units of `scale`, that agrees with the pairs.

    Args:
        plain, encoded: the pairs, `(pair, input)` and `(pair, output)`.
        noise: standard deviation of what `encoded` holds beside the map's outputs.
        usual: windows `(window, input)` over which the expected error is taken.
    """
    noise = max(noise, ROUNDING)
    seen, asked = terms.features(plain), terms.features(usual)
    weights = np.zeros_like(terms.scale)
    unsure = np.zeros(terms.scale.shape[1])
    for output, scale in enumerate(terms.scale.T):
        held = np.flatnonzero(scale)
        if not held.size:
            continue
        left, values, right = np.linalg.svd(seen[:, held] * scale[held], full_matrices=False)
        values = np.where(values > CUTOFF * max(values.max(initial=0), 1e-12), values, 0)
        shrunk = np.divide(values, values**2 + noise**2, out=np.zeros_like(values), where=values > 0)
        weights[held, output] = scale[held] * (right.T @ (shrunk * (left.T @ encoded[:, output])))
        scaled = asked[:, held] * scale[held]
        known = values * shrunk  # share of the prior variance along each direction that the pairs remove
        unsure[output] = np.mean((scaled**2).sum(axis=1) - ((scaled @ right.T) ** 2 @ known))
    return FittedMap(
        lambda windows, _: terms.features(windows) @ weights, float(np.sqrt(max(0.0, float(unsure.mean()))))
    )
