"""Which channels are statics and masks: a public fact of the transforms, never read off the values.

A descriptor of the whole stay is one number per sample, and a mask is a share between 0 and 1. Condensers that move
samples step by step, or draw trends under noise, know neither by themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from condensation.loop import LoopSettings
from pipeline.core.transforms import leaves_channels
from pipeline.core.types import EncodedCohort, Json


@final
@dataclass(frozen=True)
class Roles:
    """Positions among the channels."""

    static: tuple[int, ...]  # constant over a stay
    masks: tuple[int, ...]  # 1 where something was measured, 0 where not; or where the stay lasts, where not
    falling: tuple[int, ...] = ()  # of those, what never rises again: a stay that ended


def roles_of(channels: Sequence[str], transforms: Sequence[Json]) -> Roles:
    """What the transforms say; an encoding leaves no static as it was, and masks only where they bypass it."""
    plain = leaves_channels(transforms)
    static = {name for step in transforms if plain and step["kind"] == "scaling" for name in step.get("static", ())}
    masks = {
        name
        for step in transforms
        if step["kind"] == "missingness" and (plain or step["mode"] == "release")
        for name in step["channels"]
    }
    falling = {name for step in transforms if plain and step["kind"] == "lengths" for name in step["channels"]}

    def places(names: set[str]) -> tuple[int, ...]:
        return tuple(index for index, name in enumerate(channels) if name in names)

    return Roles(places(static), places(masks | falling), places(falling))


def with_roles(settings: LoopSettings, encoded: EncodedCohort) -> LoopSettings:
    """The settings with statics tied over time, masks between 0 and 1, and no stay that comes back after its end."""
    roles = roles_of(encoded.channels, encoded.transforms)
    return dataclasses.replace(settings, tied=roles.static, masks=roles.masks, falling=roles.falling)
