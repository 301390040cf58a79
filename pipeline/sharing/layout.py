"""The bundle's format in constants: what is in the folder, under which names, how large at most. See docs.

Standard library only: the verifier imports it.
"""

from __future__ import annotations

from typing import Final

FORMAT: Final = "decoct-bundle/1"
LEAKAGE_FORMAT: Final = "decoct-leakage/1"

PAYLOAD: Final = "payload.safetensors"
MANIFEST: Final = "manifest.json"
LEAKAGE: Final = "leakage.json"
CARD_MARKDOWN: Final = "card.md"
CARD_HTML: Final = "card.html"
LICENCE: Final = "LICENSE.txt"
ENVELOPE: Final = "envelope.dsse.json"

SIGNED_FILES: Final = (LICENCE, CARD_HTML, CARD_MARKDOWN, LEAKAGE, MANIFEST, PAYLOAD)
"""Every file whose digest the statement names, sorted by name; with the envelope this is the whole folder."""

MAX_PAYLOAD_BYTES: Final = 2 << 30
MAX_TEXT_BYTES: Final = 4 << 20

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:decoct:release:1"

PREDICATE_KEYS: Final = ("format", "site", "name", "version", "issued", "expires", "policy")
"""What the statement repeats of the manifest, so that a log of statements alone can be read."""

RELEASE_KINDS: Final = ("condensed", "encoded", "moments")


def size_limit(name: str) -> int:
    """The largest size in bytes that a receiver reads of the file `name`."""
    return MAX_PAYLOAD_BYTES if name == PAYLOAD else MAX_TEXT_BYTES
