"""From the bound one wants to the noise that gives it; `encoders.leakage` has the bounds and their prior."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

from encoders.leakage import PRIOR_SD
from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from pipeline.core.errors import ConfigError
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort

Randomisable = QuantumEncoder | RandomProjectionEncoder
_LARGEST_SD: Final = 1e6
_SMALLEST_SD: Final = 1e-6  # an encoding in float32 has no more digits


def calibrated(encoder: Randomisable, target_rmse: float, cohort: EncodedCohort, key: Secret) -> Randomisable:
    """`encoder` with the least `noise_sd`, to about 1 %, whose public bound for a constant series reaches the target.

    Windows, axis, stride and maps per channel of the encoder itself are reckoned with; its own `noise_sd` is not, its
    shots are.

    Raises:
        ConfigError: no noise reaches the target, or no bound can be given for the encoder.
    """

    def bound(noise_sd: float) -> float:
        noisy = dataclasses.replace(encoder, noise_sd=noise_sd)
        found = noisy.fit(cohort, key).public_spec()["leakage_bound"]
        if found is None:
            raise ConfigError("no bound can be given for this encoder, so its noise cannot be calibrated")
        return float(found["bayes_rmse_constant_series_at_least"])

    if not 0 < target_rmse <= bound(_LARGEST_SD):
        raise ConfigError(
            f"a target_rmse of {target_rmse:g} cannot be reached: it is above 0, and at most {PRIOR_SD:.2f}, an "
            "attacker's error where nothing is released at all"
        )
    low, high = math.log(_SMALLEST_SD), math.log(_LARGEST_SD)
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if bound(math.exp(middle)) >= target_rmse else (middle, high)
    return dataclasses.replace(encoder, noise_sd=_rounded_up(math.exp(high)))


def _rounded_up(value: float) -> float:
    """Three significant digits, never less than `value`."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / unit) * unit:.3g}")
