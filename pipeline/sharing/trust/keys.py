"""Who may sign, and whom a receiver trusts: the author's Ed25519 key, and what a trust root says.

Imports: the standard library and cryptography, as the verifier reads it too; who signs also loads securesystemslib,
which brings along whatever cloud library it finds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.core.errors import UsageError
from pipeline.core.keys.secrets import Secret
from pipeline.sharing.canonical import canonical, folded, sha256_hex

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # it lists no exports

PURPOSE: Final = "author"
ROLES: Final = ("author", "approver", "root")  # a key has one, and its secret's purpose says which
_PUBLIC_HEX: Final = re.compile(r"[0-9a-f]{64}")


@final
@dataclass(frozen=True)
class PublicKey:
    """A public key; `keyid` is SHA-256 of its canonical description, as securesystemslib computes it."""

    keyid: str
    public: str  # 64 hex digits
    name: str  # whose it is, for people; two keys of one name are one person's, see `person`
    role: str = PURPOSE  # "author", "approver" or "root"
    site: str = ""  # that it speaks for; root keys speak for none

    @property
    def person(self) -> str:
        """The holder, however the name is written: "R1", "r1 " and a name of full-width letters are one person."""
        return folded(self.name)


@final
@dataclass(frozen=True)
class TrustRoot:
    """What a receiver accepts, as its root keys signed it (`pipeline.sharing.trust.root`).

    Every threshold stands here and not in a bundle: who delegates says how much is enough, never who is delegated to.
    """

    keys: tuple[PublicKey, ...]
    min_approvals: int = 1  # people beside the author who must have signed a release
    max_revocation_age_days: int = 30  # a receiver's list of revocations may be this old; 0 = none is asked for
    policies: Mapping[str, str] = field(default_factory=dict)  # name -> hex SHA-256 of the policy that may bear it
    minimum_versions: Mapping[str, int] = field(default_factory=dict)  # "site/name" -> oldest version still accepted
    version: int = 1
    expires: str = ""  # ISO date; a root without one accepts nothing
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
