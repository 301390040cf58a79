"""`decoct fleet`: the scheduled runs of many sites, from the notices that they signed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.common import AsJson, Root, print_json
from flows.cli.look.status import UNKNOWN
from pipeline.core.errors import DecoctError, EnvironmentProblem


def fleet(
    folder: Annotated[Path, typer.Argument(help="Where the sites' notices arrive, as *.json.", show_default=False)],
    root: Root,
    max_age: Annotated[
        float | None, typer.Option(help="How many hours ago the newest good end may be; 26 if not given.", min=0.0)
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Also write this web page.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Read many sites' signed notices: who is silent, how their nights end, versions, budgets, policies.

    Exit codes are a monitoring plugin's: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. CRITICAL: a site is silent, a night
    was refused, failed or killed, or a notice is forged, altered, unsigned, repeated or older than one seen before.

    Example: decoct fleet notices --root root.json --page fleet.html
    """
    from datetime import UTC, datetime

    from flows.nights.fleet import fleet as look
    from flows.nights.status import EXIT_CODES, MAX_AGE_HOURS
    from pipeline.core.files.whole import put_whole
    from pipeline.report.watch import fleet_page

    now = datetime.now(tz=UTC)
    try:
        found = look(folder, root, now=now, max_age_hours=MAX_AGE_HOURS if max_age is None else max_age)
        data = {"level": found.level, "made": now.isoformat(timespec="seconds"), **asdict(found)}
        if page is not None:
            put_whole(page, fleet_page(data).encode())
    except OSError as error:
        raise EnvironmentProblem(f"{page} cannot be written: {error.strerror}") from None
    except DecoctError as error:
        print(f"DECOCT UNKNOWN - {error}")
        raise typer.Exit(UNKNOWN) from None
    if as_json:
        print_json(data)
    else:
        _print(found)
    raise typer.Exit(EXIT_CODES[found.level])


def _print(found: Any) -> None:
    calm = sum(row.level == "OK" for row in found.rows)
    print(f"DECOCT {found.level} - {calm} of {len(found.rows)} OK, {len(found.refused)} notices refused")
    for finding in found.findings:
        print(f"{finding.level:<8}  {finding.what}: {finding.told}")
    head = ("level", "site", "run", "state", "last good", "decoct", "epsilon left", "policy", "verdict", "")
    rows = [head, *map(_cells, found.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head) - 1)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip())
    for file, why in found.refused:
        print(f"refused   {file}: {why}")


def _cells(row: Any) -> tuple[str, ...]:
    told = row.notice
    left = "-" if told["epsilon_left"] is None else f"{told['epsilon_left']:.1f} of {told['epsilon_budget']:g}"
    return (
        row.level,
        told["site"],
        told["run"] or "-",
        told["state"] or "-",
        told["last_good"][:16].replace("T", " ") or "-",
        (told["decoct"] or "-") + (" differs" if row.skew else ""),
        left,
        f"{told['policy'] or '-'} {told['policy_digest'][:12]}".rstrip(),
        told["verdict"] or "-",
        row.told,
    )
