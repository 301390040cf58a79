"""Distribution matching with mean-only MMD on random networks [Cond].

[Cond] Wang, Thakur et al., *Medical records condensation*, arXiv 2305.03711, after Zhao and Bilen (WACV 2023): at every
iteration draw one architecture, initialise it at random, leave it in train mode and frozen, and take one Adam step on

    sum over classes of || mean f(real batch) - mean f(samples) ||^2.

f is the penultimate embedding in the paper's text and the final sigmoid output in its authors' code: both are here.
Samples are not clamped to the input range; the published method does not either. No privacy guarantee can be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, final

import numpy as np
import torch
from torch import Tensor

from condensation.coresets import class_centroids
from condensation.loop import LoopSettings, Loss, check_n_per_class, class_rows, optimise_samples
from pipeline.core.errors import ConfigError
from pipeline.core.noise import NoiseSource
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance
from pipeline.probes.networks import NETWORKS, build_network

METHOD: Final = "distribution_matching"


@final
class DistributionMatching:
    """The published method; `initialisation = "real"` and `"centroids"` start from records, and say so."""

    def __init__(
        self,
        *,
        match: Literal["output", "embedding"] = "embedding",
        initialisation: Literal["noise", "real", "centroids"] = "noise",
        iterations: int = 1000,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
        networks: Sequence[str] = ("tcn-a", "lstm-a", "vit-a"),
    ) -> None:
        """Raises ConfigError on an unknown choice or network."""
        if match not in ("output", "embedding") or initialisation not in ("noise", "real", "centroids"):
            raise ConfigError("distribution matching knows match output, embedding and starts noise, real, centroids")
        unknown = sorted(set(networks) - set(NETWORKS))
        if unknown or not networks:
            raise ConfigError(f"networks must be among {', '.join(sorted(NETWORKS))}")
        self.match: Literal["output", "embedding"] = match
        self.initialisation: Literal["noise", "real", "centroids"] = initialisation
        self.settings = LoopSettings(iterations, learning_rate, batch_size)
        self.networks = tuple(networks)

    def condense(
        self,
        encoded: EncodedCohort,
        *,
        n_per_class: int,
        seed: int,
        noise: NoiseSource,
        device: str = "cpu",
        on_step: OnStep = ignore_step,
    ) -> CondensedSet:
        """2 * n_per_class samples, half of each class; labels stay as `initial_samples` set them; `noise` is not used.

        Raises:
            ConfigError: n_per_class below 1. DataError: a class has no stay, or fewer than real samples need.
        """
        check_n_per_class(n_per_class)
        at_least = 1 if self.initialisation == "noise" else n_per_class
        rows = class_rows(encoded, at_least, f"distribution matching from {self.initialisation}")
        initial, labels = initial_samples(encoded, rows, self.initialisation, n_per_class, seed)
        loss = random_network_loss(encoded, self.networks, self.match, seed, device)
        features = optimise_samples(
            encoded, rows, initial, loss, self.settings, seed=seed, device=device, on_step=on_step
        )
        return CondensedSet(
            features=features,
            labels=labels,
            channels=encoded.channels,
            tasks=encoded.tasks,
            step_hours=encoded.step_hours,
            transforms=encoded.transforms,
            method=METHOD,
            starts_from_records=self.initialisation != "noise",
            guarantee=None,
            provenance=Provenance("condense", config=self._config(n_per_class), seed=seed),
        )

    def _config(self, n_per_class: int) -> dict[str, object]:
        return {
            "match": self.match,
            "initialisation": self.initialisation,
            "iterations": self.settings.iterations,
            "learning_rate": self.settings.learning_rate,
            "batch_size": self.settings.batch_size,
            "networks": list(self.networks),
            "n_per_class": n_per_class,
        }


def initial_samples(
    encoded: EncodedCohort, rows: Sequence[np.ndarray], kind: str, n_per_class: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features `(class * sample, step, channel)` and labels `(class * sample, task)` to start from.

    N(0, 1) noise, random real stays, or k-means centroids per class. Task 0 is the class; the other tasks keep what the
    start knows of them: a stay's label, a cluster's mean label, nothing (NaN) from noise.
    """
    if kind == "noise":
        shape = (len(rows) * n_per_class, *encoded.features.shape[1:])
        features = generator(seed, "condense", "initial").normal(size=shape).astype(np.float32)
        labels = np.full((len(features), len(encoded.tasks)), np.nan, dtype=np.float32)
        labels[:, 0] = np.repeat(np.arange(len(rows)), n_per_class)
        return features, labels
    if kind == "centroids":
        return class_centroids(encoded, rows, n_per_class, seed)
    draws = generator(seed, "condense", "initial")
    chosen = np.concatenate([draws.choice(part, n_per_class, replace=False) for part in rows])
    return encoded.features[chosen], encoded.labels[chosen]


def random_network_loss(
    encoded: EncodedCohort, networks: Sequence[str], match: Literal["output", "embedding"], seed: int, device: str
) -> Loss:
    """The loss of [Cond]: a fresh random network at every step; only the samples get gradients."""
    names = generator(seed, "condense", "architectures")
    n_steps, n_channels = encoded.features.shape[1:]

    def loss(step: int, real: Sequence[Tensor], samples: Sequence[Tensor]) -> Tensor:
        name = networks[int(names.integers(len(networks)))]
        network = build_network(
            name,
            n_channels=n_channels,
            n_steps=n_steps,
            n_tasks=1,
            seed=child_seed(seed, "condense", "network", step),
        ).to(device)
        network.train().requires_grad_(False)

        def f(batch: Tensor) -> Tensor:
            return network.embed(batch) if match == "embedding" else torch.sigmoid(network(batch))

        devices = [torch.device(device)] if device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices):  # dropout of the networks in train mode
            torch.default_generator.manual_seed(child_seed(seed, "condense", "dropout", step))
            if devices:
                torch.cuda.manual_seed(child_seed(seed, "condense", "dropout", step))
            terms = []
            for batch, part in zip(real, samples, strict=True):
                with torch.no_grad():
                    target = f(batch).mean(dim=0)
                terms.append((target - f(part).mean(dim=0)).square().sum())
        return torch.stack(terms).sum()

    return loss
