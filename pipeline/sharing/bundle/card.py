"""The card: what a person should know before using the set, as Markdown and as one self-contained HTML page.

It may hold accounted or public values, the policy's limits and bounds rounded up; exact figures never reach it, because
`ReleaseFacts` has none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import jinja2

from pipeline.core.data_use import data_use_words
from pipeline.core.wording import MISSINGNESS, SAMPLES, THREAT_MODELS, guarantee_words
from pipeline.sharing.bundle.facts import ReleaseFacts
from pipeline.sharing.layout import SHIFT, TEACHER

STATISTICS: Final[Mapping[str, str]] = {
    "r2": "share of the variation that can be recovered (R²)",
    "auroc": "separating members from others (AUROC; 0.5 is chance)",
    "tpr_at_1pct_fpr": "members found at 1 % false alarms",
    "tpr_at_smallest_fpr": "members found at the fewest false alarms that could be measured",
    "tpr_at_01pct_fpr": "members found at 0.1 % false alarms",
    "count": "samples closer to one person than unrelated people ever are, or identifiers or keys found",
    "excess_risk": "how much more often a guess is right about a member than about another person",
    "telling_views": "ways of looking in which the set is nearer to its members than chance allows",
    "epsilon_above_claim": "how far a test contradicts the guarantee",
    "*": "every figure that decides",
}

KINDS: Final[Mapping[str, str]] = {
    "condensed": f"A condensed set: a few synthetic series with labels. {SAMPLES}",
    "encoded": "An encoded cohort: one row per stay, encoded. Every row belongs to a person.",
    "moments": "Noisy sums over a cohort, to be added to those of other institutions. No row of a person.",
}

TASKS_CHOSEN: Final[Mapping[str, str]] = {
    "real_stays": "Which tasks are in it was chosen on real patients' records, which no account covers.",
    "private_moments": "Which tasks are in it was chosen from the private moments alone, at no further cost.",
    "fixed": "Which tasks are in it was fixed by the site beforehand; no record was looked at for it.",
}
"""How the tasks of a group's set were chosen."""


BALANCED: Final = (
    "Labels of the first task are balanced, so a model trained on them ranks patients. Its outputs are risks only "
    "after the log odds in label_shift are added, as risk(predicted, task) does."
)
TAUGHT: Final = (
    "The teacher weighs a few public features of a stay: each channel's late level, or the items of a clinical score "
    "that the mapping lists. Its risks are calibrated on the site's patients under the same guarantee. Use "
    "score(series) for that risk as it is, and the samples to train a model of your own. The site's own figures are "
    "not published: decoct evaluate compares both on your patients. The audit attacks the samples and, for a single "
    "release, the noisy answers behind the teacher, but not the teacher's numbers themselves."
)


def card_html(facts: ReleaseFacts) -> str:
    """The page: no script, no network, printable, light and dark."""
    return _environment(html=True).get_template("card.html.j2").render(_context(facts))


def card_markdown(facts: ReleaseFacts) -> str:
    """The same words as Markdown."""
    return _environment(html=False).get_template("card.md.j2").render(_context(facts))


def licence_text(facts: ReleaseFacts) -> str:
    """The licence and data-use statement that travels as a file of its own."""
    return _environment(html=False).get_template("license.txt.j2").render(_context(facts))


def _context(facts: ReleaseFacts) -> dict[str, Any]:
    manifest = facts.manifest
    return {
        "facts": facts,
        "m": manifest,
        "kind_words": KINDS[manifest["release"]["kind"]],
        "guarantee": manifest["guarantee"] and {**manifest["guarantee"], **guarantee_words(manifest["guarantee"])},
        "rows": attack_rows(facts),
        "limits": limits_of(facts),
        "attackers": THREAT_MODELS,
        "data_use": data_use_words(manifest["data_use"]),
        "shapes": [
            (name, " × ".join(str(size) for size in array["shape"]), array["dtype"])
            for name, array in sorted(manifest["data"]["arrays"].items())
        ],
        "transforms": [_transform_row(step) for step in manifest["data"]["transforms"]],
    }


