"""What an encoding with noise can tell at most, whoever looks: Fisher information and the bounds that follow from it.

An attacker who holds the key sees f(x) + noise for every window x. Let I(x) be the Fisher information in it about x.

* Unbiased attackers (Cramer & Rao): mean squared error per value >= 1 / dFIL, dFIL = trace I(x) / width (Hannun, Guo &
  van der Maaten 2021; Maeng et al. 2023). Attackers who guess well are not unbiased and do better.
* All attackers (van Trees; Gill & Levit 1995): averaged over a prior, the error matrix is >= (E I + J)^-1, where J is
  the prior's own information, and so are the bounds of a family with weights, of which the best is taken. The prior is
  part of the statement. Here: every value by itself has the raised-cosine density 1 - cos(2 pi x) on [0, 1] (sd .181,
  J = 4 pi^2), which is somebody who knows little more than the range. Who knows more beforehand (which values occur at
  all) errs less, with or without what we release.

Two statements for two kinds of series. *Independent values*: a value shows in its own windows only. *A constant
series*: values that are carried forward repeat, 84 % of creatinine's windows are constant, and a series that never
changes is looked at in every window with fresh noise; its one level is told by the sum of them all. That is the one to
quote. The information is summed over the windows of one series; other series of the stay are taken as unrelated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np
from jaxtyping import Float64

from encoders.fisher import Slopes, WindowMap, affine_slopes, mean_information, slopes_at
from encoders.randomise import OutputNoise
from encoders.windows import Geometry
from pipeline.core.types import Json

Case = Literal["independent_values", "constant_series"]

PRIOR: Final = "each value by itself: raised cosine on [0, 1]"
PRIOR_INFORMATION: Final = 4.0 * math.pi**2
PRIOR_SD: Final = math.sqrt(1.0 / 12.0 - 1.0 / (2.0 * math.pi**2))
_WAVES_ALONE: Final = 32  # cosines where there is one unknown
_WAVES: Final = 2  # and for each of several
_QUADRATURE: Final = 2e-4  # error of the bound there, generously
_JITTER: Final = 1e-14


@final
@dataclass(frozen=True)
class Layout:
    """How the windows of one series lie, and what repeats where the series never changes.

    `stride`: None = width. `period`: positions that far apart hold the same value (1 along time; the number of channels
    in a record; None = no two). `repeats`: how often the whole is seen again (the steps, for windows over variables).
    `filled` positions at the end of the last window repeat its last value ("edge") or are 0 ("constant").
    """

    stride: int | None = None
    period: int | None = 1
    repeats: int = 1
    filled: int = 0
    filling: Literal["edge", "constant"] = "edge"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Exposure:
    """All windows that tell of `n_unknowns` unknowns: which unknowns each sees, and how steeply."""

    n_unknowns: int
    repeats: int
    windows: tuple[tuple[Slopes, np.ndarray], ...]


def encoder_bound(
    window_maps: Sequence[WindowMap],
    geometry: Geometry,
    shape: tuple[int, int],
    how: OutputNoise,
    filling: Literal["edge", "constant"],
) -> Json | None:
    """`leakage_bound` of an encoder on stays of (steps, channels); of its most telling map if it has several.

    None without noise, without windows, and where no map is the same for two windows (no `window_maps`).
    """
    steps, channels = shape
    positions = geometry.positions(steps, channels)
    n_windows = geometry.count(positions)
    if not how.is_random or not n_windows or not window_maps:
        return None
    layout = Layout(
        stride=geometry.stride,
        period={"time": 1, "variables": None, "record": channels}[geometry.axis],
        repeats=steps if geometry.axis == "variables" else 1,
        filled=geometry.padding(positions),
        filling=filling,
    )
    bounds = [leakage_bound(window_map, geometry.width, how, n_windows, layout) for window_map in window_maps]
    return {name: min(bound[name] for bound in bounds) for name in bounds[0]}


def leakage_bound(
    window_map: WindowMap, width: int, how: OutputNoise, n_windows: int, layout: Layout | None = None
) -> Json:
    """What goes into the public spec: root mean squared errors per value, as shares of the scale range.

    Rounded down to two digits, so that they stay bounds and tell little of the key.

    Args:
        n_windows: windows along one series of a stay.

    Raises:
        ConfigError: shots of outputs that are no expectations in [-1, 1].
    """
    alone, constant = (
        exposure(window_map, width, n_windows, case, layout) for case in ("independent_values", "constant_series")
    )
    return {
        "prior": PRIOR,
        "unbiased_rmse_at_least": rounded_down(min(unbiased_rmse(alone, how), 1e6)),
        "bayes_rmse_at_least": rounded_down(bayes_rmse(alone, how)),
        "bayes_rmse_constant_series_at_least": rounded_down(bayes_rmse(constant, how)),
        "n_windows": n_windows,
    }


def bayes_rmse(seen: Exposure, how: OutputNoise) -> float:
    """van Trees: no attacker's root mean squared error per value, averaged over the prior, is below this."""
    together, unknowns = seen.windows[0]
    if together.exact and all(window is together and (where == unknowns).all() for window, where in seen.windows):
        return weighted_van_trees_rmse(together, how, seen.repeats * len(seen.windows))
    return van_trees_rmse(total_information(seen, how), PRIOR_INFORMATION)


