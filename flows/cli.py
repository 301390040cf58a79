"""`decoct`: one command, one verb per stage. Data goes to stdout, everything for a person's eyes to stderr.

Heavy libraries are imported inside the verbs: `--help`, `show`, `verify`, `keys` and `config` need neither torch nor
Prefect.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from flows.environment import quiet
from flows.keys_cli import keys_app
from pipeline.core.errors import DecoctError, EnvironmentProblem, UsageError

INTERRUPTED: Final = 130

app = typer.Typer(
    name="decoct",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="From a hospital's ICU time series to a small, audited, signed set that another institution can train on.\n\n"
    "Start with: decoct demo. On your own data: decoct config init > run.toml, then decoct run run.toml.\n\n"
    "Exit codes: 0 done, 2 usage, 10 configuration, 11 input data, 12 utility floor, 13 leakage, 14 release refused, "
    "15 environment, 130 interrupted.",
)
config_app = typer.Typer(no_args_is_help=True, help="Write and check configuration files.")
app.add_typer(config_app, name="config")
app.add_typer(keys_app, name="keys")

ConfigPath = Annotated[Path, typer.Argument(help="The run's TOML file.", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="Seed of all public randomness; instead of the file's.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...; instead of the file's.")]
Out = Annotated[
    Path | None, typer.Option(help="Workspace folder (store, keys, runs, releases); instead of the file's.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Take finished stages from the store instead of redoing them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON on stdout.")]
Verbose = Annotated[int, typer.Option("-v", "--verbose", count=True, help="More on stderr; -vv also Prefect's log.")]
Only = Annotated[list[str] | None, typer.Option(help="Only this table of the file (may be repeated).")]
Root = Annotated[Path, typer.Option(help="Your trust root file.", show_default=False)]


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

    _run(demo_config(out or Path("decoct-demo")), seed, device, None, resume, as_json, verbose)


@app.command()
def run(
    config: ConfigPath,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """The whole road: ingest, encode, condense, validate, group, audit, release; as one Prefect flow.

    Example: decoct run run.toml --resume
    """
    from pipeline.core.config import load_config

    _run(load_config(config), seed, device, out, resume, as_json, verbose)


def _stage_verb(name: str, does: str) -> None:
    """One verb per stage; what comes before it is taken from the store, or made if it is missing."""

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

        _walk(name, _start(load_config(config), seed, device, out, verbose, only), resume, as_json)

    verb.__doc__ = f"{does}\n\nExample: decoct {name} run.toml"
    app.command(name)(verb)


_stage_verb("ingest", "Read the source into a cohort on a grid and hold it against its data contract.")
_stage_verb("encode", "Prepare and encode the cohort by every [encode.NAME] table.")
_stage_verb("group", "Which tasks are alike: sample-wise convergence affinity and the label-only control.")


@app.command()
def condense(
    config: Annotated[Path | None, typer.Argument(help="The run's TOML file.", show_default=False)] = None,
    from_moments: Annotated[
        list[Path] | None,
        typer.Option(help="Instead of a run: a site's bundle of private moments (repeat for each site)."),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Your trust root file; with --from-moments.")] = None,
    n_per_class: Annotated[int, typer.Option(help="Samples per class; with --from-moments.")] = 40,
    hard_labels: Annotated[
        bool, typer.Option("--hard-labels", help="Labels 0 or 1 instead of probabilities; with --from-moments.")
    ] = False,
    only: Only = None,
    seed: Seed = None,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option(help="Workspace folder; with --from-moments the new folder (default: pooled).")
    ] = None,
    resume: Resume = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Condense the training stays by every [condense.NAME] table; or several sites' private moments, added.

    Example: decoct condense run.toml

    Or, without any patient: decoct condense --from-moments site-a-v1 --from-moments site-b-v1 --root trust-root.toml
    """
    if from_moments:
        if config is not None or only or device is not None or resume:
            raise UsageError("--from-moments takes no run: leave out the TOML file, --only, --device and --resume")
        if root is None:
            raise UsageError("--from-moments needs --root, the trust root that names the sites' keys")
        _pool(from_moments, root, out or Path("pooled"), n_per_class, seed or 0, hard_labels, as_json)
        return
    if config is None or root is not None or hard_labels or n_per_class != 40:
        raise UsageError(
            "decoct condense takes a run's TOML file, or bundles of moments by --from-moments; "
            "--root, --n-per-class and --hard-labels belong to the latter"
        )
    from pipeline.core.config import load_config

    _walk("condense", _start(load_config(config), seed, device, out, verbose, only), resume, as_json)


