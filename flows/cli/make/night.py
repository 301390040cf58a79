"""`decoct night` and `decoct schedule`: one unattended run, and one every night."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.common import AsJson, ConfigPath, Verbose, print_json
from flows.environment import may_have_server, quiet
from pipeline.core.errors import UsageError

ConfigOption = Annotated[Path, typer.Option("--config", help="The night's TOML file.", show_default=False)]


def night(
    config: ConfigPath,
    no_prefect: Annotated[
        bool, typer.Option("--no-prefect", help="Run without Prefect: ten seconds faster, and not on its page.")
    ] = False,
    new_programs: Annotated[
        bool,
        typer.Option(
            "--new-programs", help="Accept the changed notice command and plug-ins, after you have read them."
        ),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Make one unattended run for a scheduler: resumed, recorded, and reported as [night] says.

    Exit code 0: released, proposed, unchanged or held; otherwise the code of the gate that refused.

    Example: decoct night night.toml
    """
    from pipeline.core.config import load_config

    plan = load_config(config)
    quiet(plan.workspace, console=verbose > 1)
    from flows.workspace.locks import workspace_lock

    with workspace_lock(plan.workspace, "decoct night"):  # asked before libraries are loaded that take seconds
        if new_programs:
            from flows.nights.pinned import pin

            pin(plan)
        found = _night(config, plan, no_prefect)
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)
    if found.exit_code:
        typer.echo(f"decoct: {found.sentence}", err=True)
        raise typer.Exit(found.exit_code)


def schedule(
    config: ConfigOption,
    cron: Annotated[str | None, typer.Option(help="Instead of night.cron: minute hour day month weekday.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Instead of night.timezone: one of the tz database.")] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write this prefect.yaml for a server's work pool instead of staying here.")
    ] = None,
    work_pool: Annotated[str, typer.Option(help="The work pool; with --write.")] = "decoct",
) -> None:
    """Keep running, and start a night whenever the schedule says.

    With PREFECT_API_URL set, that server plans the nights. Without it this process does, and each night is kept in
    Prefect's own SQLite file. A worker does it instead after --write prefect.yaml and: prefect deploy --all. Without
    Prefect, see docs/how-to/every-night.md. The programs that the file names are pinned: a night refuses changed ones.

    Example: decoct schedule --cron "0 2 * * *" --timezone Europe/Berlin --config night.toml
    """
    from flows.nights.clock import checked_schedule
    from pipeline.core.config import load_config

    plan = load_config(config)
    cron = plan.night.cron if cron is None else cron
    timezone = plan.night.timezone if timezone is None else timezone
    checked_schedule(cron, timezone)
    quiet(plan.workspace)
    from flows.nights import scheduled
    from flows.nights.pinned import pin

    pin(plan)
    if write is None:
        typer.echo(f"a night of {config} at {cron} ({timezone}), until this is stopped", err=True)
        scheduled.serve(config, cron, timezone)
        return
    text = scheduled.deployment(config, cron, timezone, work_pool)
    try:
        with write.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"{write} cannot be written: {error.strerror}") from None
    typer.echo(f"wrote   {write}; deploy it with: prefect deploy --all --prefect-file {write}", err=True)


def _night(config: Path, plan: Any, no_prefect: bool) -> Any:
    from flows.progress import say

    if no_prefect:
        say("starting (a few seconds)")
        from flows.nights.night import run_night
        from flows.nights.status import measured
        from flows.run import walk_until
        from flows.watch.page import watched

        with watched(plan.workspace), measured(plan):
            return run_night(plan, lambda job, made: walk_until(job, made=made))
    if not may_have_server():
        say("looking whether anything has changed (a few seconds)")
        from flows.nights.unchanged import run_unchanged

        if (found := run_unchanged(plan)) is not None:
            return found
    say("starting Prefect (about ten seconds)")
    from flows.nights.scheduled import night_through_prefect

    return night_through_prefect(config)


def _print(found: Any) -> None:
    print(f"night   {found.night}: {found.state}")
    print(f"        {found.sentence}")
    made = sum(1 for seconds in found.seconds.values() if seconds)
    print(f"stages  {len(found.digests)} walked, {made} made anew, {found.wall_seconds:.1f} s")
    if found.release:
        print(f"release {found.release}")
