"""`decoct doctor`: is this machine fit to run, before a night is lost finding out."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path
from typing import Final

from flows.environment import TELEMETRY_OFF, memory_gib
from flows.job import key_path

FREE_DISK_GIB: Final = 2
MEMORY_GIB: Final = 4
OUR_PACKAGES: Final = ("pipeline", "encoders", "condensation", "flows")


@dataclass(frozen=True)
class Finding:
    """One check and what it saw."""

    check: str
    ok: bool
    told: str


def examine(workspace: Path) -> tuple[Finding, ...]:
    """All checks, none of which changes anything."""
    return (_versions(), *_owners(), _disk(workspace), _memory(), _device(), *_keys(workspace), _telemetry())


def _versions() -> Finding:
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in requires("decoct") or ()]
    wrong = []
    for need in wanted:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            if not need.specifier.contains(version(need.name), prereleases=True):
                wrong.append(f"{need.name} {version(need.name)} is outside {need.specifier}")
        except PackageNotFoundError:
            wrong.append(f"{need.name} is missing")
    return Finding("versions", not wrong, "; ".join(wrong) or f"{len(wanted)} requirements met")


def _owners() -> Iterator[Finding]:
    owners = packages_distributions()
    for package in OUR_PACKAGES:
        names = sorted(set(owners.get(package, ["decoct"])))
        yield Finding("import name", names == ["decoct"], f"{package} belongs to {', '.join(names)}")


def _disk(workspace: Path) -> Finding:
    place = next(folder for folder in (workspace.resolve(), *workspace.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    return Finding("disk", free >= FREE_DISK_GIB, f"{free:.0f} GiB free at {place}, {FREE_DISK_GIB} wanted")


def _memory() -> Finding:
    return Finding("memory", memory_gib() >= MEMORY_GIB, f"{memory_gib()} GiB, {MEMORY_GIB} wanted")


def _device() -> Finding:
    from flows.stages.learn import device

    return Finding("device", True, device("auto"))


def _keys(workspace: Path) -> Iterator[Finding]:
    keys = key_path(workspace, "encoder").parent
    for path in sorted((*keys.glob("*.key"), *keys.glob("retired/*.key"), *keys.glob("identity.age"))):
        closed = not stat.S_IMODE(path.stat().st_mode) & 0o077
        yield Finding("key", closed, f"{path} is {'closed to' if closed else 'OPEN to'} group and others")


def _telemetry() -> Finding:
    on = [name for name, value in TELEMETRY_OFF.items() if os.environ.get(name) != value]
    return Finding("telemetry", not on, f"not switched off: {', '.join(on)}" if on else "off")
