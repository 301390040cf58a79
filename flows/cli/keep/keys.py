"""`decoct keys`: making, showing, rotating and sharing a workspace's secrets. No verb prints one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from flows.cli.common import AsJson, Out, print_json, workspace_of
from pipeline.core.errors import UsageError

keys_app = typer.Typer(no_args_is_help=True, help="Secrets of a workspace, and who holds them.")

Sealed = Annotated[
    bool,
    typer.Option(
        "--passphrase",
        help="Put the new file under a passphrase: asked for, or from DECOCT_PASSPHRASE_FD or DECOCT_PASSPHRASE.",
    ),
]
Fingerprint = Annotated[str, typer.Option(help="The key's fingerprint as it was given to you; another key is refused.")]
OneKey = Annotated[str, typer.Argument(help="encoder, noise, split or author.", show_default=False)]

_LAST_LINES: Final = 10


@keys_app.command("new")
def keys_new(
    purpose: Annotated[str, typer.Argument(help="encoder, noise, split, author or all.")],
    passphrase: Sealed = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Make a 256-bit secret, readable by its owner only; never overwrites.

    Example: decoct keys new all --out decoct-work
    """
    from pipeline.core.keys.custody.keyring import PURPOSES, key_file, make_key

    wanted = PURPOSES if purpose == "all" else (purpose,)
    if not set(wanted) <= set(PURPOSES):
        raise UsageError(f"no key has the purpose {purpose!r}; there are: all, {', '.join(PURPOSES)}")
    phrase = _new_passphrase(passphrase)
    made = []
    for name in wanted:
        secret = make_key(_keys(out), name, phrase)
        made.append({"purpose": name, "fingerprint": secret.fingerprint, "path": str(key_file(_keys(out), name))})
        if not as_json:
            print(f"{name:<8} {secret.fingerprint}  {made[-1]['path']}")
    if as_json:
        print_json(made)


@keys_app.command("show")
def keys_show(out: Out = None, as_json: AsJson = False) -> None:
    """Show fingerprints and ages of all keys, public keys, and the checked log; no secret.

    Example: decoct keys show --out decoct-work
    """
    from pipeline.core.keys.custody.institutions import public_identity
    from pipeline.core.keys.custody.keyring import listed_keys
    from pipeline.core.keys.custody.log import read_log

    keys = _keys(workspace_of(out))
    entries, log, identity, author = list(listed_keys(keys)), read_log(keys), public_identity(keys), _author(keys)
    if as_json:
        listed = [
            {
                "purpose": entry.purpose,
                "fingerprint": entry.fingerprint,
                "made": entry.made or None,
                "age_days": entry.age_days,
                "sealed": entry.sealed,
                "retired": entry.retired,
                "path": str(entry.path),
            }
            for entry in entries
        ]
        told = {"lines": len(log.entries), "head": log.head, "last": [dict(e) for e in log.entries[-_LAST_LINES:]]}
        print_json({"keys": listed, "identity": identity or None, "author_public_key": author or None, "log": told})
        return
    if not entries:
        _say(f"there are no keys in {keys}; make them with: decoct keys new all")
    for entry in entries:
        age = "age unknown" if entry.age_days is None else f"{entry.age_days} days old"
        notes = ", ".join([age, *(["retired"] * entry.retired), *(["passphrase"] * entry.sealed)])
        print(f"{entry.purpose:<8} {entry.fingerprint}  {entry.path}  ({notes})")
    for label, public in (("author's public key", author), ("identity's public key", identity)):
        if public:
            print(f"{label}: {public}")
    for line in log.entries[-_LAST_LINES:]:
        print(f"log {line['line']}: {_logged(line)}")
    if log.entries:
        print(f"log: {len(log.entries)} lines, chain whole, last line's digest {log.head}")


