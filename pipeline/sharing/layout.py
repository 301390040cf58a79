"""The bundle's format in constants: what is in the folder, under which names, how large at most. See docs.

Standard library only: the verifier imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

FORMAT: Final = "decoct-bundle/2"
"""What is written and what is read: any other format, older or newer, is refused."""

LEAKAGE_FORMAT: Final = "decoct-leakage/3"  # 3: beside a guarantee its rows follow from the policy alone

PAYLOAD: Final = "payload.safetensors"
ENCRYPTED_PAYLOAD: Final = "payload.safetensors.age"  # stands in for the payload when it is encrypted to recipients
MANIFEST: Final = "manifest.json"
LEAKAGE: Final = "leakage.json"
CARD_MARKDOWN: Final = "card.md"
CARD_HTML: Final = "card.html"
LICENCE: Final = "LICENSE.txt"
CROISSANT: Final = "croissant.json"
POLICY: Final = "policy.json"  # the rules that the release passed, for receivers to hold it against again
ENVELOPE: Final = "envelope.dsse.json"

SIGNED_FILES: Final = (LICENCE, CARD_HTML, CARD_MARKDOWN, CROISSANT, LEAKAGE, MANIFEST, PAYLOAD, POLICY)
"""Every file whose digest the statement names, sorted by name; with the envelope this is the whole folder."""

MAX_PAYLOAD_BYTES: Final = 2 << 30
MAX_TEXT_BYTES: Final = 4 << 20

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:decoct:release:1"

PREDICATE_KEYS: Final = (
    *("format", "site", "name", "version", "issued", "expires", "policy", "recipients", "encryption", "log"),
)
"""What the statement repeats of the manifest, so that a log of statements alone can be read."""

PROPOSALS: Final = "proposals"
RELEASES: Final = "releases"
"""The folders of a workspace in which bundles lie: signed by the author, and what may be given away."""

RELEASE_KINDS: Final = ("condensed", "encoded", "moments")
ARRAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "condensed": ("features", "labels"),
    "encoded": ("features", "labels"),
    "moments": ("gram", "signed_sums", "signed_counts"),
}
"""The arrays of each kind: receivers name files after them, so that no author may choose the names."""
SHIFT, TEACHER = "label_shift", "teacher"
BESIDE: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {"condensed": ((SHIFT,), (SHIFT, TEACHER))}
"""What may stand beside them, under a guarantee: how the labels were balanced, and the teacher that gave them."""


def payload_name(manifest: Mapping[str, Any]) -> str:
    """The name of the payload's file: another one when it is encrypted."""
    return ENCRYPTED_PAYLOAD if manifest.get("encryption") else PAYLOAD


def signed_files(*, encrypted: bool = False) -> tuple[str, ...]:
    """The signed files of a bundle, sorted by name."""
    return tuple(sorted({*SIGNED_FILES} - {PAYLOAD} | {ENCRYPTED_PAYLOAD})) if encrypted else SIGNED_FILES


def size_limit(name: str) -> int:
    """The largest size in bytes that a receiver reads of the file `name`."""
    return MAX_PAYLOAD_BYTES if name in (PAYLOAD, ENCRYPTED_PAYLOAD) else MAX_TEXT_BYTES
