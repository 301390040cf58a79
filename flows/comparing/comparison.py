"""`decoct condense --compare`: the named condensers at their defaults, on one encoding, size and seed, in one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from flows import registry
from flows.workspace.job import Job
from pipeline.core.config import Config, condense_table
from pipeline.core.errors import UsageError
from pipeline.core.wording import in_columns

SHORT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dm": "distribution_matching",
        "kernel": "kernel_matching",
        "random": "random_real",
        "private": "private_teacher",
    }
)
"""Short names on the command line; every registered condenser also answers to its own."""
SHORT_OF: Final[Mapping[str, str]] = MappingProxyType({name: short for short, name in SHORT.items()})
_NAME_LIMIT: Final = 33


def methods(asked: str) -> tuple[str, ...]:
    """Registered condensers from a comma-separated list, each once, in its order.

    Raises:
        UsageError: a name that is not known, or none at all.
    """
    known = registry.names(registry.CONDENSERS)
    words = [word.strip() for word in asked.split(",") if word.strip()]
    found = [SHORT.get(word, word) for word in words]
    for word, name in zip(words, found, strict=True):
        if name not in known:
            short = ", ".join(f"{name} ({SHORT_OF[name]})" if name in SHORT_OF else name for name in known)
            raise UsageError(f"--compare: no condenser is called {word!r}; there are: {short}")
    if not found:
        raise UsageError("--compare needs the names of condensers, for example dm,kernel,centroids,random,private")
    return tuple(dict.fromkeys(found))


def plan(config: Config, names: Sequence[str], input_name: str | None, n_per_class: int | None) -> tuple[Config, str]:
    """The comparison's own configuration, and the table of the run whose seed, and by default size, it takes.

    Tasks are those of the run's first table; a group chosen on real data is outside a privacy account, so that instead
    of it the first task is compared.

    Raises:
        UsageError: the run has no [encode] table of that name.
    """
    first_name, first = next(iter(config.condense.items()))
    source = input_name or first.input
    if source not in config.encode:
        raise UsageError(f"--input {source}: the file has no such [encode] table; it has {', '.join(config.encode)}")
    tasks = "first" if first.by_group or first.makes_several else first.tasks
    size = n_per_class or first.n_per_class
    tables = {name: condense_table(name, input=source, n_per_class=size, tasks=tasks) for name in names}
    changes: dict[str, Any] = {
        "name": f"{config.name[:_NAME_LIMIT]}-compare",
        "encode": {source: config.encode[source]},
        "condense": tables,
        "group": None,
        "release": config.release.model_copy(update={"kind": "condensed", "artefact": names[0]}),
    }
    return config.model_copy(update=changes), first_name


def compare(job: Job, seed_of: str) -> dict[str, Any]:
    """Condense by every table of the comparison in `job`, score on the tuning stays; rows and footer as plain data.

    What comes before condensing is taken from the store, or made; if the job resumes finished sets are, too.
    """
    from flows.comparing import compare as stage
    from flows.run import CONDENSE, Stage, Walker, execute, walk_until
    from pipeline.core.codec import to_plain
    from pipeline.core.types import UtilityReport

    source = next(iter(job.config.encode))
    encoded = walk_until(dataclasses.replace(job, resume=True), "encode")[f"encode {source}"]
    step = Walker(lambda label, what, inputs: execute(job, label, what.does, inputs))
    condensed = {name: step(CONDENSE, name, encoded, None, seed_of) for name in job.config.condense}
    score = Stage("utility on tuning", "condense", stage.tuning_utility)
    scored = step(score, encoded, condensed)
    report = job.only(scored, UtilityReport)
    return {
        "input": source,
        "rows": to_plain(stage.rows(job, condensed, report)),
        "interval": report.interval,
        "training": report.training,
        "notes": [stage.OUTSIDE],
    }


def table(found: Mapping[str, Any]) -> str:
    """The comparison for a person: a block of lines per method, one line per model."""
    scores = [score for row in found["rows"] for score in row["scores"]]
    first = scores[0] if scores else {"task": "no task that can be tested", "n_test": 0}
    metrics = list(dict.fromkeys(score["metric"] for score in scores)) or ["auroc", "auprc"]
    titles = [metric.upper() for metric in metrics]
    lines = [["method", "labels", "guarantee", "from records", "seconds", "floats", "model", *titles]]
    for row in found["rows"]:
        facts = [
            row["method"],
            row["labels"],
            "none" if row["epsilon"] is None else f"eps {row['epsilon']:.3g}",
            "yes" if row["starts_from_records"] else "no",
            f"{row['seconds']:.1f}",
            str(row["floats"]),
        ]
        models = list(dict.fromkeys(score["model"] for score in row["scores"]))
        for model in models or ["-"]:
            cells = [_cell(row["scores"], model, metric) for metric in metrics]
            lines.append([*facts, model, *cells])
            facts = [""] * len(facts)
    head = (
        f"{first['task']}, input {found['input']}, {first['n_test']} real tuning stays (not held-out), 95 % intervals"
    )
    foot = [*found["notes"], f"networks: {found['training']}; no real data"]
    return "\n".join([head, *in_columns(lines), *foot])


def _cell(scores: Sequence[Mapping[str, Any]], model: str, metric: str) -> str:
    for score in scores:
        if (score["model"], score["metric"]) == (model, metric):
            return f"{score['mean']:.3f} [{score['low']:.2f}, {score['high']:.2f}]"
    return "-"
