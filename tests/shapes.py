"""Under `make shapes`, every array that a function takes or gives has the shape and the type that its signature says.

mypy checks the other types, so nothing else is looked at.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

from jaxtyping import AbstractArray


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """A checker for jaxtyping's import hook; names of axes hold over one call."""

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        expected = arrays(function)
        if not expected:
            return function(*args, **kwargs)
        for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items():
            require(function, name, value, expected)
        result = function(*args, **kwargs)
        require(function, "return", result, expected)
        return result

    return checked


def require(function: Callable[..., Any], name: str, value: Any, expected: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises TypeError where an array is not as its annotation says."""
    if name in expected and hasattr(value, "shape") and not any(isinstance(value, kind) for kind in expected[name]):
        told = f"{value.dtype}{tuple(value.shape)}"
        raise TypeError(f"{function.__module__}.{function.__qualname__}: {name} is {told}, not {expected[name]}")


@functools.cache
def arrays(function: Callable[..., Any]) -> Mapping[str, tuple[Any, ...]]:
    """Parameter, or "return" -> the array types that its annotation allows; none where a name is for mypy alone."""
    try:
        hints = get_type_hints(function)
    except NameError:
        return {}
    kinds = {name: tuple(filter(is_array, get_args(hint) or (hint,))) for name, hint in hints.items()}
    return {name: found for name, found in kinds.items() if found}


def is_array(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)
