"""`decoct ingest`: a source into a cohort, and the cohort as MEDS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_common import AsJson, ConfigPath, Device, Out, Resume, Seed, Verbose, print_json, start


def ingest(
    config: ConfigPath,
    to_meds: Annotated[
        Path | None,
        typer.Option(help="Also write the cohort into this new folder as MEDS; it holds patients' records."),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Read the source into a cohort on a grid and hold it against its data contract.

    Example: decoct ingest run.toml

    As MEDS, for the site's other tools: decoct ingest run.toml --to-meds meds/ward
    """
    from pipeline.core.config import load_config

    folder = start(load_config(config), seed, device, out, verbose, None)
    from flows.run import walk_until
    from flows.summary import outcome, print_stage

    made = walk_until(folder, "ingest", resume=resume)
    if to_meds is not None:
        _to_meds(folder, made["ingest"].first, to_meds)
    if as_json:
        print_json(outcome(folder, made))
    else:
        print_stage(folder, "ingest", made)


def _to_meds(folder: str, cohort: str, target: Path) -> None:
    from flows.job import open_job
    from flows.progress import say
    from pipeline.core.redaction import scrubbed
    from pipeline.core.types import Cohort
    from pipeline.ingest.meds import write_meds

    with scrubbed("writing MEDS"):
        events = write_meds(open_job(folder, resume=True).store.get(cohort, Cohort), target)
    say(f"  {events} events written as MEDS to {target}: patients' records, which stay at the site")
