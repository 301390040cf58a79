"""Is this bundle what an author I trust released, whole, unaltered, in force, and meant for me? Offline.

Needs the standard library, cryptography and rfc8785; loads neither numpy nor torch. Nothing in the folder is believed
before the signature over its digest is.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.canonical import read_canonical, sha256_hex
from pipeline.sharing.keys import PublicKey, TrustRoot, load_trust_root
from pipeline.sharing.layout import (
    CROISSANT,
    ENCRYPTED_PAYLOAD,
    ENVELOPE,
    FORMAT,
    MANIFEST,
    PREDICATE_KEYS,
    PREVIOUS_FORMAT,
    PREVIOUS_PREDICATE_KEYS,
    RELEASE_KINDS,
    signed_files,
    size_limit,
)
from pipeline.sharing.signing import open_envelope


@final
@dataclass(frozen=True, repr=False)
class VerifiedBundle:
    """A bundle that passed every check. `files` are the very bytes that were checked: use them, not the folder."""

    path: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]
    signed_by: PublicKey

    def __repr__(self) -> str:
        return f"VerifiedBundle({str(self.path)!r}, signed_by={self.signed_by.name!r})"


def verify(bundle: Path, root: Path | TrustRoot, *, today: datetime.date) -> VerifiedBundle:
    """Check a bundle folder against a trust root.

    Raises:
        ReleaseRefused: any check fails; one sentence says which.
    """
    trusted = root if isinstance(root, TrustRoot) else load_trust_root(root)
    files = read_folder(bundle)
    manifest, key = verify_files(files, trusted, today=today)
    return VerifiedBundle(bundle, manifest, files, key)


def verify_files(
    files: Mapping[str, bytes], root: TrustRoot, *, today: datetime.date
) -> tuple[dict[str, Any], PublicKey]:
    """Check a bundle's files, given as name -> content; returns the manifest and the key that signed.

    Raises:
        ReleaseRefused: as `verify`.
    """
    if ENVELOPE not in files:
        raise ReleaseRefused(f"the bundle has no {ENVELOPE}, so nobody vouches for it")
    statement, key = open_envelope(files[ENVELOPE], root)
    predicate = statement["predicate"]
    if not isinstance(predicate, dict) or predicate.get("format") not in (FORMAT, PREVIOUS_FORMAT):
        raise ReleaseRefused(f"the bundle is of a format that this version does not know; it reads {_KNOWN}")
    previous = predicate["format"] == PREVIOUS_FORMAT
    found = {name: sha256_hex(data) for name, data in files.items()}
    expected = signed_files(predicate["format"], encrypted=bool(predicate.get("encryption")))
    _check_digests(found, statement["subject"], expected)
    manifest = read_canonical(files[MANIFEST], MANIFEST)
    sizes = {name: {"bytes": len(files[name]), "sha256": found[name]} for name in files}
    _check_manifest(manifest, sizes, predicate["format"], expected)
    if predicate != {key: manifest[key] for key in (PREVIOUS_PREDICATE_KEYS if previous else PREDICATE_KEYS)}:
        raise ReleaseRefused(f"{MANIFEST} and the signed statement disagree")
    _check_in_force(manifest, root, today)
    return manifest, key


def read_folder(bundle: Path) -> dict[str, bytes]:
    """The content of a bundle folder, which must hold exactly the format's files, all of them regular.

    Raises:
        ReleaseRefused: not a folder, a link, something missing, extra, oversize or unreadable.
    """
    if bundle.is_symlink() or not bundle.is_dir():
        raise ReleaseRefused(f"{bundle} is not a bundle folder")
    try:
        with os.scandir(bundle) as entries:
            found = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    except OSError:
        raise ReleaseRefused(f"the bundle folder {bundle} cannot be read") from None
    which = FORMAT if CROISSANT in found or ENCRYPTED_PAYLOAD in found else PREVIOUS_FORMAT
    expected = {*signed_files(which, encrypted=ENCRYPTED_PAYLOAD in found), ENVELOPE}
    if extra := sorted(set(found) - expected):
        raise ReleaseRefused(f"the bundle holds {len(extra)} files that the format does not know, such as {extra[0]!r}")
    if missing := sorted(expected - set(found)):
        raise ReleaseRefused(f"the bundle lacks {missing[0]}")
    if odd := sorted(name for name, regular in found.items() if not regular):
        raise ReleaseRefused(f"{odd[0]} is a link or something else that is not a regular file")
    return {name: _read(bundle / name, size_limit(name)) for name in sorted(expected)}


def _read(path: Path, limit: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        raise ReleaseRefused(f"{path.name} cannot be opened as a regular file") from None
    with os.fdopen(handle, "rb") as stream:
        info = os.fstat(stream.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise ReleaseRefused(f"{path.name} is not a regular file")
        if info.st_size > limit:
            raise ReleaseRefused(f"{path.name} is larger than the format's {limit} bytes")
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ReleaseRefused(f"{path.name} is larger than the format's {limit} bytes")
    return data


def _check_digests(found: Mapping[str, str], subjects: Any, expected: Sequence[str]) -> None:
    """The statement names every file of the format, nothing else, and each has the digest it says."""
    if not isinstance(subjects, list):
        raise ReleaseRefused("the signed statement lists no files")
    digests: dict[str, str] = {}
    for subject in subjects:
        name = subject.get("name") if isinstance(subject, dict) else None
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise ReleaseRefused("the signed statement names a file outside the bundle folder")
        if name in digests:
            raise ReleaseRefused(f"the signed statement names {name} twice")
        digest = subject.get("digest")
        if set(subject) != {"name", "digest"} or not isinstance(digest, dict) or set(digest) != {"sha256"}:
            raise ReleaseRefused(f"the signed statement gives no SHA-256 of {name}")
        digests[name] = digest["sha256"]
    if set(digests) != set(expected):
        raise ReleaseRefused("the signed statement does not cover exactly the format's files")
    if set(found) != {*expected, ENVELOPE}:
        raise ReleaseRefused("the bundle does not hold exactly the format's files")
    for name, digest in digests.items():
        if found[name] != digest:
            raise ReleaseRefused(f"{name} was altered after signing")


_MANIFEST_KEYS = {
    "data",
    "expires",
    "files",
    "format",
    "guarantee",
    "issued",
    "licence",
    "name",
    "policy",
    "recipients",
    "release",
    "site",
    "version",
}
_NEW_KEYS = {"data_use", "encryption"}
_KNOWN = f"{FORMAT} and {PREVIOUS_FORMAT}"

_DATA_KEYS = {"arrays", "channels", "n_steps", "step_hours", "tasks", "transforms"}
_RELEASE_KEYS = {"code_version", "kind", "method", "options", "starts_from_records"}


def _check_manifest(
    manifest: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]], format_name: str, expected: Sequence[str]
) -> None:
    if manifest.get("format") != format_name:
        raise ReleaseRefused(f"{MANIFEST} is of another format than the signed statement says, {format_name}")
    if set(manifest) != (_MANIFEST_KEYS if format_name == PREVIOUS_FORMAT else _MANIFEST_KEYS | _NEW_KEYS):
        raise ReleaseRefused(f"{MANIFEST} has missing or unknown keys")
    described = set(expected) - {MANIFEST}
    listed = manifest["files"]
    if not isinstance(listed, dict) or set(listed) != described:
        raise ReleaseRefused(f"{MANIFEST} does not describe exactly the format's files")
    for name in sorted(described):
        if listed[name] != found[name]:
            raise ReleaseRefused(f"{MANIFEST} gives another size or digest of {name} than the file has")
    policy, release, data = manifest["policy"], manifest["release"], manifest["data"]
    kinds = {"name": str, "site": str, "version": int, "issued": str, "expires": str, "recipients": list}
    if any(type(manifest[key]) is not kind for key, kind in kinds.items()):
        raise ReleaseRefused(f"{MANIFEST} has a value of the wrong type")
    if not isinstance(policy, dict) or set(policy) != {"name", "digest", "production"}:
        raise ReleaseRefused(f"{MANIFEST} does not name the policy, its digest and whether it is for production")
    if not isinstance(release, dict) or set(release) != _RELEASE_KEYS or release["kind"] not in RELEASE_KINDS:
        raise ReleaseRefused(f"{MANIFEST} does not say what kind of release it is and how it was made")
    if not isinstance(data, dict) or not set(data) >= _DATA_KEYS:
        raise ReleaseRefused(f"{MANIFEST} does not say what the arrays mean")
    if format_name != PREVIOUS_FORMAT:
        _check_terms(manifest)


def _check_terms(manifest: Mapping[str, Any]) -> None:
    """What format 2 adds: data-use terms, and to whom the payload is encrypted."""
    if not isinstance(manifest["data_use"], list) or not all(isinstance(code, str) for code in manifest["data_use"]):
        raise ReleaseRefused(f"{MANIFEST} does not list its data-use terms")
    encryption = manifest["encryption"]
    if encryption is None:
        return
    if not isinstance(encryption, dict) or set(encryption) != {"scheme", "recipients"}:
        raise ReleaseRefused(f"{MANIFEST} does not say how the payload is encrypted, and to whom")
    named = encryption["recipients"]
    if not isinstance(named, dict) or sorted(named) != sorted(manifest["recipients"]) or not named:
        raise ReleaseRefused(f"{MANIFEST} names other recipients than those the payload is encrypted to")


def _check_in_force(manifest: Mapping[str, Any], root: TrustRoot, today: datetime.date) -> None:
    try:
        issued, expires = (datetime.date.fromisoformat(manifest[key]) for key in ("issued", "expires"))
    except ValueError:
        raise ReleaseRefused(f"{MANIFEST} has a date that is not one") from None
    if today < issued:
        raise ReleaseRefused(f"the bundle is dated {issued}, which is in the future")
    if today > expires:
        raise ReleaseRefused(f"the bundle expired on {expires}")
    policy = manifest["policy"]
    if policy["production"] is not True and not root.accept_non_production:
        raise ReleaseRefused(f"policy {policy['name']} is not for production, and the trust root accepts no other")
    if root.accepted_policies and not {policy["name"], policy["digest"]} & set(root.accepted_policies):
        raise ReleaseRefused(f"the trust root does not accept releases under policy {policy['name']}")
    if manifest["recipients"] and root.recipient not in manifest["recipients"]:
        raise ReleaseRefused("the bundle is addressed to other recipients than the trust root's")
    least = root.minimum_versions.get(f"{manifest['site']}/{manifest['name']}", 0)
    if manifest["version"] < least:
        raise ReleaseRefused(f"version {manifest['version']} is older than {least}, the oldest the trust root accepts")
