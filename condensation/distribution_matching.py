"""Distribution matching with mean-only MMD on random networks [Cond].

[Cond] Wang, Thakur et al., *Medical records condensation*, arXiv 2305.03711, after Zhao and Bilen (WACV 2023): at every
iteration draw one architecture, initialise it at random, leave it in train mode and frozen, and take one Adam step on

    sum over classes of || mean f(real batch) - mean f(samples) ||^2.

f is the penultimate embedding in the paper's text and the final sigmoid output in its authors' code: both are here.
The published form standardises every channel by the training part, starts from N(0, 1) and steps there (`scale = "z"`):
from N(0, 1) in series scaled by public ranges, noise has several of the data's standard deviations, steps of the
published rate are as many times too long, and what samples of a class have in common drowns. Samples are not clamped to
the input range; the published method does not either. Unlike there, statics keep one value per sample. No privacy
guarantee can be given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from condensation.loop import LoopSettings, Loss, Samples, class_batches
from condensation.standard import Standard, standard_of
from condensation.start import condense_with
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.base import BESIDE
from pipeline.core.options.condensers import DistributionMatchingOptions
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.probes.networks import build_network, check_networks

METHOD: Final = "distribution_matching"


@final
@dataclass(frozen=True, kw_only=True)
class DistributionMatching(DistributionMatchingOptions):
    """The published method, `PUBLISHED_FORM` in its authors' settings; records as a start are told."""

    checkpoint: str | Path | None = field(default=None, metadata=BESIDE)

    def __post_init__(self) -> None:
        """Raises ConfigError on an unknown choice or network."""
        super().__post_init__()
        check_networks(self.networks)

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
        standard = standard_of(encoded) if self.scale == "z" else None

        def make_loss(rows: Sequence[np.ndarray]) -> Loss:
            batches = class_batches(encoded, rows, self.batch_size, seed, device)
            shape = encoded.features.shape[1:]
            return random_network_loss(batches, shape, self.networks, self.match, seed, device, standard)

        return condense_with(
            encoded,
            make_loss,
            method=METHOD,
            start=self.initialisation,
            settings=LoopSettings(self.iterations, self.learning_rate, anneal=self.anneal, checkpoint=self.checkpoint),
            config=self.told(),
            n_per_class=n_per_class,
            seed=seed,
            device=device,
            on_step=on_step,
            standard=standard,
        )


PUBLISHED_FORM: Final = DistributionMatching(
    match="output",
    initialisation="noise",
    iterations=24_000,
    networks=("published-tcn-a", "published-lstm-a", "published-vit-a"),
)
"""What the authors' notebook runs, but that statics keep one value per sample."""


def random_network_loss(
    batches: Callable[[int], Sequence[Tensor]],
    shape: tuple[int, ...],
    networks: Sequence[str],
    match: Literal["output", "embedding"],
    seed: int,
    device: str,
    standard: Standard | None = None,
) -> Loss:
    """The loss of [Cond] on series of `shape` (step, channel): a fresh random network at every step.

    With `standard`, networks see batches and samples in z.
    """
    n_steps, n_channels = shape
    z = standard.z_on(device) if standard is not None else None

    def loss(step: int, samples: Samples) -> Tensor:
        name = networks[int(generator(seed, "condense", "architecture", step).integers(len(networks)))]
        network = build_network(
            name,
            n_channels=n_channels,
            n_steps=n_steps,
            n_tasks=1,
            seed=child_seed(seed, "condense", "network", step),
        ).to(device)
        network.train().requires_grad_(False)

        at_once = not any(isinstance(module, _BatchNorm) for module in network.modules())

        def class_means(series: Sequence[Tensor]) -> Tensor:
            """`(class, value)`; both classes in one batch, unless the network would take its statistics over both."""
            batches = [torch.cat(list(series))] if at_once else series
            batches = batches if z is None else [z(batch) for batch in batches]
            values = [network.embed(one) if match == "embedding" else torch.sigmoid(network(one)) for one in batches]
            parts = torch.split(torch.cat(values), [len(one) for one in series])
            return torch.stack([part.mean(dim=0) for part in parts])

        devices = [torch.device(device)] if device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices):  # dropout of the networks in train mode
            torch.default_generator.manual_seed(child_seed(seed, "condense", "dropout", step))
            if devices:
                torch.cuda.manual_seed(child_seed(seed, "condense", "dropout", step))
            with torch.no_grad():
                targets = class_means(batches(step))
            return (targets - class_means(samples.per_class())).square().sum()

    return loss
