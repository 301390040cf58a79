"""Errors that may leave a stage: Decoct's own sentences pass, everything else is reduced to its type and place.

numpy, pydantic, polars and Great Expectations print values in their messages, and Prefect keeps exception texts for
ever. `scrubbed` is put around every stage; what it raises shows neither cause nor context nor a frame of the failing
code. Python still hangs the original on it as a suppressed context, so that is stripped of its frames and its own past.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Final

from pipeline.core.errors import DecoctError, EnvironmentProblem
from pipeline.core.extras import explained

MAX_PLACES = 3


@contextmanager
def scrubbed(stage: str) -> Iterator[None]:
    """Re-raise whatever goes wrong inside as one clean sentence."""
    problem: DecoctError
    try:
        yield
        return
    except DecoctError as error:
        problem = error
    except Exception as error:
        problem = _clean(stage, error)
        error.__traceback__ = error.__cause__ = error.__context__ = None
    problem.__traceback__ = None
    problem.__context__ = None
    raise problem from None


def _clean(stage: str, error: Exception) -> DecoctError:
    if isinstance(error, MemoryError):
        return EnvironmentProblem(f"stage {stage} ran out of memory")
    if isinstance(error, ImportError) and isinstance(missing := explained(error), DecoctError):
        return missing
    if isinstance(error, OSError):
        what = "the disk is full" if error.errno == errno.ENOSPC else f"{type(error).__name__} ({error.strerror})"
        return EnvironmentProblem(f"stage {stage} could not use the file system: {what}")
    return DecoctError(f"stage {stage} failed with {location(error)}")


def location(error: Exception) -> str:
    """Type and last places of an unexpected error, innermost first: function, file name and line, no values."""
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    places = [
        f"{code.co_name} ({PurePath(code.co_filename).name}:{line})"
        for code, line in reversed(frames)
        if code.co_filename != __file__
    ]
    return " in ".join([type(error).__name__, *places[:MAX_PLACES]])


_PATH: Final = re.compile(r"\S*[/\\]\S*|\S+\.(?:txt|csv|gz|parquet|psv|json|toml)\b")
_DIGEST: Final = re.compile(r"\b[0-9a-f]{12,}\b")
_NUMBER: Final = re.compile(r"(?<![\w-])\d[\w.,-]*")


def outward(sentence: str) -> str:
    """A sentence fit to leave the machine: no path, as a file may be named by a stay, no figure and no digest."""
    return _NUMBER.sub("…", _DIGEST.sub("…", _PATH.sub("…", sentence)))
