"""Names -> code. A plug-in is an entry point; what ships with Decoct takes the same road as a third party's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pipeline.core.config import Condense, EncodeTable, Plugin
from pipeline.core.digest import digest_bytes, digest_json
from pipeline.core.errors import ConfigError
from pipeline.core.protocols import Condenser, Encoder

if TYPE_CHECKING:
    from pipeline.audit.scene import LeakageAttack
    from pipeline.sharing.policy.rules import Rule

ENCODERS: Final = "decoct.encoders"
CONDENSERS: Final = "decoct.condensers"
ATTACKS: Final = "decoct.attacks"
READERS: Final = "decoct.readers"
RULES: Final = "decoct.policy_rules"
OWN: Final = "decoct"
"""The name of the product's own entry point where one holds all that a distribution brings."""
_OUR_PACKAGES: Final = ("condensation", "encoders")


def names(group: str) -> tuple[str, ...]:
    """All registered names of a group, in order."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def encoder(table: EncodeTable) -> Encoder:
    """The encoder that an [encode.NAME] table describes."""
    return cast(Encoder, _build(table, {}))


def condenser(table: Condense, **more: object) -> Condenser:
    """The condenser that a [condense.NAME] table describes, with options that no table sets."""
    return cast(Condenser, _build(table, more))


def point_of(table: Plugin) -> tuple[str, str]:
    """The group and the name of the entry point that a table's code is registered at."""
    group = CONDENSERS if isinstance(table, Condense) else ENCODERS
    return group, table.options["name"] if table.kind == "plugin" else table.kind


def owners(group: str, name: str) -> tuple[EntryPoint, ...]:
    """Who registered the name: one, unless something is amiss."""
    found = {point.value: point for point in entry_points(group=group, name=name)}
    return tuple(found[value] for value in sorted(found))


def name_of(table: Plugin) -> str:
    """The name under which a table's code is registered."""
    return point_of(table)[1]


def foreign_owner(group: str, table: Plugin) -> str | None:
    """The distribution whose code a table runs, with its version; None for Decoct's own code.

    By who owns the entry point and where its module lies, never by what the code says of itself.
    """
    point = _entry(group, name_of(table))
    if point.dist is None:
        return "unknown"
    ours = point.dist.name == OWN and point.module.partition(".")[0] in _OUR_PACKAGES
    return None if ours else f"{point.dist.name} {point.dist.version}"


def _build(table: Plugin, more: Mapping[str, object]) -> object:
    options = table.options["settings"] if table.kind == "plugin" else table.options
    return load(*point_of(table), {**options, **more})


def load(group: str, name: str, options: Mapping[str, Any]) -> object:
    """Call the factory registered as `name` with `options`.

    Raises:
        ConfigError: unknown name, a name with two owners, or options that the factory does not take.
    """
    factory = _loaded(group, name)
    try:
        return factory(**options)
    except TypeError:
        raise ConfigError(f"{group} {name!r} does not take the options {', '.join(sorted(options))}") from None


def attacks() -> tuple[LeakageAttack, ...]:
    """Every installed attack, the product's own first; an entry point holds those of a distribution in a tuple.

    Raises:
        ConfigError: something else than attacks is registered, or two have one name.
    """
    from pipeline.audit.scene import LeakageAttack

    return tuple(_gathered(ATTACKS, lambda one: isinstance(one, LeakageAttack)).values())


def readers() -> Mapping[str, Any]:
    """Every installed reader by its `source.kind`; an entry point holds those of a distribution in a mapping."""
    return _gathered(READERS, callable)


def policy_rules() -> Mapping[str, Rule]:
    """Every installed rule by its name, likewise; the gate looks at its own in any case, and at these besides."""
    return _gathered(RULES, callable)


@cache
def brought(group: str) -> dict[str, dict[str, str]]:
    """What others registered in a group, by the digest of their source: part of a stage's key, where there is any."""
    found = {}
    for point in entry_points(group=group):
        if point.dist is not None and point.dist.name == OWN:
            continue
        spec = find_spec(point.module.partition(".")[0])
        places = [] if spec is None else spec.submodule_search_locations or [str(spec.origin)]
        files = [file for place in map(Path, places) for file in (sorted(place.rglob("*.py")) or [place])]
        found[point.name] = digest_json([digest_bytes(file.read_bytes()) for file in files])
    return {group: found} if found else {}


def _gathered(group: str, fits: Callable[[Any], bool]) -> dict[str, Any]:
    """What the entry points of a group hold, by its names, the product's own first."""
    found: dict[str, Any] = {}
    for name in sorted(names(group), key=lambda name: (name != OWN, name)):
        suite = _loaded(group, name)
        pairs = list(suite.items()) if isinstance(suite, Mapping) else []
        if isinstance(suite, tuple):
            pairs = [(getattr(one, "name", ""), one) for one in suite]
        if not (isinstance(suite, Mapping | tuple) and all(fits(one) for _, one in pairs)):
            raise ConfigError(f"the {group} entry point {name!r} holds something else than it is for")
        for key, one in pairs:
            if found.setdefault(key, one) is not one:
                raise ConfigError(f"{group}: {key!r} is there twice; uninstall all that bring it but one")
    return found


def _loaded(group: str, name: str) -> Any:
    point = _entry(group, name)
    try:
        return point.load()
    except Exception as error:
        raise ConfigError(f"the {group} entry point {name!r} cannot be loaded: {type(error).__name__}") from None


def _entry(group: str, name: str) -> EntryPoint:
    found = owners(group, name)
    if not found:
        raise ConfigError(f"no {group} entry point is named {name!r}; there are: {', '.join(names(group))}")
    if len(found) > 1:
        raise ConfigError(f"the {group} entry point {name!r} has {len(found)} owners; uninstall all but one")
    return found[0]
