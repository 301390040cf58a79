"""The record as one self-contained HTML page: no network, no script, no clock; the same record gives the same bytes.

Below: how the page writes numbers, durations, digests and names, as the template's filters. A number looks the same
whether it was an int or a float, so that data read back from canonical JSON give the same page.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound
from markupsafe import Markup

from pipeline.report.record import RunRecord, record_json
from pipeline.report.views import page_view

NONE = "–"


def render_report(record: RunRecord) -> str:
    """The page of a run."""
    return render_json(record_json(record))


def render_json(data: dict[str, Any]) -> str:
    """The page from `record_json`'s data, for instance read back from a file."""
    return environment().get_template("report.html.j2").render(**page_view(data))


class _PackageTemplates(BaseLoader):
    """Templates from this package's data, wherever it is installed."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, None]:
        resource = files("pipeline.report") / "templates" / template
        if "/" in template or not resource.is_file():
            raise TemplateNotFound(template)
        return resource.read_text(encoding="utf-8"), template, None


def environment() -> Environment:
    """Templates and filters of both pages."""
    environment = Environment(
        loader=_PackageTemplates(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    return environment


def _count(value: Any) -> str:
    """A whole number with commas between thousands, as the terminal has it; a suppressed cell as it is."""
    if value is None:
        return NONE
    return f"{value:,}" if isinstance(value, int) else str(value)


def _fixed(value: Any, digits: int = 3) -> str:
    """Fixed digits for figures around one, significant digits for others."""
    if value is None:
        return NONE
    if abs(value) >= 1000 or 0 < abs(value) < 10**-digits:
        return f"{value:.3g}"
    return f"{value:.{digits}f}"


def _figure(value: Any, statistic: str) -> str:
    """An attack's figure; counts are whole numbers, a suppressed cell is as it is, all others have three digits."""
    if value is None or isinstance(value, str):
        return value or NONE
    is_count = statistic in ("count", "telling_views") and value == int(value)
    return _count(int(value)) if is_count else _fixed(round(value, 3) + 0.0)


def _planted(value: Any, statistic: str) -> str:
    """A positive control; for counts it is the share of the planted leaks that were found."""
    return (
        _percent(value, 0) if statistic == "count" and value is not None and value <= 1 else _figure(value, statistic)
    )


def _percent(value: Any, digits: int = 1) -> str:
    """A share as a percentage; a suppressed cell as it is."""
    if value is None:
        return NONE
    return f"{100 * value:.{digits}f}\u202f%" if isinstance(value, int | float) else str(value)


def _duration(seconds: float | None) -> str:
    """Seconds as a reader wants them."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f}\u202fs"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u202fh {minutes:02d}\u202fmin" if hours else f"{minutes}\u202fmin {rest:02d}\u202fs"


def _breakable(name: str) -> Markup:
    """A name that may wrap after its underscores rather than anywhere."""
    return Markup("_<wbr>").join(name.split("_"))


def _power(value: float) -> str:
    """A small probability as a power of ten."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    if not exponent:
        return mantissa
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if mantissa == "1" else f"{mantissa}\u202f×\u202f10{raised}"


def _short_digest(digest: str | None) -> str:
    """The first twelve characters of a digest: enough to compare by eye."""
    return digest[:12] if digest else NONE


def _facts(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested plain data as (name, text) pairs, sorted by name; nested names are joined by points."""
    if isinstance(value, dict):
        found = [
            pair for key in sorted(value) for pair in _facts(value[key], f"{prefix}.{key}" if prefix else str(key))
        ]
        return found or [(prefix, "none")]
    if isinstance(value, list):
        return [(prefix, ", ".join(text for item in value for _, text in _facts(item)) or "none")]
    return [(prefix, _plainly(value))]


def _plainly(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "count": _count,
    "fixed": _fixed,
    "figure": _figure,
    "planted": _planted,
    "percent": _percent,
    "duration": _duration,
    "short": _short_digest,
    "facts": _facts,
    "power": _power,
    "breakable": _breakable,
}
