"""`decoct trust`: keys of approvers and root holders, the signed trust root, the revocation list."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, Out, print_json, today
from pipeline.core.errors import EnvironmentProblem, UsageError

trust_app = typer.Typer(no_args_is_help=True, help="Whose keys count for what: signed trust roots and revocations.")

KeyFile = Annotated[Path, typer.Option("--key", help="The key file of the one who signs.")]


@trust_app.command("key")
def key(
    role: Annotated[str, typer.Argument(help="approver or root; the author's key is the workspace's own.")],
    file: Annotated[Path, typer.Argument(help="The new key file, for its holder alone.")],
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Put it under a passphrase: asked for, or DECOCT_PASSPHRASE(_FD).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key for an approver or a holder of the root, on that person's own machine; prints its public half.

    Example: decoct trust key approver ann.key --passphrase
    """
    if role not in ("approver", "root"):
        raise UsageError("a key is made for the role approver or root; authors have theirs: decoct keys new author")
    from pipeline.core.keys.secrets import new_secret, write_secret
    from pipeline.sharing.trust.keys import public_key, role_signer

    phrase = None
    if passphrase:
        from pipeline.core.keys.passphrase import new_passphrase

        phrase = new_passphrase("the new file")
    secret = new_secret(role)
    write_secret(file, secret, phrase)
    made = public_key(role_signer(secret), "", role=role)
    if as_json:
        print_json({"role": role, "file": str(file), "public": made.public, "keyid": made.keyid})
    else:
        print(f"{role:<8} {made.public}\nwrote {file}; the line above is public, the file is not")


