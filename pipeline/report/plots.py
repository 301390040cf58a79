"""Hand-made SVG: a plot is a few hundred bytes, takes its colours from the page's CSS and scales with the column.

Every plot is drawn 340 units wide, the width of a narrow column, so that text is legible on a telephone; wide pages
set several side by side. Each carries a title and a description for readers who do not see it. Colours never stand
alone: dashes, shapes or words tell the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from markupsafe import Markup, escape

from pipeline.core.wording import most_found

WIDTH: Final = 340
LABEL_CHARACTERS: Final = 26
NOT_SHARES: Final = ("count", "telling_views", "epsilon_above_claim")  # have no place on a scale from 0 to 1


@final
@dataclass(frozen=True)
class Bar:
    """One bar of a utility plot; `kind` picks its colour."""

    label: str
    mean: float
    low: float
    high: float
    kind: str  # "full", "released", "condensed", "random"


@final
@dataclass(frozen=True)
class Scale:
    """A linear map from data to drawing units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def bar_panel(key: str, title: str, bars: Sequence[Bar], axis: tuple[float, float]) -> Markup:
    """Horizontal bars from chance (0.5) with 95 % intervals; `axis` is shared by all panels of a figure."""
    row, top = 33, 4
    height = top + row * len(bars) + 22
    x = Scale(*axis, 10, WIDTH - 10)
    parts: list[Markup] = []
    for tick in _ticks(*axis, 0.1):
        name = "chance" if math.isclose(tick, 0.5) else "grid"
        parts += [
            _line(x(tick), top, x(tick), height - 18, name),
            _text(x(tick), height - 5, f"{tick:.1f}", "tick mid"),
        ]
    for index, bar in enumerate(bars):
        y = top + row * index
        left, right = sorted((x(0.5), x(bar.mean)))
        middle = y + 22.5
        parts += [
            _text(13, y + 12, shorten(bar.label), f"label {bar.kind}"),
            _text(WIDTH - 4, y + 12, f"{bar.mean:.3f} [{bar.low:.3f}, {bar.high:.3f}]", "value end"),
            Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="11" rx="2"/>').format(
                bar.kind, left, y + 17, max(round(right - left, 1), 1)
            ),
            _line(x(bar.low), middle, x(bar.high), middle, "error"),
            _line(x(bar.low), y + 18, x(bar.low), y + 27, "error"),
            _line(x(bar.high), y + 18, x(bar.high), y + 27, "error"),
        ]
    told = "; ".join(f"{bar.label} {bar.mean:.3f}, interval {bar.low:.3f} to {bar.high:.3f}" for bar in bars)
    return _svg(key, title, told, height, parts)


def curve_panel(
    key: str, title: str, description: str, curves: Sequence[tuple[str, Sequence[float], Sequence[float]]], **axes: Any
) -> Markup:
    """Lines `(css class, x, y)` over shared axes; `x_name`, `x_step` between ticks, `log` for the y axis.

    With `points` each value has a dot, so that a line of one value is seen; equal values of zero lie on the axis.
    """
    height, left, bottom = 190, 46, 34
    log = bool(axes.get("log"))
    drawn = [(css, xs, [math.log10(v) for v in ys] if log else list(ys)) for css, xs, ys in curves if len(ys)]
    all_x = [value for _, xs, _ in drawn for value in xs]
    all_y = [value for _, _, ys in drawn for value in ys]
    x = Scale(*_spread(min(all_x), max(all_x), 0.03 if axes.get("points") else 0), left, WIDTH - 10)
    y = Scale(*(_spread(min(all_y), max(all_y), 0.08) if log or any(all_y) else (0.0, 1.0)), height - bottom, 12)
    parts: list[Markup] = [_text(WIDTH - 10, height - 3, str(axes.get("x_name", "")), "tick end")]
    step = axes.get("x_step")
    for tick in _ticks(x.low, x.high, step) if step else _nice_ticks(x.low, x.high, 5):
        parts += [_text(x(tick), height - bottom + 14, _short(tick), "tick mid")]
    for tick in _log_ticks(y.low, y.high) if log else _nice_ticks(y.low, y.high, 5):
        name = f"{10**tick:.2g}" if log else _short(tick)
        parts += [_line(left, y(tick), WIDTH - 10, y(tick), "grid"), _text(left - 5, y(tick) + 3.5, name, "tick end")]
    for css, xs, ys in drawn:
        points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(xs, ys, strict=True))
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(css, points))
        if axes.get("points") and css != "limit":
            dot = Markup('<circle class="dot {}" cx="{}" cy="{}" r="3.2"/>')
            parts += [dot.format(css, x(a), y(b)) for a, b in zip(xs, ys, strict=True)]
    return _svg(key, title, description, height, parts)


