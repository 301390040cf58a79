"""Where an audit keeps what it makes once: in the run's store, under all that it depends on.

A piece is kept under the artefacts and tables that it names (`pipeline.audit.once`), an attack's results on an artefact
under everything that its scene is made of; both also under the seed and the code that makes them, as stages are. So
what two sets have in common is made once in a run, and what a night has in common with one before is not made again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from flows import registry
from flows.closure import Point, stage_code
from flows.workspace.job import Job
from pipeline.audit.once import Origin, Piece
from pipeline.audit.run import Outcome, seed_of
from pipeline.audit.scene import LeakageAttack, Level
from pipeline.core.codec import from_plain, to_plain
from pipeline.core.digest import digest_json
from pipeline.core.types import AttackResult, AuditPiece, NotRun

PIECE: Final = "audit piece"
RESULTS: Final = "attack"


@final
@dataclass(frozen=True)
class Of:
    """What something is made of: a digest of all that describes it, the artefacts among that, whose code makes it."""

    digest: str
    artefacts: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()


@final
@dataclass(frozen=True)
class Keeper:
    """Keeps the pieces of one scene and what attacks find on it; a scene's `keep`.

    `anew`: it makes again what is there, and keeps that.
    """

    job: Job
    whole: Of  # the scene, with all that any attack on it depends on
    origins: Mapping[Origin, Of] = dataclasses.field(default_factory=dict)
    anew: bool = False

    def __call__(self, attack: str, piece: str, seed: int, how: Piece) -> AuditPiece:
        """Raises DataError: what was kept is damaged."""
        parts = [self.origins[origin] for origin in how.on]
        parents = tuple(dict.fromkeys(digest for part in parts for digest in part.artefacts))
        return self._once(PIECE, self.key(attack, piece, seed, how), parents, how.make)

    def key(self, attack: str, piece: str, seed: int, how: Piece) -> str:
        """Of a piece: equal for all scenes that have in common what it depends on."""
        on = {origin: self.origins[origin] for origin in how.on}
        told = {"piece": [attack, piece], "told": how.told, "on": {name: part.digest for name, part in on.items()}}
        return self._key(told, seed, tuple(point for part in on.values() for point in part.points))

    def results(self, attack: LeakageAttack, level: Level, seed: int) -> str:
        """The key of what an attack finds on the scene; `seed` is the audit's."""
        told = {"attack": [attack.name, repr(attack), level], "on": self.whole.digest}
        return self._key(told, seed_of(attack, seed), self.whole.points)

    def found(self, key: str) -> Outcome | None:
        """Results that are kept under their key; None where there are none."""
        known = self.job.store.made(key)
        return None if known is None else _outcome(self._get(key, known.first))

    def keep_results(self, key: str, make: Callable[[], Outcome]) -> Outcome:
        """What `make` finds; an attack that failed is not kept, as it may be mended without a word in our code."""
        made = make()
        if isinstance(made, NotRun) and made.failed:
            return made
        return _outcome(self._once(RESULTS, key, self.whole.artefacts, lambda: AuditPiece(_facts(made))))

    def _key(self, told: Mapping[str, Any], seed: int, points: tuple[Point, ...]) -> str:
        code = stage_code("flows.stages.attacks.scenes", points)
        return digest_json({**told, "seed": str(seed), "code": code, **registry.brought(registry.ATTACKS)})

    def _once(self, stage: str, key: str, parents: tuple[str, ...], make: Callable[[], AuditPiece]) -> AuditPiece:
        made = self.job.store.once(key, lambda: (make(),), resume=not self.anew, stage=stage, parents=parents)
        return self._get(key, made.first)

    def _get(self, key: str, digest: str) -> AuditPiece:
        self.job.store.used(self.job.config.name, key)
        return self.job.store.get(digest, AuditPiece)


def _facts(outcome: Outcome) -> dict[str, Any]:
    name = "not_run" if isinstance(outcome, NotRun) else "results"
    return {name: to_plain(outcome)}


def _outcome(kept: AuditPiece) -> Outcome:
    if "not_run" in kept.facts:
        return from_plain(NotRun, kept.facts["not_run"])  # type: ignore[no-any-return]  # by the hint
    return tuple(from_plain(AttackResult, one) for one in kept.facts["results"])
