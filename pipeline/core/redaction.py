"""Errors that may leave a stage: Decoct's own sentences pass, everything else is reduced to its type.

numpy, pydantic, polars and Great Expectations print values in their messages, and Prefect keeps exception texts for
ever. `scrubbed` is put around every stage; what it raises carries no cause, no context
and no frame of the failing code.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.core.errors import DecoctError, EnvironmentProblem

logger = logging.getLogger("decoct")


@contextmanager
def scrubbed(stage: str) -> Iterator[None]:
    """Re-raise whatever goes wrong inside as one clean sentence."""
    problem: DecoctError
    try:
        yield
        return
    except DecoctError as error:
        problem = error
    except MemoryError:
        problem = EnvironmentProblem(f"stage {stage} ran out of memory")
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else f"{type(error).__name__} ({error.strerror})"
        problem = EnvironmentProblem(f"stage {stage} could not use the file system: {what}")
    except Exception as error:
        problem = DecoctError(f"stage {stage} failed with {_location(error)}; run with -vv for the traceback's places")
    problem.__traceback__ = None
    problem.__context__ = None
    raise problem from None


def _location(error: Exception) -> str:
    """Type and place of an unexpected error: file name, line and function, no values."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    code = trace.tb_frame.f_code
    return f"{type(error).__name__} in {code.co_name} ({code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno})"