def attack_rows(facts: ReleaseFacts) -> list[dict[str, str]]:
    """The audit's figures in words, a row each."""
    return [_attack_row(row, facts.leakage["rounding"] is not None) for row in facts.leakage["attacks"]]


def limits_of(facts: ReleaseFacts) -> tuple[str, ...]:
    """What the release does not promise: what holds for its kind, then the author's own words."""
    return (*_limits_of_kind(facts.manifest), *facts.limits)


def _attack_row(row: Mapping[str, Any], is_published: bool) -> dict[str, str]:
    """Beside a guarantee no bound is published: the limit that stands in for it in the file was never measured."""
    limit, bound = row["limit"], row["upper_bound"] if is_published else None
    return {
        "attack": "every attack" if row["attack"] == "*" else row["attack"].replace("_", " "),
        "attacker": THREAT_MODELS.get(row["threat_model"], "any of those the policy names"),
        "threat_model": row["threat_model"],
        "figure": STATISTICS.get(row["statistic"], row["statistic"]),
        "bound": "not published" if bound is None else f"{bound:g}",
        "limit": "none set" if limit is None else f"{limit:g}",
        "verdict": "shown, accepted" if limit is None else "within the limit",
    }


def _transform_row(step: Mapping[str, Any]) -> tuple[str, str]:
    public = "public constants only" if step.get("public") else "constants computed from patients"
    return str(step.get("kind", "unnamed")).replace("_", " "), public


def _limits_of_kind(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """What holds for every release of its kind, so that nobody has to remember to say it."""
    release, data = manifest["release"], manifest["data"]
    limits = ["An audit finds what it looks for. Attacks that were not tried, or not yet known, may reach more."]
    if manifest["guarantee"] is None:
        limits.append("No privacy guarantee is given: the audit's bounds are all there is.")
    else:
        limits.append(
            "The guarantee covers the payload; nothing else in these files is computed from patients' records. Further "
            "releases about the same people add to epsilon."
        )
        limits.append(
            "The decision to release was made on patients' data. "
            "The guarantee does not cover that it was made, nor when."
        )
    if release["kind"] == "encoded":
        limits.append("Encoding is pseudonymisation by a key: whoever holds the encoder can undo most of it.")
    modes = [str(step.get("mode")) for step in data["transforms"] if step.get("kind") == "missingness"]
    limits.extend(MISSINGNESS[mode] for mode in modes if mode in MISSINGNESS)
    if release["starts_from_records"] and release["kind"] == "condensed":
        limits.append("Samples were started from real stays and may resemble them.")
    chosen = release["options"].get("tasks_chosen")
    if chosen in TASKS_CHOSEN:
        limits.append(TASKS_CHOSEN[chosen])
    if data.get("soft_labels"):
        limits.append("Labels are soft: probabilities between 0 and 1. Do not read them as anybody's outcome.")
    if SHIFT in data["arrays"]:
        limits.append(BALANCED)
    if TEACHER in data["arrays"]:
        limits.append(TAUGHT)
    return tuple(limits)


@functools.cache
def _environment(*, html: bool) -> jinja2.Environment:
    folder = resources.files("pipeline.sharing.bundle") / "templates"
    names = ("card.html.j2",) if html else ("card.md.j2", "license.txt.j2")
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({name: (folder / name).read_text(encoding="utf-8") for name in names}),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _markdown_escaped
    environment.filters["line"] = lambda text: " ".join(str(text).split())
    return environment


def _markdown_escaped(text: object) -> str:
    """One line of Markdown that renders as `text`: no markup, no HTML, no table break."""
    return re.sub(r"([\\`*_{}\[\]<>|#!~&])", r"\\\1", " ".join(str(text).split()))
