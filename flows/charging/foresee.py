"""Can this run end in a release? Asked of the cohort and the policy before noise is drawn and anything is charged.

Looked at is what is known by then: the policy's own rules, both classes of each task, how many subjects each required
attack will have, the device, the budget. What a set is worth and what leaks from it only the run itself can show.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np

from flows import registry
from flows.workspace.releases import no_room
from pipeline.audit.foreseen import Crowd, Foresees
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene
from pipeline.core.config import Condense, Config
from pipeline.core.errors import DataError, ReleaseRefused
from pipeline.core.types import Cohort, EncodedCohort, Split, Task
from pipeline.sharing.policy.load import Policy, load_policy
from pipeline.sharing.policy.rules import expiry_findings

N_CLASSES: Final = 2  # a set holds `n_per_class` samples of each class of its first task
PLENTY: Final = 100_000
PARTS: Final = (Split.TRAIN, Split.HELD_OUT)


@final
@dataclass(frozen=True, repr=False)
class Known:
    """What is known of a cohort before anything is made of it."""

    labels: np.ndarray  # (stay, task); 1 = the event, 0 = none, else missing
    split: np.ndarray  # (stay,)
    subjects: np.ndarray  # (stay,), of any kind
    tasks: tuple[Task, ...]

    @staticmethod
    def of(cohort: Cohort | EncodedCohort) -> Known:
        """Of a cohort, raw or encoded."""
        subjects = cohort.subject_ids if isinstance(cohort, Cohort) else cohort.subject_index
        return Known(cohort.labels, cohort.split, subjects, cohort.tasks)

    def people(self, part: Split) -> int:
        """How many subjects a part has."""
        return len(np.unique(self.subjects[self.split == int(part)]))

    def one_class(self, task: Task, part: Split) -> bool:
        """Whether a binary task has no stay of one of its classes there."""
        column = self.labels[self.split == int(part), self.tasks.index(task)]
        return task.kind == "binary" and not ((column == 0).any() and (column == 1).any())


def stops(config: Config, known: Known) -> tuple[str, ...]:
    """What would keep the run from a release, a sentence each; none = nothing that can be seen now."""
    policy = load_policy(config.release.policy)
    return (
        *_classes(config, known),
        *_policy(config, policy),
        *_attacks(config, policy, _foreseeing(config), crowd_of(config, known)),
        *_device(config),
    )


def require_releasable(config: Config, known: Known, *, to_release: bool) -> None:
    """Draw nothing, and charge nobody, for sets that nobody can test or, `to_release`, that cannot be released.

    Raises:
        DataError: a task has one class only where both are needed. ReleaseRefused: any other of `stops`.
    """
    if untestable := tuple(_classes(config, known)):
        raise DataError(f"nothing was drawn: {'; '.join(untestable)}")
    if to_release and (found := stops(config, known)):
        raise ReleaseRefused(f"nothing was drawn, as this run cannot end in a release: {'; '.join(found)}")


def _policy(config: Config, policy: Policy) -> Iterator[str]:
    """Rules of the policy that the configuration alone breaks."""
    yield from (finding.reason for finding in expiry_findings(policy) if finding.verdict != "PASS")
    if full := no_room(config.workspace, policy):
        yield full
    kind, table = config.release.kind, config.condense.get(config.release.artefact)
    if kind not in policy.release_kinds:
        yield f"policy {policy.name} does not release {kind} data"
    if kind == "encoded" or table is None:
        return
    if (method := registry.name_of(table)) in policy.refused_methods:
        yield f"policy {policy.name} never releases sets made by {method}"
    asked = claimed(table)
    if asked is None:
        if policy.require_guarantee and table.kind != "plugin":
            yield f"policy {policy.name} asks for a guarantee, and condense.{config.release.artefact} gives none"
        return
    yield from claims_too_much(config, policy)


def claims_too_much(config: Config, policy: Policy) -> Iterator[str]:
    """What the released set would claim beyond what the policy lets one set claim, by the configuration alone."""
    table = config.condense.get(config.release.artefact)
    asked = None if table is None or config.release.kind == "encoded" else claimed(table)
    if table is None or asked is None:
        return
    nights = ": every night's set claims the price of all nights" if table.kind == "private_stream" else ""
    for name, value, most in zip(("epsilon", "delta"), asked, (policy.max_epsilon, policy.max_delta), strict=True):
        if value > most:
            told = f"{name} {value:g} of condense.{config.release.artefact}"
            yield f"{told} is above the {most:g} that policy {policy.name} lets one set claim{nights}"


def claimed(table: Condense) -> tuple[float, float] | None:
    """Epsilon and delta of a table whose method of ours gives a guarantee."""
    told = table.options
    return (float(told["epsilon"]), float(told["delta"])) if {"epsilon", "delta"} <= set(told) else None


def _classes(config: Config, known: Known) -> Iterator[str]:
    """Every set needs a task that can be learnt and tested."""
    for name, table in config.condense.items():
        tasks = _tasks(table, known.tasks)
        for part in PARTS:
            single = [task.name for task in tasks if known.one_class(task, part)]
            if tasks and len(single) == len(tasks):
                told = f"{single[0]} has" if len(single) == 1 else f"{', '.join(single)} have"
                yield f"condense.{name}: {told} one class only in {part.name.lower()}, so nothing can be tested"


def _tasks(table: Condense, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """The tasks that a table's sets may have; before the grouping is known, all."""
    if table.tasks == "first":
        return tasks[:1]
    if isinstance(table.tasks, tuple):
        return tuple(task for task in tasks if task.name in table.tasks)
    return tasks


