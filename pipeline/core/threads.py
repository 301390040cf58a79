"""What a sum's last bits depend on besides its terms: how many threads, and which BLAS kernels, add them up."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, ParamSpec, TypeVar

from threadpoolctl import threadpool_info, threadpool_limits

P = ParamSpec("P")
R = TypeVar("R")


_held: Final = threading.local()
"""`limits`: what undoes this thread's limits; `libraries`: how many modules were loaded when they were last set."""


def single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` with BLAS and OpenMP on one thread, so that sums are taken in one order everywhere.

    Within another such function it does nothing, unless a library was loaded since, which is limited until the outer
    one ends: to set the limits costs a reading of everything that the process has mapped.
    """

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        if getattr(_held, "limits", None) is not None:
            _limit()
            return function(*args, **kwargs)
        with ExitStack() as _held.limits:
            _held.libraries = 0
            try:
                _limit()
                return function(*args, **kwargs)
            finally:
                _held.limits = None

    return limited


def _limit() -> None:
    if _held.libraries != len(sys.modules):
        _held.limits.enter_context(threadpool_limits(limits=1))
        _held.libraries = len(sys.modules)


@functools.cache
def blas_kernels() -> tuple[str, ...]:
    """The BLAS libraries of this process and the processor kinds they compute for, such as `openblas Haswell`.

    Two processes that differ here may differ in the last bits of a product.
    """
    import numpy  # noqa: F401 (a library is asked for its kernels once it is loaded, and always the same ones are)
    import scipy.linalg  # noqa: F401

    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return tuple(sorted({f"{one['internal_api']} {one.get('architecture', 'unknown')}" for one in found}))
