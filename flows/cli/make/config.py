"""`decoct config`: writing and checking configuration files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, ConfigPath, check_release_terms, print_json
from pipeline.core.errors import ReleaseRefused, UsageError

config_app = typer.Typer(no_args_is_help=True, help="Write and check configuration files.")


@config_app.command("init")
def config_init(
    to: Annotated[Path | None, typer.Option(help="Write to this new file instead of stdout.")] = None,
) -> None:
    """A commented configuration to start from.

    Example: decoct config init --to run.toml
    """
    from flows.templates import commented_config

    if to is None:
        print(commented_config(), end="")
        return
    try:
        with to.open("x", encoding="utf-8") as stream:
            stream.write(commented_config())
    except FileExistsError:
        raise UsageError(f"{to} exists already and is not overwritten") from None
    print(f"wrote {to}; name your licence under [release], then: decoct config check {to}", file=sys.stderr)


@config_app.command("check")
def config_check(config: ConfigPath, as_json: AsJson = False) -> None:
    """Check a configuration, its mapping and the heads of the files that it names, without running it.

    Example: decoct config check run.toml

    With --json it is printed with all defaults filled in.
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
    print(f"{config}: fine; {len(resolved['encode'])} encodings, {len(resolved['condense'])} condensed sets")
    if needed is None:
        print(f"its audit cannot meet policy {plan.release.policy}, with however many people: see decoct run --plan")
    elif max(needed):
        print(
            f"to be released it needs at least {needed[0]} people in train and {needed[1]} held out: decoct run --plan"
        )