def _attacks(config: Config, policy: Policy, attacks: Iterable[Foresees], crowd: Crowd) -> Iterator[str]:
    """Attacks whose figures, with so few subjects or samples, could decide nothing under the policy."""
    if config.release.kind == "encoded" or config.release.kind not in policy.release_kinds:
        return
    told_of = {attack.name: attack for attack in attacks}
    figures = {name: attack.foreseen(crowd) for name, attack in told_of.items()}
    members, others = crowd.members, crowd.others
    told = f"with {_said(members)} subjects in train and {_said(others)} held out"
    for name in policy.required[config.release.kind]:
        attack, _, statistic = name.partition(":")
        if attack not in figures:
            yield f"required attack {attack} {_unforeseen(attack)}"
        elif not figures[attack]:
            yield f"required attack {attack} cannot run {told}"
        elif statistic and statistic not in figures[attack]:
            yield f"required attack {attack} gives no {statistic} {told}"
    asked = {name.partition(":")[0] for name in policy.required[config.release.kind]}
    for attack, table in figures.items():
        if told_of[attack].holds_back and attack not in asked:
            continue
        for statistic, n in table.items():
            limit = policy.limit(attack, statistic)
            if limit is not None and limit.max_upper is not None and n < limit.min_n:
                yield f"attack {attack}, {statistic}, has n = {n} {told}, and the policy asks for {limit.min_n}"


def _unforeseen(name: str) -> str:
    """Why nothing is foreseen of an attack that the policy demands, in words."""
    found = {attack.name: attack for attack in registry.attacks()}.get(name)
    if found is None or found.scene_type is not CondensedScene:
        return "is no installed attack on sets"
    if isinstance(found, Foresees):
        return "is part of the full audit only: set level = 'full' in the [audit] table"
    return "does not say beforehand how many people it needs, so nobody can foresee whether it will decide"


def _said(count: int) -> str:
    """A count of people as it may be told: none below the smallest that is."""
    return f"fewer than {MIN_SUBJECTS}" if count < MIN_SUBJECTS else str(count)


def foreseen_figures(config: Config, known: Known) -> Mapping[str, Mapping[str, int]]:
    """Attack -> statistic -> its n, of every installed attack on sets that says so beforehand."""
    crowd = crowd_of(config, known)
    return {attack.name: attack.foreseen(crowd) for attack in _foreseeing(config)}


def crowd_of(config: Config, known: Known) -> Crowd:
    """How many subjects there are in the parts that an audit compares, and how many samples there will be."""
    return _crowd(config, *(known.people(part) for part in PARTS))


def _crowd(config: Config, members: int, others: int) -> Crowd:
    table = config.condense.get(config.release.artefact)
    return Crowd(members, others, 0 if table is None else N_CLASSES * table.n_per_class)


def _foreseeing(config: Config) -> Iterator[Foresees]:
    """Installed attacks on sets, of the audit's level, that say what they need."""
    for attack in registry.attacks():
        full = getattr(attack, "level", "screen") == "full" and config.audit.level != "full"
        if attack.scene_type is CondensedScene and isinstance(attack, Foresees) and not full:
            yield attack


def least_people(config: Config) -> tuple[int, int] | None:
    """The fewest subjects in train and held out with whom the policy can be met, each with the other in plenty.

    None where no number of people is enough.
    """
    policy, attacks = load_policy(config.release.policy), tuple(_foreseeing(config))

    def enough(members: int, others: int) -> bool:
        return not any(_attacks(config, policy, attacks, _crowd(config, members, others)))

    if not enough(PLENTY, PLENTY):
        return None
    numbers = range(PLENTY + 1)
    return (
        bisect_left(numbers, True, key=lambda n: enough(n, PLENTY)),
        bisect_left(numbers, True, key=lambda n: enough(PLENTY, n)),
    )


def _device(config: Config) -> Iterator[str]:
    """Is the device there that the configuration names?"""
    if config.device.split(":")[0] in ("auto", "cpu"):
        return
    import torch

    try:
        torch.empty(1, device=config.device)
    except (RuntimeError, AssertionError, ValueError):
        yield f"there is no device {config.device} on this machine"


def events_of(table: Condense) -> Sequence[Mapping[str, Any]]:
    """What one private release by the table costs, as the ledger prices it; nothing where it costs nothing."""
    asked = claimed(table)
    if asked is None:
        return ()
    from condensation.private.moments import priced

    return priced(*asked)
