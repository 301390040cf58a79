"""The table that says on what the maps run: it changes how long a run takes, never what it makes."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from pipeline.core.config_tables import Model, PositiveInt


class ComputeConfig(Model):
    """`threads`: this process. `local`: `workers` processes of this machine. `dask`: a scheduler at `address`."""

    kind: Literal["threads", "local", "dask"] = "threads"
    workers: PositiveInt = 1
    address: str = ""  # tls://host:8786 or tcp://host:8786

    @model_validator(mode="after")
    def _address(self) -> ComputeConfig:
        if (self.kind == "dask") != bool(self.address):
            raise ValueError("address and kind = 'dask' need each other")
        return self
