"""The model that a receiver would train on a set, as the audit may call it."""

from __future__ import annotations

import numpy as np

from flows.compute.devices import device
from pipeline.audit.scene import Receiver
from pipeline.core.config import UtilityConfig
from pipeline.probes.networks import NETWORKS
from pipeline.probes.panel import fit_predict


def receivers_choice(table: UtilityConfig) -> str:
    """The first network of [utility] models, because networks remember most; the first model where none is one."""
    return next((name for name in table.models if name in NETWORKS), table.models[0])


def receivers_model(table: UtilityConfig, wanted: str) -> Receiver:
    """Trains as the utility stage does, at the length that it uses; `wanted`: the configuration's device."""
    model, where = receivers_choice(table), device(wanted)

    def trained(series: np.ndarray, labels: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
        return fit_predict(model, series, labels, asked, epochs=table.epochs, seed=seed, device=where)

    return trained
