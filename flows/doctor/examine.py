"""`decoct doctor`: is this machine, and is this workspace, fit to run, before a night is lost finding out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from flows.doctor import machine
from flows.doctor import workspace as place
from flows.doctor.checked import Checked

Check = Callable[[], Iterable[Checked]]


def examine(workspace: Path, config: Path | None = None) -> Iterator[Checked]:
    """All checks as they are made, none of which changes anything; one that breaks is a finding, the others follow.

    `config`: the file of the nights, to be told who may write it.
    """
    now = datetime.now(tz=UTC)
    checks: dict[str, Check] = {
        "versions": machine.versions,
        "tested set": machine.tested_set,
        "import name": machine.owners,
        "memory": machine.memory,
        "telemetry": machine.telemetry,
        "disk": lambda: place.disk(workspace),
        "file system": lambda: place.file_system(workspace),
        "key": lambda: place.keys(workspace),
        **({} if config is None else {"configuration": lambda: place.configuration(config)}),
        "access": lambda: place.access(workspace),
        "histories": lambda: place.histories(workspace),
        "leftovers": lambda: place.leftovers(workspace),
        "clock": lambda: place.clock(workspace, now),
        "Prefect": lambda: place.prefect(workspace),
        "device": machine.device_begun(),
    }
    for name, check in checks.items():
        yield from _made(name, check)


def _made(name: str, check: Check) -> Iterable[Checked]:
    try:
        return list(check())
    except Exception as error:
        return [Checked(name, False, f"could not be looked at: {type(error).__name__}")]
