"""Where a user without a workspace keeps keys: one folder, with a key file per purpose and the retired ones beside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from platformdirs import user_config_path

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.keys.custody.keyring import RETIRED, key_file, listed_keys
from pipeline.core.keys.secrets import Secret, read_or_create_secret, read_secret

KEYS_VARIABLE: Final = "DECOCT_KEYS"


def key_folder(keys: str | os.PathLike[str] | None = None) -> Path:
    """`keys`, else the environment's DECOCT_KEYS, else the user's configuration folder of this platform."""
    if keys is not None:
        return Path(keys)
    if named := os.environ.get(KEYS_VARIABLE):
        return Path(named)
    return user_config_path("decoct", appauthor=False, roaming=True) / "keys"


def current_key(folder: Path, purpose: str) -> Secret:
    """The folder's key for this purpose, made on first use.

    Raises:
        EnvironmentProblem: the folder cannot be written, or the key file cannot be used.
    """
    return read_or_create_secret(key_file(folder, purpose), purpose, noted=False)


def find_key(folder: Path, purpose: str, fingerprint: str) -> Secret:
    """The key of that fingerprint: the current one, or one that a rotation retired; only this one is opened.

    Raises:
        EnvironmentProblem: not there, or a key file that cannot be used.
    """
    named = (
        entry.path for entry in listed_keys(folder) if (entry.purpose, entry.fingerprint) == (purpose, fingerprint)
    )
    path = next(named, None)
    key = None if path is None else read_secret(path, purpose)
    if key is None or key.fingerprint != fingerprint:
        current, retired = key_file(folder, purpose), folder / RETIRED / f"{purpose}-{fingerprint}.key"
        raise EnvironmentProblem(
            f"the {purpose} key with fingerprint {fingerprint} is missing: it is neither in {current} nor in {retired}"
        )
    return key
