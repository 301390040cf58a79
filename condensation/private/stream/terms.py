"""Continual release: a year of nights as one Gaussian query, whose noise is drawn again from the site's key.

A stay enters once, on the night its record is complete, and adds a vector of norm at most `clip` to that night's
increment. Every night's answer is the sum so far (or of the last `window` nights) plus correlated noise
(`condensation.private.stream.factor`). What a stay adds may depend on earlier answers; it never changes afterwards.

The noise of night s is named by the stream, s and the digest of all increments up to s: whoever has the key and the
increments draws the noise of all nights again, so no state can be lost and an old night gives its old answer. Other
increments meet other noise, so no two answers can be subtracted.

Sums and draws are whole numbers of grid steps. For neighbours, whoever would explain the same answers by other draws
finds exactly one way to do so, as C has ones on its diagonal: these draws differ by C x and at most C^-1 e, e the
rounding of each night's noise, one step an entry. The step is so small that all of it fits into half the room of
`condensation.private.granular`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Protocol, final

import numpy as np

from condensation.private.accounting import noise_multipliers
from condensation.private.granular import ROOM, grid_step
from condensation.private.stream.factor import LONGEST, correlated, factor_sensitivity, running_sums, square_root_factor
from pipeline.core.digest import digest_array
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.types import Json

MECHANISM: Final = "square_root_toeplitz_stream on a grid"
MOST_ENTRIES: Final = 12  # of one person


class Added(Protocol):
    """What entered on a night; a night that is not listed added nothing."""

    @property
    def night(self) -> int:
        """Counted from 1."""
        ...

    @property
    def increment(self) -> np.ndarray:
        """`(entry,)`, the sum over the stays that entered."""
        ...

    @property
    def digest(self) -> str:
        """Of all increments up to this night."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Stream:
    """The terms, public and fixed before the first night. Another term is another stream, with a price of its own."""

    horizon: int  # nights
    epsilon: float  # of all of them together, for one person
    delta: float
    clip: float  # L2 norm of what a stay adds, at most
    entries: int = 1  # stays of a person, at most
    separation: int = 1  # nights from one entry of a person to the next, at least
    window: int | None = None  # nights whose sum is answered; None = all so far

    def __post_init__(self) -> None:
        if not 1 <= self.horizon <= LONGEST:
            raise ConfigError(f"a stream has between 1 and {LONGEST} nights")
        if not 1 <= self.entries <= MOST_ENTRIES or self.separation < 1:
            raise ConfigError(f"a person enters a stream 1 to {MOST_ENTRIES} times, at least one night apart")
        if self.window is not None and not 1 <= self.window <= self.horizon:
            raise ConfigError("a stream's window is at least a night and at most its horizon")
        if not (self.clip > 0 and math.isfinite(self.clip)):
            raise ConfigError("a stream's clip must be a finite number above 0")

    @property
    def factor(self) -> np.ndarray:
        """First column of the noise's factor, `(horizon,)`."""
        return square_root_factor(self.horizon, self.window)

    @property
    def sensitivity(self) -> float:
        """What one person can move in C x, over all nights together."""
        return self.clip * factor_sensitivity(self.factor, self.entries, self.separation)

    @property
    def multiplier(self) -> float:
        """Noise over sensitivity, of the one Gaussian query that all nights are."""
        return noise_multipliers(self.epsilon, self.delta, (1.0,))[0]

    @property
    def scale(self) -> float:
        """Standard deviation of the independent draws Z."""
        return self.multiplier * self.sensitivity * (1 + ROOM)

    @property
    def spread_of_rounding(self) -> int:
        """At least |C^-1|^2: 2 for (1 - z)^(1/2); with a window times the square of the sum of (1 - z^w)^(-1/2)."""
        return 2 if self.window is None else 8 * math.ceil(self.horizon / self.window)

    @property
    def events(self) -> tuple[Json, ...]:
        """What the ledger prices, once for everybody who enters."""
        return ({"event": "GaussianDpEvent", "query": "stream", "noise_multiplier": self.multiplier},)

    def question(self, about: Json) -> dict[str, object]:
        """The query that names the stream and its noise; `about` is what a stay's vector depends on beside the stay."""
        # digests of exact numbers: a factor whose last bits move with a library must not meet the same noise
        told = {name: float(value).hex() if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {"mechanism": MECHANISM, **told, "factor": digest_array(np.round(self.factor, 12)), "about": dict(about)}


def nightly_answers(
    stream: Stream, night: int, size: int, added: Sequence[Added], noise: NoiseSource, question: Json
) -> np.ndarray:
    """The answers of nights 1 to `night`, `(night, size)`; `question` was reserved with `noise` beforehand.

    The last row is tonight's; those before it are what was answered then, so they cost nothing.

    Raises:
        ConfigError: the night lies outside the horizon. BudgetError: nobody reserved the stream.
    """
    if not 0 <= night <= stream.horizon:
        raise ConfigError(f"night {night} lies outside the stream's {stream.horizon} nights")
    step = grid_step(stream.clip, stream.spread_of_rounding * stream.horizon * size)
    steps, factor = math.ceil(stream.scale / step), stream.factor
    increments, draws, digest = np.zeros((night, size)), np.zeros((night, size)), ""
    known = {one.night: one for one in added}
    for place in range(night):
        if (one := known.get(place + 1)) is not None:
            increments[place], digest = np.rint(one.increment / step), one.digest
        named = {**question, "night": place + 1, "added": digest, "step": step.hex()}
        draws[place] = noise.discrete_normal(named, steps, (size,))
    sums = running_sums(increments, stream.window)
    answers = [total + np.rint(correlated(draws[: place + 1], factor)) for place, total in enumerate(sums)]
    return np.array(answers).reshape(night, size) * step
