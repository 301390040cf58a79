"""What the verbs share: their options, the start of a run's folder, and JSON on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.panels import require_there
from flows.environment import quiet
from pipeline.core.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from flows.workspace.job import Job

ConfigPath = Annotated[Path, typer.Argument(help="The run's TOML file.", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="Seed of all public randomness; instead of the file's.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...; instead of the file's.")]
Out = Annotated[Path | None, typer.Option(help="Workspace folder (store, keys, runs, releases).")]
Resume = Annotated[bool, typer.Option("--resume", help="Take finished stages from the store instead of redoing them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON on stdout.")]
Verbose = Annotated[int, typer.Option("-v", "--verbose", count=True, help="More detail; -vv also Prefect's log.")]
Only = Annotated[list[str] | None, typer.Option(help="Only this table of the file (may be repeated).")]
Root = Annotated[Path, typer.Option(help="Your trust root file.", show_default=False)]


def walk(verb: str, job: Job, as_json: bool, verbose: int = 0) -> None:
    """One stage and what it needs, and what it has to show."""
    from flows.cli.summary import outcome, print_stage
    from flows.run import walk_until

    made = walk_until(job, verb)
    if as_json:
        print_json(outcome(job, made))
    else:
        print_stage(job, verb, made, verbose)


def stage_verb(stage: str, does: str, example: str) -> Callable[..., None]:
    """The verb of a stage; what comes before it is taken from the store, or made if it is missing."""

    def verb(
        config: ConfigPath,
        only: Only = None,
        seed: Seed = None,
        device: Device = None,
        out: Out = None,
        resume: Resume = False,
        as_json: AsJson = False,
        verbose: Verbose = 0,
    ) -> None:
        from pipeline.core.config import load_config

        walk(stage, start(load_config(config), seed, device, out, verbose, only, resume=resume), as_json, verbose)

    verb.__doc__ = f"{does}\n\nExample: {example}"
    return verb


def start(
    config: Any,
    seed: int | None,
    device: str | None,
    out: Path | None,
    verbose: int,
    only: list[str] | None = None,
    *,
    resume: bool = False,
) -> Job:
    """Apply the flags that differ from run to run, quieten the surroundings, write the run's folder: the verb's job."""
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["seed"] = seed
    if device is not None:
        changes["device"] = device
    if out is not None:
        changes["workspace"] = out.resolve()
    if only:
        changes |= _narrowed(config, set(only))
    config = config.model_copy(update=changes)
    quiet(config.workspace, console=verbose > 1)
    from flows.workspace.job import new_job
    from pipeline.core.redaction import scrubbed

    try:
        config.workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise EnvironmentProblem(f"the workspace {config.workspace} cannot be made: {error.strerror}") from None
    with scrubbed("start"):
        return new_job(config, resume=resume)


def check_release_terms(config: Any) -> None:
    """What the policy asks of [release], before hours are spent on what it would refuse.

    Raises:
        ConfigError: no such policy. ReleaseRefused: recipients, an agreement or keys are missing.
    """
    from pipeline.sharing.policy.load import load_policy, require_terms

    terms = config.release
    require_terms(load_policy(terms.policy), terms.recipients, terms.agreement, terms.recipient_keys)


def require_device(wanted: str) -> None:
    """A device that is asked for by name is there, before anything is read.

    Raises:
        EnvironmentProblem: it is not.
    """
    if wanted.startswith(("cuda", "mps")):
        import torch

        is_there = torch.cuda.is_available() if wanted.startswith("cuda") else torch.backends.mps.is_available()
        if not is_there:
            raise EnvironmentProblem(f"device {wanted}: torch finds no such device here; use --device auto or cpu")


def _narrowed(config: Any, only: set[str]) -> dict[str, Any]:
    """The tables named by --only, what [release] names, and the encodings that a kept condenser needs."""
    unknown = only - set(config.encode) - set(config.condense)
    if unknown:
        raise UsageError(f"--only {sorted(unknown)[0]}: the file has no such [encode] or [condense] table")
    only = only | {config.release.artefact}
    condense = {name: table for name, table in config.condense.items() if name in only}
    needed = {table.input for table in condense.values()} | only
    encode = {name: table for name, table in config.encode.items() if name in needed}
    return {"encode": encode or dict(config.encode), "condense": condense}


def workspace_of(out: Path | None) -> Path:
    """The workspace that `--out` names, or the usual one.

    Raises:
        UsageError: there is none.
    """
    workspace = out or Path("decoct-work")
    require_there(workspace, "workspace")
    return workspace


def today() -> date:
    """The date that decides about expiry and revocation."""
    return datetime.now(tz=UTC).date()


def print_json(value: Any) -> None:
    """The outcome for a program: stable order, on stdout."""
    print(json.dumps(value, indent=2, sort_keys=True))
