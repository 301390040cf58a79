"""The convolutional and transformer networks of [Cond] as its authors built them, under `published-*`.

[Cond] Wang, Thakur et al., arXiv 2305.03711; what the text leaves open is read off the authors' public code and its
executed notebook for PhysioNet 2012. The recurrent four are plain layers with the last step read out, and stand in
`networks`. Series of `n_channels` channels; torch's initialisation throughout; batch statistics in train mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, cast, final

import torch
from torch import Tensor, nn

from pipeline.probes.attention import AttentionBlock, Dropout

DROPOUT: Final = 0.5  # of every published network but the recurrent ones
FEED_FORWARD: Final = 16
LAYERS: Final = 2  # residual blocks of the convolutional networks; dilations 1, 2

Trunk = tuple[nn.Module, int]
"""A network up to its last linear layer, `(batch, step, channel) -> (batch, width)`, and that width."""


@final
class _PReLU(nn.Module):
    """torch's, of `(batch, channel, 1, step)`, as a product with the slope: its own gradient costs as a convolution."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((n,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        low = self.weight.expand(x.shape[3], -1).contiguous().T[:, None]  # as x lies: else every step is a loop
        return x * torch.addcmul((1 + low) / 2, (1 - low) / 2, x.detach().sign())


@final
class _Branch(nn.Module):
    """Convolution padded on both sides, batch norm over the padded series, cut back to its middle.

    Symmetric, so not causal; a step sees as far ahead as back.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, dilation: int) -> None:
        super().__init__()
        padding = (kernel - 1) * dilation  # even for an odd kernel
        self.cut = padding // 2
        self.convolution = nn.Conv2d(n_in, n_out, (1, kernel), padding=(0, padding), dilation=(1, dilation))
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.convolution(x))[..., self.cut : self.cut + x.shape[3]])


@final
class _Round(nn.Module):
    """Branches side by side, PReLU, dropout."""

    def __init__(self, n_in: int, n_out: int, kernels: tuple[int, ...], dilation: int) -> None:
        super().__init__()
        width = n_out // len(kernels)
        self.branches = nn.ModuleList(_Branch(n_in, width, kernel, dilation) for kernel in kernels)
        self.activation = _PReLU(n_out)
        self.dropout = Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([branch(x) for branch in self.branches], dim=1)
        return cast(Tensor, self.dropout(self.activation(joined)))


@final
class _ResidualBlock(nn.Module):
    """Two rounds, then the residual sum and PReLU.

    With several branches the skip is a 1 x 1 convolution even where the widths agree, as the authors have it.
    """

    def __init__(self, n_in: int, n_out: int, kernels: tuple[int, ...], dilation: int) -> None:
        super().__init__()
        self.rounds = nn.Sequential(*(_Round(n, n_out, kernels, dilation) for n in (n_in, n_out)))
        plain = len(kernels) == 1 and n_in == n_out
        self.skip = nn.Identity() if plain else nn.Conv2d(n_in, n_out, 1)
        self.activation = _PReLU(n_out)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.activation(self.rounds(x) + self.skip(x)))


@final
class _Convolutions(nn.Module):
    """Residual blocks; readout: the mean over time alone.

    Series run as images one pixel high, `(batch, channel, 1, step)`, whose values lie channel by channel within a step
    as they come: no convolution has to put them in another order.
    """

    def __init__(self, n_channels: int, kernels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(_ResidualBlock(n_channels if i == 0 else width, width, kernels, 2**i) for i in range(LAYERS))
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.blocks(x.transpose(1, 2).unsqueeze(2)).mean(dim=(2, 3)))


@final
class _Transformer(nn.Module):
    """A token is one step, as wide as the series has channels: no embedding, no positions; then a hidden layer.

    Readout: the class token, which starts from N(0, 1) (`class_token`, the vision transformers), or the mean of all.
    """

    def __init__(
        self, n_channels: int, *, depth: int, heads: int, head_width: int, hidden: int, class_token: bool
    ) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, n_channels)) if class_token else None
        self.blocks = nn.Sequential(
            *(AttentionBlock(n_channels, heads, head_width, FEED_FORWARD, DROPOUT, DROPOUT) for _ in range(depth))
        )
        self.mlp = nn.Sequential(nn.LayerNorm(n_channels), nn.Linear(n_channels, hidden), nn.GELU(), Dropout(DROPOUT))

    def forward(self, x: Tensor) -> Tensor:
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        *before, last = self.blocks
        for block in before:
            x = block(x)
        tokens = last(x, None if self.class_token is None else 1)
        return cast(Tensor, self.mlp(tokens.mean(dim=1)))


def _convolutional(n_channels: int, n_steps: int, *, kernels: tuple[int, ...], channels: int) -> Trunk:
    width = channels * len(kernels)
    return _Convolutions(n_channels, kernels, width), width


def _attentive(
    n_channels: int, n_steps: int, *, depth: int, heads: int, head_width: int, hidden: int, class_token: bool
) -> Trunk:
    trunk = _Transformer(
        n_channels, depth=depth, heads=heads, head_width=head_width, hidden=hidden, class_token=class_token
    )
    return trunk, hidden


_vit = partial(_attentive, depth=4, class_token=True)
_trsf = partial(_attentive, depth=2, class_token=False)

PUBLISHED: Final[Mapping[str, Callable[[int, int], Trunk]]] = MappingProxyType(
    {
        "published-tcn-a": partial(_convolutional, kernels=(3, 5, 7), channels=64),
        "published-tcn-b": partial(_convolutional, kernels=(3,), channels=64),
        "published-tcn-g": partial(_convolutional, kernels=(3, 5), channels=128),
        "published-vit-a": partial(_vit, heads=16, head_width=64, hidden=128),
        "published-vit-b": partial(_vit, heads=4, head_width=256, hidden=128),
        "published-trsf-a": partial(_trsf, heads=16, head_width=64, hidden=64),
        "published-trsf-b": partial(_trsf, heads=4, head_width=256, hidden=128),
        # a quarter of the width, for processors: the condensing networks of [Cond] at about a fifth of the cost
        "published-tcn-a-quarter": partial(_convolutional, kernels=(3, 5, 7), channels=16),
        "published-vit-a-quarter": partial(_vit, heads=4, head_width=64, hidden=32),
    }
)
"""Name -> builder of a trunk from (n_channels, n_steps)."""
