"""The [encode.NAME] tables: one per encoder, made of its options, and one for those of other distributions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

from pydantic import Field, model_validator

from pipeline.core.config.tables import Plugin, table_of
from pipeline.core.options.encoders import ENCODERS, KeyedOptions


class EncodeTable(Plugin):
    """What all encodings share."""

    data: Literal["series", "summaries"] = "series"  # summaries = a dense vector per stay instead of its series

    @property
    def is_random(self) -> bool:
        """Whether the result depends on the site's noise key; of a plug-in that is not known, so it may."""
        asked = self.model_dump()
        return self.kind == "plugin" or any(asked.get(name) for name in ("noise_sd", "shots", "target_rmse"))


class KeyedEncode(EncodeTable):
    """What the keyed encodings share, beside their options."""

    target_rmse: Annotated[float, Field(gt=0)] | None = None  # instead: the noise that leaves every attacker this error

    @model_validator(mode="after")
    def _noise_is_given_or_found(self) -> KeyedEncode:
        if self.target_rmse is not None and self.options["noise_sd"] > 0:
            raise ValueError("give noise_sd or target_rmse, not both")
        return self


class PluginEncode(EncodeTable):
    """An encoder from another distribution, by its entry-point name in the group `decoct.encoders`."""

    kind: Literal["plugin"]
    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


ENCODE_TABLES: Final[Mapping[str, type[EncodeTable]]] = MappingProxyType(
    {
        kind: table_of(kind, options, KeyedEncode if issubclass(options, KeyedOptions) else EncodeTable)
        for kind, options in ENCODERS.items()
    }
)
if TYPE_CHECKING:
    Encode = EncodeTable
else:
    Encode = Annotated[Union[*ENCODE_TABLES.values(), PluginEncode], Field(discriminator="kind")]
