"""`decoct`: one command, one verb per stage. Data goes to stdout, everything for a person's eyes to stderr.

Heavy libraries are imported inside the verbs: `--help`, `show`, `keys` and `config` need neither torch nor Prefect.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from flows.cli.common import (
    AsJson,
    ConfigPath,
    Device,
    Out,
    Resume,
    Seed,
    Verbose,
    check_release_terms,
    print_json,
    require_device,
    stage_verb,
    start,
    today,
    walk,
)
from flows.cli.keep.forget import forget
from flows.cli.keep.keys import keys_app
from flows.cli.keep.ledger import ledger
from flows.cli.keep.log import log_app
from flows.cli.keep.store import store_app
from flows.cli.keep.trust import trust_app
from flows.cli.look.audit import audit_diff, audit_history, audit_tables
from flows.cli.look.doctor import doctor
from flows.cli.look.fleet import fleet
from flows.cli.look.status import status
from flows.cli.look.watch import watch
from flows.cli.make.condense import condense
from flows.cli.make.config import config_app
from flows.cli.make.ingest import ingest
from flows.cli.make.night import night, schedule
from flows.cli.panels import new_app
from flows.cli.receive.evaluate import evaluate
from flows.cli.receive.pool import pool
from flows.cli.receive.receive import receive, verify
from flows.cli.receive.transport import fetch, send
from flows.cli.release.release import release_app
from pipeline.core.errors import UsageError

_STAGES: Final = ("ingest", "encode", "group", "condense", "validate", "audit")
app = new_app()

app.add_typer(config_app, name="config")
app.add_typer(keys_app, name="keys")
app.add_typer(release_app, name="release")
app.add_typer(trust_app, name="trust")
app.add_typer(log_app, name="log")
app.add_typer(store_app, name="store")


@app.command()
def demo(
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """The main job on real, embedded ICU stays, under a policy that production trust roots refuse.

    Example: decoct demo
    """
    from flows.templates import demo_config
    from flows.workspace.trust import ROOT, first_root

    config = demo_config(out or Path("decoct-demo"))
    job, made = _run(config, seed, device, None, resume, verbose)
    root = config.workspace / "trust" / ROOT
    if not root.exists():
        first_root(config.workspace, root, config.release.site, today=today(), trial=True)
    _show(job, made, as_json, verbose, is_demo=True)


@app.command()
def run(
    config: ConfigPath,
    until: Annotated[
        str | None, typer.Option(help="Stop after this stage: ingest, encode, group, condense, validate or audit.")
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Only predict: can the run end in a release, at what cost, and what would stop it?"
        ),
    ] = False,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """The whole pipeline: ingest, encode, condense, validate, group, audit, release; as one Prefect flow.

    Example: decoct run run.toml --resume

    Only the first stages, in this process: decoct run run.toml --until condense

    To read the source and predict the run without drawing or charging anything: decoct run run.toml --plan
    """
    from pipeline.core.config import load_config

    if until is not None and until not in _STAGES:
        raise UsageError(f"--until {until}: no such stage; known are {', '.join(_STAGES)}")
    if until is not None and plan:
        raise UsageError("--plan looks ahead to the release, and --until stops before it: give one of them")
    if until is not None:
        walk(until, start(load_config(config), seed, device, out, verbose, resume=resume), as_json, verbose)
        return
    if plan:
        from flows.cli.make.plan import plan as look_ahead

        look_ahead(start(load_config(config), seed, device, out, verbose, resume=resume), as_json)
        return
    job, made = _run(load_config(config), seed, device, out, resume, verbose)
    _show(job, made, as_json, verbose)


def _stage_verb(name: str, does: str) -> None:
    """One verb per stage, hidden: `decoct run --until` is the way that the help shows."""
    app.command(name, hidden=True)(stage_verb(name, does, f"decoct {name} run.toml"))


app.command(hidden=True)(ingest)
_stage_verb("encode", "Prepare and encode the cohort by every [encode.NAME] table.")
_stage_verb("group", "Which tasks are alike: sample-wise convergence affinity and the label-only control.")
app.command(hidden=True)(condense)
_stage_verb("validate", "Data contracts on every artefact, then train on condensed and test on real stays.")
_stage_verb("audit", "Attack the artefacts of a run and print what was found; exit code 13 is FAIL, 14 INCONCLUSIVE.")
_VERBS: Final[tuple[Callable[..., None], ...]] = (
    *(audit_tables, audit_history, audit_diff, verify, receive, evaluate, pool, send, fetch),
    *(ledger, night, schedule, forget, status, fleet, watch, doctor),
)
for _verb in _VERBS:
    app.command(_verb.__name__.replace("_", "-"))(_verb)


@app.command()
def show(
    digest: Annotated[
        str | None, typer.Argument(help="A digest or its beginning; without it all artefacts are listed.")
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """List the store, newest last: names, dates, sizes; or show one artefact's shapes and provenance, no values.

    Example: decoct show 3f9c --out decoct-demo
    """
    from pipeline.store import Store

    folder = (out or Path("decoct-work")) / "store"
    if not folder.exists():
        raise UsageError(f"there is no store at {folder}; name the workspace with --out")
    store = Store(folder)
    if digest is None:
        from flows.cli.look.artefacts import artefacts, table

        rows = artefacts(folder.parent, store)
        if as_json:
            print_json(rows)
        else:
            print(table(rows))
        return
    described = store.describe(store.resolve(digest))
    print_json(described if as_json else {"kind": described["kind"], "provenance": described["meta"].get("provenance")})


def _run(
    config: Any, seed: int | None, device: str | None, out: Path | None, resume: bool, verbose: int
) -> tuple[Any, dict[str, Any]]:
    check_release_terms(config)
    require_device(device or config.device)
    job = start(config, seed, device, out, verbose, resume=resume)
    from flows.progress import wait_for, wait_is_over

    wait_for("starting Prefect (about ten seconds)")
    from flows.nights.server import temporary_server_apart
    from flows.tasks import road
    from flows.watch.page import watched

    made: dict[str, Any]
    try:
        temporary_server_apart()
        with watched(job.config.workspace):
            made = road(str(job.folder), resume)  # type: ignore[assignment]  # of a state that a flow returns, Prefect gives the data
    finally:
        wait_is_over()
    return job, made


def _show(job: Any, made: dict[str, Any], as_json: bool, verbose: int, *, is_demo: bool = False) -> None:
    from flows.cli.summary import outcome, print_run

    if as_json:
        print_json(outcome(job, made))
    else:
        print_run(job, made, verbose, is_demo=is_demo)
