"""The process's surroundings: telemetry off, Prefect quiet and local, before any heavy library is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

PACKAGES: Final = ("pipeline", "encoders", "condensation", "flows")
TELEMETRY_OFF: Final = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
PREFECT_DEFAULTS: Final = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # the default 20 s fails on a busy machine
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",  # a successful run may otherwise end in server errors at exit
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the runs' own log is ours; Prefect's UI keeps all of it
    "PREFECT_CLI_PROMPT": "false",
}
FREE_DISK_GIB: Final = 2
"""Wanted where a workspace lies."""
WAITING: Final = {"OMP_WAIT_POLICY": "passive"}
"""Threads that wait for one another sleep: beside a process that keeps a core busy, spinning costs 20 times more."""
_NOT_LOADED: Final = ("rfc3987_syntax",)
"""Builds a grammar of international addresses for two seconds when jsonschema finds it; nobody here asks for one."""
_PREFECT_CHOSEN_BY_USER: Final = ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE")


def quiet(workspace: Path | None = None, *, console: bool = False) -> None:
    """Set what must be set before Prefect, Great Expectations and torch are imported.

    Telemetry is off whatever the user's environment says. Prefect's own folder goes into the workspace unless the user
    has chosen a server, a profile or a home for it. `console` shows Prefect's own log.
    """
    os.environ.update(TELEMETRY_OFF)
    for name in _NOT_LOADED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # Python's way to say that it is not there
    if console:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    for name, value in (PREFECT_DEFAULTS | WAITING).items():
        os.environ.setdefault(name, value)
    chosen = any(name in os.environ for name in _PREFECT_CHOSEN_BY_USER) or (Path.home() / ".prefect").exists()
    if workspace is not None and not chosen:
        os.environ["PREFECT_HOME"] = str(workspace / "prefect")


def may_have_server() -> bool:
    """Whether Prefect may be set to a server, by any of the ways that it knows; asked without loading it."""
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    told = {Path("pyproject.toml"): "tool.prefect", Path(".env"): "PREFECT_"}  # what Prefect reads where it starts
    named = any(word in path.read_text(errors="replace") for path, word in told.items() if path.is_file())
    set_here = any(os.environ.get(name) for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"))
    return named or set_here or (home / "profiles.toml").exists() or Path("prefect.toml").exists()


def for_owner_alone(*, readable: bool = False) -> None:
    """Whatever the user's umask: what this process makes from now on is its owner's to write, and only hers to read.

    `readable` leaves reading to the umask, for verbs that write what others are to have.
    """
    most = 0o022 if readable else 0o077
    os.umask(os.umask(most) | most)


def no_core_dumps() -> None:
    """A crash of this process, or of one that it starts, leaves no copy of its memory, in which keys are."""
    with suppress(ImportError, ValueError, OSError):  # Windows has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@cache
def code_version() -> str:
    """Release number and digest of the installed source: what reports and provenance name; see also `flows.closure`."""
    from importlib.metadata import version

    from pipeline.core.digest import digest_file, digest_json

    kinds = {".py", ".toml", ".j2"}
    sources = {name: digest_file(path) for name, path in package_files().items() if path.suffix in kinds}
    return f"{version('decoct')}+{digest_json(sources)[:12]}"


@cache
def package_files() -> Mapping[str, Path]:
    """Every file of our packages, by its path from the folder that they lie in."""
    from importlib.resources import files

    found: dict[str, Path] = {}
    for package in PACKAGES:
        root = Path(str(files(package)))
        found |= {f"{package}/{path.relative_to(root).as_posix()}": path for path in root.rglob("*") if path.is_file()}
    return found


def machine() -> dict[str, str | int]:
    """What a figure in a report depends on: processor, cores, memory, Python and library versions."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            model = next((line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")), model)
    except OSError:
        pass
    libraries = {}
    for name in ("torch", "numpy", "scikit-learn", "pennylane", "prefect"):
        with suppress(PackageNotFoundError):  # an extra that this installation does without
            libraries[name] = version(name)
    return {
        "processor": model,
        "cores": os.cpu_count() or 1,
        "memory_gib": memory_gib(),
        "python": platform.python_version(),
        **libraries,
    }


def memory_gib() -> int:
    """Physical memory, in GiB."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, OSError):
        return 0
