"""`decoct evaluate`: what a received bundle, or a pool of several, is worth on one's own patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, Device, Out, Seed, Verbose, print_json, start, today
from flows.cli.panels import require_bundle, require_there
from flows.cli.receive.receive import Recipient
from pipeline.core.errors import UsageError


def evaluate(
    what: Annotated[
        Path,
        typer.Argument(
            help="Your run's TOML file (with --bundle), or a pool's folder (with --on).",
            metavar="RUN|POOL",
            show_default=False,
        ),
    ],
    bundle: Annotated[Path | None, typer.Option(help="The received bundle's folder.")] = None,
    root: Annotated[Path | None, typer.Option(help="Your trust root file; with --bundle.")] = None,
    on: Annotated[Path | None, typer.Option(help="Your run's TOML file: test the pool on its stays.")] = None,
    identity: Annotated[
        Path | None, typer.Option(help="Your age identity file, if the bundle's payload is encrypted to you.")
    ] = None,
    recipient: Recipient = None,
    all_stays: Annotated[
        bool, typer.Option("--all-stays", help="Test on every own stay, not the held-out ones; with --bundle.")
    ] = False,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Train on a received bundle or a pool, and test on your own stays, prepared and encoded in the same way.

    Example: decoct evaluate run.toml --bundle st-elsewhere-private-v1 --root trust-root.json

    A pool is compared with your own training stays, both together, and the pool without each institution, with paired
    differences: decoct evaluate pooled --on run.toml
    """
    if on is not None:
        if bundle is not None or root is not None or identity is not None or recipient or all_stays:
            raise UsageError("decoct evaluate POOL --on RUN takes none of the options that go with --bundle")
        from flows.cli.receive.pool import evaluate_on

        evaluate_on(what, on, seed, device, out, as_json, verbose)
        return
    if bundle is None or root is None:
        raise UsageError("decoct evaluate RUN needs --bundle and --root; for a pool: decoct evaluate POOL --on RUN")
    require_bundle(bundle)
    require_there(root, "trust root")
    require_there(identity, "identity file")
    from pipeline.core.config import load_config

    job = start(load_config(what), seed, device, out, verbose)
    from flows.cli.summary import print_scores
    from flows.receiving.evaluate import evaluate as test_at_home
    from pipeline.core.codec import to_plain
    from pipeline.core.redaction import scrubbed

    with scrubbed("evaluate"):
        report = test_at_home(
            job, bundle, root, all_stays=all_stays, today=today(), identity=identity, recipient=recipient
        )
    if as_json:
        print_json(to_plain(report))
    else:
        print_scores(report)
