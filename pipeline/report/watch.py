"""The page over a workspace's nights: self-contained, no script, no network, no clock; equal data give equal bytes.

The page allows itself one style sheet, by its digest, and nothing else at all.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from markupsafe import Markup

from pipeline.core.wording import THREAT_MODELS
from pipeline.report.leakage import BUNDLE, limits_held, limits_sentence, rebuilt
from pipeline.report.plots import curve_panel
from pipeline.report.render import environment
from pipeline.report.words import METRICS, STATISTICS

SCHEMA: Final = "decoct/watch/1"
_TICKS: Final = 6
_SERIES: Final = (("released", "released"), ("full", "full real data"), ("random", "random real stays"))

Data = dict[str, Any]


def watch_page(data: Data) -> str:
    """The page from `flows.watch.page.gather`'s data, for instance read back from figures.json."""
    return _page(
        "watch.html.j2",
        data=data,
        glance=_glance(data),
        audit=[_audit_panel(trend, number) for number, trend in enumerate(data["audit"])],
        utility=[_utility_panel(trend, number) for number, trend in enumerate(data["utility"])],
        threats=THREAT_MODELS,
        statistics=STATISTICS,
    )


def fleet_page(data: Data) -> str:
    """The page over many sites, from what `decoct fleet --json` prints."""
    return _page("fleet.html.j2", data=data)


def _page(template: str, **shown: Any) -> str:
    style = _style()
    digest = base64.b64encode(sha256(style.encode()).digest()).decode()
    ours = Markup(style)  # from the package
    return environment().get_template(template).render(style=ours, style_digest=digest, **shown)


def _style() -> str:
    folder = files("pipeline.report") / "templates"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in ("report.css", "watch.css"))


def _glance(data: Data) -> Data:
    """Five answers for somebody who has ten seconds; the first says what to do."""
    standing = [row for row in data["releases"] if row["state"] == "published"]
    waiting = [row for row in data["releases"] if row["state"] == "proposed"]
    ledger = data["ledger"]
    most = max((row["epsilon"] for row in ledger["cohorts"]), default=0.0) if ledger else None
    judged = [trend for trend in data["audit"] if trend["judged"]]
    found = _limits(judged)
    return {
        "night": data["nights"][0] if data["nights"] else None,
        "run": max(data["runs"], key=lambda row: row["at"], default=None),
        "standing": standing,
        "waiting": len(waiting),
        "spent": most,
        "budget": ledger["budget"]["epsilon"] if ledger else None,
        "delta": ledger["budget"]["delta"] if ledger else None,
        "limits": found,
        "controls": all(trend["controls_held"] for trend in judged),
        "todo": _todo(data, waiting, found),
    }


def _limits(judged: Sequence[Data]) -> list[Data]:
    """Per run, its released artefact's limits as `limits_held` counts them; the bytes' scan is no limit of the gate."""
    rows: dict[tuple[str, str], list[Data]] = {}
    for trend in judged:
        if trend["artefact"] != BUNDLE:
            mine = rows.setdefault((trend["run"], trend["artefact"]), [])
            mine += [{**row, "threat_model": trend["threat_model"]} for row in trend["latest"]]
    return [
        {"run": run, "artefact": artefact, "words": limits_sentence(found), "rebuilt": rebuilt(mine), **found}
        for (run, artefact), mine in rows.items()
        for found in (limits_held(mine),)
    ]


def _todo(data: Data, waiting: Sequence[Data], limits: Sequence[Data]) -> tuple[str, str]:
    """What the reader is to do, most pressing first: the head, and how."""
    failed = [row for row in data["nights"][:1] if row["exit_code"]]
    stopped = [row for row in data["runs"] if row["state"].startswith("stopped")]
    broken = [row for row in limits if row["broken"]]
    if failed:
        return "Look into the last scheduled run", f"exit code {failed[0]['exit_code']}: {failed[0]['sentence']}"
    if stopped and not data["nights"]:
        return "Look into a run that stopped", f"{stopped[0]['run']}: {stopped[0]['sentence']}"
    if broken:
        return "Read the report", f"{broken[0]['run']}: {', '.join(broken[0]['broken'])} did not hold"
    if waiting:
        return "Approve or refuse", f"{len(waiting)} waiting: {waiting[0]['name']} v{waiting[0]['version']}"
    if not data["runs"]:
        return "Start a first run", "decoct run run.toml"
    return "Nothing", "no proposal waits and no run failed"


def _audit_panel(trend: Data, number: int) -> Data:
    """One threat model over the nights: what could not be excluded (upper bound), what was found, the limit."""
    points = trend["points"]
    name = f"{trend['attack'].replace('_', ' ')}: {STATISTICS.get(trend['statistic'], trend['statistic'])}"
    curves = [
        ("upper", *_drawn(points, "high")),
        ("found", *_drawn(points, "rate")),
    ]
    if trend["limit"] is not None:
        curves.append(("limit", *_level(points, trend["limit"])))
    told = "; ".join(f"{p['at'][:10]} {_figure(p['rate'])}, at most {_figure(p['high'])}" for p in points[-_TICKS:])
    limit = "no limit is set" if trend["limit"] is None else f"limit {trend['limit']:g}"
    title = f"{trend['threat_model']} on {trend['artefact']}, {name}"
    svg = _panel(f"audit-{number}", title, f"{limit}; {told}", curves)
    return {**trend, "name": name, "svg": svg, "newest": points[-1]}


def _utility_panel(trend: Data, number: int) -> Data:
    points = trend["points"]
    curves = [(key, *_drawn([p[key] or {} for p in points], "mean")) for key, _ in _SERIES]
    if trend["floor"] is not None:
        curves.append(("limit", *_level(points, trend["floor"])))
    told = "; ".join(
        ", ".join(f"{words} {_figure((p[key] or {}).get('mean'))}" for key, words in _SERIES) for p in points[-_TICKS:]
    )
    name = METRICS[trend["metric"]][0]
    floor = "no floor is set" if trend["floor"] is None else f"floor {trend['floor']:g}"
    svg = _panel(f"utility-{number}", f"{name} of {trend['model']}, {trend['task']}", f"{floor}; {told}", curves)
    return {**trend, "name": name, "svg": svg, "newest": points[-1]}


def _panel(key: str, title: str, description: str, curves: Sequence[Any]) -> Markup | None:
    """The plot, or None where every figure is held back."""
    drawn = [curve for curve in curves if len(curve[1])]
    if not any(css != "limit" for css, _, _ in drawn):
        return None
    last = max(max(xs) for _, xs, _ in drawn)
    return curve_panel(
        key,
        title,
        description,
        drawn,
        x_name="runs, oldest first",
        points=True,
        x_step=math.ceil(last / _TICKS),
    )


def _drawn(points: Sequence[Data], name: str) -> tuple[list[float], list[float]]:
    """The figures that are shown, by place."""
    pairs = [(float(place), point.get(name)) for place, point in enumerate(points, start=1)]
    known = [(x, float(y)) for x, y in pairs if isinstance(y, int | float) and math.isfinite(y)]
    return [x for x, _ in known], [y for _, y in known]


def _level(points: Sequence[Data], value: float) -> tuple[list[float], list[float]]:
    return [0.6, len(points) + 0.4], [value, value]


def _figure(value: Any) -> str:
    if value is None:
        return "not measured"
    return value if isinstance(value, str) else f"{value:.3g}"
