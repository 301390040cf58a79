"""Several institutions' bundles of rows -> one training set that says which row came from whom.

Only what was asked and measured alike is put together: same channels in the same units and order, same grid, same
transforms under the same key, same label definitions. Nothing would crash otherwise: the arrays may have one shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float32, Int16

from pipeline.core.errors import DataError, UsageError
from pipeline.core.transforms import require_same_space
from pipeline.core.types import ArrayRecord
from pipeline.sharing.canonical import folded
from pipeline.sharing.layout import SHIFT, TEACHER, payload_name
from pipeline.sharing.receive.received import Received

SUM: Final = "the sum of all"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Pool(ArrayRecord):
    """Rows of several institutions in one space. `data` describes them as a bundle's manifest does."""

    features: Float32[np.ndarray, "sample step channel"]
    labels: Float32[np.ndarray, "sample task"]  # NaN = missing
    institution: Int16[np.ndarray, " sample"]  # index into `institutions`
    institutions: tuple[str, ...]
    data: Mapping[str, Any]
    sums_without: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # of added moments alone

    def __post_init__(self) -> None:
        samples, tasks = len(self.features), len(self.data["tasks"])
        if self.features.ndim != 3 or self.features.shape[2] != len(self.data["channels"]):
            raise DataError("a pool's features are (sample, step, channel), with as many channels as it names")
        if self.labels.shape != (samples, tasks) or self.institution.shape != (samples,):
            raise DataError("a pool has a label per task and an institution for every sample")
        if samples and not 0 <= int(self.institution.min()) <= int(self.institution.max()) < len(self.institutions):
            raise DataError("a pool's rows name institutions that it does not list")

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(self.data["channels"])

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task["name"] for task in self.data["tasks"])

    def without_each(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(institution, features, labels) of the pool without it, for each of several institutions."""
        for institution, (features, labels) in self.sums_without.items():
            yield institution, features, labels
        for place, institution in enumerate(self.institutions if len(self.institutions) > 1 else ()):
            rows = np.flatnonzero(self.institution != place)
            yield institution, self.features[rows], self.labels[rows]


def pool_rows(received: Sequence[Received]) -> Pool:
    """The rows of condensed sets, or of encoded cohorts, one bundle after the other.

    Raises:
        UsageError: no bundle, bundles of different kinds, or two of one site.
        DataError: they do not belong together; the sentence names the first difference and the sites.
    """
    require_poolable(received)
    described = {**received[0].manifest["data"], "arrays": {}}
    counts = [len(one.features) for one in received]
    features = np.concatenate([one.features for one in received])
    labels = np.concatenate([one.labels for one in received])
    return Pool(
        features=features,
        labels=labels,
        institution=np.repeat(np.arange(len(received), dtype=np.int16), counts),
        institutions=tuple(str(one.manifest["site"]) for one in received),
        data={
            **described,
            "arrays": {
                "features": {"dtype": "float32", "shape": list(features.shape)},
                "labels": {"dtype": "float32", "shape": list(labels.shape)},
            },
        },
    )


def pooled_beside(received: Sequence[Received]) -> tuple[dict[str, np.ndarray], str]:
    """What stands beside pooled rows, and how it was made, in words.

    `label_shift`: the mean of the bundles', weighted by their rows, as a model of all rows learns it. `teacher`: the
    mean of the teachers' numbers, each site's alike, so the mean of their log odds: nobody publishes how many patients
    a site has. Neither where a bundle has none, or where teachers weigh other features.
    """
    shifts = [one.label_shift for one in received if one.label_shift is not None]
    teachers = [one.teacher for one in received if one.teacher is not None]
    descriptions = [one.manifest["data"].get(TEACHER) for one in received]
    found: dict[str, np.ndarray] = {}
    if len(shifts) == len(received):
        found[SHIFT] = np.average(np.stack(shifts), axis=0, weights=[len(one.features) for one in received])
    if len(teachers) < len(received):
        return found, "none: a bundle came without one"
    if any(description != descriptions[0] for description in descriptions):
        return found, "none: the sites' teachers weigh other features"
    found[TEACHER] = np.stack(teachers).mean(axis=0)
    return found, f"the mean of {len(teachers)} sites' log odds, each alike"


def require_poolable(received: Sequence[Received]) -> None:
    """Every bundle fits the first one, and no site is there twice.

    Raises:
        UsageError, DataError: as `pool_rows`.
    """
    if not received:
        raise UsageError("there is no bundle to pool")
    require_disjoint(received)
    first = received[0]
    for other in received[1:]:
        here, there = str(first.manifest["site"]), str(other.manifest["site"])
        kinds = [one.manifest["release"]["kind"] for one in (first, other)]
        if kinds[0] != kinds[1]:
            raise UsageError(f"{here} released {kinds[0]} data and {there} {kinds[1]}: pool bundles of one kind")
        difference = first_difference(first.manifest["data"], other.manifest["data"])
        if difference:
            raise DataError(f"{here} and {there} cannot be pooled: {difference}")


def require_disjoint(received: Sequence[Received]) -> None:
    """Two releases of one site are about the same patients: their epsilons add up, and nobody is counted twice.

    Raises:
        UsageError: a site or a payload is there twice.
    """
    sites = [folded(one.manifest["site"]) for one in received]
    payloads = [one.manifest["files"][payload_name(one.manifest)]["sha256"] for one in received]
    for number, site in enumerate(sites):
        if site in sites[:number] or payloads[number] in payloads[:number]:
            twice = received[number].manifest["site"]
            raise UsageError(
                f"{twice} is there twice, and two releases of one site are about the same patients: "
                "give one bundle of each site"
            )


def first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What two manifests' `data` disagree on first: grid, channels, units, labels, transforms or key; empty if nothing.

    Channels and tasks count with their order, a task with its definition.
    """
    if (ours["n_steps"], ours["step_hours"]) != (theirs["n_steps"], theirs["step_hours"]):
        return (
            f"one has {ours['n_steps']} steps of {ours['step_hours']:g} h, the other {theirs['n_steps']} of "
            f"{theirs['step_hours']:g} h"
        )
    for place, (here, there) in enumerate(_padded(ours["channels"], theirs["channels"])):
        if here != there:
            return f"channel {place + 1} is {here} in one and {there} in the other"
    units, other_units = _units(ours), _units(theirs)
    for channel in units:
        if units[channel] != other_units.get(channel, units[channel]):
            return f"{channel} is in {units[channel]} in one and in {other_units[channel]} in the other"
    for here, there in _padded(ours["tasks"], theirs["tasks"]):
        if here != there:
            return _task_difference(here, there)
    try:
        require_same_space(ours["transforms"], theirs["transforms"], ours["channels"], theirs["channels"])
    except DataError as error:
        return str(error).removeprefix("these sets cannot be mixed: ")
    return ""


def _task_difference(here: Any, there: Any) -> str:
    if not isinstance(here, Mapping) or not isinstance(there, Mapping) or here["name"] != there["name"]:
        names = [task["name"] if isinstance(task, Mapping) else str(task) for task in (here, there)]
        return f"a task is {names[0]} in one and {names[1]} in the other"
    facts = sorted(fact for fact in here.keys() | there.keys() if here.get(fact) != there.get(fact))
    told = [f"{here.get(fact, 'nothing')!r} and {there.get(fact, 'nothing')!r}" for fact in facts[:1]]
    return f"the label {here['name']} is defined otherwise: its {facts[0]} is {told[0]}"


def _padded(ours: Sequence[Any], theirs: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Pairs by position; `nothing` where one list has ended."""
    longest = max(len(ours), len(theirs))
    return [
        (ours[i] if i < len(ours) else "nothing", theirs[i] if i < len(theirs) else "nothing") for i in range(longest)
    ]


def _units(data: Mapping[str, Any]) -> dict[str, str]:
    """Channel -> unit before it was scaled, as the scaling records it."""
    for step in data["transforms"]:
        if step.get("kind") == "scaling" and "units" in step:
            return dict(zip(step["channels"], step["units"], strict=True))
    return {}
