"""The lines of the ledger: their kinds, the fields of each, and what the events on them come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pipeline.core.errors import BudgetError
from pipeline.core.files.chained import OWN_KEYS, Chain
from pipeline.sharing.claims import query_of

BEGIN, RESERVE, STREAM, NIGHT = "begin", "reserve", "stream", "night"
INTERVAL: Final = 1e-3  # of the privacy loss grid; dp-accounting rounds upwards

_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    BEGIN: frozenset({"salt"}),
    RESERVE: frozenset({"query", "cohort", "unit", "policy", "budget", "events"}),
    STREAM: frozenset({"query", "policy", "budget", "events", "horizon", "entries", "separation", "unit"}),
    NIGHT: frozenset({"stream", "night", "cohort", "added"}),
}
"""What each kind of line holds. A kind or a field that this version does not know may cost somebody something."""


def require_known(ledger: Chain, path: Path) -> None:
    """Every line is of a kind that this version knows, with its fields and no other.

    Raises:
        BudgetError: one is not.
    """
    for entry in ledger.entries:
        fields = _FIELDS.get(entry["what"])
        if fields is None or {*entry} - OWN_KEYS != {*fields}:
            raise BudgetError(
                f"nothing was drawn: line {entry['line']} of {path} is of a kind that this version "
                "does not know, and may have cost somebody something: use the version that wrote it"
            )


def composed_epsilon(events: Iterable[Mapping[str, Any]], delta: float) -> float:
    """The epsilon of all events together at `delta`, by dp-accounting's privacy loss distributions.

    Raises:
        BudgetError: an event that has no price here.
    """
    found = [query_of(event) for event in events]
    if None in found:
        raise BudgetError("nothing was drawn: the ledger prices Gaussian and Laplace events of a noise multiplier only")
    counts = Counter(filter(None, found))
    return _composed(tuple(sorted(counts.items())), delta) if counts else 0.0


@lru_cache(maxsize=256)
def _composed(counts: tuple[tuple[tuple[str, float], int], ...], delta: float) -> float:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=INTERVAL)
    for (kind, multiplier), count in counts:
        accountant.compose(getattr(dp_accounting, kind)(multiplier), count)
    return float(accountant.get_epsilon(delta))
