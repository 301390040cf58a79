"""`decoct status`: a workspace as a monitoring system sees it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.common import AsJson, Out, print_json
from pipeline.core.errors import DecoctError

UNKNOWN: Final = 3


def status(
    out: Out = None,
    max_age: Annotated[
        float | None, typer.Option(help="How many hours ago the newest good end may be; 26 if not given.", min=0.0)
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option(help="Only this configuration (may be repeated), to leave retired ones out.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Also write this file, for Prometheus's textfile collector.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report the state of a workspace's scheduled runs to Icinga, Nagios or Checkmk; aggregates and names only.

    Exit codes are a monitoring plugin's: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. CRITICAL: a run was refused, failed or
    was killed, none has ended well for --max-age hours, the disk is full, or a record is damaged.

    Example: decoct status --out decoct-work --max-age 26
    """
    from datetime import UTC, datetime

    from flows.nights.status import EXIT_CODES, MAX_AGE_HOURS, write_metrics
    from flows.nights.status import status as look

    try:
        found = look(
            out or Path("decoct-work"),
            now=datetime.now(tz=UTC),
            max_age_hours=MAX_AGE_HOURS if max_age is None else max_age,
            only=tuple(run or ()),
        )
        if metrics is not None:
            write_metrics(found, metrics)
    except DecoctError as error:
        print(f"DECOCT UNKNOWN - {error}")
        raise typer.Exit(UNKNOWN) from None
    if as_json:
        print_json({"level": found.level, **asdict(found)})
    else:
        worst = [finding for finding in found.findings if finding.level == found.level]
        print(f"DECOCT {found.level} - " + "; ".join(f"{finding.what}: {finding.told}" for finding in worst))
        for finding in found.findings:
            print(f"{finding.level:<8}  {finding.what:<20}  {finding.told}")
    raise typer.Exit(EXIT_CODES[found.level])