def weighted_van_trees_rmse(at: Slopes, how: OutputNoise, looks: int) -> float:
    """The best of a family of van Trees bounds on `looks` windows that tell of the same unknowns.

    Any smooth fields v_a(x) give, with psi_a = v_a . grad log p(seen, x) + div v_a, the error matrix >= B^T A^-1 B,
    A = E psi psi^T = looks * E v^T I v + E d d^T, d = v . grad log prior + div v, B = E v (Gill & Levit 1995, whose
    weights C(x) they are; Cauchy-Schwarz and one integration by parts). The constant fields alone are `van_trees_rmse`;
    cosines beside them follow an I(x) that is large here and small there.
    """
    values = at.points.shape[1]
    waves = np.arange(1, (_WAVES_ALONE if values == 1 else _WAVES) + 1) * math.pi
    turns = at.points[:, :, None] * waves  # (point, value, wave)
    functions = np.concatenate([np.ones((len(turns), 1)), np.cos(turns).reshape(len(turns), -1)], axis=1)
    information = looks * mean_information(at, how, functions)
    if not np.isfinite(information).all():
        return 0.0
    derivatives = np.zeros((len(turns), values, functions.shape[1]))
    for value in range(values):
        own = slice(1 + value * len(waves), 1 + (value + 1) * len(waves))
        derivatives[:, value, own] = -waves * np.sin(turns[:, value])
    slope = 2.0 * math.pi / np.tan(math.pi * at.points)  # of the log prior
    divergence = (slope[:, :, None] * functions[:, None, :] + derivatives).reshape(len(turns), -1)
    whole = information + divergence.T @ (at.weights[:, None] * divergence)
    means = np.kron(np.eye(values), at.weights @ functions)
    whole += _JITTER * float(np.trace(whole)) * np.eye(len(whole))  # more information: still a bound
    mean_squared = float(np.trace(means @ np.linalg.solve(whole, means.T))) / values
    return math.sqrt(mean_squared) * (1.0 - _QUADRATURE)


def van_trees_rmse(information: Float64[np.ndarray, "value value"], prior_information: float) -> float:
    """sqrt(trace((E I + J)^-1) / values), J = `prior_information` times the identity; 0 if nothing bounds."""
    if not np.isfinite(information).all():
        return 0.0
    spectrum = np.maximum(np.linalg.eigvalsh(information), 0.0)
    return math.sqrt(float(np.mean(1.0 / (spectrum + prior_information))))


def unbiased_rmse(seen: Exposure, how: OutputNoise) -> float:
    """1 / sqrt(dFIL), dFIL averaged over the prior; infinite where the outputs tell nothing."""
    leakage = float(np.trace(total_information(seen, how))) / seen.n_unknowns
    return math.inf if leakage == 0 else 1.0 / math.sqrt(leakage)


def total_information(seen: Exposure, how: OutputNoise) -> Float64[np.ndarray, "unknown unknown"]:
    """E I, summed over windows (Fisher information of independent looks adds up)."""
    means: dict[int, np.ndarray] = {}
    total = np.zeros((seen.n_unknowns, seen.n_unknowns))
    for slopes, unknowns in seen.windows:
        if id(slopes) not in means:
            means[id(slopes)] = mean_information(slopes, how)
        total[np.ix_(unknowns, unknowns)] += means[id(slopes)]
    return seen.repeats * total


def exposure(window_map: WindowMap, width: int, n_windows: int, case: Case, layout: Layout | None = None) -> Exposure:
    """What the windows of one series tell, before any noise is chosen.

    Independent values: the unknowns are the series' values (of a full window, where windows do not overlap).
    Constant series: the unknowns are its levels.
    """
    layout = layout or Layout()
    stride = layout.stride or width
    period = layout.period if case == "constant_series" else None
    repeats = layout.repeats if case == "constant_series" else 1
    if period is None and stride == width:
        n_windows, filled = 1, layout.filled if n_windows == 1 else 0
    else:
        filled = layout.filled
    level = np.arange((n_windows - 1) * stride + width)
    if filled:
        level[-filled:] = level[-filled - 1] if layout.filling == "edge" else -1
    level = np.where(level < 0, -1, level % period if period else level)
    affine = affine_slopes(window_map, width)
    known: dict[bytes, Slopes] = {}
    windows = []
    for start in range(0, n_windows * stride, stride):
        unknowns, pattern = np.unique(level[start : start + width], return_inverse=True)
        if unknowns[0] == -1:
            unknowns, pattern = unknowns[1:], pattern - 1
        if pattern.tobytes() not in known:
            directions = (pattern[:, None] == np.arange(len(unknowns))).astype(np.float64)
            known[pattern.tobytes()] = slopes_at(window_map, directions, affine)
        windows.append((known[pattern.tobytes()], unknowns))
    return Exposure(int(level.max()) + 1, repeats, tuple(windows))


def rounded_down(value: float) -> float:
    """Two significant digits, never more than `value`."""
    if not 0 < value < math.inf:
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / unit * (1 + 1e-12)) * unit:.2g}")
