"""How a run ends: what is shared, what it is worth, what leaks, what is unknown, the verdict and what to do next.

One screen, made from the run's record (the report's JSON) and its policy, so that the terminal and the report show the
same figures.
"""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO, final

from pipeline.core.codec import from_plain
from pipeline.core.types import LeakageReport
from pipeline.report.leakage import gaps, judged_reports
from pipeline.report.utility import FULL, utility_view
from pipeline.report.views import released_summary
from pipeline.report.words import LEAVES, STATISTICS
from pipeline.sharing.policy.load import Policy
from pipeline.sharing.policy.rules import AttackVerdict, attack_verdicts

Data = dict[str, Any]

WIDTH: Final = 80
MAX_LINES: Final = 22
_INDENT: Final = 10
_NAMED: Final = 3  # of a longer list the first so many are named
_ITEM: Final = 24  # characters of a name that a site has chosen
_NO_LEAK: Final = {"auroc": 0.5, "tpr_at_1pct_fpr": 0.01, "tpr_at_01pct_fpr": 0.001}
_COLOURS: Final = {"PASS": "32", "FAIL": "31", "INCONCLUSIVE": "33"}  # green, red, yellow


@final
@dataclass(frozen=True)
class Places:
    """Paths as the reader types them. `bundle` None: nothing was released; `root` None: there is no trust root yet."""

    report: str
    bundle: str | None
    root: str | None
    is_proposal: bool = False
    is_demo: bool = False


def ending(record: Data, policy: Policy, places: Places) -> list[str]:
    """The lines: at most `MAX_LINES`, each at most `WIDTH` wide unless a path is longer."""
    seconds = sum(stage["seconds"] for stage in record["stages"])
    verdict = record["decision"]["verdict"] if record["decision"] else "NOT JUDGED"
    parts = [
        ("SHARED", _shared(record, places)),
        ("USEFUL", _useful(record)),
        ("LEAKS", _leaks(record, policy)),
        ("UNKNOWN", _unknown(record)),
        (verdict, [_condition(verdict, policy, places)]),
    ]
    lines = [f"Done: {len(record['stages'])} stages in {_duration(seconds)}."]
    for head, sentences in parts:
        lines += _block(head, sentences)
    return [*lines, "", *_next(places)]


