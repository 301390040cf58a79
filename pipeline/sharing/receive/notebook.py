"""How a received bundle looks in a notebook: a table, a drawn sample, the card, a data frame.

All text comes from another institution: it is escaped, and the card stands in a frame that may run nothing.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import numpy as np

from pipeline.core.errors import UsageError

_CLINICAL: Final = frozenset({"subjects", "imputation", "scaling", "missingness", "lengths", "identity"})
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
    if scaling is None or not is_clinical(transforms):
        return {}
    return dict(zip(scaling["channels"], scaling.get("units", ()), strict=False))


def is_clinical(transforms: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a scaling is recorded and no encoder came after it."""
    kinds = {str(step["kind"]) for step in transforms}
    return "scaling" in kinds and kinds <= _CLINICAL


def in_units(features: np.ndarray, channels: Sequence[str], transforms: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The features in clinical units, or as they are where there are none to go back to."""
    from pipeline.ingest.cohort.scaling import to_clinical_units  # a receiver who trains loads nothing of it

    return to_clinical_units(features, tuple(channels), tuple(transforms)) if is_clinical(transforms) else features


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
