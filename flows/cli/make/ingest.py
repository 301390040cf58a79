"""`decoct ingest`: a source into a cohort, a look at it, the cohort as MEDS; or a draft of a mapping."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flows.cli.common import AsJson, Device, Out, Resume, Seed, Verbose, print_json, start
from pipeline.core.errors import UsageError

if TYPE_CHECKING:
    from flows.workspace.job import Job

DATA_PAGE: Final = "data.html"
DATA_JSON: Final = "data.json"


def ingest(
    config: Annotated[Path | None, typer.Argument(help="The run's TOML file.", show_default=False)] = None,
    suggest: Annotated[
        Path | None,
        typer.Option(help="Instead of a run: draft a mapping for this folder of tables; the draft goes to stdout."),
    ] = None,
    try_: Annotated[
        bool,
        typer.Option(
            "--try", help="Read a thousand rows of each table and show, on a terminal, ten of each kind that fails."
        ),
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Also write a look at the data: data.html and data.json, aggregates only.")
    ] = False,
    to_meds: Annotated[
        Path | None,
        typer.Option(help="Also write the cohort into this new folder as MEDS; it holds patients' records."),
    ] = None,
    write_contract: Annotated[
        Path | None,
        typer.Option(
            help="Also draw up the site's contract from this cohort, in this folder of the site's repository."
        ),
    ] = None,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Read nothing: how many rows the last reading put aside, and where.")
    ] = False,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Read the source into a cohort on a grid and check it against its data contract.

    Example: decoct ingest run.toml --report

    A mapping to begin with: decoct ingest --suggest exports/ward > ward.toml

    What becomes of the first rows: decoct ingest run.toml --try

    What the next cohort is held to: decoct ingest run.toml --write-contract contracts

    As MEDS, for the site's other tools: decoct ingest run.toml --to-meds meds/ward
    """
    if suggest is not None:
        if config is not None or report or quarantine or resume or any((to_meds, write_contract)):
            raise UsageError("--suggest takes no run: leave out the TOML file and the flags of a run")
        _suggest(suggest, as_json, try_=try_)
        return
    if config is None:
        raise UsageError("name the run's TOML file, or a folder of tables with --suggest")
    from pipeline.core.config import load_config

    if try_:
        _try(load_config(config))
        return
    if quarantine:
        _quarantine(load_config(config), out, as_json)
        return
    plan = load_config(config)
    _check(plan)
    job = start(plan, seed, device, out, verbose, resume=resume)
    from flows.cli.summary import outcome, print_stage
    from flows.run import walk_until

    made = walk_until(job, "ingest")
    cohort, ingest_report = made["ingest"].digests[:2]
    told = outcome(job, made)
    if to_meds is not None:
        _to_meds(job, cohort, to_meds)
    if write_contract is not None:
        told["site_contract"] = _contract(job, cohort, ingest_report, write_contract)
    if report:
        told["data_report"] = _look(job, cohort, ingest_report)
    if as_json:
        print_json(told)
    else:
        print_stage(job, "ingest", made)
        if report:
            print(f"data    {told['data_report']}")


def _check(plan: Any) -> None:
    """A mapping's faults are told before anything heavy is loaded."""
    from pipeline.core.redaction import scrubbed
    from pipeline.ingest.checked import check_mapping

    with scrubbed("ingest"):
        hours = plan.cohort.step_hours * plan.cohort.n_steps
        check_mapping(
            plan.cohort.mapping, kind=plan.source.kind, folder=None, tasks=plan.cohort.tasks, horizon_hours=hours
        )


def _try(plan: Any) -> None:
    from pipeline.core.redaction import scrubbed
    from pipeline.ingest.mapping.load import load_mapping

    _check(plan)
    if plan.source.kind != "tables":
        raise UsageError('--try reads sources of kind = "tables"')
    with scrubbed("try"):
        _print_first_rows(plan.source.folder, load_mapping(plan.cohort.mapping))


def _print_first_rows(folder: Path, mapping: Any) -> None:
    """On stdout, and where that is no terminal without the rows: a log is no place for them."""
    from pipeline.ingest.drafting.first_rows import first_rows

    for line in first_rows(folder, mapping).lines(with_rows=sys.stdout.isatty()):
        print(line)


def _suggest(source: Path, as_json: bool, *, try_: bool) -> None:
    from flows.progress import say
    from pipeline.core.redaction import scrubbed
    from pipeline.ingest.drafting.suggest import suggest

    with scrubbed("suggest"):
        draft = suggest(source)
    if as_json:
        print_json({"mapping": draft.toml, "notes": list(draft.notes)})
        return
    if try_:
        from pipeline.ingest.mapping.load import parse_draft

        with scrubbed("try"):
            _print_first_rows(source if source.is_dir() else source.parent, parse_draft(draft.toml))
    else:
        print(draft.toml, end="")
    for note in draft.notes:
        say(f"  {note}")


def _contract(job: Job, cohort: str, report: str, target: Path) -> dict[str, Any]:
    from flows.progress import say
    from pipeline.core.redaction import scrubbed
    from pipeline.core.types import Cohort, IngestReport
    from pipeline.validation.site_contract import draft_contract, write_contract

    with scrubbed("writing the contract"):
        made, account = job.store.get(cohort, Cohort), job.store.get(report, IngestReport)
        contract = write_contract(target, job.config.name, draft_contract(made, account))
    rules = sum(len(suite.expectations) for suite in contract.suites)
    say(f"  {rules} expectations, digest {contract.digest[:12]}: {contract.project}")
    return {"path": str(target), "digest": contract.digest}


def _quarantine(config: Any, out: Path | None, as_json: bool) -> None:
    from pipeline.ingest.kept.quarantine import quarantine_counts, told

    found = quarantine_counts(config.workspace if out is None else out.resolve(), config.name)
    if as_json:
        plain = {} if found is None else {"path": str(found[0]), "rows": found[1], "kept": found[2]}
        print_json(plain)
        return
    if found is None:
        print("the last reading put no row aside")
        return
    path, counts, kept = found
    for reason, rows in sorted(counts.items()):
        print(f"{told(rows):>14}  {reason}")
    print(f"{told(kept)} rows are kept: {path} (patients' records, which stay at the site)")


def _look(job: Job, cohort: str, report: str) -> str:
    from pipeline.core.redaction import scrubbed
    from pipeline.core.types import Cohort, IngestReport
    from pipeline.report.data_look import look_at, look_html, look_json

    with scrubbed("data report"):
        look = look_at(job.store.get(cohort, Cohort), job.store.get(report, IngestReport))
        job.replace_file(DATA_JSON, look_json(look))
        job.replace_file(DATA_PAGE, look_html(look).encode())
    return str(job.folder / DATA_PAGE)


def _to_meds(job: Job, cohort: str, target: Path) -> None:
    from flows.progress import say
    from pipeline.core.redaction import scrubbed
    from pipeline.core.types import Cohort
    from pipeline.ingest.sources.meds import write_meds

    with scrubbed("writing MEDS"):
        events = write_meds(job.store.get(cohort, Cohort), target)
    say(f"  {events} events written as MEDS to {target}: patients' records, which stay at the site")