def coloured(lines: Sequence[str], stream: TextIO, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The lines with the verdict in colour, where `stream` is a terminal and NO_COLOR is not set."""
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb" or not stream.isatty():
        return list(lines)
    return [_in_colour(line) for line in lines]


def as_typed(path: Path) -> str:
    """Relative to the folder in which the reader is, where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _shared(record: Data, places: Places) -> list[str]:
    if places.bundle is None:
        return ["nothing"]
    summary = released_summary(record)
    what = LEAVES[record["release_kind"]]
    if summary is not None:
        labels = "soft labels" if summary["soft_labels"] else "labels"
        what = f"{_count(summary['n_samples'])} synthetic series with {labels}"
    found = [f"{_short(Path(places.bundle).name)}: {what}"]
    guarantee = next((c["guarantee"] for c in record["condensed"] if c["name"] == record["release_artefact"]), None)
    if record["release_kind"] == "encoded" or guarantee is None:
        return [*found, "no privacy guarantee"]
    unit = {"subject": "patient"}.get(guarantee["unit"], guarantee["unit"])
    return [*found, f"differential privacy: epsilon {guarantee['epsilon']:g}, delta {guarantee['delta']:g}, per {unit}"]


def _useful(record: Data) -> list[str]:
    view = utility_view(record)
    headline = view["main_task"] and view["headline"]
    if not headline:
        return ["no AUROC of a model trained on what is shared; the report shows the scores"]
    stays = " to ".join(_count(n) for n in view["n_test"])
    found = [f"{_short(view['main_task'])}: AUROC {_span(headline['released'])} on {stays} held-out real stays"]
    beside = [
        f"{_count(headline[key]['best']['n_samples'])} {words} {_span(headline[key])}"
        for key, words in (("full", "real stays give"), ("random", "random real stays"))
        if headline[key] is not None
    ]
    found += [", ".join(beside)] if beside else []
    mine, full = (_calibration(record, view["main_task"], name) for name in (record["release_artefact"], FULL))
    if mine is not None:
        compared = "" if full is None else f" (real stays {full:.2f})"
        found.append(f"calibration error up to {mine:.2f}{compared}{_advice(mine, full)}")
    return found


def _advice(mine: float, full: float | None) -> str:
    worse = full is not None and mine > 2 * full
    return ": recalibrate first" if worse else ""


def _calibration(record: Data, task: str, name: str) -> float | None:
    """The worst model's."""
    asked = (task, name, "calibration_error")
    rows = [row for row in record["utility"]["scores"] if (row["task"], row["training_set"], row["metric"]) == asked]
    return max((row["mean"] for row in rows if row["mean"] is not None), default=None)


def _leaks(record: Data, policy: Policy) -> list[str]:
    judged = [report for report in judged_reports(record) if report["artefact"] == record["release_artefact"]]
    judged = from_plain(tuple[LeakageReport, ...], judged)
    limited = [item for item in attack_verdicts(policy, judged) if item.max_upper is not None]
    held = [item for item in limited if item.verdict == "PASS"]
    found = [f"{len(held)} of {len(limited)} limits held" if limited else "no attack gave a figure that has a limit"]
    if broken := [item for item in limited if item.verdict != "PASS"]:
        found.append(f"not held: {_listed(_words(item.result.attack) for item in broken)}")
    elif near := max((item for item in held if item.max_upper), key=_used, default=None):
        figure = STATISTICS.get(near.result.statistic, _words(near.result.statistic))
        bound = f"at most {near.result.high:.3f}, limit {near.max_upper:.3f}"
        found.append(f"nearest: {_words(near.result.attack)}, {figure} {bound}")
    return [*found, *_kept(record)]


def _used(item: AttackVerdict) -> float:
    """The share of the room between no leak at all and the limit that the upper bound takes up."""
    none = _NO_LEAK.get(item.result.statistic, 0.0)
    limit = item.max_upper or 0.0
    return (item.result.high - none) / (limit - none) if limit > none else 0.0


def _kept(record: Data) -> list[str]:
    """The other artefacts of the run, and how well the strongest attack rebuilds the series of one of them."""
    judged = judged_reports(record)
    aside = [report for report in record["leakage"] if report not in judged]
    if not aside:
        return []
    best = {}
    for report in aside:
        rates = [row["rate"] for row in report["results"] if row["statistic"] == "r2" and row["rate"] is not None]
        if rates:
            best[report["artefact"]] = max(rates)
    kept = f"kept at the site: {_listed(_short(report['artefact']) for report in aside)}"
    return [f"{kept}; attacks rebuild the series of {len(best)} (R2 up to {max(best.values()):.2f})" if best else kept]


def _unknown(record: Data) -> list[str]:
    missed = list(dict.fromkeys(_words(item["attack"]) for item in gaps(record)["not_run"]))
    if not missed:
        return ["every attack of the audit ran; an attack that is not in it may reach more"]
    return [f"{len(missed)} attack{'s' if len(missed) > 1 else ''} did not run: {_listed(missed)}"]


def _condition(verdict: str, policy: Policy, places: Places) -> str:
    if verdict != "PASS":
        says = "must not leave the site"
    elif places.is_proposal:
        says = f"may leave the site once {policy.approvals} other{'s' if policy.approvals > 1 else ''} approve"
    else:
        says = "may leave the site"
    name = f'policy "{_short(policy.name)}"'
    return f"{says} under {name}" if policy.production else f"{says} (trial {name}: not for production)"


def _next(places: Places) -> list[str]:
    lines = [_row("look", f"{places.report}    (every figure here: -v)")]
    bundle = shlex.quote(places.bundle or "")
    root = shlex.quote(places.root) if places.root else "TRUST_ROOT    (make one: decoct trust init)"
    if places.bundle is not None and places.is_proposal:
        lines += [
            _row("approve", f"decoct release approve {bundle} \\"),
            _row("", "  --key APPROVER.key    (another person than the author)"),
            _row("publish", f"decoct release publish {bundle}"),
        ]
    elif places.bundle is not None:
        lines += [
            _row("receive", f"decoct verify {bundle} \\"),
            _row("", f"  --root {root}"),
        ]
    if places.is_demo:
        lines.append(_row("your data", "decoct config init --out run.toml"))
    return lines


def _block(head: str, sentences: Sequence[str]) -> list[str]:
    blank = " " * _INDENT
    lines = [
        line
        for sentence in sentences
        for line in textwrap.wrap(sentence, WIDTH - _INDENT, subsequent_indent="  ", break_on_hyphens=False)
    ]
    if len(head) >= _INDENT:  # INCONCLUSIVE
        return textwrap.wrap(f"{head}  {' '.join(sentences)}", WIDTH, subsequent_indent=blank)
    return [_row(head, lines[0]), *(blank + line for line in lines[1:])]


def _row(head: str, text: str) -> str:
    return f"{head:<{_INDENT}}{text}"


def _in_colour(line: str) -> str:
    word = line.partition(" ")[0]
    return f"\x1b[1;{_COLOURS[word]}m{word}\x1b[0m{line[len(word) :]}" if word in _COLOURS else line


def _span(spread: Data) -> str:
    least, most = f"{spread['worst']['mean']:.2f}", f"{spread['best']['mean']:.2f}"
    return least if least == most else f"{least} to {most}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _count(number: int) -> str:
    return f"{number:,}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _short(name: str) -> str:
    return textwrap.shorten(name, _ITEM, placeholder="...") if " " in name else name[:_ITEM]


def _listed(names: Any) -> str:
    known = list(dict.fromkeys(names))
    rest = len(known) - _NAMED
    return ", ".join(known[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
