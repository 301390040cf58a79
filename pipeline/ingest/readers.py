"""Source formats by name; a new format is one reader and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.core.errors import ConfigError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.ingest.embedded import read_embedded
from pipeline.ingest.long_table import read_long_table
from pipeline.ingest.physionet2012 import read_physionet2012
from pipeline.ingest.tables import SourceTables

READERS: Final[Mapping[str, Callable[..., SourceTables]]] = {
    "embedded": read_embedded,
    "physionet2012": read_physionet2012,
    "long_table": read_long_table,
}


def read_source(kind: str, *, on_step: OnStep = ignore_step, **options: Any) -> SourceTables:
    """Read a source; `options` are the other keys of the configuration's `[source]` table.

    Raises:
        ConfigError: no reader of that name.
        DataError: the source is broken; the sentence names file, column, count and rule.
    """
    if kind not in READERS:
        raise ConfigError(f"source.kind names no reader; there are {', '.join(READERS)}")
    return READERS[kind](on_step=on_step, **options)
