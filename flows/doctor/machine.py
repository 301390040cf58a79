"""What `decoct doctor` looks at on the machine: versions, owners of our names, memory, device, telemetry."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from importlib.resources import files
from pathlib import Path
from typing import Final

from flows.doctor.checked import Checked
from flows.environment import TELEMETRY_OFF, memory_gib
from pipeline.core.extras import OPTIONAL, SITE

MEMORY_GIB: Final = 4
AVAILABLE_GIB: Final = 2
OUR_PACKAGES: Final = ("decoct", "pipeline", "encoders", "condensation", "flows")
CONSTRAINTS: Final = "constraints-py311.txt"
DEVICE_SECONDS: Final = 120  # a driver that wakes may take half a minute
WRONG: Final = 3
COMPUTES: Final = f"""
import sys, torch
from flows.compute.devices import device
chosen = device("auto")
print(chosen, flush=True)
sys.exit(0 if torch.ones(8, device=chosen).sum().item() == 8 else {WRONG})
"""
_NAMED: Final = 6  # differing packages that are told by name


def versions() -> Iterator[Checked]:
    """Every requirement of a site's installation is met, and of the other extras what is there."""
    from packaging.requirements import Requirement

    wanted, wrong = 0, []
    for need in [Requirement(text) for text in requires("decoct") or ()]:
        needed = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", SITE))
        if not needed and not any(need.marker and need.marker.evaluate({"extra": extra}) for extra in OPTIONAL):
            continue
        try:
            found = version(need.name)
        except PackageNotFoundError:
            wrong += [f"{need.name} is missing"] * needed
            continue
        wanted += 1
        if not need.specifier.contains(found, prereleases=True):
            wrong.append(f"{need.name} {found} is outside {need.specifier}")
    yield Checked("versions", not wrong, "; ".join(wrong) or f"{wanted} requirements met")


def tested_set() -> Iterator[Checked]:
    """How far what is installed differs from the set of versions that was tested together; never grave."""
    pins = shipped_pins()
    if pins is None:
        yield Checked("tested set", False, f"{CONSTRAINTS} is not installed with this copy", grave=False)
        return
    python = "{}.{}".format(*sys.version_info)
    other = [] if python == "3.11" else [f"Python {python}, tested with 3.11"]
    other += [f"{name} {found}, tested {wanted}" for name, wanted, found in differing(pins)]
    more = f"; and {len(other) - _NAMED} more" if len(other) > _NAMED else ""
    told = "; ".join(other[:_NAMED]) + more if other else "as tested together"
    yield Checked("tested set", not other, told, grave=False)


def shipped_pins() -> dict[str, str] | None:
    """Name -> version of the constraints that came with this copy: in its wheel, or beside an editable install."""
    packaged = Path(str(files("flows") / "templates" / CONSTRAINTS))
    path = packaged if packaged.is_file() else Path(str(files("flows"))).parent / CONSTRAINTS
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.strip().split("==") for line in lines if re.match(r"[\w.-]+==[\w.]+\s*$", line))


def differing(pins: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(name, pinned, installed) of packages that are installed in another version; a build's +tag is no difference."""
    found = []
    for name, wanted in pins.items():
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
        if installed != wanted:
            found.append((name, wanted, installed))
    return found


def owners() -> Iterator[Checked]:
    """No other distribution has put something under our import names."""
    known = packages_distributions()
    for package in OUR_PACKAGES:
        names = sorted(set(known.get(package, ["decoct"])))
        yield Checked("import name", names == ["decoct"], f"{package} belongs to {', '.join(names)}")


def memory() -> Iterator[Checked]:
    """What this process may use: of the machine, or of the container it is in; and what is free now."""
    total = min(filter(None, (memory_gib(), container_gib())), default=0)
    yield Checked("memory", total >= MEMORY_GIB, f"{total} GiB, {MEMORY_GIB} wanted")
    free = available_gib()
    if free is not None:
        yield Checked("memory", free >= AVAILABLE_GIB, f"{free:.1f} GiB free now, {AVAILABLE_GIB} wanted", grave=False)


def container_gib(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """The container's limit; 0 = none is set."""
    try:
        told = limit.read_text(encoding="ascii").strip()
    except OSError:
        return 0
    return 0 if told == "max" else round(int(told) / 2**30)


def available_gib(told: Path = Path("/proc/meminfo")) -> float | None:
    """What the kernel would give without swapping; None where it does not say."""
    try:
        lines = told.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) / 2**20 if found else None


def device_begun() -> Callable[[], Iterator[Checked]]:
    """Start a process that loads torch and computes, beside the other checks; the answer waits for it.

    A process of its own also survives a torch that was built for another processor, and a driver that does not answer.
    """
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", COMPUTES],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        unmade = Checked("device", False, f"no process could be started to try it: {error.strerror}")
        return lambda: iter((unmade,))

    def answer() -> Iterator[Checked]:
        """The device that would be chosen computes: a driver may be too old for the torch that sees its card."""
        try:
            chosen = process.communicate(timeout=DEVICE_SECONDS)[0].decode().strip()
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            yield Checked("device", False, f"no answer within {DEVICE_SECONDS} s")
            return
        if not chosen:
            yield Checked("device", False, f"torch cannot be loaded (exit code {process.returncode})")
        elif process.returncode == WRONG:
            yield Checked("device", False, f"{chosen} computes wrongly")
        elif process.returncode:
            yield Checked("device", False, f'{chosen} does not compute; set device = "cpu"')
        else:
            yield Checked("device", True, f"{chosen} computes")

    return answer


def telemetry(environ: Mapping[str, str] | None = None) -> Iterator[Checked]:
    """Off in the environment, and off as the libraries themselves read it."""
    environ = os.environ if environ is None else environ
    on = [name for name, value in TELEMETRY_OFF.items() if environ.get(name) != value]
    yield Checked("telemetry", not on, f"not switched off: {', '.join(on)}" if on else "off in the environment")
    sending = libraries_that_send()
    told = f"on, as read by {', '.join(sending)}" if sending else "off, as Prefect reads it"
    yield Checked("telemetry", not sending, told)


def libraries_that_send() -> list[str]:
    """Whose own settings say that they would report on their use; Great Expectations no longer can."""
    from prefect._internal.analytics.enabled import is_telemetry_enabled
    from prefect.settings import get_current_settings

    found = []
    if get_current_settings().server.analytics_enabled:
        found.append("Prefect's server")
    if is_telemetry_enabled():
        found.append("Prefect's client")
    return found
