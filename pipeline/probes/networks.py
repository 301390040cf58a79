"""Small series networks: our own, the short names people ask for, and the eleven of [Cond] as published.

[Cond] Wang, Thakur et al., arXiv 2305.03711, trains TCNs, LSTMs, RNNs, vision transformers and transformers. The names
`published-*` are these in their authors' architecture (`pipeline.probes.published`). Our own (`tcn-a` to `trsf-b`) have
the sizes of the same eleven (kernels, widths, depths, heads) and are other networks: causal convolutions without batch
norm and dropout, the last step in every readout of a convolution, embedded patches with positions in a transformer. The
recurrent ones are the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.core.errors import ConfigError
from pipeline.probes.attention import AttentionBlock, Dropout
from pipeline.probes.published import PUBLISHED, Trunk

TOKEN_WIDTH = 64
PATCH_STEPS = 4  # steps in a token of our vision transformers


@final
class SeriesNetwork(nn.Module):
    """A trunk `(batch, step, channel) -> (batch, width)` and one linear head per task.

    Dropout (transformers' and published convolutions') draws from torch's global generator in train mode: fork and seed
    around it. Batch norm of the latter keeps running statistics in train mode.
    """

    def __init__(self, trunk: nn.Module, width: int, n_tasks: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.width = width
        self.head = nn.Linear(width, n_tasks)

    def embed(self, x: Tensor) -> Tensor:
        """The penultimate layer: `(batch, step, channel)` -> `(batch, width)`."""
        return cast(Tensor, self.trunk(x))

    def forward(self, x: Tensor) -> Tensor:
        """Logits: `(batch, step, channel)` -> `(batch, task)`."""
        return cast(Tensor, self.head(self.embed(x)))


@final
class _CausalBlock(nn.Module):
    """Two dilated causal convolutions with a residual path (Bai et al., arXiv 1803.01271), `(batch, channel, step)`."""

    def __init__(self, n_in: int, n_out: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.padding = (kernel - 1) * dilation
        self.first = nn.Conv1d(n_in, n_out, kernel, dilation=dilation)
        self.second = nn.Conv1d(n_out, n_out, kernel, dilation=dilation)
        self.skip = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(F.pad(x, (self.padding, 0))))
        hidden = F.relu(self.second(F.pad(hidden, (self.padding, 0))))
        return F.relu(hidden + self.skip(x))


@final
class _TemporalConvolutions(nn.Module):
    """One stack of causal blocks per kernel size; readout: last step and mean over steps of every stack, side by side.

    The last step alone sees 1 + 2 (kernel - 1) (2^layers - 1) steps; the mean lets a short stack see the whole series.
    """

    def __init__(self, n_channels: int, kernels: tuple[int, ...], channels: int, layers: int) -> None:
        super().__init__()
        self.stacks = nn.ModuleList(
            nn.Sequential(
                *(_CausalBlock(n_channels if i == 0 else channels, channels, kernel, 2**i) for i in range(layers))
            )
            for kernel in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        series = x.transpose(1, 2)
        outputs = [stack(series) for stack in self.stacks]
        return torch.cat([part for y in outputs for part in (y[:, :, -1], y.mean(dim=2))], dim=1)


@final
class _Recurrent(nn.Module):
    """One recurrent layer; readout: the last step's hidden state."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layer(x)[0][:, -1])