@keys_app.command("rotate")
def keys_rotate(
    purpose: OneKey,
    another_release: Annotated[
        bool, typer.Option("--another-release", help="For the noise key: fresh noise is accounted as another release.")
    ] = False,
    passphrase: Sealed = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Retire a key to keys/retired and make a new one. A key under a passphrase stays so.

    Example: decoct keys rotate encoder --out decoct-work
    """
    from pipeline.core.keys.custody.keyring import RETIRED, ROTATION_MEANS, is_key_sealed, key_file, rotate_key
    from pipeline.core.keys.secrets import read_secret

    keys = _keys(out)
    path = key_file(keys, purpose)
    if purpose == "noise" and not another_release:
        rotate_key(keys, purpose)  # refuses, before anybody is asked for a passphrase
    old = read_secret(path, purpose).fingerprint
    phrase = _new_passphrase(passphrase or is_key_sealed(keys, purpose))
    new = rotate_key(keys, purpose, phrase, another_release=another_release).fingerprint
    kept = keys / RETIRED / f"{purpose}-{old}.key"
    if as_json:
        print_json({"purpose": purpose, "fingerprint": new, "retired": old, "kept": str(kept)})
    else:
        print(f"{purpose:<8} {new}  {path}\nretired  {old}  {kept}")
    _say(f"this means: {ROTATION_MEANS[purpose]}")


@keys_app.command("identity")
def keys_identity(passphrase: Sealed = False, out: Out = None, as_json: AsJson = False) -> None:
    """Make this site's age identity and print its public key, which a partner needs to share a key with you.

    Example: decoct keys identity --out decoct-work
    """
    from pipeline.core.keys.custody.institutions import IDENTITY_FILE, new_identity

    keys = _keys(out)
    public = new_identity(keys, _new_passphrase(passphrase))
    if as_json:
        print_json({"public_key": public, "path": str(keys / IDENTITY_FILE)})
    else:
        print(public)
    _say(f"wrote {keys / IDENTITY_FILE}; hand over the public key, and let them read it back to you by telephone")


@keys_app.command("share")
def keys_share(
    file: Annotated[Path, typer.Argument(help="The new file to hand over.", show_default=False)],
    to: Annotated[str, typer.Option(help="The institution's name, for the log.")],
    recipient: Annotated[str, typer.Option(help="Its age public key (age1...), compared by telephone.")],
    purpose: Annotated[str, typer.Option(help="Only the encoder's key is ever shared.")] = "encoder",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Encrypt the encoder's key to a named institution's public key, into a new file; logged in keys/log.jsonl.

    Example: decoct keys share for-st-elsewhere.age --to "St. Elsewhere" --recipient age1...
    """
    from pipeline.core.keys.custody.institutions import share_key

    shared = share_key(_keys(out), purpose, to, recipient, file)
    if as_json:
        print_json({**vars(shared), "file": str(file)})
    else:
        print(f"encoder  {shared.fingerprint}  {file}  for {to}\nlog: last line's digest {shared.log_head}")
    _say("they can now invert what this key encodes; let them read the fingerprint back to you by telephone")


@keys_app.command("import")
def keys_import(
    file: Annotated[Path, typer.Argument(help="The file that another institution made for you.", show_default=False)],
    fingerprint: Fingerprint = "",
    retire: Annotated[bool, typer.Option("--retire", help="Retire the different key that is there.")] = False,
    passphrase: Sealed = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Decrypt a shared encoder key with this site's identity; print its fingerprint; never replaces another key.

    Example: decoct keys import for-st-elsewhere.age --fingerprint 0123456789abcdef --out decoct-work
    """
    from pipeline.core.keys.custody.institutions import import_key

    phrase = _new_passphrase(passphrase)
    found = import_key(_keys(out), file, fingerprint=fingerprint, retire=retire, passphrase=phrase)
    if as_json:
        print_json({**vars(found), "path": str(found.path)})
    else:
        print(f"encoder  {found.fingerprint}  {found.path}{'  (was there already)' if found.was_there else ''}")
        if found.retired:
            print(f"retired  {found.retired}")
    if not fingerprint:
        _say("the file does not prove who made it: compare this fingerprint with the sender's by telephone before use")


def _keys(out: Path | None) -> Path:
    from pipeline.core.keys.custody.keyring import keys_of

    return keys_of(out or Path("decoct-work"))


def _new_passphrase(wanted: bool) -> str | None:
    if not wanted:
        return None
    from pipeline.core.keys.passphrase import new_passphrase

    return new_passphrase("the new file")


def _author(keys: Path) -> str:
    """The author's public key; empty where there is none, or where only a passphrase would tell it."""
    from pipeline.core.keys.custody.keyring import is_key_sealed, key_file
    from pipeline.core.keys.secrets import read_secret

    if not key_file(keys, "author").exists() or is_key_sealed(keys, "author"):
        return ""
    from pipeline.sharing.trust.keys import author_signer, public_key

    return public_key(author_signer(read_secret(key_file(keys, "author"), "author")), "").public


def _logged(line: Any) -> str:
    facts = {name: value for name, value in line.items() if name not in ("line", "when", "what", "previous")}
    return " ".join([str(line["when"]), str(line["what"]), *(f"{name}={value}" for name, value in facts.items())])


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
