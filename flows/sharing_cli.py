"""`decoct verify` and `receive`: what an institution does first with a bundle that it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_common import AsJson, Root, print_json, today


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line, in the order of their use."""
    for verb in (verify, receive):
        app.command()(verb)


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)],
    root: Root,
    as_json: AsJson = False,
) -> None:
    """Check a bundle offline against a trust root: every byte, signature, policy and date.

    Example: decoct verify decoct-demo/releases/demo-private-v1 --root trust-root.toml
    """
    from pipeline.sharing.verify import verify as check

    found = check(bundle, root, today=today())
    if as_json:
        print_json({"bundle": str(bundle), "signed_by": found.signed_by.name, "manifest": dict(found.manifest)})
    else:
        print(_told(found))


def receive(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)],
    root: Root,
    out: Annotated[Path, typer.Option(help="New folder for one .npy per array and manifest.json.")] = Path("received"),
    identity: Annotated[
        Path | None, typer.Option(help="Your age identity file, if the payload is encrypted to you.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle and unpack it into plain arrays.

    Example: decoct receive decoct-demo/releases/demo-private-v1 --root trust-root.toml --out received

    An encrypted one: decoct receive BUNDLE --root trust-root.toml --identity decoct-work/keys/identity.age
    """
    from flows.unpack import unpack
    from pipeline.sharing.receive import receive as take

    received = take(bundle, root, today=today(), identity=identity)
    shapes = unpack(received, out)
    if as_json:
        print_json({"folder": str(out), "arrays": shapes})
    else:
        listed = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes.items())
        print(f"{_told(received.bundle)}\nwrote {listed} to {out}")


def _told(found: Any) -> str:
    """One sentence on a verified bundle."""
    facts = found.manifest
    return (
        f"{found.path.name}: whole and unaltered, signed by {found.signed_by.name}, released under policy "
        f"{facts['policy']['name']} on {facts['issued']}, valid until {facts['expires']}"
    )
