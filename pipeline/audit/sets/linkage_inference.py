"""WP216's linkability and inference on a condensed set, after Giomi et al. (arXiv 2211.10459).

Linkability: two institutions know different variables of a patient; the set links their records when its nearest sample
is the same by either half of the variables. Inference: all but one variable of a patient are known; the nearest sample
tells the last one, a static, a label or the mean of a series. Both are tried on members, on the holdout control, and
without the artefact: with a sample drawn at random in place of the nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from pipeline.audit.excess import STATISTIC, Arms, Excess, Hits, Told, best_variant, excess_result
from pipeline.audit.foreseen import Crowd
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene
from pipeline.audit.sets.population import squared_distances
from pipeline.audit.sets.singling_out import foreseen_excess, planted, strangers, unsupported_people
from pipeline.audit.sets.summary_table import Columns, Table, Tables, tables
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

DIVISIONS = 3  # of the variables between two institutions
NEIGHBOURS = (1, 3)
TENTH = 0.1  # of each arm's targets, those nearest to a sample, are told apart
NEAR_ENOUGH = 0.1  # standard deviations within which a guessed value counts as right

Variant = tuple[Arms, Arms]
"""The arms with all targets, and with the tenth of each that lies nearest to a sample."""
Attack = Callable[[Tables, Table, Table, np.random.Generator], Mapping[str, Variant]]


@dataclass(frozen=True)
class _Arm:
    """One arm's targets, their distances to the samples, and which tenth of them lies nearest to one."""

    table: Table
    squares: np.ndarray  # (target, sample)
    nearest: np.ndarray

    def hits(self, hit: np.ndarray) -> tuple[Hits, Hits]:
        """Of all targets and of the nearest tenth."""
        subjects = self.table.subjects
        return Hits(hit, subjects), Hits(hit[self.nearest], subjects[self.nearest])


def _arm(table: Table, samples: Table) -> _Arm:
    squares = squared_distances(table.values, samples.values)
    order = np.argsort(squares.min(axis=1), kind="stable")
    return _Arm(table, squares, order[: max(2 * MIN_SUBJECTS, int(TENTH * len(order)))])


def _variant(main: tuple[Hits, Hits], control: tuple[Hits, Hits], baseline: tuple[Hits, Hits]) -> Variant:
    return Arms(main[0], control[0], baseline[0]), Arms(main[1], control[1], baseline[1])


