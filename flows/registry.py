"""Names -> code. A plug-in is an entry point; what ships with Decoct takes the same road as a third party's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from pipeline.core.config import Condense, Plugin
from pipeline.core.errors import ConfigError
from pipeline.core.protocols import Condenser, Encoder

ENCODERS: Final = "decoct.encoders"
CONDENSERS: Final = "decoct.condensers"


def names(group: str) -> tuple[str, ...]:
    """All registered names of a group, in order."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def encoder(table: Plugin) -> Encoder:
    """The encoder that an [encode.NAME] table describes."""
    return cast(Encoder, _build(table))


def condenser(table: Condense, **more: object) -> Condenser:
    """The condenser that a [condense.NAME] table describes, with options that no table sets."""
    return cast(Condenser, _build(table, **more))


def point_of(table: Plugin) -> tuple[str, str]:
    """The group and the name of the entry point that a table's code is registered at."""
    group = CONDENSERS if isinstance(table, Condense) else ENCODERS
    return group, table.options["name"] if table.kind == "plugin" else table.kind


def owners(group: str, name: str) -> tuple[EntryPoint, ...]:
    """Who registered the name: one, unless something is amiss."""
    found = {point.value: point for point in entry_points(group=group, name=name)}
    return tuple(found[value] for value in sorted(found))


def _build(table: Plugin, **more: object) -> object:
    group, name = point_of(table)
    options = {**table.options, **more}
    return load(group, name, options["settings"] if table.kind == "plugin" else options)


def load(group: str, name: str, options: Mapping[str, Any]) -> object:
    """Call the factory registered as `name` with `options`.

    Raises:
        ConfigError: unknown name, a name with two owners, or options that the factory does not take.
    """
    found = owners(group, name)
    if not found:
        raise ConfigError(f"no {group} entry point is named {name!r}; there are: {', '.join(names(group))}")
    if len(found) > 1:
        raise ConfigError(f"the {group} entry point {name!r} has {len(found)} owners; uninstall all but one")
    factory = found[0].load()
    try:
        return factory(**options)
    except TypeError:
        raise ConfigError(f"{group} {name!r} does not take the options {', '.join(sorted(options))}") from None
