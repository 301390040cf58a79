"""Who may sign, and whom a receiver trusts: the author's Ed25519 key and the trust root file.

The trust root is a JSON file that travels by another way than the bundles (by hand, with the data-use agreement).
Imports: the standard library, cryptography and securesystemslib, as the verifier reads it too.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # it lists no exports

from pipeline.core.errors import ReleaseRefused, UsageError
from pipeline.core.secrets import Secret, read_secret
from pipeline.sharing.canonical import read_json

PURPOSE: Final = "author"
ROOT_FORMAT: Final = "decoct-trust-root/1"
_PUBLIC_HEX: Final = re.compile(r"[0-9a-f]{64}")


@final
@dataclass(frozen=True)
class PublicKey:
    """An author's public key; `keyid` is SHA-256 of its canonical description, as securesystemslib computes it."""

    keyid: str
    public: str  # 64 hex digits
    name: str  # whose it is, for people


@final
@dataclass(frozen=True)
class TrustRoot:
    """What a receiver accepts. Empty `accepted_policies`: every production policy."""

    keys: tuple[PublicKey, ...]
    accepted_policies: tuple[str, ...] = ()  # names, or digests (64 hex digits)
    accept_non_production: bool = False
    recipient: str = ""  # this receiver's name; bundles addressed to others are refused
    minimum_versions: Mapping[str, int] = field(default_factory=dict)  # "site/name" -> oldest version still accepted
    version: int = 1


def author_signer(secret: Secret) -> CryptoSigner:
    """The signer of an author's secret: the Ed25519 private key is the 32 bytes derived for "ed25519"."""
    if secret.purpose != PURPOSE:
        raise UsageError(f"a {secret.purpose} secret does not sign releases; an {PURPOSE} secret does")
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(secret.derive("ed25519")))


def read_author_signer(path: Path) -> CryptoSigner:
    """The signer of an author's 0600 key file.

    Raises:
        EnvironmentProblem: as `pipeline.core.secrets.read_secret`.
    """
    return author_signer(read_secret(path, PURPOSE))


def public_key(signer: CryptoSigner, name: str) -> PublicKey:
    """What others need to check the signer's releases."""
    key = signer.public_key
    return PublicKey(key.keyid, str(key.keyval["public"]), name)


def public_key_from_hex(public: str, name: str) -> PublicKey:
    """A public key from its 64 hex digits.

    Raises:
        UsageError: not 64 lower-case hex digits.
    """
    if not _PUBLIC_HEX.fullmatch(public):
        raise UsageError(f"the public key of {name} must be 64 lower-case hex digits")
    key = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    return PublicKey(key.keyid, public, name)


def public_key_text(key: PublicKey) -> str:
    """The key's entry in a trust root, to send to a receiver."""
    return json.dumps(dataclasses.asdict(key), indent=2, ensure_ascii=False)


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
        UsageError: it exists already, or has no key.
    """
    if not keys:
        raise UsageError("a trust root needs at least one key")
    content = {
        "format": ROOT_FORMAT,
        "version": version,
        "keys": [dataclasses.asdict(key) for key in keys],
        "accepted_policies": list(accepted_policies),
        "accept_non_production": accept_non_production,
        "recipient": recipient,
        "minimum_versions": dict(minimum_versions or {}),
    }
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise UsageError(f"trust root {path} exists already and is never overwritten") from None


def load_trust_root(path: Path) -> TrustRoot:
    """Read a trust root.

    Raises:
        ReleaseRefused: absent, malformed, an unknown or repeated key in the file, or a keyid that is not its key's.
    """
    try:
        raw = read_json(path.read_bytes(), f"trust root {path}")
    except FileNotFoundError:
        raise ReleaseRefused(f"there is no trust root at {path}, so no signature can be trusted") from None
    except OSError:
        raise ReleaseRefused(f"trust root {path} cannot be read") from None
    kinds = {
        "format": str,
        "version": int,
        "keys": list,
        "accepted_policies": list,
        "accept_non_production": bool,
        "recipient": str,
        "minimum_versions": dict,
    }
    if raw.get("format") != ROOT_FORMAT:
        raise ReleaseRefused(f"trust root {path} is not of format {ROOT_FORMAT}")
    if set(raw) != set(kinds) or any(type(raw[key]) is not kind for key, kind in kinds.items()):
        raise ReleaseRefused(f"trust root {path} must have the keys {', '.join(kinds)}, each of its type")
    keys = tuple(_parse_key(item, path) for item in raw["keys"])
    if not keys or len({key.keyid for key in keys}) != len(keys):
        raise ReleaseRefused(f"trust root {path} must list at least one key, and none twice")
    policies, least = raw["accepted_policies"], raw["minimum_versions"]
    if not all(type(name) is str for name in policies) or not all(type(item) is int for item in least.values()):
        raise ReleaseRefused(f"trust root {path}: accepted_policies are names and minimum_versions are whole numbers")
    return TrustRoot(keys, tuple(policies), raw["accept_non_production"], raw["recipient"], least, raw["version"])


def _parse_key(item: Any, path: Path) -> PublicKey:
    if not isinstance(item, dict) or set(item) != {"keyid", "public", "name"}:
        raise ReleaseRefused(f"trust root {path}: every key has keyid, public and name, and nothing else")
    try:
        key = public_key_from_hex(str(item["public"]), str(item["name"]))
    except (UsageError, ValueError):
        raise ReleaseRefused(f"trust root {path}: a public key is not an Ed25519 key in hex") from None
    if key.keyid != item["keyid"]:
        raise ReleaseRefused(f"trust root {path}: the keyid of {key.name} does not belong to its public key")
    return key
