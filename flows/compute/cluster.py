"""Pieces of a map made by the workers of a Dask scheduler that the site runs."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from pipeline.core.errors import DecoctError, EnvironmentProblem

ANSWER_SECONDS: Final = 20
"""How long a scheduler may take to answer."""

QUIET_DASK: Final = {
    "distributed.diagnostics.nvml": False,
    "logging": {"distributed": "critical", "distributed.scheduler": "critical", "distributed.worker": "critical"},
}
"""No log but ours."""


def by_workers(address: str, function: Callable[..., Any], told: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """`function` of each tuple of arguments, in order; it lets no error out but `DecoctError`.

    Raises:
        EnvironmentProblem: no scheduler answers, or it went away, or a piece killed too many workers.
    """
    scheduler = client(address)
    futures = [scheduler.submit(function, *call, pure=False) for call in told]
    try:
        for future in futures:
            yield future.result()
    except DecoctError:
        raise
    except Exception as problem:  # Dask's own
        raise EnvironmentProblem(f"the cluster failed: {type(problem).__name__}") from None
    finally:
        scheduler.cancel([future for future in futures if not future.done()])


def everywhere(address: str, function: Callable[[], None]) -> None:
    """`function` on every worker; what goes wrong there is no matter any more."""
    with suppress(Exception):
        client(address).run(function)


@functools.cache
def client(address: str) -> Any:
    """One client for this process; it ends with the process.

    Raises:
        EnvironmentProblem: Dask is not installed, or no scheduler answers.
    """
    try:
        import dask

        dask.config.set(QUIET_DASK)  # before `distributed` is imported, which sets its loggers up
        import distributed
    except ImportError:
        raise EnvironmentProblem('compute.kind = "dask" needs Dask: pip install "decoct[cluster]"') from None
    dd: Any = distributed  # without annotations of its own
    try:
        found = dd.Client(address, timeout=ANSWER_SECONDS)  # TLS by the files in Dask's own configuration
    except (OSError, ValueError, RuntimeError):
        raise EnvironmentProblem("no Dask scheduler answers at compute.address") from None
    atexit.register(found.close)
    return found
