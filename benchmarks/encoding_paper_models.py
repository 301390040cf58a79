"""The models of `encoding_paper.py`: networks with their epoch chosen on tuning stays, classical receivers, probes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.core.seeds import child_seed
from pipeline.probes.classical import fit_predict_boosting
from pipeline.probes.networks import SeriesNetwork, build_network
from pipeline.probes.training import BATCH_SIZE, LEARNING_RATE, masked_loss, predict

NETWORKS: Final[Mapping[str, str]] = {"TCN": "tcn", "transformer": "transformer", "LSTM-256": "lstm-a", "ViT": "vit-a"}
"""The paper's four, and which of `pipeline.probes.networks` stands for each (cheap first)."""
CLASSICAL: Final = ("logistic regression", "boosting")
MAX_EPOCHS: Final = 30
PATIENCE: Final = 4
LOGISTIC_C: Final = 0.01
PROBE_RIDGE: Final = 0.02
"""Ridge of the linear probe, as a share of the number of training stays; features have deviation 1."""


@dataclass(frozen=True)
class Selected:
    """How a training went: epochs count from 1."""

    epoch: int
    epochs_run: int
    tuning_auroc: float


@dataclass(frozen=True, eq=False, repr=False)
class Parts:
    """Features and labels `(stay,)`, 0 or 1, to train on and to choose the epoch on."""

    train: tuple[np.ndarray, np.ndarray]
    tuning: tuple[np.ndarray, np.ndarray]


def fresh_network(name: str, shape: tuple[int, ...], seed: int) -> SeriesNetwork:
    """One of the four, untrained, in eval mode; `shape` is the input's."""
    network = build_network(
        NETWORKS[name], n_channels=shape[2], n_steps=shape[1], n_tasks=1, seed=child_seed(seed, name)
    )
    return network.eval()


def train_selected(
    network: SeriesNetwork, parts: Parts, seed: int, max_epochs: int = MAX_EPOCHS, patience: int = PATIENCE
) -> Selected:
    """The paper's protocol, selection on *real* tuning stays: the epoch of the best tuning AUROC is kept.

    Adam, binary cross-entropy, batch and rate of `pipeline.probes.training`; stops after `patience` epochs without a
    better one. The network is left in eval mode with the best epoch's weights.
    """
    x, y = torch.from_numpy(parts.train[0]), torch.from_numpy(parts.train[1].astype(np.float32))[:, None]
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(child_seed(seed, "order"))
    best, best_weights, epoch = Selected(0, 0, -1.0), copy.deepcopy(network.state_dict()), 0
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(child_seed(seed, "dropout"))
        for epoch in range(1, max_epochs + 1):
            network.train()
            for batch in torch.randperm(len(x), generator=order).split(BATCH_SIZE):
                loss = masked_loss(network(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
                optimizer.step()
            auroc = float(roc_auc_score(parts.tuning[1], predict(network, parts.tuning[0])[:, 0]))
            if auroc > best.tuning_auroc:
                best, best_weights = Selected(epoch, epoch, auroc), copy.deepcopy(network.state_dict())
            elif epoch - best.epoch >= patience:
                break
    network.load_state_dict(best_weights)
    network.eval()
    return Selected(best.epoch, epoch, best.tuning_auroc)


@torch.no_grad()
def embedding(network: SeriesNetwork, features: np.ndarray) -> np.ndarray:
    """The penultimate layer in eval mode, `(stay, width)`."""
    parts = [network.embed(torch.from_numpy(features[i : i + 512])) for i in range(0, len(features), 512)]
    return torch.cat(parts).numpy()


def classical_scores(model: str, train: np.ndarray, labels: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities of a classical model on summaries."""
    if model == "boosting":
        return fit_predict_boosting(train, labels[:, None], test, seed)[:, 0]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=LOGISTIC_C, max_iter=1000)).fit(train, labels)
    return np.asarray(model.predict_proba(test)[:, 1])


def probe_auroc(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """AUROC of a linear probe (ridge regression on the label); missing labels (NaN) are left out."""
    known, test_known = np.isfinite(train_labels), np.isfinite(test_labels)
    model = make_pipeline(StandardScaler(), Ridge(PROBE_RIDGE * int(known.sum())))
    model.fit(train[known], train_labels[known])
    return float(roc_auc_score(test_labels[test_known], model.predict(test[test_known])))


def quality(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """AUROC and area under the precision-recall curve."""
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "auprc": float(average_precision_score(labels, scores)),
    }
