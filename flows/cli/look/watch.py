"""`decoct watch`: the page over a workspace's nights, made and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, Out, print_json


def watch(
    out: Out = None,
    open_it: Annotated[bool, typer.Option("--open", help="Show the page in this machine's browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the page of nights, releases, audit and utility over time, drift and budget; aggregates only.

    Every run makes it anew when it ends; this makes it at once.

    Example: decoct watch --out decoct-work --open
    """
    import webbrowser

    from flows.progress import say
    from flows.watch.page import FIGURES, write_watch

    page = write_watch(out or Path("decoct-work"))
    figures = page.parent / FIGURES
    if open_it and not webbrowser.open(page.resolve().as_uri()):
        say("no browser was found on this machine; the page is a file that any browser opens")
    if as_json:
        print_json({"page": str(page), "figures": str(figures)})
        return
    print(f"page    {page}\nfigures {figures}")
