"""`decoct release`: propose, review, approve, publish. The author of a release never approves it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flows.cli.common import AsJson, print_json, stage_verb, today
from pipeline.core.errors import ReleaseRefused, UsageError

Proposal = Annotated[Path, typer.Argument(help="The proposal's folder.", show_default=False)]
SignedRoot = Annotated[
    Path | None, typer.Option("--root", help="The trust root; none = trust/root.json in the proposal's workspace.")
]
List = Annotated[
    Path | None,
    typer.Option("--revocations", help="The revocation list; none = trust/revocations.json there, if it exists."),
]


class _RunByDefault(TyperGroup):
    """`decoct release run.toml` is `decoct release propose run.toml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help") and not args[0].startswith("-"):
            args.insert(0, "propose")
        return super().parse_args(ctx, args)


release_app = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    help="Check, sign and bundle what [release] names, as a proposal for others to approve.\n\n"
    "Under a policy that asks for no approval (demo, research) the proposal is published at once.\n\n"
    "Example: decoct release run.toml",
)


release_app.command("propose")(
    stage_verb(
        "release",
        "Check against the policy, sign as the author, bundle, and write the report. Missing stages are made first.",
        "decoct release propose run.toml",
    )
)


@release_app.command("review")
def review(
    proposal: Proposal,
    key: Annotated[
        Path | None, typer.Option(help="Your approver's key: puts the review on the log, for your approval to name.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also make the audit again; takes as long as the first one.")
    ] = False,
    workspace: Annotated[
        Path | None, typer.Option(help="The site's workspace, to be read; none = the one in which the proposal lies.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(help="A recipient's age identity, to compare what an encrypted payload holds.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """For the approver: check a proposal against the site's store and ledger. Exit code 14: refused.

    Example: decoct release review decoct-work/proposals/st-elsewhere-private-v1 --key ann.key
    """
    from flows.watch.review import record
    from flows.watch.review import review as look
    from pipeline.core.keys.secrets import read_secret
    from pipeline.core.redaction import scrubbed
    from pipeline.sharing.trust.keys import role_signer

    place = workspace or workspace_of(proposal)
    signer = None if key is None else role_signer(read_secret(key, "approver"))
    with scrubbed("review"):
        found = look(proposal, place, again=again, identity=identity)
        if found.held and signer is not None:
            record(proposal, place, found, signer)
    if as_json:
        told = [{"what": line.what, "held": line.held, "told": line.told} for line in found.lines]
        print_json({"lines": told, "report": None if found.report is None else str(found.report), "level": found.level})
    else:
        for line in found.lines:
            print(f"{line.what:<12} {'OK     ' if line.held else 'REFUSED'}  {line.told}")
        print(f"{'report':<12} {found.report or 'the run that made it is no longer known here'}")
    if not found.held:
        raise typer.Exit(ReleaseRefused.exit_code)


@release_app.command("approve")
def approve(
    proposal: Proposal,
    key: Annotated[Path, typer.Option(help="The approver's key file: decoct trust key approver FILE.")],
    root: SignedRoot = None,
    revocations: List = None,
    as_json: AsJson = False,
) -> None:
    """Check a proposal and add an approver's signature. First run decoct release review, and read card and report.

    Example: decoct release approve decoct-work/proposals/st-elsewhere-private-v1 --key ann.key
    """
    from flows.watch.review import level_of
    from pipeline.core.keys.secrets import read_secret
    from pipeline.sharing.approval import approve as add_approval
    from pipeline.sharing.layout import ENVELOPE
    from pipeline.sharing.receive.verify import read_folder
    from pipeline.sharing.trust.keys import public_key, role_signer
    from pipeline.sharing.trust.signing import statement_digest

    trusted, revoked = _trusted(proposal, root, revocations)
    signer = role_signer(read_secret(key, "approver"))
    workspace = workspace_of(proposal)
    statement = statement_digest(read_folder(proposal)[ENVELOPE])
    mine = public_key(signer, "", role="approver")
    level = level_of(workspace, statement, mine)
    who = add_approval(
        proposal,
        signer=signer,
        root=trusted,
        today=today(),
        workspace=workspace,
        revocations=revoked,
        reviewed=lambda told: level_of(workspace, told, mine),
    )
    if as_json:
        print_json({"proposal": str(proposal), "approved_by": who.name, "statement": statement, "review": level})
    else:
        print(f"{who.name} approved {proposal.name}, statement {statement}; your review: {level}")
        print(f"next: decoct release publish {proposal}")


@release_app.command("publish")
def publish(proposal: Proposal, root: SignedRoot = None, revocations: List = None, as_json: AsJson = False) -> None:
    """Verify an approved proposal as receivers will, and move it to the releases.

    Example: decoct release publish decoct-work/proposals/st-elsewhere-private-v1
    """
    from pipeline.sharing.approval import publish as move

    workspace = workspace_of(proposal)
    trusted, revoked = _trusted(proposal, root, revocations)
    releases = workspace / "releases"
    target = move(proposal, releases, root=trusted, today=today(), workspace=workspace, revocations=revoked)
    if as_json:
        print_json({"bundle": str(target)})
    else:
        print(f"bundle  {target}")


def workspace_of(proposal: Path) -> Path:
    """The workspace in whose folder `proposals` the proposal lies.

    Raises:
        UsageError: it lies elsewhere: nothing would be logged where it belongs.
    """
    folder = proposal.resolve().parent
    if folder.name != "proposals":
        raise UsageError(f"{proposal} does not lie in a folder named proposals of a workspace; put it there")
    return folder.parent


def _trusted(proposal: Path, root: Path | None, revocations: Path | None) -> tuple[Any, Any]:
    from pipeline.sharing.trust.revocation import load_revocations
    from pipeline.sharing.trust.root import load_trust_root

    folder = workspace_of(proposal) / "trust"
    trusted = load_trust_root(root or folder / "root.json")
    listed = revocations or folder / "revocations.json"
    return trusted, load_revocations(listed, trusted) if revocations or listed.exists() else None
