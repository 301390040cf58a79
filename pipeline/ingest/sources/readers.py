"""Source formats by name; a new format is one reader and one line here, or an entry point of another distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Final

from pipeline.core.errors import ConfigError, DataError
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
    "tables": read_event_tables,
}

MAPPED: Final = frozenset({"tables"})
"""Formats whose files the mapping's layout describes; the others need no mapping to be read."""

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
    readers: Mapping[str, Callable[..., SourceTables]] = READERS,
    **options: Any,
) -> SourceTables:
    """Read a source; `options` are the other keys of the configuration's `[source]` table.

    `mapping`, `until_hours` (`latest_hour`) and `scratch` (a folder for events that are more than memory should
    hold, to be had by `stay_blocks`) are for the formats that the mapping's layout describes. With
    `pieces` only what is new or changed is parsed, which gives the same tables as reading all of it. The stays of
    `withdrawn` subjects are left out, and their rows counted as dropped.

    Raises:
        ConfigError: no reader of that name, one that needs a mapping and has none, or options that it does not take.
        DataError: the source is broken; the sentence names file, column, count and rule.
    """
    if kind in IN_PIECES:
        options |= {"pieces": pieces, "withdrawn": withdrawn}
    if kind not in readers:
        raise ConfigError(f"source.kind names no reader; there are {', '.join(readers)}")
    if kind in MAPPED:
        if mapping is None:
            raise ConfigError(f"source.kind = {kind!r} needs a mapping with a [layout]")
        options |= {"mapping": mapping, "until_hours": until_hours, "scratch": scratch}
    options["on_step"] = on_step
    try:
        signature(readers[kind]).bind(**options)
    except TypeError:
        raise ConfigError(f"source.kind = {kind!r}: its reader does not take these options, or needs others") from None
    tables = readers[kind](**options)
    if not isinstance(tables, SourceTables):
        raise DataError(f"source.kind = {kind!r}: its reader gave something else than the tables of a source")
    return drop_withdrawn(tables, withdrawn)
