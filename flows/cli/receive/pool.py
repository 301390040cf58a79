"""`decoct pool`, and what `decoct evaluate POOL --on` prints: several institutions' bundles as one training set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.common import AsJson, print_json, start, today
from flows.cli.panels import require_bundle, require_there
from flows.cli.receive.receive import Recipient
from pipeline.core.errors import UsageError

if TYPE_CHECKING:
    from pipeline.validation.paired import PairedScore


def pool(
    bundles: Annotated[list[Path], typer.Argument(help="The bundles' folders, one of each site.", show_default=False)],
    root: Annotated[
        list[Path], typer.Option(help="Your trust root file; once for all bundles, or one for each in their order.")
    ],
    to: Annotated[Path, typer.Option(help="New folder for the training set and its manifest.json.")] = Path("pooled"),
    identity: Annotated[
        Path | None, typer.Option(help="Your age identity file, if a payload is encrypted to you.")
    ] = None,
    recipient: Recipient = None,
    n_per_class: Annotated[int, typer.Option(help="Samples per class; of private moments only.")] = 40,
    hard_labels: Annotated[
        bool, typer.Option("--hard-labels", help="Labels 0 or 1 instead of probabilities; of private moments only.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the samples; of private moments only.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make one training set of several institutions' bundles; private moments are added and condensed.

    Bundles with other channels, units, steps, label definitions, encoders or keys are refused, and so are two bundles
    of one site.

    Example: decoct pool st-elsewhere-private-v1 county-general-private-v1 --root trust-root.json --to pooled
    """
    from flows.receiving.pool import pool_bundles
    from pipeline.core.redaction import scrubbed

    for folder in bundles:
        require_bundle(folder)
    for file in root:
        require_there(file, "trust root")
    require_there(identity, "identity file")
    with scrubbed("pool"):
        made = pool_bundles(
            bundles,
            root,
            to,
            n_per_class=n_per_class,
            seed=seed,
            hard_labels=hard_labels,
            today=today(),
            identity=identity,
            recipient=recipient,
        )
    if as_json:
        print_json({"folder": str(to), "manifest": made})
    else:
        tell(made, to)


def tell(made: Mapping[str, Any], folder: Path) -> None:
    """What a pool was made from, and where it lies."""
    for site in made["made_from"]:
        price = "epsilon {epsilon:g}, delta {delta:g} per {unit}".format_map(site) if site["epsilon"] else None
        rows = f", {site['rows']} rows" if "rows" in site else ""
        print(f"site    {site['site']}: {price or 'no guarantee'}{rows}, until {site['expires']}")
    if len(made["made_from"]) > 1:
        print("assumed the sites' patients are disjoint; for a patient of several, epsilons and deltas add up")
    if "teacher" in made:
        print(f"teacher {made['teacher']}")
    shapes = made["data"]["arrays"]
    listed = ", ".join(f"{name} {' x '.join(map(str, array['shape']))}" for name, array in shapes.items())
    print(f"wrote   {listed} to {folder}; next: decoct evaluate {folder} --on my-cohort.toml")


def evaluate_on(
    pooled: Path, on: Path, seed: int | None, device: str | None, out: Path | None, as_json: bool, verbose: int
) -> None:
    """`decoct evaluate POOL --on RUN`: the pool's models on one's own held-out patients."""
    from pipeline.core.config import load_config

    if not (pooled / "manifest.json").is_file():
        raise UsageError(f"{pooled} is not a pool's folder; --on goes with what decoct pool wrote")
    job = start(load_config(on), seed, device, out, verbose)
    from flows.receiving.evaluate import evaluate_pool
    from pipeline.core.redaction import scrubbed
    from pipeline.validation.paired import INTERVAL

    with scrubbed("evaluate"):
        scores = evaluate_pool(job, pooled, today=today())
    interval = INTERVAL.format(n=500)
    if as_json:
        print_json({"interval": interval, "scores": [dataclasses.asdict(score) for score in scores]})
    else:
        _print_table(scores, interval)


def _print_table(scores: Sequence[PairedScore], interval: str) -> None:
    """One block per task, a row per training set and model, the difference from one's own stays beside it."""
    reference = scores[0].training_set
    for task in dict.fromkeys(score.task for score in scores):
        rows = [score for score in scores if score.task == task]
        print(f"AUROC for {task} on {rows[0].n_test} own held-out stays, and the difference from {reference}")
        width = max(len(score.training_set) for score in rows)
        for score in rows:
            level = f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]"
            gap = f"{score.difference:+.3f} [{score.difference_low:+.3f}, {score.difference_high:+.3f}]"
            told = "" if score.training_set == reference else f"   {gap}"
            print(f"  {score.training_set:<{width}}  {score.n_samples:>6}  {score.model:<20} {level}{told}")
    print(interval)
