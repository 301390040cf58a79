"""Pieces of an audit that depend on less than the artefact, and are made once for all that have this in common.

Controls belong to the people whom a set was made from and to how many samples it has, a game to the mechanism. An
attack says so in one place, its `pieces`; who runs it may keep a piece under what it depends on and find it again: for
another set, on another worker, on another night. A piece is a function of what it names and of the seed alone: kept or
made anew, it is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, final

from pipeline.core.types import AuditPiece, Json

Origin = Literal["source", "mechanism", "receiver"]
"""What a set's scene is made of besides the set: members and holdout with their labels, what made the set, and how a
receiver trains.
"""


@final
@dataclass(frozen=True)
class Piece:
    """One piece of an attack: what of the scene it depends `on`, what else (`told`, plain), and how it is made."""

    on: tuple[Origin, ...]
    make: Callable[[], AuditPiece] = field(repr=False)
    told: Json = field(default_factory=dict)


class Keep(Protocol):
    """Makes a piece, or finds it where it was kept; `attack` and `piece` are names, `seed` is the attack's."""

    def __call__(self, attack: str, piece: str, seed: int, how: Piece) -> AuditPiece: ...
