"""Names -> code. A plug-in is an entry point; what ships with Decoct takes the same road as a third party's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from pipeline.core.config import Condense, EncodeTable, Plugin
from pipeline.core.errors import ConfigError
from pipeline.core.protocols import Condenser, Encoder

ENCODERS: Final = "decoct.encoders"
CONDENSERS: Final = "decoct.condensers"
_OURS: Final = "decoct"  # the distribution; its plug-ins are in the two packages below
_OUR_PACKAGES: Final = ("condensation", "encoders")


def names(group: str) -> tuple[str, ...]:
    """All registered names of a group, in order."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def encoder(table: EncodeTable) -> Encoder:
    """The encoder that an [encode.NAME] table describes."""
    return cast(Encoder, _build(ENCODERS, table, {}))


def condenser(table: Condense, **more: object) -> Condenser:
    """The condenser that a [condense.NAME] table describes, with options that no table sets."""
    return cast(Condenser, _build(CONDENSERS, table, more))


def name_of(table: Plugin) -> str:
    """The name under which a table's code is registered."""
    return str(table.options["name"]) if table.kind == "plugin" else table.kind


def foreign_owner(group: str, table: Plugin) -> str | None:
    """The distribution whose code a table runs, with its version; None for Decoct's own code.

    By who owns the entry point and where its module lies, never by what the code says of itself.
    """
    point = _entry(group, name_of(table))
    if point.dist is None:
        return "unknown"
    ours = point.dist.name == _OURS and point.module.partition(".")[0] in _OUR_PACKAGES
    return None if ours else f"{point.dist.name} {point.dist.version}"


def _build(group: str, table: Plugin, more: Mapping[str, object]) -> object:
    options = table.options["settings"] if table.kind == "plugin" else table.options
    return load(group, name_of(table), {**options, **more})


def load(group: str, name: str, options: Mapping[str, Any]) -> object:
    """Call the factory registered as `name` with `options`.

    Raises:
        ConfigError: unknown name, a name with two owners, or options that the factory does not take.
    """
    factory = _entry(group, name).load()
    try:
        return factory(**options)
    except TypeError:
        raise ConfigError(f"{group} {name!r} does not take the options {', '.join(sorted(options))}") from None


def _entry(group: str, name: str) -> EntryPoint:
    found = {point.value: point for point in entry_points(group=group, name=name)}
    if not found:
        raise ConfigError(f"no {group} entry point is named {name!r}; there are: {', '.join(names(group))}")
    if len(found) > 1:
        raise ConfigError(f"the {group} entry point {name!r} has {len(found)} owners; uninstall all but one")
    return next(iter(found.values()))
