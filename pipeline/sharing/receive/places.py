"""Where a bundle can lie: a folder, or a prefix in an object store; both only ever gain files.

Object stores need `obstore` (pip install 'decoct[objects]'); it reads credentials and endpoint from the environment
(AWS_..., GOOGLE_..., AZURE_...), never from the address. `LocalStore` of obstore is not used: a folder on a stick needs
no library.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Protocol, final

from pipeline.core.errors import EnvironmentProblem, ReleaseRefused
from pipeline.core.files.whole import put_whole

TIMEOUT: Final = "3600s"  # one request carries a whole file; the library's own 30 seconds would cut a large one
HINT: Final = "what arrived stays, and the same command goes on from there"


class Place(Protocol):
    """One bundle's folder somewhere: a flat set of named files that are only ever added."""

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of what is there."""

    def read(self, name: str, limit: int) -> bytes:
        """A file's content, at most `limit` bytes of it."""

    def add(self, name: str, data: bytes) -> None:
        """Put a file that is not there.

        Raises:
            FileExistsError: somebody else put one of that name.
        """

    def finish(self) -> None:
        """All files are there: let others see them."""


@final
class FolderPlace:
    """A folder on a disk, a share or a stick. A new one is filled beside its place and appears by one rename."""

    def __init__(self, folder: Path, *, new: bool) -> None:
        self._target = folder
        self._staged = folder.parent / f".{folder.name}.partial" if new and not folder.exists() else folder

    def sizes(self) -> dict[str, int]:
        try:
            return {item.name: item.lstat().st_size for item in self._staged.iterdir() if not _is_scrap(item)}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise EnvironmentProblem(f"{self._target} cannot be read: {error.strerror}") from None

    def read(self, name: str, limit: int) -> bytes:
        path = self._staged / name
        try:
            if path.is_symlink() or not path.is_file():
                raise ReleaseRefused(f"{name} at {self._target} is not a regular file")
            with path.open("rb") as stream:
                return stream.read(limit + 1)
        except OSError as error:
            raise EnvironmentProblem(f"{path} cannot be read: {error.strerror}") from None

    def add(self, name: str, data: bytes) -> None:
        try:
            self._staged.mkdir(parents=True, exist_ok=True)
            if (self._staged / name).exists():
                raise FileExistsError(name)
            put_whole(self._staged / name, data)
        except FileExistsError:
            raise
        except OSError as error:
            raise EnvironmentProblem(f"{self._target} cannot be written: {error.strerror}; {HINT}") from None

    def finish(self) -> None:
        if self._staged == self._target:
            return
        for scrap in self._staged.iterdir():
            if _is_scrap(scrap):
                scrap.unlink()
        try:
            self._staged.rename(self._target)
        except OSError as error:
            raise EnvironmentProblem(f"{self._target} cannot be written: {error.strerror}; {HINT}") from None


@final
class ObjectPlace:
    """A prefix in an object store; every put is create-only and in one piece: others see all of it or nothing."""

    def __init__(self, address: str) -> None:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError:
            raise EnvironmentProblem("object stores need obstore: pip install 'decoct[objects]'") from None
        self._address = address
        try:
            self._store: Any = from_url(address, client_options=_client_options())
        except (BaseError, OSError, ValueError):
            raise self._problem("cannot be set up; its settings in the environment are incomplete") from None

    def sizes(self) -> dict[str, int]:
        import obstore
        from obstore.exceptions import BaseError

        try:
            found = [dict(item) for batch in obstore.list(self._store) for item in batch]
        except (BaseError, OSError) as error:
            raise self._problem(_told(error)) from None
        return {str(item["path"]): int(str(item["size"])) for item in found}

    def read(self, name: str, limit: int) -> bytes:
        import obstore
        from obstore.exceptions import BaseError

        try:
            found: Any = obstore.get(self._store, name)
            if int(found.meta["size"]) > limit:
                raise ReleaseRefused(f"{name} at {self._address} is larger than {limit} bytes")
            return bytes(found.bytes())
        except (BaseError, OSError) as error:
            raise self._problem(_told(error)) from None

    def add(self, name: str, data: bytes) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError

        try:
            obstore.put(self._store, name, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            raise FileExistsError(name) from None
        except (BaseError, OSError) as error:
            raise self._problem(f"{_told(error)}; {HINT}") from None

    def finish(self) -> None:
        """The envelope, put last, is what makes it a bundle."""

    def _problem(self, what: str) -> EnvironmentProblem:
        return EnvironmentProblem(f"the object store at {self._address} {what}")


def _client_options() -> Any:
    """Patience for large files; plain http only where the environment allows it, as for a store on this machine."""
    allowed = [os.environ.get(f"{cloud}_ALLOW_HTTP", "") for cloud in ("AWS", "GOOGLE", "AZURE")]
    return {"timeout": TIMEOUT, "connect_timeout": "20s", "allow_http": "true" in [word.lower() for word in allowed]}


_REASONS: Final = {
    "NotFound": "has no such bucket or object",
    "PermissionDenied": "does not let these credentials do that",
    "Unauthenticated": "does not accept the credentials in the environment",
    "NotSupported": "cannot put an object only if there is none, which this needs",
}
_STATUSES: Final = {"404 Not Found": "NotFound", "403 Forbidden": "PermissionDenied", "401 Unauth": "Unauthenticated"}


def _told(error: Exception) -> str:
    """A store's error in words of ours: its own hold addresses, headers and stack traces."""
    kind = type(error).__name__.removeprefix("File").removesuffix("Error")
    for status, name in _STATUSES.items():  # listing fails as a generic error, with the status in its text
        kind = name if status in str(error) else kind
    return _REASONS.get(kind, "could not be reached, or did not answer as it should")


def _is_scrap(path: Path) -> bool:
    """A file that an interrupted attempt left half-written."""
    return path.name.startswith(".")
