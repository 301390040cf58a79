"""`decoct verify` and `receive`: what an institution does first with a bundle that it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.common import AsJson, Root, print_json, today
from flows.cli.panels import require_bundle, require_there
from pipeline.core.errors import UsageError

RevocationList = Annotated[
    Path | None, typer.Option(help="The revocation list; none = revocations.json beside the trust root, if it exists.")
]
Recipient = Annotated[str | None, typer.Option(help="Your institution's name, for bundles to named recipients.")]


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)],
    root: Root,
    revocations: RevocationList = None,
    recipient: Recipient = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle offline against a trust root: every byte, signature, approval, policy and date. Writes nothing.

    Example: decoct verify decoct-demo/releases/demo-private-v1 --root trust-root.json
    """
    from pipeline.sharing.receive.verify import verify as check

    _require_there(bundle, root, revocations)
    found = check(bundle, root, today=today(), revocations=revocations, recipient=recipient)
    if as_json:
        approved = [key.name for key in found.approved_by]
        told = {"signed_by": found.signed_by.name, "approved_by": approved, "statement": found.statement}
        print_json({"bundle": str(bundle), **told, "manifest": dict(found.manifest)})
    else:
        print(_told(found))


def receive(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)],
    root: Root,
    to: Annotated[Path, typer.Option(help="New folder for one .npy per array and manifest.json.")] = Path("received"),
    identity: Annotated[
        Path | None, typer.Option(help="Your age identity file, if the payload is encrypted to you.")
    ] = None,
    revocations: RevocationList = None,
    recipient: Recipient = None,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle, remember it beside the trust root, and unpack it into plain arrays.

    Example: decoct receive decoct-demo/releases/demo-private-v1 --root trust-root.json --to received

    An encrypted one: decoct receive BUNDLE --root trust-root.json --identity decoct-work/keys/identity.age
    """
    from flows.receiving.reception import record
    from flows.receiving.unpack import unpack
    from pipeline.sharing.receive.received import receive as take

    if to.exists():
        raise UsageError(f"{to} exists already and is not overwritten")
    _require_there(bundle, root, revocations, identity)
    received = take(bundle, root, today=today(), identity=identity, revocations=revocations, recipient=recipient)
    receipt = record(received.bundle, root, revocations, today())
    shapes = unpack(received, to)
    if as_json:
        print_json({"folder": str(to), "arrays": shapes, "receipt": str(receipt)})
    else:
        listed = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes.items())
        print(f"{_told(received.bundle)}\nwrote {listed} to {to}\nreceipt, for the site: {receipt}")
        if received.teacher is not None:
            print("teacher: .score(series) gives its risks, calibrated; train on the samples for a model of your own,")
            print("         whose predictions .risk(predicted, task) makes risks; decoct evaluate compares both")


def _require_there(bundle: Path, root: Path, revocations: Path | None, identity: Path | None = None) -> None:
    require_bundle(bundle)
    require_there(root, "trust root")
    require_there(revocations, "revocation list")
    require_there(identity, "identity file")


def _told(found: Any) -> str:
    """One sentence on a verified bundle."""
    facts = found.manifest
    approved = "".join(f", approved by {key.name}" for key in found.approved_by)
    return (
        f"{found.path.name}: whole and unaltered, signed by {found.signed_by.name}{approved}, released under policy "
        f"{facts['policy']['name']} on {facts['issued']}, valid until {facts['expires']}"
    )