def roc_panel(
    key: str, title: str, points: Sequence[tuple[float, float]], limits: tuple[float, float] | None = None
) -> Markup:
    """True- against false-positive rate, both logarithmic; chance dotted, what the `limits` allow dashed."""
    height, left, bottom, floor = 230, 46, 38, 1e-3
    floor = min(
        floor, *(max(1e-5, 10 ** math.floor(math.log10(max(value, 1e-5)))) for pair in points for value in pair)
    )
    x = Scale(math.log10(floor), 0, left, WIDTH - 12)
    y = Scale(math.log10(floor), 0, height - bottom, 10)

    def line(css: str, pairs: Sequence[tuple[float, float]]) -> Markup:
        at = " ".join(f"{x(math.log10(max(a, floor)))},{y(math.log10(min(max(b, floor), 1)))}" for a, b in pairs)
        return Markup('<polyline class="{}" points="{}"/>').format(css, at)

    parts: list[Markup] = []
    for power in range(round(math.log10(floor)), 1):
        name = f"{10.0**power:g}"
        parts += [
            _line(left, y(power), WIDTH - 12, y(power), "grid"),
            _text(left - 5, y(power) + 3.5, name, "tick end"),
            _text(x(power), height - bottom + 14, name, "tick mid"),
        ]
    steps = [10 ** (math.log10(floor) * (1 - share / 40)) for share in range(41)]
    parts.append(line("roc-chance", [(value, value) for value in steps]))
    if limits is not None:
        epsilon, delta = limits
        parts.append(line("roc-allowed", [(a, most_found(epsilon, delta, a)) for a in steps]))
    parts.append(line("roc-found", points))
    parts.append(_text((left + WIDTH - 12) / 2, height - 6, "others wrongly named (log)", "tick mid"))
    told = "; ".join(f"at {a:.3g} false alarms {b:.3g} of the members" for a, b in points[:: max(1, len(points) // 4)])
    return _svg(key, f"{title}: members named against others wrongly named", told, height, parts)


def gain_panel(key: str, title: str, rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Shares (`gain`, `low`, `high`) over a count (`n_groups`); the last row, a ceiling, is a diamond."""
    height, left, bottom = 210, 52, 36
    most = max(row["n_groups"] for row in rows)
    every = [100 * row[name] for row in rows for name in ("gain", "low", "high") if row[name] is not None]
    x = Scale(0.5, most + 0.5, left, WIDTH - 10)
    y = Scale(*_spread(min(every), max(every), 0.1), height - bottom, 12)
    parts: list[Markup] = []
    for tick in _nice_ticks(y.low, y.high, 5):
        parts += [
            _line(left, y(tick), WIDTH - 10, y(tick), "chance" if tick == 0 else "grid"),
            _text(left - 5, y(tick) + 3.5, f"{tick:.3g} %", "tick end"),
        ]
    parts += [_text(x(n), height - bottom + 14, str(n), "tick mid") for n in range(1, most + 1)]
    parts.append(_text(WIDTH - 10, height - 4, "networks to train and serve", "tick end"))
    for number, row in enumerate(rows):
        at, middle = x(row["n_groups"] + 0.12 * (number % 3 - 1)), y(100 * row["gain"])
        if row["low"] is not None and row["high"] is not None:
            parts.append(_line(at, y(100 * row["low"]), at, y(100 * row["high"]), "error"))
        if number == len(rows) - 1:
            diamond = '<path class="planted" d="M{} {}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"/>'
            parts.append(Markup(diamond).format(at, round(middle - 4.5, 1)))
        else:
            parts.append(Markup('<circle class="rate" cx="{}" cy="{}" r="4"/>').format(at, middle))
    told = "; ".join(f"{row['name']}: {row['n_groups']} groups, {100 * row['gain']:.2f} %" for row in rows)
    return _svg(key, title, told, height, parts)


def strip(key: str, row: Mapping[str, Any], limit: float | None = None) -> Markup | None:
    """One attack from 0 to 1: control (tick), rate with interval (dot), planted leak (diamond), limit (dashed)."""
    figures = [row[name] for name in ("rate", "low", "high", "control", "positive_control") if row[name] is not None]
    if row["statistic"] in NOT_SHARES or row["rate"] is None or any(value > 1 for value in figures):
        return None
    width, middle = 180, 11
    x = Scale(0, 1, 6, width - 6)

    def at(value: float) -> float:
        return x(min(max(value, 0.0), 1.0))

    parts = [
        _line(x(0), middle, x(1), middle, "axis"),
        _line(x(0), 8, x(0), 14, "axis"),
        _line(x(1), 8, x(1), 14, "axis"),
    ]
    if limit is not None and limit <= 1:
        parts.append(_line(at(limit), 0, at(limit), 22, "bound"))
    if row["control"] is not None:
        parts.append(_line(at(row["control"]), 3, at(row["control"]), 19, "control"))
    if row["low"] is not None and row["high"] is not None:
        parts.append(_line(at(row["low"]), middle, at(row["high"]), middle, "interval"))
    parts.append(Markup('<circle class="rate" cx="{}" cy="{}" r="4.5"/>').format(at(row["rate"]), middle))
    if row["positive_control"] is not None:
        parts.append(
            Markup('<path class="planted" d="M{} {}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"/>').format(
                at(row["positive_control"]), middle - 4.5
            )
        )
    told = str(row["summary"]) if limit is None else f"{row['summary']} The policy's limit is {limit:g}."
    return _svg(key, f"{row['attack']} on a scale from 0 to 1", told, 22, parts, width)


def sample_panel(key: str, title: str, rows: Sequence[tuple[str, str, Sequence[float]]]) -> Markup:
    """A line for every variable (name, unit, values), each on its own scale, lowest and highest value beside it."""
    width, row_height, left, right = 240, 30, 66, 84
    parts: list[Markup] = []
    told = []
    for place, (name, unit, values) in enumerate(rows):
        low, high, top = min(values), max(values), place * row_height + 4
        x = Scale(0, max(len(values) - 1, 1), left, width - right)
        y = Scale(*_spread(low, high, 0), top + row_height - 8, top)
        points = " ".join(f"{x(step)},{y(value)}" for step, value in enumerate(values))
        parts += [
            _text(2, top + 15, shorten(f"{name} {unit}".strip())[:11], "tick"),
            Markup('<polyline class="sample" points="{}"/>').format(points),
            _text(width - 2, top + 15, f"{_short(round(low, 2))} to {_short(round(high, 2))}", "tick end"),
        ]
        told.append(f"{name} from {values[0]:.3g} to {values[-1]:.3g} {unit}".strip())
    return _svg(key, title, "; ".join(told), row_height * len(rows) + 4, parts, width)


def shorten(label: str) -> str:
    """A label that fits its plot; the table beside the plot has it in full."""
    return label if len(label) <= LABEL_CHARACTERS else label[: LABEL_CHARACTERS - 1] + "…"


def _svg(
    key: str, title: str, description: str, height: float, parts: Iterable[Markup], width: float = WIDTH
) -> Markup:
    return Markup(
        '<svg class="plot" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-labelledby="{k}-t {k}-d">'
        '<title id="{k}-t">{t}</title><desc id="{k}-d">{d}</desc>{p}</svg>'
    ).format(w=width, h=height, k=key, t=title, d=description, p=Markup("").join(parts))


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(css, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, css: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(css, x, y, escape(text))


def _ticks(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _nice_ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round numbers within [low, high]."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return _ticks(low, high, step)


def _log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of decades, and of twice and five times them when the range is short."""
    factors = (1, 10) if high - low > 2 else (1, 2, 5, 10)
    decades = range(math.floor(low), math.ceil(high))
    ticks = {round(decade + math.log10(factor), 10) for decade in decades for factor in factors}
    return sorted(tick for tick in ticks if low <= tick <= high)


def _spread(low: float, high: float, margin: float) -> tuple[float, float]:
    """A range of positive length, a share `margin` wider on both sides."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - max(abs(low), 1.0) * 0.5, high + max(abs(high), 1.0) * 0.5
    extra = (high - low) * margin
    return low - extra, high + extra


def _short(value: float) -> str:
    return f"{value:.4g}" if value else "0"
