"""Trunks that remember what went into and came out of each of their affine maps: dense, convolutional, recurrent.

The gradient of one sample's loss by the weights of an affine map s = W a + b is the sum over positions (time steps) of
the outer products delta a^T, delta being the derivative by s. Whoever keeps every `a` and can ask for every `delta`
has all per-sample gradients from one backward pass over the batch, whatever the network does between its maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.core.errors import ConfigError

TrunkKind = Literal["mlp", "tcn", "gru"]

WIDTH: Final = {"mlp": (64, 64), "tcn": (32, 32, 32), "gru": (32,)}
KERNEL: Final = 3  # of the convolutions, whose dilation doubles from layer to layer


@final
@dataclass(frozen=True, eq=False)
class Tape:
    """One affine map as it ran: what went in, `(stay, position, unit in)`, and what came out.

    `outputs` are the tensors of the graph, `(stay, unit out)` each or one `(stay, position, unit out)`.
    """

    inputs: Tensor
    outputs: tuple[Tensor, ...]


@final
class TapedTrunk:
    """A trunk of one kind; `weights` and `biases`, a pair for each affine map, are its parameters."""

    def __init__(self, kind: TrunkKind, n_inputs: int, draws: torch.Generator) -> None:
        if kind not in WIDTH:
            raise ConfigError(f"no trunk is named {kind!r}; there are: {', '.join(WIDTH)}")
        self.kind = kind
        widths = WIDTH[kind]
        self.n_units = widths[-1]
        if kind == "gru":
            shapes = [(n_inputs, 3 * widths[0]), (widths[0], 3 * widths[0])]
        else:
            steps = KERNEL if kind == "tcn" else 1
            shapes = [(into * steps, out) for into, out in zip((n_inputs, *widths), widths, strict=False)]
        self.weights = [_uniform(into, out, draws) for into, out in shapes]
        self.biases = [torch.zeros(out, requires_grad=True) for _, out in shapes]

    @property
    def parameters(self) -> list[Tensor]:
        """Everything that tasks share."""
        return [*self.weights, *self.biases]

    def run(self, inputs: Tensor) -> tuple[Tensor, list[Tape]]:
        """`(stay, feature)`, or for series `(stay, step, channel)`, to the embedding `(stay, unit)`, and its tapes."""
        if self.kind == "mlp":
            return self._dense(inputs)
        return self._convolved(inputs) if self.kind == "tcn" else self._recurrent(inputs)

    def _dense(self, now: Tensor) -> tuple[Tensor, list[Tape]]:
        tapes = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            out = torch.addmm(bias, now, weight)
            tapes.append(Tape(now[:, None], (out,)))
            now = torch.tanh(out)
        return now, tapes

    def _convolved(self, now: Tensor) -> tuple[Tensor, list[Tape]]:
        """Causal: a step sees itself and the KERNEL - 1 steps at the layer's dilation before it; mean over steps."""
        tapes = []
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            shifts = [F.pad(now, (0, 0, back, 0))[:, : now.shape[1]] for back in (k << depth for k in range(KERNEL))]
            seen = torch.cat(shifts, dim=2)
            out = seen @ weight + bias
            tapes.append(Tape(seen, (out,)))
            now = F.relu(out)
        return now.mean(dim=1), tapes

    def _recurrent(self, series: Tensor) -> tuple[Tensor, list[Tape]]:
        """Gates from the input are one product for all steps; gates from the state one for each step."""
        from_input = series @ self.weights[0] + self.biases[0]
        state = series.new_zeros(len(series), self.n_units)
        states, gates = [], []
        for step in range(series.shape[1]):
            own = torch.addmm(self.biases[1], state, self.weights[1])
            states.append(state)
            gates.append(own)
            reset_in, keep_in, new_in = from_input[:, step].chunk(3, dim=1)
            reset_own, keep_own, new_own = own.chunk(3, dim=1)
            keep = torch.sigmoid(keep_in + keep_own)
            fresh = torch.tanh(new_in + torch.sigmoid(reset_in + reset_own) * new_own)
            state = keep * state + (1 - keep) * fresh
        return state, [Tape(series, (from_input,)), Tape(torch.stack(states, dim=1), tuple(gates))]


def _uniform(into: int, out: int, draws: torch.Generator) -> Tensor:
    """Glorot and Bengio (2010)."""
    bound = math.sqrt(6 / (into + out))
    return ((torch.rand(into, out, generator=draws) * 2 - 1) * bound).requires_grad_(True)
