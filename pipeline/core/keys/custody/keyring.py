"""The keys of a workspace's `keys` folder: made, rotated, listed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, final

from pipeline.core.errors import EnvironmentProblem, UsageError
from pipeline.core.files.owner import read_owner_file, write_owner_file
from pipeline.core.files.whole import sync_folder
from pipeline.core.keys.custody.log import append_log, read_log
from pipeline.core.keys.passphrase import clear_facts, is_sealed
from pipeline.core.keys.secrets import Secret, new_secret, read_secret, require_never_made, write_secret

PURPOSES: Final = ("encoder", "noise", "split", "author")
RETIRED: Final = "retired"
ROTATION_MEANS: Final = {
    "encoder": "what was encoded with the old key cannot be mixed with what the new key encodes, nor used by models "
    "trained on it; every institution that shares the key needs the new one",
    "noise": "every question is answered again with fresh noise: another release about the same patients, whose "
    "epsilon and delta add to the old ones",
    "split": "subjects move between train, tuning and held-out: models trained before have seen subjects that are "
    "now held out",
    "author": "receivers need the trust root's next version (decoct trust draft); bundles signed before verify with "
    "the old one only",
}


@final
@dataclass(frozen=True)
class KeyEntry:
    """What may be told of a key file."""

    purpose: str
    fingerprint: str
    path: Path
    made: str  # ISO date, or empty
    sealed: bool
    retired: bool

    @property
    def age_days(self) -> int | None:
        """Days since it was made, by UTC's calendar; None if the file does not say when."""
        return (datetime.now(tz=UTC).date() - date.fromisoformat(self.made)).days if self.made else None


def keys_of(workspace: Path) -> Path:
    """The folder in which a workspace keeps its keys."""
    return workspace / "keys"


def key_file(keys: Path, purpose: str) -> Path:
    """Where the folder `keys` holds the key for `purpose`.

    Raises:
        UsageError: no key has this purpose.
    """
    if purpose not in PURPOSES:
        raise UsageError(f"no key has the purpose {purpose!r}; there are: {', '.join(PURPOSES)}")
    return keys / f"{purpose}.key"


def make_key(keys: Path, purpose: str, passphrase: str | None = None) -> Secret:
    """Make, write and log a new key.

    Raises:
        EnvironmentProblem: there is one already, or was one that is gone.
    """
    path, secret = key_file(keys, purpose), new_secret(purpose)
    read_log(keys)
    require_never_made(path)
    write_secret(path, secret, passphrase)
    append_log(keys, "new", {"purpose": purpose, "fingerprint": secret.fingerprint})
    return secret


def rotate_key(keys: Path, purpose: str, passphrase: str | None = None, *, another_release: bool = False) -> Secret:
    """Retire the key for `purpose` and put a new one in its place.

    Raises:
        UsageError: the noise key, without `another_release`: fresh noise has a price that somebody must take.
        EnvironmentProblem: there is no key, or it cannot be read.
    """
    path = key_file(keys, purpose)
    if purpose == "noise" and not another_release:
        raise UsageError(
            f"rotating the noise key is refused: {ROTATION_MEANS['noise']}; say --another-release once that is "
            f"accounted for"
        )
    old, new = read_secret(path, purpose), new_secret(purpose)
    replace_key(keys, old, new, "rotate", passphrase)
    return new


def replace_key(keys: Path, old: Secret, new: Secret, what: str, passphrase: str | None) -> None:
    """Retire `old` and put `new` in its place, in one step: at no moment is there none, which a run would make anew.

    Raises:
        EnvironmentProblem: the disk refuses, or the log is broken.
    """
    path = key_file(keys, new.purpose)
    read_log(keys)
    _keep_retired(keys, old, path)
    staged = keys / f".{new.purpose}.key.new"
    staged.unlink(missing_ok=True)  # of an attempt that was cut short; nobody has used it
    write_secret(staged, new, passphrase)
    os.replace(staged, path)
    sync_folder(keys)
    append_log(keys, what, {"purpose": new.purpose, "fingerprint": new.fingerprint, "retired": old.fingerprint})


def is_key_sealed(keys: Path, purpose: str) -> bool:
    """Whether the key for `purpose` is there and under a passphrase."""
    path = key_file(keys, purpose)
    return path.exists() and is_sealed(read_owner_file(path, "key file"))


def _keep_retired(keys: Path, old: Secret, path: Path) -> None:
    """Copy the key file, sealed or not, to keys/retired; a copy left by an interrupted attempt will do."""
    data = read_owner_file(path, "key file")
    kept = keys / RETIRED / f"{old.purpose}-{old.fingerprint}.key"
    if not kept.exists():
        write_owner_file(kept, data, "retired key file")
    elif read_owner_file(kept, "retired key file") != data:
        raise EnvironmentProblem(f"retired key file {kept} exists already and is another file than {path}")


def listed_keys(keys: Path) -> Iterator[KeyEntry]:
    """All keys and retired keys of the folder; of a sealed one, what its file says to everybody.

    Raises:
        EnvironmentProblem: a key file is damaged or open to others.
    """
    for purpose in PURPOSES:
        path = key_file(keys, purpose)
        if path.exists():
            yield _entry(path, purpose, retired=False)
        for old in sorted((keys / RETIRED).glob(f"{purpose}-*.key")):
            yield _entry(old, purpose, retired=True)


def _entry(path: Path, purpose: str, *, retired: bool) -> KeyEntry:
    data = read_owner_file(path, "key file")
    if not is_sealed(data):
        secret = read_secret(path, purpose)
        return KeyEntry(purpose, secret.fingerprint, path, secret.made, False, retired)
    told = clear_facts(data)
    try:
        made = told["made"] and date.fromisoformat(told["made"]).isoformat()
        if told["purpose"] == purpose:
            return KeyEntry(purpose, told["fingerprint"], path, made, True, retired)
    except (KeyError, ValueError):
        pass
    raise EnvironmentProblem(f"key file {path} is damaged, or not for purpose {purpose!r}")
