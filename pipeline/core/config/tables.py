"""What every table of the configuration shares: frozen, closed, and silent about the values it was given."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
PositiveInt = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Model(BaseModel):
    """Base of all tables: frozen, closed, silent about values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class Plugin(Model):
    """A table whose `kind` names the code and whose other keys are that code's options."""

    kind: str

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments for the plug-in's factory."""
        return self.model_dump(exclude={"kind", "input", "n_per_class", "tasks"})
