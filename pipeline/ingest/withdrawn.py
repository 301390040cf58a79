"""Who has withdrawn: a keyed list, so that it is no list of ids, and what every reading leaves out because of it."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, final

import numpy as np
import polars as pl

from pipeline.core.digest import digest_json
from pipeline.ingest.kept.quarantine import Quarantine
from pipeline.ingest.source_tables import UNNAMED, SourceTables

WITHDRAWN: Final = "subject withdrawn"
SMALL: Final = 10  # fewer people than this are not counted in a sentence


@final
@dataclass(frozen=True, repr=False)
class Withdrawn:
    """The marks of withdrawn subjects: HMAC-SHA256 of each id under the site's own key, in hex."""

    key: bytes = b""
    marks: frozenset[str] = field(default_factory=frozenset)

    def mark(self, subject_id: str) -> str:
        """The mark of an id."""
        return hmac.digest(self.key, subject_id.encode(), "sha256").hex()

    def holds(self, ids: Iterable[str]) -> list[bool]:
        """Of each id whether it is on the list."""
        if not self.marks:
            return [False for _ in ids]
        return [self.mark(name) in self.marks for name in ids]

    @property
    def fingerprint(self) -> str:
        """A digest of the list, empty of an empty one: what a cohort depends on besides its source."""
        return digest_json(sorted(self.marks)) if self.marks else ""


NOBODY: Final = Withdrawn()


def drop_withdrawn(tables: SourceTables, withdrawn: Withdrawn) -> SourceTables:
    """`tables` without the stays of withdrawn subjects; their rows are counted in one figure, not by variable.

    Raises:
        DataError: nobody is left.
    """
    subjects = tables.stays["subject_id"].cast(pl.String)
    gone = pl.Series(withdrawn.holds(subjects.to_list()), dtype=pl.Boolean)
    if not gone.any():
        return tables
    stays = tables.stays.filter(~gone)
    events, spilled = tables.events.filter(tables.events["stay_id"].is_in(stays["stay_id"].implode())), None
    if tables.spilled is not None:
        here = ~gone.to_numpy()
        spilled = tables.spilled.moved(np.where(here, np.cumsum(here) - 1, -1), stays.height)
    rows = tables.n_events - events.height - (0 if spilled is None else spilled.height)
    by_variable = {name: dict(reasons) for name, reasons in tables.dropped_by_variable.items()}
    if rows:
        by_variable[UNNAMED] = {**by_variable.get(UNNAMED, {}), WITHDRAWN: rows}
    dropped = {**tables.rows_dropped, **({WITHDRAWN: rows} if rows else {})}
    return replace(
        tables,
        events=events,
        spilled=spilled,
        stays=stays,
        rows_dropped=dict(sorted(dropped.items())),
        dropped_by_variable=by_variable,
        notes=(*tables.notes, withdrawn_note(int(gone.sum()))),
        quarantine=None if tables.quarantine is None else _without(tables.quarantine, tables.stays.filter(gone)),
    )


def _without(quarantine: Quarantine, gone: pl.DataFrame) -> Quarantine:
    """A copy of a failed row names a stay or a subject."""
    keys = pl.concat([gone["stay_id"].cast(pl.String), gone["subject_id"].cast(pl.String)])
    return quarantine.without(lambda named: pl.Series(named).is_in(keys.implode()).to_list())


def withdrawn_note(stays: int) -> str:
    """How many stays were left out, told only of ten or more."""
    told = str(stays) if stays >= SMALL else f"fewer than {SMALL}"
    return f"{told} stays of subjects who have withdrawn were left out"
