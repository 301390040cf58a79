"""The [condense.NAME] tables: one per condenser, made of its options, and one for those of other distributions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

from pydantic import Field

from pipeline.core.config.tables import Name, Plugin, PositiveInt, table_of
from pipeline.core.options.condensers import CONDENSERS


class Condense(Plugin):
    """What all condensers' tables share."""

    input: Name = "raw"  # the name of an [encode.NAME] table
    n_per_class: PositiveInt = 40
    tasks: Literal["first", "all", "group", "each_group", "each_task"] | tuple[str, ...] = "first"
    """`group`: the tasks that grouping puts with the first one. `each_group`, `each_task`: a set for each, to be
    compared; names: a set for these."""

    @property
    def by_group(self) -> bool:
        """Whether the grouping says which tasks a set holds."""
        return self.tasks in ("group", "each_group")

    @property
    def makes_several(self) -> bool:
        """Whether the table stands for a set for each group or task."""
        return self.tasks in ("each_group", "each_task")


class TeacherCondense(Condense):
    """Of a private teacher: the size of its set costs no privacy, and larger sets teach more."""

    n_per_class: PositiveInt = 160


class PluginCondense(Condense):
    """A condenser from another distribution, by its entry-point name in the group `decoct.condensers`."""

    kind: Literal["plugin"]
    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


CONDENSE_TABLES: Final[Mapping[str, type[Condense]]] = MappingProxyType(
    {
        kind: table_of(kind, options, TeacherCondense if kind == "private_teacher" else Condense)
        for kind, options in CONDENSERS.items()
    }
)
if TYPE_CHECKING:
    CondenseTable = Condense
else:
    CondenseTable = Annotated[Union[*CONDENSE_TABLES.values(), PluginCondense], Field(discriminator="kind")]


def condense_table(method: str, **more: Any) -> Condense:
    """The table of a registered condenser with what `more` sets of what all tables share; another's is a plug-in's."""
    if method in CONDENSE_TABLES:
        return CONDENSE_TABLES[method].model_validate({"kind": method, **more})
    return PluginCondense.model_validate({"kind": "plugin", "name": method, **more})
