"""`decoct config`: writing and checking configuration files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, ConfigPath, check_release_terms, print_json
from pipeline.core.errors import ReleaseRefused, UsageError

config_app = typer.Typer(no_args_is_help=True, help="Write and check configuration files.")


To = Annotated[Path | None, typer.Option(help="Write to this new file instead of stdout.")]


@config_app.command("init")
def config_init(
    to: To = None,
    minimal: Annotated[bool, typer.Option("--minimal", help="Only the tables that a run needs.")] = False,
    source: Annotated[
        str | None, typer.Option("--for", help="Only the needed tables, for your source: eicu, mimic_iv, omop or own.")
    ] = None,
) -> None:
    """Write a configuration to start from: every key with a comment, or the fewest keys with --minimal or --for.

    Example: decoct config init --to run.toml

    Example: decoct config init --for mimic_iv --to run.toml
    """
    from flows.templates import SOURCES, brief_config, commented_config

    if source is not None and source not in SOURCES:
        raise UsageError(f"--for {source}: no such source; known are {', '.join(SOURCES)}")
    text = brief_config(source) if minimal or source is not None else commented_config()
    if _written(text, to):
        print(f"wrote {to}; name your licence under [release], then: decoct config check {to}", file=sys.stderr)


@config_app.command("schema")
def config_schema(to: To = None) -> None:
    """Write the JSON schema of a configuration: editors then complete keys and mark mistakes.

    Example: decoct config schema --to decoct.schema.json

    Files from `decoct config init` name it in their first line, as taplo and its editor extensions read it.
    """
    from pipeline.core.config.load import schema

    if _written(json.dumps(schema(), indent=1, sort_keys=True) + "\n", to):
        print(f"wrote {to}; the first line of your configuration names it: #:schema ./{to}", file=sys.stderr)


def _written(text: str, to: Path | None) -> bool:
    """Print `text`, or write it to a new file."""
    if to is None:
        print(text, end="")
        return False
    try:
        with to.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UsageError(f"{to} exists already and is not overwritten") from None
    return True


@config_app.command("check")
def config_check(config: ConfigPath, as_json: AsJson = False) -> None:
    """Check a configuration, its mapping and the heads of the files that it names, without running it.

    Example: decoct config check run.toml

    With --json the configuration is printed with all defaults.
    """
    from flows.charging.foresee import claims_too_much, least_people
    from flows.nights.clock import checked_schedule
    from pipeline.core.config import load_config
    from pipeline.core.redaction import scrubbed
    from pipeline.ingest.checked import check_mapping
    from pipeline.sharing.policy.load import load_policy

    plan = load_config(config)
    checked_schedule(plan.night.cron, plan.night.timezone)
    check_release_terms(plan)
    if found := tuple(claims_too_much(plan, load_policy(plan.release.policy))):
        raise ReleaseRefused(f"this run cannot end in a release: {'; '.join(found)}")
    with scrubbed("config check"):
        check_mapping(
            plan.cohort.mapping,
            kind=plan.source.kind,
            folder=getattr(plan.source, "folder", None),
            tasks=plan.cohort.tasks,
            horizon_hours=plan.cohort.step_hours * plan.cohort.n_steps,
        )
        needed = least_people(plan)
    resolved = plan.model_dump(mode="json")
    if as_json:
        print_json(resolved)
        return
    counts = ((len(resolved["encode"]), "encoding"), (len(resolved["condense"]), "condensed set"))
    print(f"{config}: fine; " + ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in counts))
    if needed is None:
        print(f"its audit cannot meet policy {plan.release.policy}, with however many people: see decoct run --plan")
    elif max(needed):
        print(
            f"a release needs at least {needed[0]} people in train and {needed[1]} held out; are there as many? "
            f"decoct run {config} --plan"
        )
