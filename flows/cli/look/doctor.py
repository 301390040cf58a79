"""`decoct doctor`: the checks as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, Out, print_json
from pipeline.core.errors import EnvironmentProblem


def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Also check who may write this TOML file of your nights.", show_default=False)
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Check the machine (versions, disk, memory, device, telemetry) and the workspace (keys, access, clock, database).

    A line with warn is advice. Exit code 15 when a line says FAIL.

    Example: decoct doctor
    """
    from flows.doctor.examine import examine

    findings = []
    for finding in examine(out or Path("decoct-work"), config):
        findings.append(finding)
        if not as_json:
            print(f"{finding.word:<4}  {finding.check:<14} {finding.told}", flush=True)
    if as_json:
        print_json([{"check": f.check, "ok": f.ok, "grave": f.grave, "told": f.told} for f in findings])
    broken = sum(finding.word == "FAIL" for finding in findings)
    if broken:
        raise EnvironmentProblem(f"{broken} of {len(findings)} checks failed")
