"""What transforms say of a set: whether its channels still are variables, and whether two sets live in one space.

A model trained on one encoding says nothing about another, and nothing would crash: the arrays have the same shape. So
whoever puts two sets together asks here first whether preparation, encoder and key are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.core.errors import DataError

Json = Mapping[str, Any]  # of its own: a receiver loads no types for it

LOCAL_KINDS: Final = frozenset({"subjects"})  # says something about the site's records, nothing about the space
LOCAL_FACTS: Final = frozenset(
    {"noise", "leakage_bound", "backend", "pennylane_device", "static", "plausible_low", "plausible_high"}
)
"""Two sites may compute one map otherwise, add different noise to it, or say less of what is static and plausible."""

_LEAVE_CHANNELS: Final = frozenset({"subjects", "imputation", "scaling", "missingness", "lengths", "identity"})


def leaves_channels(transforms: Sequence[Json]) -> bool:
    """Whether a channel still is the variable that the scaling calls so: no encoding came after it."""
    return {str(step["kind"]) for step in transforms} <= _LEAVE_CHANNELS


def is_prepared(transforms: Sequence[Json]) -> bool:
    """Whether a scaling is recorded and no encoding came after it."""
    return leaves_channels(transforms) and any(step["kind"] == "scaling" for step in transforms)


def require_same_space(
    ours: Sequence[Json], theirs: Sequence[Json], our_channels: Sequence[str], their_channels: Sequence[str]
) -> None:
    """Both sets have the same channels and went through the same transforms under the same key.

    Raises:
        DataError: they did not; the sentence names the first difference, for keys both fingerprints.
    """
    first, second = _space(ours), _space(theirs)
    kinds, other_kinds = ([str(step["kind"]) for step in steps] for steps in (first, second))
    if kinds != other_kinds:
        raise DataError(
            f"these sets cannot be mixed: one was made by {_told(kinds)}, the other by {_told(other_kinds)}"
        )
    for here, there in zip(first, second, strict=True):
        name = here["kind"]
        keys = here.get("key_fingerprint"), there.get("key_fingerprint")
        if keys[0] != keys[1]:
            raise DataError(
                f"these sets cannot be mixed: they were encoded ({name}) under different keys, {keys[0]} and {keys[1]}"
            )
        different = sorted(fact for fact in here.keys() | there.keys() if here.get(fact) != there.get(fact))
        if different:
            raise DataError(f"these sets cannot be mixed: their {name} transforms differ in {', '.join(different)}")
    if list(our_channels) != list(their_channels):
        raise DataError(
            f"these sets cannot be mixed: they have {len(our_channels)} and {len(their_channels)} channels, "
            "or other channels, or another order"
        )


def _space(transforms: Sequence[Json]) -> list[dict[str, Any]]:
    """The transforms that define the space, as plain data: a manifest read back holds lists where we have tuples."""
    return [
        {fact: _plain(value) for fact, value in step.items() if fact not in LOCAL_FACTS}
        for step in transforms
        if step["kind"] not in LOCAL_KINDS
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def _told(kinds: Sequence[str]) -> str:
    return ", ".join(kinds) or "no transform"
