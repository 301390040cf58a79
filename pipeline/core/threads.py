"""What a sum's last bits depend on besides its terms: how many threads, and which BLAS kernels, add them up."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from threadpoolctl import threadpool_info, threadpool_limits

P = ParamSpec("P")
R = TypeVar("R")


_held: Final = threading.local()
"""`libraries`: how many modules were loaded when this thread was limited; not there while it is not."""


def single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` with BLAS and OpenMP on one thread, so that sums are taken in one order everywhere.

    Within another such function it does nothing, unless a library was loaded since: to set the limits costs a reading
    of everything that the process has mapped.
    """

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        before = getattr(_held, "libraries", None)
        if before == len(sys.modules):
            return function(*args, **kwargs)
        with threadpool_limits(limits=1):
            _held.libraries = len(sys.modules)
            try:
                return function(*args, **kwargs)
            finally:
                _held.libraries = before

    return limited


@functools.cache
def blas_kernels() -> tuple[str, ...]:
    """The BLAS libraries of this process and the processor kinds they compute for, such as `openblas Haswell`.

    Two processes that differ here may differ in the last bits of a product.
    """
    import numpy  # noqa: F401 (a library is asked for its kernels once it is loaded, and always the same ones are)
    import scipy.linalg  # noqa: F401

    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return tuple(sorted({f"{one['internal_api']} {one.get('architecture', 'unknown')}" for one in found}))
