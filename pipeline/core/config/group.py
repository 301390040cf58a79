"""The [group] table: which tasks belong together, and who says so."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from pipeline.core.config.tables import Model, Name, PositiveInt

Pair = tuple[str, str]


class GroupConfig(Model):
    """Task grouping; absent = not run.

    `decide`: "affinity" takes what the affinity proposes, in seconds; "validation" trains candidate groups, in minutes,
    and keeps every task alone where no grouping is identifiable; "private_moments" compares the tasks in the private
    moments of a [condense] table, at no further cost; "fixed" takes `groups`, written down before anybody looked.
    """

    decide: Literal["affinity", "validation", "private_moments", "fixed"] = "affinity"
    affinity: Literal["samplewise_multihead", "label_hamming", "samplewise"] = "samplewise_multihead"
    max_groups: PositiveInt = 3
    n_inits: PositiveInt = 3
    largest: PositiveInt | None = None  # tasks in a group
    must_link: tuple[Pair, ...] = ()  # pairs of tasks that stay together
    cannot_link: tuple[Pair, ...] = ()  # pairs of tasks that never meet
    moments: Name | None = None  # the [condense] table of the private moments
    groups: tuple[tuple[str, ...], ...] = ()

    @model_validator(mode="after")
    def _meant(self) -> GroupConfig:
        if (self.decide == "fixed") != bool(self.groups):
            raise ValueError("groups and decide = 'fixed' need each other")
        if (self.decide == "private_moments") != (self.moments is not None):
            raise ValueError("moments and decide = 'private_moments' need each other")
        named = [task for group in self.groups for task in group]
        if len(named) != len(set(named)) or not all(self.groups):
            raise ValueError("groups are not empty and name no task twice")
        if set(map(frozenset, self.must_link)) & set(map(frozenset, self.cannot_link)):
            raise ValueError("a pair of tasks cannot be in must_link and in cannot_link")
        return self

    @property
    def looks_at_stays(self) -> bool:
        """Whether the choice is a look at real stays that no account covers."""
        return self.decide in ("affinity", "validation")
