"""The table that says on what the maps run: it changes how long a run takes, never what it makes."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from pipeline.core.config.tables import Model, PositiveInt


class ComputeConfig(Model):
    """Where the pieces of long stages run.

    `threads`: this process. `local`: `workers` processes of this machine. `dask`: a scheduler at `address`. `auto`: a
    process for each core where a stage's work is worth their start, else this process.
    """

    kind: Literal["auto", "threads", "local", "dask"] = "auto"
    workers: PositiveInt = 1
    address: str = ""  # tls://host:8786; tcp:// only of this machine

    @property
    def by_workers(self) -> bool:
        """Whether there are processes besides this one."""
        return self.kind in ("local", "dask")

    @model_validator(mode="after")
    def _address(self) -> ComputeConfig:
        if (self.kind == "dask") != bool(self.address):
            raise ValueError("address and kind = 'dask' need each other")
        if self.address and not self.address.startswith(("tls://", "tcp://127.0.0.1:", "tcp://localhost:")):
            raise ValueError("address begins with tls://, as whoever reaches a scheduler runs code on its workers")
        return self
