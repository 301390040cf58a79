"""`decoct send` and `fetch`: carry a bundle to a folder, a stick or an object store, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, Root, print_json, today
from flows.cli.panels import require_bundle, require_there
from flows.cli.receive.receive import Recipient, RevocationList


def send(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)],
    address: Annotated[
        str, typer.Argument(help="A folder, or file://, s3://, gs:// or az:// with bucket and prefix.", metavar="TO")
    ],
    as_json: AsJson = False,
) -> None:
    """Put a bundle into a folder or an object store; it appears only when complete and overwrites nothing.

    After an interruption, the same command goes on where it stopped. An object store takes its credentials and endpoint
    from the environment (AWS_..., GOOGLE_..., AZURE_...) and needs: pip install 'decoct[objects]'.

    Example: decoct send decoct-work/releases/st-elsewhere-private-v1 s3://shared-bucket/inbox
    """
    from flows.workspace.log import log_sending
    from pipeline.sharing.receive.transport import send as carry

    require_bundle(bundle)
    log_sending(bundle, address)
    sent = carry(bundle, address)
    if as_json:
        print_json({"address": sent.address, "files": sent.files, "already_there": sent.already_there})
    else:
        there = f", {sent.already_there} of them there already" if sent.already_there else ""
        print(f"{sent.address}: {sent.files} files{there}")


def fetch(
    address: Annotated[
        str, typer.Argument(help="The bundle's address: a folder, or file://, s3://, gs:// or az://.", metavar="FROM")
    ],
    root: Root,
    to: Annotated[Path, typer.Option(help="Folder in which the bundle's own folder appears.")] = Path("."),
    revocations: RevocationList = None,
    recipient: Recipient = None,
    as_json: AsJson = False,
) -> None:
    """Bring a bundle here and verify it; it appears only when complete and accepted by your trust root.

    Example: decoct fetch s3://shared-bucket/inbox/st-elsewhere-private-v1 --root trust-root.json --to received
    """
    from flows.receiving.reception import log_use
    from pipeline.sharing.receive.transport import fetch as bring

    require_there(root, "trust root")
    require_there(revocations, "revocation list")
    found = bring(address, to, root, today=today(), revocations=revocations, recipient=recipient)
    log_use("fetch", found, root)
    if as_json:
        print_json({"bundle": str(found.path), "manifest": dict(found.manifest)})
    else:
        print(f"{found.path}: whole, unaltered and verified; next: decoct receive {found.path} --root {root}")
