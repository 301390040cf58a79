"""`decoct condense`: a run's condensed sets, or several sites' private moments condensed as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_common import AsJson, Device, Only, Resume, Seed, Verbose, print_json, start, today, walk
from pipeline.core.errors import UsageError


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

    walk("condense", start(load_config(config), seed, device, out, verbose, only), resume, as_json)


def _pool(
    bundles: list[Path], root: Path, folder: Path, n_per_class: int, seed: int, hard_labels: bool, as_json: bool
) -> None:
    from flows.pool import pool
    from pipeline.core.redaction import scrubbed

    with scrubbed("pool"):
        made = pool(bundles, root, folder, n_per_class=n_per_class, seed=seed, hard_labels=hard_labels, today=today())
    if as_json:
        print_json({"folder": str(folder), "manifest": made})
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
