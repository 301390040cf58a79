"""Frozen options that check themselves by their own annotations, as the configuration's tables do by the same."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Final, Literal, Union, final, get_args, get_origin, get_type_hints

from pipeline.core.errors import ConfigError

_OPERATORS: Final = {"ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt}
_WORDS: Final = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}


@final
@dataclass(frozen=True)
class Bound:
    """A bound in an annotation; pydantic asks it for a schema of its own, and need not be there to state one."""

    kind: Literal["ge", "gt", "le", "lt", "min_length"]
    value: float

    def holds(self, value: Any) -> bool:
        """Whether the value keeps it."""
        if self.kind == "min_length":
            return len(value) >= self.value
        return bool(_OPERATORS[self.kind](value, self.value))

    def __str__(self) -> str:
        return ", not empty" if self.kind == "min_length" else f" {_WORDS[self.kind]} {self.value:g}"

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(source), self.kind: self.value}


Ge: Final = partial(Bound, "ge")
Gt: Final = partial(Bound, "gt")
Le: Final = partial(Bound, "le")
Lt: Final = partial(Bound, "lt")
MinLen: Final = partial(Bound, "min_length")

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
PositiveInt = Annotated[int, Ge(1)]
NotNegativeInt = Annotated[int, Ge(0)]
Names = Annotated[tuple[str, ...], MinLen(1)]

BESIDE: Final[Mapping[str, bool]] = MappingProxyType({"beside": True})
"""Metadata of a field that stands beside the options: where to work, which changes nothing of what is made."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all options; on its own, those of a method that has none.

    A method's class is a subclass with the method on it, so that its keywords, defaults and bounds are these. A list is
    taken as a tuple and a whole number as any number, as in a configuration file.

    Raises:
        ConfigError: a value that its annotation does not allow; the value itself is not told.
    """

    def __post_init__(self) -> None:
        for name, hint in option_types(type(self)).items():
            try:
                object.__setattr__(self, name, _taken(getattr(self, name), hint))
            except (ValueError, OverflowError):
                raise ConfigError(f"{type(self).__name__}: {name} must be {_rule(hint)}") from None

    def told(self) -> dict[str, Any]:
        """Every option by its name, as JSON holds it; not what stands beside them."""
        return {
            field.name: list(value) if isinstance(value := getattr(self, field.name), tuple) else value
            for field in dataclasses.fields(self)
            if not field.metadata.get("beside")
        }


def option_types(options: type[Options]) -> Mapping[str, Any]:
    """Field name -> its annotation with bounds, in the order of the fields."""
    hints = get_type_hints(options, include_extras=True)
    return MappingProxyType({field.name: hints[field.name] for field in dataclasses.fields(options)})


def _taken(value: Any, hint: Any) -> Any:
    """The value as the annotation has it; ValueError where it does not fit."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        taken = _taken(value, parts[0])
        fits = all(_bound(rule).holds(taken) for rule in parts[1:])
    elif origin in (Union, UnionType):
        return _first_taken(value, parts)
    elif origin is tuple:
        taken = tuple(value) if isinstance(value, list | tuple) else None
        inner = parts[:1] * len(taken or ()) if parts[-1] is ... else parts
        fits = taken is not None and len(taken) == len(inner)
        taken = tuple(map(_taken, taken, inner)) if fits and taken is not None else None
    elif origin is Literal:
        taken, fits = value, isinstance(value, str) and value in parts
    elif hint in (int, float):
        number = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
        fits = number and math.isfinite(value)
        taken = hint(value) if fits else None
    else:
        taken, fits = value, isinstance(value, hint)
    if not fits:
        raise ValueError
    return taken


def _first_taken(value: Any, hints: tuple[Any, ...]) -> Any:
    for hint in hints:
        with suppress(ValueError, OverflowError):
            return _taken(value, hint)
    raise ValueError


def check_n_per_class(n_per_class: int) -> None:
    """What every condenser is asked for beside its options. Raises ConfigError below 1."""
    if n_per_class < 1:
        raise ConfigError("n_per_class must be at least 1")


def _bound(rule: Any) -> Bound:
    if not isinstance(rule, Bound):
        raise TypeError(f"no option is checked by {type(rule).__name__}")
    return rule


def _rule(hint: Any) -> str:
    """What an annotation allows, in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _rule(parts[0]) + "".join(map(str, parts[1:]))
    if origin in (Union, UnionType):
        return " or ".join(map(_rule, parts))
    if origin is tuple:
        return f"a list, each {_rule(parts[0])}" if parts[-1] is ... else f"{len(parts)} values, each {_rule(parts[0])}"
    if origin is Literal:
        return f"among {', '.join(parts)}"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "none"}
    return names.get(hint, f"a {getattr(hint, '__name__', 'value').lower()}")
