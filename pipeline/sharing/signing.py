"""The signature: a DSSE envelope around an in-toto statement that names the digest of every file.

An envelope has exactly one byte form here (canonical JSON, canonical base64, one signature, no unsigned field), so that
no byte of it can be changed unnoticed. Imports: the standard library, rfc8785, cryptography; securesystemslib to sign.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.canonical import canonical, read_canonical, sha256_hex
from pipeline.sharing.keys import PublicKey, TrustRoot
from pipeline.sharing.layout import ENVELOPE, PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE

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
    """The bytes of the envelope file."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(canonical(statement), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return canonical(envelope.to_dict())


def signed_bytes(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what the signature is over."""
    kind = PAYLOAD_TYPE.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def open_envelope(data: bytes, root: TrustRoot) -> tuple[dict[str, Any], PublicKey]:
    """Check the envelope and its signature; returns the statement and the key that signed it.

    Raises:
        ReleaseRefused: malformed, other bytes than the canonical ones, signed by an unknown key, or not by it.
    """
    raw = read_canonical(data, ENVELOPE)
    if set(raw) != {"payload", "payloadType", "signatures"} or raw["payloadType"] != PAYLOAD_TYPE:
        raise ReleaseRefused(f"{ENVELOPE} is not a DSSE envelope around an in-toto statement")
    signatures = raw["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise ReleaseRefused(f"{ENVELOPE} must carry exactly one signature")
    if set(signatures[0]) != {"keyid", "sig"}:
        raise ReleaseRefused(f"{ENVELOPE} must give keyid and sig of its signature, and nothing else")
    payload = _base64(raw["payload"])
    signature = _base64(signatures[0]["sig"])
    key = next((key for key in root.keys if key.keyid == signatures[0]["keyid"]), None)
    if key is None:
        raise ReleaseRefused("the bundle is signed by a key that the trust root does not list")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public)).verify(signature, signed_bytes(payload))
    except (InvalidSignature, ValueError):
        raise ReleaseRefused(f"the signature is not one by {key.name} over this statement") from None
    return _statement(payload), key


def _statement(payload: bytes) -> dict[str, Any]:
    statement = read_canonical(payload, "the signed statement")
    if set(statement) != {"_type", "subject", "predicateType", "predicate"}:
        raise ReleaseRefused("the signed statement has missing or unknown fields")
    if statement["_type"] != STATEMENT_TYPE or statement["predicateType"] != PREDICATE_TYPE:
        raise ReleaseRefused("the signed statement is of an unknown type")
    return statement


def _base64(text: Any) -> bytes:
    """Decode standard base64 that has one spelling only: stray bits and characters are refused."""
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ReleaseRefused(f"{ENVELOPE} holds text that is not base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise ReleaseRefused(f"{ENVELOPE} holds base64 with a second spelling")
    return data