@final
class _Transformer(nn.Module):
    """Tokens of `patch` steps, sinusoidal positions, attention blocks, mean over tokens, then an MLP of 128 and 64."""

    positions: Tensor

    def __init__(
        self, n_channels: int, n_steps: int, *, patch: int, depth: int, heads: int, head_width: int, dropout: float
    ) -> None:
        super().__init__()
        self.patch = min(patch, n_steps)
        tokens = math.ceil(n_steps / self.patch)
        self.embedding = nn.Linear(n_channels * self.patch, TOKEN_WIDTH)
        self.register_buffer("positions", _sinusoids(tokens, TOKEN_WIDTH), persistent=False)
        self.blocks = nn.Sequential(
            *(AttentionBlock(TOKEN_WIDTH, heads, head_width, 16, dropout) for _ in range(depth))
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(TOKEN_WIDTH),
            *(nn.Linear(TOKEN_WIDTH, 128), nn.GELU(), Dropout(dropout)),
            *(nn.Linear(128, 64), nn.GELU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, channels = x.shape
        x = F.pad(x, (0, 0, -steps % self.patch, 0))  # a short first patch is filled with zeros before it
        tokens = self.embedding(x.reshape(batch, -1, self.patch * channels)) + self.positions
        return cast(Tensor, self.mlp(self.blocks(tokens).mean(dim=1)))


def _sinusoids(n: int, width: int) -> Tensor:
    """Fixed position code of Vaswani et al. 2017, `(n, width)`."""
    angle = torch.arange(n)[:, None] * torch.exp(-math.log(1e4) * torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], dim=2).reshape(n, width)


def _tcn(n_channels: int, n_steps: int, *, kernels: tuple[int, ...], channels: int, layers: int = 2) -> Trunk:
    return _TemporalConvolutions(n_channels, kernels, channels, layers), 2 * channels * len(kernels)


def _recurrent(n_channels: int, n_steps: int, *, layer: type[nn.RNN | nn.LSTM | nn.GRU], hidden: int) -> Trunk:
    return _Recurrent(layer(n_channels, hidden, batch_first=True)), hidden


def _transformer(
    n_channels: int, n_steps: int, *, patch: int, depth: int, heads: int, head_width: int, dropout: float = 0.5
) -> Trunk:
    trunk = _Transformer(
        n_channels, n_steps, patch=patch, depth=depth, heads=heads, head_width=head_width, dropout=dropout
    )
    return trunk, 64


RECURRENT: Mapping[str, Callable[[int, int], Trunk]] = MappingProxyType(
    {
        "lstm-a": partial(_recurrent, layer=nn.LSTM, hidden=256),
        "lstm-b": partial(_recurrent, layer=nn.LSTM, hidden=128),
        "rnn-a": partial(_recurrent, layer=nn.RNN, hidden=256),
        "rnn-b": partial(_recurrent, layer=nn.RNN, hidden=128),
    }
)
NETWORKS: Mapping[str, Callable[[int, int], Trunk]] = MappingProxyType(
    {
        "tcn": partial(_tcn, kernels=(3,), channels=64, layers=3),
        "lstm": partial(_recurrent, layer=nn.LSTM, hidden=256),
        "gru": partial(_recurrent, layer=nn.GRU, hidden=128),
        "transformer": partial(_transformer, patch=1, depth=2, heads=4, head_width=16, dropout=0.1),
        "tcn-a": partial(_tcn, kernels=(3, 5, 7), channels=64),
        "tcn-b": partial(_tcn, kernels=(3,), channels=64),
        "tcn-g": partial(_tcn, kernels=(3, 5), channels=128),
        **RECURRENT,
        "vit-a": partial(_transformer, patch=PATCH_STEPS, depth=4, heads=16, head_width=64),
        "vit-b": partial(_transformer, patch=PATCH_STEPS, depth=4, heads=4, head_width=256),
        "trsf-a": partial(_transformer, patch=1, depth=2, heads=16, head_width=64),
        "trsf-b": partial(_transformer, patch=1, depth=2, heads=4, head_width=256),
        **PUBLISHED,
        **{f"published-{name}": builder for name, builder in RECURRENT.items()},
        "published-lstm-a-quarter": partial(_recurrent, layer=nn.LSTM, hidden=64),
    }
)
"""Name -> builder of a trunk from (n_channels, n_steps); `build_network` is the door."""


def check_networks(names: Sequence[str]) -> None:
    """Raises ConfigError on an unknown network."""
    if set(names) - set(NETWORKS):
        raise ConfigError(f"networks must be among {', '.join(sorted(NETWORKS))}")


def build_network(name: str, *, n_channels: int, n_steps: int, n_tasks: int, seed: int) -> SeriesNetwork:
    """A freshly initialised network on the CPU; the same seed gives the same weights and no global generator moves.

    Raises:
        ConfigError: no network of that name.
    """
    if name not in NETWORKS:
        raise ConfigError(f"no network named {name!r}; known: {', '.join(NETWORKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU generator alone: torch.manual_seed would reach the GPU's
        trunk, width = NETWORKS[name](n_channels, n_steps)
        return SeriesNetwork(trunk, width, n_tasks)
