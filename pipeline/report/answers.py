"""The four answers and the verdict's condition, in sentences: what terminal and report both say first.

Made from the record's plain JSON alone, so that no two pages can tell different figures.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from pipeline.core.types.found import OF_TEACHER
from pipeline.core.wording import guarantee_words
from pipeline.report.leakage import (
    BUNDLE,
    judged_reports,
    limits_held,
    limits_of,
    limits_sentence,
    missed_attacks,
    rebuilt,
    untested,
)
from pipeline.report.utility import FULL, utility_view
from pipeline.report.words import IMPLAUSIBLE, LEAVES, STATISTICS

Data = dict[str, Any]

USABLE_ERROR: Final = 0.08  # a risk that is wrong by no more, on average, is used as it is
_NAMED: Final = 3  # of a longer list the first so many are named
_ITEM: Final = 24  # characters of a name that a site has chosen


@final
@dataclass(frozen=True)
class Answer:
    """A short `head` that stands alone, what follows it in the same sentence, and further sentences."""

    head: str
    tail: str = ""
    more: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        return [self.head + self.tail, *self.more]


def answers(data: Data) -> dict[str, Answer]:
    """What is shared, what it is worth, what leaks and what is unknown."""
    return {"shared": shared(data), "worth": worth(data), "leaks": leaks(data), "unknown": unknown(data)}


def shared(data: Data) -> Answer:
    """The set that was judged; "nothing" where no bundle was written."""
    if data["bundle_path"] is None:
        return Answer("nothing")
    summary = released_summary(data)
    if summary is None:
        what = Answer(LEAVES[data["release_kind"]])
    else:
        labels = "soft labels" if summary["soft_labels"] else "labels"
        what = Answer(f"{count(summary['n_samples'])} synthetic series", f" with {labels}")
    return Answer(what.head, what.tail, (guarantee_sentence(data),))


def guarantee_sentence(data: Data) -> str:
    """Epsilon, never without its delta and its unit."""
    guarantee = next((c["guarantee"] for c in data["condensed"] if c["name"] == data["release_artefact"]), None)
    if data["release_kind"] == "encoded" or guarantee is None:
        return "no privacy guarantee"
    said = guarantee_words(guarantee)
    return f"differential privacy: epsilon {said['epsilon']}, delta {said['delta']}, per {said['unit']}"


def implausible_sentence(found: int | None, n: int) -> str:
    """How many samples no patient could look like; empty where the set does not live in clinical units, or none do."""
    return IMPLAUSIBLE.format(found=found, n=n) if found else ""


def worth(data: Data) -> Answer:
    """AUROC of models trained on what is shared, beside real stays, and its calibration error."""
    view = utility_view(data)
    headline = view["main_task"] and view["headline"]
    if not headline:
        return Answer("not measured", ": no AUROC of a model trained on what is shared")
    stays = " to ".join(count(n) for n in view["n_test"])
    beside = [
        f"{count(headline[key]['best']['n_samples'])} {words} {_span(headline[key])}"
        for key, words in (("full", "real stays give"), ("random", "random real stays"))
        if headline[key] is not None
    ]
    more = [", ".join(beside)] if beside else []
    mine, full = (_calibration(data, view["main_task"], name) for name in (data["release_artefact"], FULL))
    if mine is not None:
        compared = "" if full is None else f" (real stays {full:.2f})"
        advice = ": recalibrate first" if full is not None and mine > max(2 * full, USABLE_ERROR) else ""
        more.append(f"calibration error up to {mine:.2f}{compared}{advice}")
    more += _of_teacher(data, view["main_task"])
    head = f"AUROC {_span(headline['released'])}"
    return Answer(
        head, f"{_interval(data, view)} for {short(view['main_task'])} on {stays} held-out real stays", tuple(more)
    )


def _of_teacher(data: Data, task: str) -> list[str]:
    """The score that comes with a condensed set, on the same stays; moments and encodings leave without one."""
    if data["release_kind"] != "condensed":
        return []
    name = data["release_artefact"] + OF_TEACHER
    found = [_scores(data, task, name, metric) for metric in ("auroc", "calibration_error")]
    if not all(rows and rows[0]["mean"] is not None for rows in found):
        return []
    auroc, error = (rows[0]["mean"] for rows in found)
    return [f"its teacher model, used as it is: AUROC {auroc:.2f}, calibration error {error:.2f}"]


def leaks(data: Data) -> Answer:
    """How many limits of the policy held, the nearest one, what is rebuilt, and what was kept at the site."""
    results = [row for report in judged_reports(data) for row in report["results"]]
    found = limits_held(limits_of(data["terms"], data["release_artefact"]))
    if not results:
        return Answer("not measured", ": no attack gave a figure", tuple(_kept(data)))
    near, rebuilds = found["nearest"], rebuilt(results)
    more = [] if _controls_held(data) else ["the controls of the audit did not hold"]
    if found["broken"]:
        more.append(f"not held: {listed(found['broken'])}")
    elif near is not None:
        figure = STATISTICS.get(near["statistic"], words(near["statistic"]))
        bound = f"at most {near['high']:.3f}, limit {near['limit']:.3f}"
        more.append(f"nearest: {words(near['attack'])}, {figure} {bound}")
    if rebuilds and data["bundle_path"] is not None:
        more.append(rebuilds)
    return Answer(limits_sentence(found), "", (*more, *_kept(data)))


def _controls_held(data: Data) -> bool:
    return all(report["controls_held"] for report in judged_reports(data))


def _kept(data: Data) -> list[str]:
    """The artefacts that do not leave, and how well the strongest attack rebuilds the series of one of them."""
    leaves = () if data["bundle_path"] is None else judged_reports(data)
    aside = [report for report in data["leakage"] if report["artefact"] != BUNDLE and report not in leaves]
    best = {}
    for report in aside:
        bounds = [row["high"] for row in report["results"] if row["statistic"] == "r2" and row["high"] is not None]
        if bounds:
            best[report["artefact"]] = max(bounds)
    if not aside:
        return []
    kept = f"kept at the site: {listed(short(report['artefact']) for report in aside)}"
    return [f"{kept}; attacks rebuild the series of {len(best)} (R2 up to {max(best.values()):.2f})" if best else kept]


def unknown(data: Data) -> Answer:
    """Which attacks did not run, and for which attackers that can exist here there is none."""
    missed, silent = missed_attacks(data), untested(data)
    more = (f"no attack was made for: {', '.join(silent)}",) if silent and judged_reports(data) else ()
    if not judged_reports(data):
        return Answer("not audited", ": no attack was made on what was judged")
    if not missed:
        return Answer("every attack of the audit ran", "; an attack that is not in it may reach more", more)
    many = "s" if len(missed) > 1 else ""
    return Answer(f"{len(missed)} attack{many} did not run", f": {listed(words(name) for name in missed)}", more)


def condition(data: Data) -> str:
    """What the verdict allows, under which policy; a PASS never stands without it."""
    terms, verdict = data["terms"], data["decision"]["verdict"] if data["decision"] else "NOT JUDGED"
    if verdict != "PASS":
        says = "must not leave the site"
    elif data["awaits_approval"]:
        asked = terms["approvals"] if terms else 1
        says = f"may leave the site once {f'{asked} others approve' if asked > 1 else 'another person approves'}"
    else:
        says = "may leave the site"
    if terms is None:
        return says
    name = f'policy "{short(terms["name"])}"'
    return f"{says} under {name}" if terms["production"] else f"{says} (trial {name}: not for production)"


def released_summary(data: Data) -> Data | None:
    """The condensed set that the gate judged, if it is one of those in the record."""
    if data["release_kind"] != "condensed":
        return None
    return next((item for item in data["condensed"] if item["name"] == data["release_artefact"]), None)


def _span(spread: Data) -> str:
    least, most = f"{spread['worst']['mean']:.2f}", f"{spread['best']['mean']:.2f}"
    return least if least == most else f"{least} to {most}"


def _interval(data: Data, view: Data) -> str:
    """The 95 % intervals of the models, from the lowest end to the highest."""
    name, task = data["release_artefact"], view["main_task"]
    rows = _scores(data, task, name, "auroc")
    ends = [(row["low"], row["high"]) for row in rows if row["low"] is not None and row["high"] is not None]
    if not ends:
        return ""
    return f", 95 % interval {min(low for low, _ in ends):.2f} to {max(high for _, high in ends):.2f},"


def _calibration(data: Data, task: str, name: str) -> float | None:
    """The worst model's."""
    rows = _scores(data, task, name, "calibration_error")
    return max((row["mean"] for row in rows if row["mean"] is not None), default=None)


def _scores(data: Data, task: str, name: str, metric: str) -> list[Data]:
    asked = (task, name, metric)
    return [row for row in data["utility"]["scores"] if (row["task"], row["training_set"], row["metric"]) == asked]


def count(number: int) -> str:
    """Thousands apart."""
    return f"{number:,}"


def words(name: str) -> str:
    """A name of the code as words."""
    return name.replace("_", " ")


def short(name: str) -> str:
    """A name that a site has chosen, cut to what a line holds."""
    return textwrap.shorten(name, _ITEM, placeholder="...") if " " in name else name[:_ITEM]


def listed(names: Iterable[str] | Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    known = list(dict.fromkeys(names))
    rest = len(known) - _NAMED
    return ", ".join(known[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
