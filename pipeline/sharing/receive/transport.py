"""Carry a bundle: to a folder (a share, a stick) or an object store (S3-compatible, Google, Azure), and back.

Nothing is ever overwritten, and a half bundle is never visible: a folder appears by one rename; in an object store
every put is create-only and the envelope, without which nobody accepts a bundle, comes last. What was interrupted goes
on where it stopped: files that are there and equal are not sent again. Transport is not trust: who fetches verifies.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final
from urllib.parse import unquote, urlsplit

from pipeline.core.errors import EnvironmentProblem, ReleaseRefused, UsageError
from pipeline.core.files.whole import put_whole
from pipeline.sharing.layout import ENCRYPTED_PAYLOAD, ENVELOPE, SIGNED_FILES, size_limit
from pipeline.sharing.receive.places import FolderPlace, ObjectPlace, Place
from pipeline.sharing.receive.verify import VerifiedBundle, read_folder, verify
from pipeline.sharing.trust.keys import TrustRoot
from pipeline.sharing.trust.root import load_trust_root

OBJECT_SCHEMES: Final = ("s3", "gs", "az")
FILE_NAMES: Final = frozenset({*SIGNED_FILES, ENCRYPTED_PAYLOAD, ENVELOPE})
_FOLDER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@final
@dataclass(frozen=True)
class Sent:
    """Where the bundle lies now; `already_there` counts the files that an earlier attempt had brought."""

    address: str
    files: int
    already_there: int


def send(bundle: Path, address: str) -> Sent:
    """Put the bundle folder under `address` (a folder, or s3://, gs://, az:// with bucket and prefix) by its own name.

    Raises:
        ReleaseRefused: no bundle, or another bundle of that name lies there already.
        UsageError: an address that is none.
        EnvironmentProblem: the place cannot be reached or written; what arrived stays for the next attempt.
    """
    files = read_folder(bundle)
    target = _joined(address, bundle.resolve().name)
    place = _place(target, new=True)
    there = place.sizes()
    if foreign := sorted(set(there) - set(files)):
        raise ReleaseRefused(f"{target} holds {foreign[0]!r}, which is not of this bundle; nothing was sent")
    for name in there:
        if there[name] != len(files[name]) or place.read(name, len(files[name])) != files[name]:
            raise ReleaseRefused(f"{target} holds another {name}; a release is never overwritten, count its version up")
    for name in (*sorted(set(files) - {ENVELOPE} - set(there)), *({ENVELOPE} - set(there))):
        try:
            place.add(name, files[name])
        except FileExistsError:
            raise ReleaseRefused(
                f"somebody put another {name} to {target} meanwhile; nothing was overwritten"
            ) from None
    place.finish()
    return Sent(target, len(files), len(there))


def fetch(
    address: str,
    folder: Path,
    root: Path | TrustRoot,
    *,
    today: datetime.date,
    revocations: Path | None = None,
    recipient: str | None = None,
) -> VerifiedBundle:
    """Bring the bundle at `address` into `folder`, verify it, and only then let it appear there under its own name.

    `revocations` and `recipient` as in `pipeline.sharing.receive.verify.verify`; the receiver's memory is not written.

    Raises:
        ReleaseRefused: no complete bundle there, more or larger files than the format's, or it does not verify.
        UsageError: an address that is none, or the folder has a bundle of that name.
        EnvironmentProblem: the place cannot be reached or read, or the folder cannot be written.
    """
    name = _last_name(address)
    target = folder / name
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists already and is not overwritten")
    if not isinstance(root, TrustRoot):
        load_trust_root(root)  # without one there is nothing to fetch for
    place = _place(address, new=False)
    sizes = place.sizes()
    _check_sizes(sizes, address)
    staged = folder / f".{name}.partial"
    try:
        staged.mkdir(parents=True, exist_ok=True)
        for old in staged.iterdir():
            if old.name not in sizes or old.is_symlink() or old.stat().st_size != sizes[old.name]:
                old.unlink()
        for file, size in sorted(sizes.items()):
            if not (staged / file).exists():
                put_whole(staged / file, place.read(file, size))
    except OSError as error:
        raise EnvironmentProblem(f"{target} cannot be written: {error.strerror or type(error).__name__}") from None
    try:
        verified = verify(staged, root, today=today, revocations=revocations, recipient=recipient)
    except ReleaseRefused:
        shutil.rmtree(staged, ignore_errors=True)  # nothing of a refused bundle stays
        raise
    staged.rename(target)
    return dataclasses.replace(verified, path=target)


def _check_sizes(sizes: Mapping[str, int], address: str) -> None:
    if ENVELOPE not in sizes:
        raise ReleaseRefused(f"there is no complete bundle at {address}: {ENVELOPE}, which comes last, is not there")
    if odd := sorted(set(sizes) - FILE_NAMES):
        raise ReleaseRefused(f"{address} holds {len(odd)} files that the format does not know, such as {odd[0]!r}")
    for name, size in sizes.items():
        if size > size_limit(name):
            raise ReleaseRefused(f"{name} at {address} is larger than the format's {size_limit(name)} bytes")


def _place(address: str, *, new: bool) -> Place:
    scheme = _scheme(address)
    if scheme in OBJECT_SCHEMES:
        return ObjectPlace(address)
    path = Path(unquote(urlsplit(address).path)) if scheme == "file" else Path(address)
    return FolderPlace(path, new=new)


def _scheme(address: str) -> str:
    """The address's scheme, empty for a plain path.

    Raises:
        UsageError: an unknown scheme, or credentials, a query or a fragment inside the address.
    """
    if "://" not in address:
        return ""
    parts = urlsplit(address)
    if parts.scheme not in (*OBJECT_SCHEMES, "file"):
        raise UsageError(f"addresses start with file://, s3://, gs:// or az://, or are a folder; not {parts.scheme}://")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError("an address holds no credentials or parameters: they belong into the environment")
    if parts.scheme == "file" and parts.netloc:
        raise UsageError("a file:// address has three slashes: file:///folder")
    return parts.scheme


def _joined(address: str, name: str) -> str:
    _scheme(address)
    if not _FOLDER_NAME.fullmatch(name):
        raise UsageError("a bundle's folder is named with letters, digits, dots, hyphens and underscores")
    return f"{address.rstrip('/')}/{name}"


def _last_name(address: str) -> str:
    name = unquote(urlsplit(address).path if _scheme(address) else address).rstrip("/").rpartition("/")[2]
    if not _FOLDER_NAME.fullmatch(name):
        raise UsageError("the address must end in the bundle's name: letters, digits, dots, hyphens and underscores")
    return name
