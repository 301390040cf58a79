"""DSSE envelopes with one byte form: canonical JSON, canonical base64, signatures sorted by key id, no unsigned field.

So no byte of an envelope can be changed unnoticed. Nothing here says who may sign: that is for those who open one.
Imports: the standard library, rfc8785, cryptography.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.canonical import canonical, read_canonical

if TYPE_CHECKING:
    from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # it lists no exports

MAX_SIGNATURES: Final = 16


@final
@dataclass(frozen=True, repr=False)
class Envelope:
    """What is signed, and the signatures by key id; whose they are and whether they hold is not yet known."""

    kind: str  # DSSE's payloadType
    payload: bytes
    signatures: Mapping[str, bytes]

    def holds(self, keyid: str, public: str) -> bool:
        """Whether there is a signature of `keyid`, and it is one by the Ed25519 key `public` (64 hex digits)."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
            key.verify(self.signatures[keyid], signed_bytes(self.kind, self.payload))
        except (KeyError, InvalidSignature, ValueError):
            return False
        return True

    def data(self) -> bytes:
        """The bytes of the envelope."""
        signatures = [
            {"keyid": keyid, "sig": base64.b64encode(sig).decode("ascii")}
            for keyid, sig in sorted(self.signatures.items())
        ]
        payload = base64.b64encode(self.payload).decode("ascii")
        return canonical({"payload": payload, "payloadType": self.kind, "signatures": signatures})


def signed_bytes(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what a signature is over."""
    named = kind.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(named), named, len(payload), payload)


def with_signature(envelope: Envelope, signer: Signer) -> Envelope:
    """The envelope with one signature more, or the same signer's replaced."""
    made = signer.sign(signed_bytes(envelope.kind, envelope.payload))
    signatures = {**envelope.signatures, str(made.keyid): bytes.fromhex(made.signature)}
    return Envelope(envelope.kind, envelope.payload, signatures)


def open_envelope(data: bytes, kind: str, name: str) -> Envelope:
    """Parse an envelope of `kind`; `name` names its file in errors. No signature is checked.

    Raises:
        ReleaseRefused: malformed, of another kind, or other bytes than the canonical ones.
    """
    raw = read_canonical(data, name)
    if set(raw) != {"payload", "payloadType", "signatures"} or raw["payloadType"] != kind:
        raise ReleaseRefused(f"{name} is not a DSSE envelope of {kind}")
    listed = raw["signatures"]
    if not isinstance(listed, list) or not 0 <= len(listed) <= MAX_SIGNATURES:
        raise ReleaseRefused(f"{name} must carry at most {MAX_SIGNATURES} signatures")
    signatures: dict[str, bytes] = {}
    for item in listed:
        if not isinstance(item, dict) or set(item) != {"keyid", "sig"} or not isinstance(item["keyid"], str):
            raise ReleaseRefused(f"{name} must give keyid and sig of each signature, and nothing else")
        signatures[item["keyid"]] = _base64(item["sig"], name)
    if [item["keyid"] for item in listed] != sorted(signatures):
        raise ReleaseRefused(f"{name} must list its signatures once each, sorted by keyid")
    return Envelope(kind, _base64(raw["payload"], name), signatures)


def _base64(text: Any, name: str) -> bytes:
    """Decode standard base64 that has one spelling only: stray bits and characters are refused."""
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ReleaseRefused(f"{name} holds text that is not base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise ReleaseRefused(f"{name} holds base64 with a second spelling")
    return data