_stage_verb("validate", "Data contracts on every artefact, then train on condensed and test on real stays.")
_stage_verb("audit", "Attack the artefacts and print what was found.")
_stage_verb("release", "Gate, sign and bundle the artefact that [release] names; write the report.")


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)],
    root: Root,
    as_json: AsJson = False,
) -> None:
    """Check a bundle offline against a trust root: every byte, signature, policy and date.

    Example: decoct verify decoct-demo/releases/demo-private-v1 --root trust-root.toml
    """
    from pipeline.sharing.verify import verify as check

    found = check(bundle, root, today=_today())
    if as_json:
        _print_json({"bundle": str(bundle), "signed_by": found.signed_by.name, "manifest": dict(found.manifest)})
    else:
        print(_told(found))


@app.command()
def receive(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)],
    root: Root,
    out: Annotated[Path, typer.Option(help="New folder for one .npy per array and manifest.json.")] = Path("received"),
    as_json: AsJson = False,
) -> None:
    """Verify a bundle and unpack it into plain arrays.

    Example: decoct receive decoct-demo/releases/demo-private-v1 --root trust-root.toml --out received
    """
    from flows.unpack import unpack
    from pipeline.sharing.receive import receive as take

    received = take(bundle, root, today=_today())
    shapes = unpack(received, out)
    if as_json:
        _print_json({"folder": str(out), "arrays": shapes})
    else:
        listed = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes.items())
        print(f"{_told(received.bundle)}\nwrote {listed} to {out}")


