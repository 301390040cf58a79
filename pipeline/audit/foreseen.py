"""What can be said of an attack on a set before there is one: which figures it will give, of how many people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, final, runtime_checkable


@final
@dataclass(frozen=True)
class Crowd:
    """What is known of an audit of a set before there is one: subjects in train, subjects held out, samples."""

    members: int
    others: int
    samples: int

    def each(self, least: int) -> bool:
        """Whether there are so many subjects on either side, and a sample: as `CondensedScene.lacks` asks."""
        return min(self.members, self.others) >= least and self.samples > 0


@runtime_checkable
class Foresees(Protocol):
    """An attack that says beforehand which figures that may decide it will give, each with its n.

    `holds_back`: they decide only where they come out narrow, so that few people stop no release but one whose policy
    asks for the attack by name.
    """

    name: ClassVar[str]
    holds_back: ClassVar[bool]

    def foreseen(self, crowd: Crowd) -> Mapping[str, int]:
        """Statistic -> n; none where it cannot run."""
        ...
