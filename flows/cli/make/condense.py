"""`decoct condense`: a run's condensed sets, or a comparison of methods."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.common import AsJson, ConfigPath, Device, Only, Out, Resume, Seed, Verbose, print_json, start, walk
from pipeline.core.errors import UsageError


def condense(
    config: ConfigPath,
    compare: Annotated[
        str | None, typer.Option(help="Instead of the file's tables: these methods at their defaults, in one table.")
    ] = None,
    input_name: Annotated[
        str | None, typer.Option("--input", help="The [encode] table; with --compare (default: the first set's).")
    ] = None,
    n_per_class: Annotated[
        int | None, typer.Option(min=1, help="Samples per class; with --compare (default: the first set's).")
    ] = None,
    only: Only = None,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Condense the training stays by every [condense.NAME] table; or compare methods.

    Example: decoct condense run.toml

    Which method? decoct condense --compare dm,kernel,centroids,random,herding,private run.toml
    """
    if compare is None and (input_name is not None or n_per_class is not None):
        raise UsageError("--input and --n-per-class belong to --compare; a run's tables say their own")
    if compare is not None and only:
        raise UsageError("--compare names its methods itself: leave out --only")
    from pipeline.core.config import load_config

    plan = load_config(config)
    if compare is None:
        walk("condense", start(plan, seed, device, out, verbose, only, resume=resume), as_json)
        return
    from flows.comparing import comparison

    plan, seed_of = comparison.plan(plan, comparison.methods(compare), input_name, n_per_class)
    found = comparison.compare(start(plan, seed, device, out, verbose, resume=resume), seed_of)
    if as_json:
        print_json(found)
    else:
        print(comparison.table(found))
