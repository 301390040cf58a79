"""The signatures: a DSSE envelope around an in-toto statement that names the digest of every file.

The author signs first; approvers add their signatures over the very same statement. Imports: the standard library,
rfc8785, cryptography.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.canonical import canonical, read_canonical, sha256_hex
from pipeline.sharing.layout import ENVELOPE, PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE
from pipeline.sharing.trust.dsse import Envelope, open_envelope, with_signature
from pipeline.sharing.trust.keys import PublicKey, TrustRoot

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # it lists no exports


def make_statement(files: Mapping[str, bytes], predicate: Mapping[str, Any]) -> dict[str, Any]:
    """The in-toto statement over `files`, sorted by name."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256_hex(files[name])}} for name in sorted(files)],
        "predicateType": PREDICATE_TYPE,
        "predicate": dict(predicate),
    }


def sign_statement(statement: Mapping[str, Any], signer: Signer) -> bytes:
    """The bytes of the envelope file, with one signature."""
    return with_signature(Envelope(PAYLOAD_TYPE, canonical(statement), {}), signer).data()


def add_signature(envelope: bytes, signer: Signer) -> bytes:
    """The envelope with one signature more over the same statement. Raises ReleaseRefused when malformed."""
    return with_signature(open_envelope(envelope, PAYLOAD_TYPE, ENVELOPE), signer).data()


def statement_of(envelope: bytes) -> dict[str, Any]:
    """The statement in an envelope, without a look at who signed it. Raises ReleaseRefused when malformed."""
    return _statement(open_envelope(envelope, PAYLOAD_TYPE, ENVELOPE).payload)


def statement_digest(envelope: bytes) -> str:
    """Hex SHA-256 of the statement: what names a release in logs, receipts and states, whoever has signed it yet."""
    return sha256_hex(open_envelope(envelope, PAYLOAD_TYPE, ENVELOPE).payload)


def open_statement(data: bytes, root: TrustRoot) -> tuple[dict[str, Any], tuple[PublicKey, ...]]:
    """Check the envelope and every signature on it; returns the statement and the keys that signed it.

    Raises:
        ReleaseRefused: malformed, other bytes than the canonical ones, unsigned, or a signature by a key that the root
            does not list, or not by the key that it names.
    """
    envelope = open_envelope(data, PAYLOAD_TYPE, ENVELOPE)
    if not envelope.signatures:
        raise ReleaseRefused(f"{ENVELOPE} carries no signature")
    known = {key.keyid: key for key in root.keys}
    signers = []
    for keyid in envelope.signatures:
        key = known.get(keyid)
        if key is None:
            raise ReleaseRefused("the bundle is signed by a key that the trust root does not list")
        if not envelope.holds(keyid, key.public):
            raise ReleaseRefused(f"the signature is not one by {key.name} over this statement")
        signers.append(key)
    return _statement(envelope.payload), tuple(signers)


def _statement(payload: bytes) -> dict[str, Any]:
    statement = read_canonical(payload, "the signed statement")
    if set(statement) != {"_type", "subject", "predicateType", "predicate"}:
        raise ReleaseRefused("the signed statement has missing or unknown fields")
    if statement["_type"] != STATEMENT_TYPE or statement["predicateType"] != PREDICATE_TYPE:
        raise ReleaseRefused("the signed statement is of an unknown type")
    return statement