@app.command()
def evaluate(
    config: ConfigPath,
    bundle: Annotated[Path, typer.Option(help="The received bundle's folder.", show_default=False)],
    root: Root,
    all_stays: Annotated[
        bool, typer.Option("--all-stays", help="Test on every own stay, not the held-out ones.")
    ] = False,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Train on a received bundle, test on your own stays, prepared and encoded alike (keyed: with the shared key).

    Example: decoct evaluate run.toml --bundle st-elsewhere-private-v1 --root trust-root.toml
    """
    from pipeline.core.config import load_config

    folder = _start(load_config(config), seed, device, out, verbose, None)
    from flows.evaluate import evaluate as test_at_home
    from flows.summary import print_scores
    from pipeline.core.codec import to_plain
    from pipeline.core.redaction import scrubbed

    with scrubbed("evaluate"):
        report = test_at_home(folder, bundle, root, all_stays=all_stays, today=_today())
    if as_json:
        _print_json(to_plain(report))
    else:
        print_scores(report)


@app.command()
def show(
    digest: Annotated[str | None, typer.Argument(help="A digest or its beginning; none lists all artefacts.")] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """What is in the store: all artefacts, or one's description (shapes and provenance, never values of patients).

    Example: decoct show 3f9c --out decoct-demo
    """
    from pipeline.store import Store

    folder = (out or Path("decoct-work")) / "store"
    if not folder.exists():
        raise UsageError(f"there is no store at {folder}; name the workspace with --out")
    store = Store(folder)
    if digest is None:
        rows = [{"digest": e.digest, "kind": e.kind, "bytes": e.size_bytes} for e in store.entries()]
        if as_json:
            _print_json(rows)
        for row in [] if as_json else rows:
            print(f"{str(row['digest'])[:12]}  {row['kind']:<15} {row['bytes']:>12}")
        return
    described = store.describe(store.resolve(digest))
    _print_json(
        described if as_json else {"kind": described["kind"], "provenance": described["meta"].get("provenance")}
    )


@app.command()
def doctor(out: Out = None, as_json: AsJson = False) -> None:
    """Is this machine fit: versions, names with two owners, disk, memory, device, key permissions, telemetry.

    Example: decoct doctor
    """
    from flows.doctor import examine

    findings = examine(out or Path("decoct-work"))
    if as_json:
        _print_json([{"check": f.check, "ok": f.ok, "told": f.told} for f in findings])
    for finding in [] if as_json else findings:
        print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:<14} {finding.told}")
    broken = sum(not finding.ok for finding in findings)
    if broken:
        raise EnvironmentProblem(f"{broken} of {len(findings)} checks failed")


@config_app.command("init")
def config_init(
    out: Annotated[Path | None, typer.Option(help="Write to this new file instead of stdout.")] = None,
) -> None:
    """A commented configuration to start from.

    Example: decoct config init --out run.toml
    """
    from flows.templates import commented_config

    if out is None:
        print(commented_config(), end="")
        return
    try:
        with out.open("x", encoding="utf-8") as stream:
            stream.write(commented_config())
    except FileExistsError:
        raise UsageError(f"{out} exists already and is not overwritten") from None
    print(f"wrote {out}; next: decoct config check {out}", file=sys.stderr)


@config_app.command("check")
def config_check(config: ConfigPath, as_json: AsJson = False) -> None:
    """Check a configuration without running it, and print it with all defaults filled in.

    Example: decoct config check run.toml
    """
    from pipeline.core.config import load_config

    resolved = load_config(config).model_dump(mode="json")
    if as_json:
        _print_json(resolved)
    else:
        print(f"{config}: fine; {len(resolved['encode'])} encodings, {len(resolved['condense'])} condensed sets")


def _run(
    config: Any, seed: int | None, device: str | None, out: Path | None, resume: bool, as_json: bool, verbose: int
) -> None:
    folder = _start(config, seed, device, out, verbose, None)
    from flows.progress import say

    say("starting Prefect (about ten seconds)")
    from flows.run import road
    from flows.summary import outcome, print_run

    made = road(folder, resume)
    if as_json:
        _print_json(outcome(folder, made))
    else:
        print_run(folder, made)


def _walk(verb: str, job_folder: str, resume: bool, as_json: bool) -> None:
    """One stage and what it needs, and what it has to show."""
    from flows.run import walk_until
    from flows.summary import outcome, print_stage

    made = walk_until(job_folder, verb, resume=resume)
    if as_json:
        _print_json(outcome(job_folder, made))
    else:
        print_stage(job_folder, verb, made)


def _pool(
    bundles: list[Path], root: Path, folder: Path, n_per_class: int, seed: int, hard_labels: bool, as_json: bool
) -> None:
    from flows.pool import pool
    from pipeline.core.redaction import scrubbed

    with scrubbed("pool"):
        made = pool(bundles, root, folder, n_per_class=n_per_class, seed=seed, hard_labels=hard_labels, today=_today())
    if as_json:
        _print_json({"folder": str(folder), "manifest": made})
        return
    for site in made["made_from"]:
        print(
            f"site    {site['site']}: epsilon {site['epsilon']:g}, delta {site['delta']:g} per {site['unit']}, "
            f"until {site['expires']}"
        )
    if len(made["made_from"]) > 1:
        print("assumed the sites' patients are disjoint; for a patient of several, epsilons and deltas add up")
    shapes = made["data"]["arrays"]
    print(
        "wrote   " + ", ".join(f"{k} {' x '.join(map(str, v['shape']))}" for k, v in shapes.items()) + f" to {folder}"
    )


def _start(
    config: Any, seed: int | None, device: str | None, out: Path | None, verbose: int, only: list[str] | None
) -> str:
    """Apply the flags that differ from run to run, quieten the surroundings, write the run's folder."""
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
    from flows.job import new_job
    from pipeline.core.redaction import scrubbed

    with scrubbed("start"):
        return str(new_job(config).folder)


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


def _today() -> date:
    return datetime.now(tz=UTC).date()


def _told(found: Any) -> str:
    """One sentence on a verified bundle."""
    facts = found.manifest
    return (
        f"{found.path.name}: whole and unaltered, signed by {found.signed_by.name}, released under policy "
        f"{facts['policy']['name']} on {facts['issued']}, valid until {facts['expires']}"
    )


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, sort_keys=True))


def main() -> None:
    """Run the command line; every failure is one sentence on stderr and its exit code."""
    quiet()
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # Typer turns Ctrl-C into a return value
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except DecoctError as error:
        _stop(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted; nothing is half-written, and --resume goes on from the last finished stage", INTERRUPTED)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # the command line's own usage errors
            _stop(error.format_message(), int(error.exit_code))
        _stop(f"failed with {type(error).__name__}: a bug in Decoct, please report it", DecoctError.exit_code)


def _stop(sentence: str, code: int) -> None:
    print(f"decoct: {sentence}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
