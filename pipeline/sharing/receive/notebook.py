"""How a received bundle looks in a notebook: a table, a drawn sample, the card, a data frame.

All text comes from another institution: it is escaped, and the card stands in a frame that may run nothing.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import numpy as np

from pipeline.core.errors import UsageError
from pipeline.core.transforms import is_prepared

_WIDTH, _ROW, _LEFT = 420, 46, 150
MAX_DRAWN: Final = 6


@final
class Channel(str):
    """A channel's name, with its `unit` ("" = none, or an encoded channel)."""

    __slots__ = ("unit",)
    unit: str

    def __new__(cls, name: str, unit: str = "") -> Channel:
        """The name as a string like any other."""
        made = super().__new__(cls, name)
        made.unit = unit
        return made


@final
class Card(str):
    """The card's Markdown; a notebook shows the page."""

    __slots__ = ("page",)
    page: str

    def __new__(cls, markdown: str, page: str) -> Card:
        """Both texts from the verified bytes."""
        made = super().__new__(cls, markdown)
        made.page = page
        return made

    def _repr_html_(self) -> str:
        return (
            '<iframe sandbox="" title="card" style="width:100%;height:40rem;border:1px solid #999" '
            f'srcdoc="{html.escape(self.page)}"></iframe>'
        )


@final
class Drawing(str):
    """An SVG that a notebook shows; as a string it can be written to a file."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def units_of(transforms: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Channel -> unit, where the set lives in clinical units; {} for an encoded one."""
    scaling = next((step for step in transforms if step["kind"] == "scaling"), None)
    if scaling is None or not is_prepared(transforms):
        return {}
    return dict(zip(scaling["channels"], scaling.get("units", ()), strict=False))


def in_units(features: np.ndarray, channels: Sequence[str], transforms: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The features in clinical units, or as they are where there are none to go back to."""
    from pipeline.ingest.cohort.scaling import to_clinical_units  # a receiver who trains loads nothing of it

    return to_clinical_units(features, tuple(channels), tuple(transforms)) if is_prepared(transforms) else features


def prepared(series: np.ndarray, channels: Sequence[str], transforms: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Series in clinical units, NaN = not measured, as the site prepared its own: `(stay, step, channel)`.

    The last value measured in a stay stands until the next, the public constant before the first; of what adds up a
    step without a record adds nothing. Then clipped to the range and scaled.

    Raises:
        UsageError: the set does not live in clinical units, or one of its channels has no constant and a value missing.
    """
    if not is_prepared(transforms):
        raise UsageError("this set was encoded: it has no clinical units, and its teacher scores encoded series")
    impute, scale = (next(step for step in transforms if step["kind"] == kind) for kind in ("imputation", "scaling"))
    filled = np.array(series, dtype=np.float64)
    for place, name in enumerate(channels):
        values = filled[:, :, place]
        seen = np.isfinite(values)
        normal = impute["never_observed"].get(name, np.nan)
        if name in impute.get("not_carried", ()):
            values[:] = np.where(seen, values, np.where(seen.any(axis=1), 0.0, normal)[:, None])
        else:
            last = np.maximum.accumulate(np.where(seen, np.arange(seen.shape[1]), -1), axis=1)
            carried = np.take_along_axis(values, np.maximum(last, 0), axis=1)
            values[:] = np.where(last < 0, normal, carried)
    if missing := [name for place, name in enumerate(channels) if not np.isfinite(filled[:, :, place]).all()]:
        raise UsageError(f"{missing[0]} is missing in a step, and no constant stands in for it: give its value")
    rows = [list(scale["channels"]).index(name) for name in channels]
    low, high = (np.asarray(scale[end], dtype=np.float64)[rows] for end in ("low", "high"))
    return np.asarray(np.clip((filled - low) / (high - low), 0.0, 1.0))


def frame(features: np.ndarray, labels: np.ndarray, channels: Sequence[str], tasks: Sequence[str], hours: float) -> Any:
    """A pandas frame, a row for every sample and step; needs pandas, which the site installation brings."""
    import pandas as pd

    n, steps, _ = features.shape
    index = pd.MultiIndex.from_product([range(n), np.arange(steps) * hours], names=["sample", "hour"])
    made = pd.DataFrame(features.reshape(n * steps, -1), index=index, columns=[str(name) for name in channels])
    for place, task in enumerate(tasks):
        made[f"label:{task}"] = np.repeat(labels[:, place], steps)
    return made


def drawing(title: str, hours: float, rows: Sequence[tuple[str, np.ndarray]]) -> Drawing:
    """A line for every row, each on its own scale, with its lowest and highest value.

    Raises:
        UsageError: nothing to draw.
    """
    if not rows:
        raise UsageError("name a channel to draw")
    parts = []
    for place, (name, values) in enumerate(rows):
        low, high, top = float(values.min()), float(values.max()), 26 + place * _ROW
        x = np.linspace(_LEFT, _WIDTH - 90, len(values))
        y = top + 30 - 28 * (values - low) / ((high - low) or 1.0)
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        parts.append(
            f'<text x="4" y="{top + 20}">{html.escape(name)}</text>'
            f'<polyline points="{line}" fill="none" stroke="#0072b2" stroke-width="2"/>'
            f'<text x="{_WIDTH - 84}" y="{top + 20}">{low:.4g} to {high:.4g}</text>'
        )
    height = 26 + _ROW * len(rows) + 18
    end = f'<text x="{_LEFT}" y="{height - 4}">0 to {hours:g} h</text>'
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="12" fill="currentColor"><title>{html.escape(title)}</title>'
        f'<text x="4" y="16" font-weight="bold">{html.escape(title)}</text>{"".join(parts)}{end}</svg>'
    )


def table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Two columns of escaped text."""
    lines = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
    return f"<table><caption>{html.escape(title)}</caption><tbody>{lines}</tbody></table>"