def linkability(parts: Tables, samples: Table, members: Table, rng: np.random.Generator) -> dict[str, Variant]:
    """Whether the nearest samples by one half of the variables and by the other half have one in common."""
    found: dict[str, Variant] = {}
    channels = np.unique(parts.columns.channel)
    arms = _arm(members, samples), _arm(parts.control, samples)
    for division in range(DIVISIONS):
        ours = np.isin(parts.columns.channel, rng.permutation(channels)[: len(channels) // 2])
        one = [squared_distances(arm.table.values[:, ours], samples.values[:, ours]) for arm in arms]
        other = [arm.squares - square for arm, square in zip(arms, one, strict=True)]
        for k in NEIGHBOURS:
            main, control = (arms[i].hits(_common(one[i], other[i], k)) for i in (0, 1))
            blind = rng.random((2, len(members), len(samples)), np.float32)
            baseline = arms[0].hits(_common(blind[0], blind[1], k))
            found[f"division {division + 1}, {k} nearest"] = _variant(main, control, baseline)
    return found


def _common(one: np.ndarray, other: np.ndarray, k: int) -> np.ndarray:
    """Whether the k smallest of each row of both have a column in common."""
    nearest = [np.argpartition(square, k - 1, axis=1)[:, :k] for square in (one, other)]
    return np.asarray((nearest[0][:, :, None] == nearest[1][:, None, :]).any(axis=(1, 2)))


@dataclass(frozen=True)
class Secret:
    """One thing to be guessed, of records and samples."""

    name: str
    hidden: np.ndarray  # (column,) not known of the target
    values: Callable[[Table], np.ndarray]
    exact: bool

    def right(self, guess: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Which guesses count; never where the truth is not known."""
        return np.asarray(guess == truth if self.exact else np.abs(guess - truth) <= NEAR_ENOUGH)


def secrets_of(columns: Columns, tasks: int) -> tuple[Secret, ...]:
    """Statics, labels, and the mean of each series."""
    found = []
    for channel in np.unique(columns.channel):
        own = columns.channel == channel
        column = int(np.flatnonzero(own)[0])
        half = float((0.5 - columns.centre[column]) / columns.spread[column])
        binary = bool(columns.binary[column])
        prefix = columns.names[column].partition(":")[0]
        hidden = np.array([name.partition(":")[0] == prefix for name in columns.names]) if binary else own
        found.append(Secret(columns.names[column], hidden, _column(column, half if binary else None), binary))
    nothing = np.zeros(len(columns.channel), bool)
    found += [Secret(columns.tasks[task], nothing, _label(task), True) for task in range(tasks)]
    return tuple(found)


def _column(column: int, half: float | None) -> Callable[[Table], np.ndarray]:
    return lambda table: table.values[:, column] if half is None else table.values[:, column] > half


def _label(task: int) -> Callable[[Table], np.ndarray]:
    def of(table: Table) -> np.ndarray:
        labels = table.labels[:, task]
        return np.where(np.isnan(labels), np.nan, np.round(labels))

    return of


def inference(parts: Tables, samples: Table, members: Table, rng: np.random.Generator) -> dict[str, Variant]:
    """Whether the nearest sample by all but one variable has the target's value of that one."""
    found: dict[str, Variant] = {}
    arms = _arm(members, samples), _arm(parts.control, samples)
    for secret in secrets_of(parts.columns, samples.labels.shape[1]):
        told = secret.values(samples)

        def tried(arm: _Arm, secret: Secret = secret, told: np.ndarray = told) -> tuple[Hits, Hits]:
            square = arm.squares
            if secret.hidden.any():
                hidden = arm.table.values[:, secret.hidden], samples.values[:, secret.hidden]
                square = square - squared_distances(*hidden)
            return arm.hits(secret.right(told[square.argmin(axis=1)], secret.values(arm.table)))

        drawn = told[rng.integers(len(samples), size=len(members))]
        baseline = arms[0].hits(secret.right(drawn, secret.values(members)))
        found[secret.name] = _variant(tried(arms[0]), tried(arms[1]), baseline)
    return found


@final
@dataclass(frozen=True)
class Linkability:
    """Excess risk that the set links two partial records of a person."""

    name: ClassVar[str] = "linkability"
    threat_model: ClassVar[ThreatModel] = "T2"
    scene_type: ClassVar[type] = CondensedScene
    holds_back: ClassVar[bool] = True

    def foreseen(self, crowd: Crowd) -> Mapping[str, int]:
        """The excess risk over all subjects."""
        return foreseen_excess(crowd, crowd.members)

    def unsupported(self, scene: Any) -> str | None:
        """Too few samples or subjects, or a single channel."""
        if scene.members.shape[2] < 2:
            return "two partial records need two channels"
        return unsupported_people(scene)

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """Two results: the excess risk over all subjects, and over the tenth that lies nearest to the samples."""
        return _run(scene, seed, self, linkability, "links two partial records of a person through a sample")


@final
@dataclass(frozen=True)
class Inference:
    """Excess risk that the set tells what is not known of a person."""

    name: ClassVar[str] = "inference"
    threat_model: ClassVar[ThreatModel] = "T2"
    scene_type: ClassVar[type] = CondensedScene
    holds_back: ClassVar[bool] = True

    def foreseen(self, crowd: Crowd) -> Mapping[str, int]:
        """The excess risk over all subjects."""
        return foreseen_excess(crowd, crowd.members)

    def unsupported(self, scene: Any) -> str | None:
        """Too few samples or subjects, or a single channel."""
        if scene.members.shape[2] < 2:
            return "a known and a hidden variable need two channels"
        return unsupported_people(scene)

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """Two results for the most exposed variable: over all subjects, and over the tenth nearest to the samples."""
        return _run(scene, seed, self, inference, "guesses a hidden variable of a person right")


def _run(
    scene: CondensedScene, seed: int, attack: Linkability | Inference, variants_of: Attack, does: str
) -> tuple[AttackResult, ...]:
    parts = tables(scene, seed)

    def reached(name: str, samples: Table, members: Table) -> tuple[Excess, Excess]:
        variants = variants_of(parts, samples, members, generator(seed, "audit", attack.name, name))
        everybody, tenth = (
            best_variant(
                {variant: arms[which] for variant, arms in variants.items()},
                generator(seed, "audit", attack.name, name, which),
            )
            for which in (0, 1)
        )
        return everybody, tenth

    leak = planted(parts, seed)
    found, positive = reached("set", parts.samples, parts.members), reached("planted", leak, leak)
    negative = reached("strangers", strangers(parts, seed), parts.members)
    ways = (
        Told(does, "subjects", gates=True),
        Told(does, "subjects nearest to the samples", f"{STATISTIC}_nearest_tenth"),
    )
    return tuple(
        excess_result(scene, attack, told, arms[0], arms[1], arms[2], {"wp216": attack.name})
        for told, *arms in zip(ways, found, positive, negative, strict=True)
    )
