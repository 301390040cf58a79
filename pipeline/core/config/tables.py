"""What every table of the configuration shares: frozen, closed, and silent about the values it was given."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from pipeline.core.options.base import Options, option_types
from pipeline.core.options.base import Positive as Positive
from pipeline.core.options.base import PositiveInt as PositiveInt

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]


class Model(BaseModel):
    """Base of all tables: frozen, closed, silent about values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class Plugin(Model):
    """A table whose `kind` names the code and whose other keys are that code's options."""

    kind: str

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments for the plug-in's factory."""
        return self.model_dump(exclude={"kind", "input", "n_per_class", "tasks", "data", "target_rmse"})


Table = TypeVar("Table", bound=Plugin)


def table_of(kind: str, options: type[Options], base: type[Table]) -> type[Table]:
    """The table of one `kind`: what `base` asks of all, and the options of the method, their defaults and bounds."""
    hints = option_types(options)
    own: dict[str, Any] = {field.name: (hints[field.name], field.default) for field in dataclasses.fields(options)}
    own["kind"] = (Literal[kind], ...)
    return create_model(kind, __base__=base, __doc__=options.__doc__, **own)