@trust_app.command("init")
def init(
    site: Annotated[str, typer.Option(help="The site's name as receivers will see it.")],
    file: Annotated[
        Path | None, typer.Argument(help="The trust root to write; none = trust/root.json in the workspace.")
    ] = None,
    author: Annotated[str, typer.Option(help="The author's name; none = the site's author.")] = "",
    holder: Annotated[str, typer.Option(help="Who holds the root key; none = the site's root holder.")] = "",
    approver: Annotated[list[str] | None, typer.Option(help="NAME=PUBLIC of an approver (may be repeated).")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="A policy that receivers accept, by name or file (repeat); none = the shipped ones."),
    ] = None,
    trial: Annotated[
        bool, typer.Option("--trial", help="For trying out: policies such as demo; no approvals, no revocation list.")
    ] = False,
    days: Annotated[int, typer.Option(help="Until it expires.")] = 365,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Write and sign a site's first trust root, for one holder of the root key, and an empty revocation list.

    Example: decoct trust init --site "St. Elsewhere" --author Otto --holder Ruth --approver Ann=PUBLIC

    To try out the demo's bundle: decoct trust init --site "St. Elsewhere" --trial
    """
    from flows.workspace.trust import ROOT, first_root
    from pipeline.sharing.trust.root import fingerprint, read_root

    workspace = out or Path("decoct-work")
    named = dict(each.partition("=")[::2] for each in approver or ())
    path = first_root(
        workspace,
        file or workspace / "trust" / ROOT,
        site,
        today=today(),
        author=author,
        holder=holder,
        approvers=named,
        policies=policy or (),
        trial=trial,
        days=days,
    )
    told = fingerprint(read_root(path))
    if as_json:
        print_json({"file": str(path), "fingerprint": told, "site": site})
    else:
        print(f"wrote {path}; its fingerprint, to be compared by telephone:\n{told}")


@trust_app.command("draft")
def draft(
    description: Annotated[Path, typer.Argument(help="A TOML file: threshold, days or expires, and [[keys]].")],
    out: Annotated[Path, typer.Argument(help="The trust root to write, still unsigned.")],
) -> None:
    """Write a trust root to be signed, from a list of the keys of authors, approvers and root holders.

    Example: decoct trust draft keys.toml decoct-work/trust/root.json
    """
    from pipeline.sharing.roots import described_root
    from pipeline.sharing.trust.root import fingerprint

    data = described_root(description, today())
    _write_new(out, data)
    print(fingerprint(data))
    print(f"wrote {out}; its fingerprint is above; next: decoct trust sign {out} --key ROOT.key", file=sys.stderr)


@trust_app.command("sign")
def sign(
    file: Annotated[Path, typer.Argument(help="A trust root or a revocation list.")],
    key: KeyFile,
    previous: Annotated[
        Path | None, typer.Option(help="The trust root before this one, when a holder of that one signs.")
    ] = None,
) -> None:
    """Add a root key's signature to a trust root or a revocation list.

    Example: decoct trust sign decoct-work/trust/root.json --key holder-one.key
    """
    from pipeline.core.files.whole import put_whole
    from pipeline.core.keys.secrets import read_secret
    from pipeline.sharing.trust.keys import role_signer
    from pipeline.sharing.trust.revocation import KIND, sign_revocations
    from pipeline.sharing.trust.root import load_trust_root, read_root, sign_root

    signer = role_signer(read_secret(key, "root"))
    data = read_root(file)
    if f'"payloadType":"{KIND}"'.encode() in data:
        signed = sign_revocations(data, signer)
    else:
        signed = sign_root(data, signer, None if previous is None else load_trust_root(previous))
    try:
        put_whole(file, signed)
    except OSError as error:
        raise EnvironmentProblem(f"{file} cannot be written: {error.strerror}") from None
    print(f"signed {file} with {signer.public_key.keyid[:16]}", file=sys.stderr)


@trust_app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="A signed trust root.")],
    as_json: AsJson = False,
) -> None:
    """Show a signed trust root, and its fingerprint for people to compare by telephone.

    Example: decoct trust show root.json
    """
    from pipeline.sharing.trust.root import fingerprint, parse_root, read_root

    data = read_root(file)
    root = parse_root(data, f"trust root {file}")
    keys = [{"name": k.name, "role": k.role, "site": k.site, "public": k.public} for k in root.keys]
    if as_json:
        told = {"version": root.version, "expires": root.expires, "threshold": root.threshold, "keys": keys}
        told |= {"min_approvals": root.min_approvals, "max_revocation_age_days": root.max_revocation_age_days}
        told |= {"policies": dict(root.policies)}
        print_json({**told, "fingerprint": fingerprint(data)})
        return
    print(f"version {root.version}, until {root.expires}, replaced or revoked by {root.threshold} root holders")
    print(f"a release needs {root.min_approvals} approvals; {_list_words(root.max_revocation_age_days)}")
    for name, digest in sorted(root.policies.items()):
        print(f"policy   {name}  {digest}")
    for each in keys:
        print(f"{each['role']:<8} {each['name']}{', ' if each['site'] else ''}{each['site']}  {each['public']}")
    print(f"fingerprint, to be compared by telephone:\n{fingerprint(data)}")


@trust_app.command("revoke")
def revoke(
    out: Annotated[Path, typer.Argument(help="The revocation list to write, to be signed by root holders.")],
    root: Annotated[Path, typer.Option(help="The trust root.")],
    key_id: Annotated[list[str] | None, typer.Option(help="A key that no longer signs (may be repeated).")] = None,
    release: Annotated[list[str] | None, typer.Option(help="A withdrawn release, as site/name/version.")] = None,
    previous: Annotated[Path | None, typer.Option(help="The list so far; what it revokes stays revoked.")] = None,
) -> None:
    """Write the next revocation list, dated today. Receivers need a recent one even when nothing is new.

    Example: decoct trust revoke revocations.json --root root.json --release "St. Elsewhere/private/1"
    """
    from pipeline.sharing.trust.revocation import draft_revocations, load_revocations
    from pipeline.sharing.trust.root import load_trust_root

    before = None if previous is None else load_revocations(previous, load_trust_root(root))
    keys, releases = list(key_id or []), list(release or [])
    version = 1
    if before is not None:
        keys, releases, version = [*before.keys, *keys], [*before.releases, *releases], before.version + 1
    _write_new(out, draft_revocations(keys, releases, version=version, issued=today()))
    print(f"wrote {out}, version {version}; next: decoct trust sign {out} --key ROOT.key", file=sys.stderr)


def _list_words(days: int) -> str:
    return f"a revocation list may be {days} days old" if days else "no revocation list is asked for"


def _write_new(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as stream:
            stream.write(data)
    except FileExistsError:
        raise UsageError(f"{path} exists already and is not overwritten") from None
