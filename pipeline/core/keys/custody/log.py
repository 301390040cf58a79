"""keys/log.jsonl: who did what with which key, each line holding the digest of the one before.

Its last line's digest is printed with every share, to be kept by somebody else: whoever may write this folder can write
all of it anew. No line holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline.core.files.chained import Chain, found_chain, read_chain, writing
from pipeline.core.files.seen import name_of, states

LOG_FILE: Final = "log.jsonl"


def read_log(keys: Path) -> Chain:
    """The log of the folder `keys`; empty if there is none and never was.

    Raises:
        EnvironmentProblem: it was cut or removed, or a line is not what was written; the sentence says which.
    """
    if name_of(keys, keys / LOG_FILE) not in states(keys):  # keys that were copied into a new workspace
        return found_chain(keys / LOG_FILE, owner_only=False)
    return read_chain(keys / LOG_FILE, keys)


def append_log(keys: Path, what: str, facts: Mapping[str, str | int]) -> str:
    """Add a line and wait until it is on the disk; returns its digest.

    Raises:
        EnvironmentProblem: the chain is broken already, or the disk refuses; nothing is written then.
    """
    with writing(keys / LOG_FILE, keys, adopt=True) as log:  # keys may have been copied into a new workspace
        return log.append(what, facts)
