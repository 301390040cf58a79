"""Private moments of several institutions, added: condensed as if the patients had been pooled, and no record moves.

Every site adds its own noise before anything leaves, so nobody has to trust the one who adds. The price is the noise of
every site in the sum: sqrt(number of sites) times that of one release over all patients. The guarantee of a patient is
that of their own site; it needs sites with disjoint patients, which cannot be seen from here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

from pipeline.core.errors import DataError
from pipeline.core.transforms import require_same_space
from pipeline.core.types import Json, Moments, PrivacyGuarantee, Provenance

DISJOINT: Final = "the institutions' subjects are disjoint; for a subject in several, epsilons and deltas add up"


def pooled(sites: Sequence[Moments]) -> Moments:
    """The sum of the sites' moments; the guarantee's one event lists each site's epsilon, delta and events.

    Raises:
        DataError: no moments, or as `add_moments`.
    """
    if not sites:
        raise DataError("there are no moments to add")
    total = sites[0]
    for other in sites[1:]:
        total = add_moments(total, other)
    return total


def add_moments(first: Moments, second: Moments) -> Moments:
    """The moments of two institutions with disjoint patients, as if pooled; every patient keeps their site's epsilon.

    Raises:
        DataError: they differ in channels, transforms, tasks, grid, feature map, clip norm or unit, or one carries no
            guarantee. Patients in both sites cannot be seen from here; for them the two epsilons add up.
    """
    ours, theirs = _guarantees(first, second)
    _require_same_map(first, second)
    if ours.unit != theirs.unit:
        raise DataError(f"these moments cannot be added: one guarantee is per {ours.unit}, the other per {theirs.unit}")
    if first.feature_map_digest != second.feature_map_digest:
        raise DataError("these moments cannot be added: what was done to the records before differs between the sites")
    guarantee = dataclasses.replace(
        ours,
        epsilon=max(ours.epsilon, theirs.epsilon),
        delta=max(ours.delta, theirs.delta),
        events=({"event": "parallel", "sites": [*_sites(ours), *_sites(theirs)]},),
        assumed_public=tuple(dict.fromkeys((*ours.assumed_public, *theirs.assumed_public, DISJOINT))),
    )
    return dataclasses.replace(
        first,
        gram=first.gram + second.gram,
        signed_sums=first.signed_sums + second.signed_sums,
        signed_counts=first.signed_counts + second.signed_counts,
        guarantee=guarantee,
        provenance=Provenance("add_moments"),
    )


def noise_scale(guarantee: PrivacyGuarantee | None) -> float:
    """Standard deviation of the noise on the standardised gram; independent noises of pooled sites add in square.

    Raises:
        DataError: the guarantee does not tell.
    """
    try:
        variance = sum(_gram_variance(event) for event in guarantee.events) if guarantee else 0.0
    except (KeyError, TypeError):
        variance = 0.0
    if not variance > 0:
        raise DataError("the moments carry no guarantee that says how large their noise is")
    return math.sqrt(variance)


def _guarantees(first: Moments, second: Moments) -> tuple[PrivacyGuarantee, PrivacyGuarantee]:
    if first.guarantee is None or second.guarantee is None:
        raise DataError("moments add up only when both carry a guarantee")
    return first.guarantee, second.guarantee


def _require_same_map(first: Moments, second: Moments) -> None:
    """One space, one grid, the same tasks, one feature map with one clip norm; the sentence names what differs."""
    require_same_space(first.transforms, second.transforms, first.channels, second.channels)
    tasks, others = ([task.name for task in moments.tasks] for moments in (first, second))
    if tasks != others:
        raise DataError(
            f"these moments cannot be added: one has the tasks {', '.join(tasks)}, the other {', '.join(others)}"
        )
    told = [[(task.kind, task.low, task.high, task.unit) for task in moments.tasks] for moments in (first, second)]
    if told[0] != told[1]:
        name = next(name for name, one, other in zip(tasks, *told, strict=True) if one != other)
        raise DataError(f"these moments cannot be added: the sites define the task {name} on different scales")
    if (first.n_steps, first.step_hours) != (second.n_steps, second.step_hours):
        raise DataError(
            f"these moments cannot be added: one has {first.n_steps} steps of {first.step_hours:g} h, "
            f"the other {second.n_steps} of {second.step_hours:g} h"
        )
    ours, theirs = _plain(first.feature_map), _plain(second.feature_map)
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if different:
        raise DataError(f"these moments cannot be added: their feature maps differ in {', '.join(different)}")


def _plain(described: Json) -> dict[str, Any]:
    """A manifest read back holds lists where we have tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in described.items()}


def _sites(guarantee: PrivacyGuarantee) -> list[Json]:
    """One entry a site, however the sum was put together."""
    if len(guarantee.events) == 1 and guarantee.events[0].get("event") == "parallel":
        return list(guarantee.events[0]["sites"])
    return [{"epsilon": guarantee.epsilon, "delta": guarantee.delta, "events": list(guarantee.events)}]


def _gram_variance(event: Json) -> float:
    if event["event"] == "parallel":
        return sum(_gram_variance(part) for site in event["sites"] for part in site["events"])
    return float(event["noise_scale"]) ** 2 if event["query"] == "moments" else 0.0
