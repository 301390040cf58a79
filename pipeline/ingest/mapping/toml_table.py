"""A TOML table read key by key, so that a wrong type, a lacking or a misspelt key is named with its place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final, final

from pipeline.core.errors import ConfigError

_AND: Final = " + "


def id_columns(name: str) -> tuple[str, ...]:
    """The columns that an id is made of, by what `TomlTable.columns` calls them together."""
    return tuple(name.split(_AND))


@final
class TomlTable:
    """A TOML table being read: each key is taken once, what remains is misspelt."""

    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise ConfigError(f"{where} must be a table")
        self.raw, self.where, self.taken = raw, where, set[str]()

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The value of `key`; `default` when absent, an error when there is none."""
        self.taken.add(key)
        if key not in self.raw:
            if default is None:
                raise ConfigError(f"{self.where} lacks the key {key}")
            return default
        value = self.raw[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{self.where}: the key {key} has the wrong type")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = float(self.take(key, (int, float)))
        if not math.isfinite(value):
            raise ConfigError(f"{self.where}: the key {key} must be finite")
        return value

    def range(self, key: str) -> tuple[float, float]:
        """Two finite numbers, the smaller first."""
        pair = self.take(key, list)
        numbers = [item for item in pair if isinstance(item, int | float) and not isinstance(item, bool)]
        if len(pair) != 2 or len(numbers) != 2 or not all(map(math.isfinite, numbers)) or numbers[0] >= numbers[1]:
            raise ConfigError(f"{self.where}: the key {key} must be two numbers, the smaller first")
        return float(numbers[0]), float(numbers[1])

    def names(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of names, not empty."""
        found = tuple(self.take(key, list, list(default)))
        if not found or not all(isinstance(item, str) and item for item in found):
            raise ConfigError(f"{self.where}: the key {key} must be a list of names")
        return found

    def columns(self, key: str, default: str | None = None) -> str:
        """The column of an id; of several that are an id together, their names joined (see `id_columns`)."""
        if isinstance(self.raw.get(key), list):
            return _AND.join(self.names(key, ()))
        return str(self.take(key, str, default))

    def done(self) -> None:
        """Refuse what nobody asked for."""
        strange = sorted(set(self.raw) - self.taken)
        if strange:
            raise ConfigError(
                f"{self.where}: unknown key{'s' * (len(strange) > 1)} {', '.join(strange)}"
                f"{did_you_mean(strange, self.taken)}; known are {', '.join(sorted(self.taken))}"
            )


def did_you_mean(strange: Iterable[str], known: Iterable[str]) -> str:
    """The known names that the strange ones may be slips of, as the end of a sentence; "" where there are none."""
    lower = {name.lower(): name for name in known}
    close = [lower[name] for word in strange for name in get_close_matches(word.lower(), list(lower), 1)]
    return f"; did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
