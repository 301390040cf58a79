"""The [encode.NAME] tables: one model per encoder, and one for encoders of other distributions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.core.config.tables import Plugin, PositiveInt


class EncodeTable(Plugin):
    """What all encodings share."""

    data: Literal["series", "summaries"] = "series"  # summaries = a dense vector per stay instead of its series

    @property
    def options(self) -> dict[str, Any]:
        """Without what says on which data, and how much noise to look for."""
        return {name: value for name, value in super().options.items() if name not in ("data", "target_rmse")}

    @property
    def is_random(self) -> bool:
        """Whether the result depends on the site's noise key; of a plug-in that is not known, so it may."""
        asked = self.model_dump()
        return self.kind == "plugin" or any(asked.get(name) for name in ("noise_sd", "shots", "target_rmse"))


class IdentityEncode(EncodeTable):
    """No encoding: the control."""

    kind: Literal["identity"]


class KeyedEncode(EncodeTable):
    """What the keyed encodings share."""

    stride: PositiveInt | None = None  # none = the window's width: no overlap
    key_scope: Literal["shared", "per_channel"] = "shared"  # per_channel = every channel has parameters of its own
    noise_sd: Annotated[float, Field(ge=0)] = 0.0  # Gaussian noise on every output, from the site's noise key
    target_rmse: Annotated[float, Field(gt=0)] | None = None  # instead: the noise that leaves every attacker this error

    @model_validator(mode="after")
    def _noise_is_given_or_found(self) -> KeyedEncode:
        if self.target_rmse is not None and self.noise_sd > 0:
            raise ValueError("give noise_sd or target_rmse, not both")
        return self


class QuantumEncode(KeyedEncode):
    """Random quantum encoding [Enc]: angle embedding, random entangling layers, <Z> per wire."""

    kind: Literal["quantum"]
    n_qubits: Annotated[int, Field(ge=1, le=10)] = 4  # also the window's width
    n_layers: PositiveInt = 2
    template: Literal["BasicEntanglerLayers", "StronglyEntanglingLayers", "RandomLayers"] = "BasicEntanglerLayers"
    embedding: Literal["RX", "RY", "RZ"] = "RY"
    embedding_range: tuple[float, float] = (0.0, 0.5)  # where [0, 1] is put, in units of pi; published: 0 to 1
    axis: Literal["time", "variables"] = "time"
    correlations: bool = False  # <Z_j Z_k> beside <Z_j>
    shots: PositiveInt | None = None  # none = exact expectations
    backend: Literal["closed_form", "pennylane"] = "closed_form"
    pennylane_device: str = "default.qubit"


class ProjectionEncode(KeyedEncode):
    """Random projection [Enc]: one keyed matrix on windows."""

    kind: Literal["random_projection"]
    window: PositiveInt = 4  # not looked at when the axis is "record"
    axis: Literal["time", "variables", "record"] = "time"
    distribution: Literal["gaussian", "orthogonal", "rademacher", "sparse"] = "gaussian"
    density: Annotated[float, Field(gt=0, le=1)] | None = None  # of a sparse matrix; none = 1 / sqrt(window)
    n_components: PositiveInt | None = None  # none = window, a square matrix
    fresh: bool = False  # the published notebook's redraw for every window: for comparison only, refused by the gate


class PluginEncode(EncodeTable):
    """An encoder from another distribution, by its entry-point name in the group `decoct.encoders`."""

    kind: Literal["plugin"]
    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


Encode = Annotated[IdentityEncode | QuantumEncode | ProjectionEncode | PluginEncode, Field(discriminator="kind")]
