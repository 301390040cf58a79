"""`decoct watch` and `decoct serve`: the page over a workspace's nights, made and shown."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, print_json

PORT = 8717


def watch(
    out: Annotated[Path | None, typer.Option(help="Workspace folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the page that shows nights, releases, audit and utility over time, drift and the budget spent; aggregates.

    It is made anew at the end of every run; this makes it at once.

    Example: decoct watch --out decoct-work
    """
    from flows.watch.page import FIGURES, write_watch

    page = write_watch(out or Path("decoct-work"))
    figures = page.parent / FIGURES
    if as_json:
        print_json({"page": str(page), "figures": str(figures)})
        return
    print(f"page    {page}\nfigures {figures}\nopen the page in a browser, or: decoct serve --out {page.parent.parent}")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's need a flag.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 = any that is free.")] = PORT,
    beyond: Annotated[
        bool,
        typer.Option("--beyond-this-machine", help="Listen where others can reach it: no password, no encryption."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Workspace folder.")] = None,
) -> None:
    """Show the watch page in a browser on this machine, until Ctrl-C; read-only, and nothing else of the workspace.

    Example: decoct serve --out decoct-work
    """
    from flows.progress import say
    from flows.watch.serve import BEYOND, is_loopback, open_server

    server = open_server(out or Path("decoct-work"), host, port, beyond=beyond)
    if not is_loopback(host):
        say(f"beyond this machine: {BEYOND}")
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
    with server, suppress(KeyboardInterrupt):  # how it is ended, and so no failure
        server.serve_forever()


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(watch)
    app.command()(serve)
