"""The options of the encoders that ship with Decoct, by the names under which they are registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pipeline.core.options.base import Ge, Gt, Le, NotNegative, Options, PositiveInt

KeyScope = Literal["shared", "per_channel"]
Template = Literal["BasicEntanglerLayers", "StronglyEntanglingLayers", "RandomLayers"]
Embedding = Literal["RY", "RX", "RZ"]
Axis = Literal["time", "variables", "record"]
Distribution = Literal["gaussian", "orthogonal", "rademacher", "sparse"]


@dataclass(frozen=True, kw_only=True)
class KeyedOptions(Options):
    """What the keyed encodings share."""

    stride: PositiveInt | None = None  # positions from window to window; none = the window's width: no overlap
    key_scope: KeyScope = "shared"  # per_channel = every channel has parameters of its own, by its name
    noise_sd: NotNegative = 0.0  # Gaussian noise on every output, from the site's noise key

    def shape_told(self) -> dict[str, Any]:
        """As `told`, without what blurs the outputs: a specification has a word of its own for that."""
        return {name: value for name, value in self.told().items() if name not in ("noise_sd", "shots")}


@dataclass(frozen=True, kw_only=True)
class QuantumOptions(KeyedOptions):
    """Random quantum encoding [Enc]: angle embedding, random entangling layers, <Z> per wire."""

    n_qubits: Annotated[int, Ge(1), Le(10)] = 4  # also the window's width
    n_layers: PositiveInt = 2
    template: Template = "BasicEntanglerLayers"  # PennyLane's; RandomLayers: n_qubits rotations, CNOTs with chance .3
    embedding: Embedding = "RY"  # axis of the rotation of |0>; RZ acts after a Hadamard on every wire
    embedding_range: tuple[float, float] = (0.0, 0.5)
    """Where [0, 1] is put, in units of pi. [Enc] embeds v as the angle pi v, the range (0, 1). Then cos(pi / 2) = 0
    wipes out windows that hold 1/2, where public clinical ranges put normal values (docs/encoders.md)."""
    axis: Literal["time", "variables"] = "time"  # windows of steps of one channel, or of channels of one step
    correlations: bool = False  # <Z_j Z_k>, j < k, behind the <Z_j> of each window
    shots: PositiveInt | None = None  # outputs are means of so many outcomes; none = exact expectations
    backend: Literal["closed_form", "pennylane"] = "closed_form"  # computed, or run on `pennylane_device`
    pennylane_device: str = "default.qubit"


@dataclass(frozen=True, kw_only=True)
class ProjectionOptions(KeyedOptions):
    """Random projection [Enc]: one keyed matrix on windows."""

    window: PositiveInt = 4  # not looked at when the axis is "record"
    axis: Axis = "time"  # windows of steps of one channel, of channels of one step, or one that is the whole record
    distribution: Distribution = "gaussian"
    density: Annotated[float, Gt(0), Le(1)] | None = None  # of a sparse matrix; none = 1 / sqrt(window)
    n_components: PositiveInt | None = None  # below the window it compresses; none = window, a square matrix


ENCODERS: Final[Mapping[str, type[Options]]] = MappingProxyType(
    {"identity": Options, "quantum": QuantumOptions, "random_projection": ProjectionOptions}
)
