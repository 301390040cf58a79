"""What the choice of groups asks to be trained, and who trains it: this process, or others that are handed the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np

from pipeline.core.threads import single_threaded
from pipeline.grouping.batched_trainer import Trained, train_groups


@final
@dataclass(frozen=True, eq=False, repr=False)
class Training:
    """Groups and seeds to train, and the rows of stays that train, stop and score: as `train_groups` takes them."""

    train: np.ndarray
    stopping: np.ndarray
    scored: np.ndarray
    groups: np.ndarray  # (group, task) bool
    seeds: tuple[int, ...]
    swap: bool = False


class Trainer(Protocol):
    """Trains what is asked for and gives it out in that order; none depends on another."""

    def __call__(
        self, inputs: np.ndarray, labels: np.ndarray, asked: Sequence[Training], *, device: str
    ) -> Iterator[Trained]:
        """`inputs` (stay, feature) and `labels` (stay, task) of the stays whose rows are named."""
        ...


def train_here(inputs: np.ndarray, labels: np.ndarray, asked: Sequence[Training], *, device: str) -> Iterator[Trained]:
    """In this process, one after the other."""
    for one in asked:
        yield trained(inputs, labels, one, device=device)


@single_threaded
def trained(inputs: np.ndarray, labels: np.ndarray, one: Training, *, device: str) -> Trained:
    """One of them, on one thread: the choice of groups must not depend on who trained them.

    Raises:
        DataError: as `train_groups`.
    """
    return train_groups(
        inputs,
        labels,
        train=one.train,
        stopping=one.stopping,
        scored=one.scored,
        groups=one.groups,
        seeds=one.seeds,
        device=device,
        swap=one.swap,
    )
