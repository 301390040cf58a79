"""Train and apply one small network with masked and soft labels, for a fixed length or to the best of its epochs.

Protocol of [Cond] (Wang, Thakur et al., arXiv 2305.03711): Adam, binary cross-entropy, batch 64, rate 5e-4, 30 epochs,
of which the one with the best AUROC on *real* tuning stays counts (`train_selected`). A receiver has no such stays, so
the evaluator used everywhere else fixes the length beforehand (`train_network`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from sklearn.metrics import roc_auc_score
from torch import Tensor

from pipeline.core.errors import DataError
from pipeline.core.files.mapped import file_of
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed
from pipeline.probes.networks import SeriesNetwork
from pipeline.probes.precision import arithmetic

BATCH_SIZE = 64
LEARNING_RATE = 5e-4
MIN_STEPS = 90
"""Optimizer steps that even the smallest set gets (30 epochs of 80 samples would be 60). More overfit so small a set:
on the tuning stays of PhysioNet 2012, trained on 80 centroids or 80 random stays, the AUROC of TCN, LSTM and GRU peaks
between 60 and 120 steps and is .02 to .05 lower at 300."""
MAX_STEPS = 400
"""Optimizer steps after which a large set stops (5 epochs of 5,120 stays): a public constant that bounds the time."""
PREDICT_BATCH = 128  # of which the activations stay in the cache: a third less time than 512


def training_steps(n_samples: int, epochs: int) -> int:
    """The length of a training in optimizer steps: `epochs` full passes, at least `MIN_STEPS`, at most `MAX_STEPS`."""
    return min(max(epochs * math.ceil(n_samples / BATCH_SIZE), MIN_STEPS), MAX_STEPS)


@arithmetic("float32")
def train_network(
    network: SeriesNetwork,
    features: Float32[np.ndarray, "sample step channel"],
    labels: Float32[np.ndarray, "sample task"],
    *,
    epochs: int,
    seed: int,
    device: str = "cpu",
    on_step: OnStep = ignore_step,
) -> None:
    """Train `network` in place for `training_steps(...)` steps; it is left in eval mode on `device`.

    Labels may be soft (in [0, 1]); NaN = missing and takes no part in the loss. Shuffles and dropout come from `seed`;
    the CPU's global generator is left as it was.

    Raises:
        DataError: no sample, shapes that do not meet, or no known label at all.
    """
    steps = training_steps(len(features), epochs)
    with closing(_trained(network, features, labels, steps, seed, device)) as training:
        for done, loss, _ in training:
            on_step(done, steps, float(loss))
    network.eval()


@arithmetic("float32")
def train_selected(
    network: SeriesNetwork,
    features: Float32[np.ndarray, "sample step channel"],
    labels: Float32[np.ndarray, "sample task"],
    tuning: tuple[Float32[np.ndarray, "stay step channel"], Float32[np.ndarray, "stay task"]],
    *,
    epochs: int,
    seed: int,
    device: str = "cpu",
    on_step: OnStep = ignore_step,
) -> int:
    """The evaluator of [Cond]: `epochs` full passes, and the weights after the one that is best on *real* stays.

    Best is the first epoch of the largest AUROC on `tuning` (series and labels), the mean over the tasks that have both
    classes there. What it measures is out of reach for a receiver without real data.

    Returns:
        the epoch chosen, from 1; its weights are in `network`, in eval mode on `device`.

    Raises:
        DataError: as `train_network`, or no task has both classes among the tuning stays.
    """
    steps = epochs * math.ceil(len(features) / BATCH_SIZE)
    best, chosen, weights, epoch = -math.inf, 0, network.state_dict(), 0
    with closing(_trained(network, features, labels, steps, seed, device)) as training:
        for done, loss, ended in training:
            on_step(done, steps, float(loss))
            if ended:
                epoch += 1
                score = _mean_auroc(predict(network, tuning[0], device=device), tuning[1])
                network.train()
                if score > best:
                    best, chosen = score, epoch
                    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    network.load_state_dict(weights)
    network.eval()
    return chosen


def _trained(
    network: SeriesNetwork, features: np.ndarray, labels: np.ndarray, steps: int, seed: int, device: str
) -> Generator[tuple[int, Tensor, bool], None, None]:
    """Train in place; (steps done, loss, whether a pass over all samples is over) after every step.

    While it pauses, the global generators are the training's own: close it to have them back.
    """
    _check(features, labels)
    rows_of = rows_on(features, device)
    y = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.float32)).to(device)
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(child_seed(seed, "order"))
    devices = [torch.device(device)] if device.startswith("cuda") else []
    done = 0
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(child_seed(seed, "dropout"))
        if devices:
            torch.cuda.manual_seed(child_seed(seed, "dropout"))
        while done < steps:
            shuffled = torch.randperm(len(y), generator=order)
            for start in range(0, len(y), BATCH_SIZE)[: steps - done]:
                batch = shuffled[start : start + BATCH_SIZE]
                loss = masked_loss(network(rows_of(batch)), y[batch.to(device)])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
                optimizer.step()
                done += 1
                yield done, loss.detach(), start + BATCH_SIZE >= len(y)


def _mean_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Over the tasks that have both classes."""
    found = []
    for task in range(labels.shape[1]):
        known = np.isfinite(labels[:, task])
        if np.array_equal(np.unique(labels[known, task]), [0.0, 1.0]):
            found.append(float(roc_auc_score(labels[known, task], scores[known, task])))
    if not found:
        raise DataError("to choose an epoch, some task needs both classes among the tuning stays")
    return sum(found) / len(found)


def rows_on(features: np.ndarray, device: str) -> Callable[[Tensor], Tensor]:
    """Row numbers -> those rows on `device`: all rows are brought there once, unless they lie in a file."""
    if file_of(features) is not None:
        return lambda rows: torch.from_numpy(features[rows.numpy()].astype(np.float32, copy=False)).to(device)
    held = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(device)
    return lambda rows: held[rows.to(device)]


def masked_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy over the known labels of a batch, `(batch, task)` both; 0 when none is known."""
    known = torch.isfinite(labels)
    target = torch.where(known, labels, torch.zeros_like(labels))
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


@torch.no_grad()
@arithmetic("float32")
def predict(
    network: SeriesNetwork, features: Float32[np.ndarray, "stay step channel"], *, device: str = "cpu"
) -> Float32[np.ndarray, "stay task"]:
    """Probabilities of the network in eval mode, in batches."""
    network.to(device).eval()
    parts = [
        torch.sigmoid(
            network(torch.from_numpy(np.require(features[i : i + PREDICT_BATCH], None, ["C", "W"])).to(device))
        )
        for i in range(0, len(features), PREDICT_BATCH)
    ]
    return torch.cat(parts).cpu().numpy() if parts else np.empty((0, network.head.out_features), np.float32)


def _check(features: np.ndarray, labels: np.ndarray) -> None:
    if len(features) == 0 or features.ndim != 3 or labels.ndim != 2 or len(features) != len(labels):
        raise DataError(
            f"training needs (sample, step, channel) features and (sample, task) labels, got {features.shape} and "
            f"{labels.shape}"
        )
    if not bool(np.isfinite(labels).any()):
        raise DataError("training needs at least one known label")
