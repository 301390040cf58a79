"""Who may sign, and whom a receiver trusts: the author's Ed25519 key and the trust root file.

The trust root is a TOML file that travels by another way than the bundles (by hand, with the data-use agreement).
Imports: the standard library and cryptography, as the verifier reads it too; who signs also loads securesystemslib,
which brings along whatever cloud library it finds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.core.errors import UsageError
from pipeline.core.keys.secrets import Secret, read_secret
from pipeline.sharing.canonical import canonical, sha256_hex

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # it lists no exports

PURPOSE: Final = "author"
ROLES: Final = ("author", "approver", "root")  # a key has one, and its secret's purpose says which
ROOT_FORMAT: Final = "decoct-trust-root/1"
_PUBLIC_HEX: Final = re.compile(r"[0-9a-f]{64}")
_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f\"\\\ud800-\udfff]{0,200}")


@final
@dataclass(frozen=True)
class PublicKey:
    """A public key; `keyid` is SHA-256 of its canonical description, as securesystemslib computes it."""

    keyid: str
    public: str  # 64 hex digits
    name: str  # whose it is, for people; two keys of one name are one person's
    role: str = PURPOSE  # "author", "approver" or "root"
    site: str = ""  # that it speaks for; none = any, as in a root that nobody signed


@final
@dataclass(frozen=True)
class TrustRoot:
    """What a receiver accepts. Empty `accepted_policies`: every production policy.

    The last three fields belong to a root that its root keys signed (`pipeline.sharing.trust.root`).
    """

    keys: tuple[PublicKey, ...]
    accepted_policies: tuple[str, ...] = ()  # names, or digests (64 hex digits)
    accept_non_production: bool = False
    recipient: str = ""  # this receiver's name; bundles addressed to others are refused
    minimum_versions: Mapping[str, int] = field(default_factory=dict)  # "site/name" -> oldest version still accepted
    version: int = 1
    expires: str = ""  # ISO date; none = never
    threshold: int = 0  # how many root keys must sign the next version, or a revocation list
    digest: str = ""  # hex SHA-256 of what was signed


def author_signer(secret: Secret) -> CryptoSigner:
    """The signer of an author's secret: the Ed25519 private key is the 32 bytes derived for "ed25519"."""
    if secret.purpose != PURPOSE:
        raise UsageError(f"a {secret.purpose} secret does not sign releases; an {PURPOSE} secret does")
    return role_signer(secret)


def role_signer(secret: Secret) -> CryptoSigner:
    """The signer of an author's, an approver's or a root's secret, by its purpose.

    Raises:
        UsageError: a secret with another purpose.
    """
    if secret.purpose not in ROLES:
        raise UsageError(f"a {secret.purpose} secret does not sign; secrets of these roles do: {', '.join(ROLES)}")
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # it lists no exports

    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(secret.derive("ed25519")))


def read_author_signer(path: Path) -> CryptoSigner:
    """The signer of an author's 0600 key file.

    Raises:
        EnvironmentProblem: as `pipeline.core.keys.secrets.read_secret`.
    """
    return author_signer(read_secret(path, PURPOSE))


def public_key(signer: CryptoSigner, name: str, *, role: str = PURPOSE, site: str = "") -> PublicKey:
    """What others need to check the signer's releases."""
    key = signer.public_key
    return PublicKey(key.keyid, str(key.keyval["public"]), name, role, site)


def public_key_from_hex(public: str, name: str, *, role: str = PURPOSE, site: str = "") -> PublicKey:
    """A public key from its 64 hex digits.

    Raises:
        UsageError: not 64 lower-case hex digits.
    """
    if not _PUBLIC_HEX.fullmatch(public):
        raise UsageError(f"the public key of {name} must be 64 lower-case hex digits")
    described = {"keytype": "ed25519", "keyval": {"public": public}, "scheme": "ed25519"}
    return PublicKey(sha256_hex(canonical(described)), public, name, role, site)


def public_key_text(key: PublicKey) -> str:
    """The key's `[[keys]]` entry of a trust root, to send to a receiver.

    Raises:
        UsageError: the name holds quotes, backslashes or control characters.
    """
    return f'[[keys]]\nkeyid = "{key.keyid}"\npublic = "{key.public}"\nname = {_quoted(key.name)}\n'


def write_trust_root(
    path: Path,
    keys: Sequence[PublicKey],
    *,
    accepted_policies: Sequence[str] = (),
    accept_non_production: bool = False,
    recipient: str = "",
    minimum_versions: Mapping[str, int] | None = None,
    version: int = 1,
) -> None:
    """Write a trust root; refuses to overwrite one.

    Raises:
        UsageError: it exists already, has no key, or a name in it holds quotes, backslashes or control characters.
    """
    if not keys:
        raise UsageError("a trust root needs at least one key")
    lines = [
        f'format = "{ROOT_FORMAT}"',
        f"version = {int(version)}",
        f"accepted_policies = [{', '.join(_quoted(name) for name in accepted_policies)}]",
        f"accept_non_production = {'true' if accept_non_production else 'false'}",
        f"recipient = {_quoted(recipient)}",
        "",
        *(public_key_text(key) for key in keys),
        "[minimum_versions]",
        *(f"{_quoted(name)} = {int(least)}" for name, least in sorted((minimum_versions or {}).items())),
    ]
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
    except FileExistsError:
        raise UsageError(f"trust root {path} exists already and is never overwritten") from None


def _quoted(text: str) -> str:
    if not _PRINTABLE.fullmatch(text):
        raise UsageError("names in a trust root have at most 200 characters, no quotes, backslashes or controls")
    return f'"{text}"'
