"""The least noise for a bare window map and one case of the bound, for benchmarks and the tests of the bounds.

A site names `target_rmse` in its configuration, and `encoders.calibrate.calibrated` finds the noise of a whole encoder.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final, Literal

from encoders.fisher import WindowMap
from encoders.leakage import PRIOR_SD, Case, Exposure, Layout, bayes_rmse, exposure
from encoders.randomise import MAX_SHOTS, OutputNoise
from pipeline.core.errors import ConfigError

_LARGEST_SD: Final = 1e6
_SMALLEST_SD: Final = 1e-6  # an encoding in float32 has no more digits


def calibrate(
    target_rmse: float,
    window_map: WindowMap,
    width: int,
    n_windows: int,
    *,
    case: Case = "constant_series",
    vary: Literal["noise_sd", "shots"] = "noise_sd",
    beside: OutputNoise | None = None,
    layout: Layout | None = None,
) -> OutputNoise:
    """The least noise under which no attacker's root mean squared error per value is below `target_rmse`.

    `vary` "noise_sd": the smallest standard deviation, rounded up to three digits; "shots": the largest number of
    shots. The other of the two is kept as it is in `beside` (default: none). Errors are shares of the scale range, the
    bound is van Trees's under the prior of `encoders.leakage`, for one of its two cases. What is found depends on the
    encoder's key and tells a little of it.

    Raises:
        ConfigError: the target is not above 0, or no noise (no number of shots) reaches it.
    """
    if not 0 < target_rmse < PRIOR_SD:
        raise ConfigError(
            f"an error of at least {target_rmse:g} of the range cannot be calibrated: the target is above 0 and below "
            f"{PRIOR_SD:.3f}, an attacker's error where nothing is released at all"
        )
    kept = beside or OutputNoise()
    seen = exposure(window_map, width, n_windows, case, layout)
    if vary == "noise_sd":
        return _least_noise(target_rmse, seen, kept)
    return _most_shots(target_rmse, seen, kept)


def _least_noise(target: float, seen: Exposure, kept: OutputNoise) -> OutputNoise:
    def reaches(noise_sd: float) -> bool:
        return bayes_rmse(seen, dataclasses.replace(kept, noise_sd=noise_sd)) >= target

    if reaches(0.0):
        return dataclasses.replace(kept, noise_sd=0.0)
    low, high = math.log(_SMALLEST_SD), math.log(_LARGEST_SD)
    if not reaches(_LARGEST_SD):
        raise ConfigError(f"no Gaussian noise up to {_LARGEST_SD:g} brings the bound to {target:g} of the range")
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(math.exp(middle)) else (middle, high)
    return dataclasses.replace(kept, noise_sd=_rounded_up(math.exp(high)))


def _most_shots(target: float, seen: Exposure, kept: OutputNoise) -> OutputNoise:
    def reaches(shots: int) -> bool:
        return bayes_rmse(seen, dataclasses.replace(kept, shots=shots)) >= target

    if not reaches(1):
        raise ConfigError(
            f"not even one shot brings the bound to {target:g} of the range: add noise_sd, or fewer windows to a series"
        )
    low, high = 1, MAX_SHOTS + 1  # `low` reaches the target, `high` does not or is not allowed
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return dataclasses.replace(kept, shots=low)


def _rounded_up(value: float) -> float:
    """Three significant digits, never less than `value`."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / unit) * unit:.3g}")
