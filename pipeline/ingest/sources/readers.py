"""Source formats by name; a new format is one reader and one line here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.core.errors import ConfigError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.kept.pieces import Pieces
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.source_tables import SourceTables
from pipeline.ingest.sources.embedded import read_embedded
from pipeline.ingest.sources.long_table import read_long_table
from pipeline.ingest.sources.physionet2012 import read_physionet2012
from pipeline.ingest.withdrawn import NOBODY, Withdrawn, drop_withdrawn

READERS: Final[Mapping[str, Callable[..., SourceTables]]] = {
    "embedded": read_embedded,
    "physionet2012": read_physionet2012,
    "long_table": read_long_table,
}
"""Formats that need no mapping to be read."""

MAPPED_READERS: Final[Mapping[str, Callable[..., SourceTables]]] = {"tables": read_event_tables}
"""Formats whose files the mapping's layout describes."""

IN_PIECES: Final = frozenset({"physionet2012", "tables"})
"""Formats of which what was parsed is kept: the others are one file, or ship with Decoct."""


def read_source(
    kind: str,
    *,
    mapping: SourceMapping | None = None,
    until_hours: float = math.inf,
    pieces: Pieces | None = None,
    withdrawn: Withdrawn = NOBODY,
    on_step: OnStep = ignore_step,
    scratch: Path | None = None,
    **options: Any,
) -> SourceTables:
    """Read a source; `options` are the other keys of the configuration's `[source]` table.

    `mapping`, `until_hours` (`cohort.latest_hour`) and `scratch` (a folder for events that are more than memory should
    hold, to be had by `stay_blocks`) are for the formats that the mapping's layout describes. With
    `pieces` only what is new or changed is parsed, which gives the same tables as reading all of it. The stays of
    `withdrawn` subjects are left out, and their rows counted as dropped.

    Raises:
        ConfigError: no reader of that name, or one that needs a mapping and has none.
        DataError: the source is broken; the sentence names file, column, count and rule.
    """
    if kind in IN_PIECES:
        options |= {"pieces": pieces, "withdrawn": withdrawn}
    if kind in MAPPED_READERS:
        if mapping is None:
            raise ConfigError(f"source.kind = {kind!r} needs a mapping with a [layout]")
        tables = MAPPED_READERS[kind](
            mapping=mapping, until_hours=until_hours, on_step=on_step, scratch=scratch, **options
        )
    elif kind in READERS:
        tables = READERS[kind](on_step=on_step, **options)
    else:
        raise ConfigError(f"source.kind names no reader; there are {', '.join((*READERS, *MAPPED_READERS))}")
    return drop_withdrawn(tables, withdrawn)
