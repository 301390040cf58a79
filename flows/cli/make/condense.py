"""`decoct condense`: a run's condensed sets, a comparison of methods, or several sites' private moments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, Device, Only, Resume, Seed, Verbose, print_json, start, today, walk
from pipeline.core.errors import UsageError


def condense(
    config: Annotated[Path | None, typer.Argument(help="The run's TOML file.", show_default=False)] = None,
    compare: Annotated[
        str | None, typer.Option(help="Instead of the file's tables: these methods at their defaults, in one table.")
    ] = None,
    input_name: Annotated[
        str | None, typer.Option("--input", help="The [encode] table; with --compare (default: the first set's).")
    ] = None,
    from_moments: Annotated[
        list[Path] | None,
        typer.Option(help="Instead of a run: a site's bundle of private moments (repeat for each site)."),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Your trust root file; with --from-moments.")] = None,
    n_per_class: Annotated[
        int | None,
        typer.Option(min=1, help="Samples per class; with --compare (default: the first set's), --from-moments (40)."),
    ] = None,
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
    """Condense the training stays by every [condense.NAME] table; or compare methods; or add sites' private moments.

    Example: decoct condense run.toml

    Which method? decoct condense --compare dm,kernel,centroids,random,herding,private run.toml

    Without any patient: decoct condense --from-moments site-a-v1 --from-moments site-b-v1 --root trust-root.json
    """
    if from_moments:
        if config is not None or compare or input_name or only or device is not None or resume:
            raise UsageError(
                "--from-moments takes no run: leave out the TOML file, --compare, --input, --only, --device, --resume"
            )
        if root is None:
            raise UsageError("--from-moments needs --root, the trust root that names the sites' keys")
        _pool(from_moments, root, out or Path("pooled"), n_per_class or 40, seed or 0, hard_labels, as_json)
        return
    if config is None or root is not None or hard_labels:
        raise UsageError(
            "decoct condense takes a run's TOML file, or bundles of moments by --from-moments; "
            "--root and --hard-labels belong to the latter"
        )
    if compare is None and (input_name is not None or n_per_class is not None):
        raise UsageError("--input and --n-per-class belong to --compare; a run's tables say their own")
    if compare is not None and only:
        raise UsageError("--compare names its methods itself: leave out --only")
    from pipeline.core.config import load_config

    plan = load_config(config)
    if compare is None:
        walk("condense", start(plan, seed, device, out, verbose, only), resume, as_json)
        return
    from flows.comparing import comparison

    plan, seed_of = comparison.plan(plan, comparison.methods(compare), input_name, n_per_class)
    folder = start(plan, seed, device, out, verbose, None)
    found = comparison.compare(folder, seed_of, resume=resume)
    if as_json:
        print_json(found)
    else:
        print(comparison.table(found))


def _pool(
    bundles: list[Path], root: Path, folder: Path, n_per_class: int, seed: int, hard_labels: bool, as_json: bool
) -> None:
    from flows.cli.receive.pool import tell
    from flows.receiving.pool import pool
    from pipeline.core.redaction import scrubbed

    with scrubbed("pool"):
        made = pool(bundles, root, folder, n_per_class=n_per_class, seed=seed, hard_labels=hard_labels, today=today())
    if as_json:
        print_json({"folder": str(folder), "manifest": made})
    else:
        tell(made, folder)
