"""Which cohorts were released: the yardstick of the next night's drift, and of how many new people it brings.

    workspace/nights/accepted.jsonl          a line per cohort whose release was admitted, append-only and chained
    workspace/nights/cohorts/<digest>.json   its profile: counts of stays
    workspace/nights/cohorts/<digest>.marks  who was in it, as keyed marks

They lie outside the store, so that neither a clean-up nor a withdrawal takes the yardstick away. A mark is 8 bytes of
an HMAC under a sub-key of the site's split key: it tells nobody who somebody is, and recognises them next night.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from flows.workspace.job import Job
from pipeline.core.codec import from_plain, record_digest, to_plain
from pipeline.core.digest import canonical_json, digest_json
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.chained import read_chain, writing
from pipeline.core.files.whole import put_whole
from pipeline.core.types import Cohort
from pipeline.core.types.drift import CohortProfile
from pipeline.store import Made

NIGHTS: Final = "nights"
ACCEPTED_FILE: Final = "accepted.jsonl"
COHORTS: Final = "cohorts"
_MARK_BYTES: Final = 8


@final
@dataclass(frozen=True, repr=False)
class Accepted:
    """A cohort whose release was admitted, as a proposal or at once."""

    release: str  # the bundle's name
    content: str  # digest of the cohort's arrays
    profile_digest: str
    profile: CohortProfile
    marks: np.ndarray  # uint64, sorted, of its subjects


def content_of(job: Job, cohort: Made[Cohort]) -> str:
    """Digest of what a cohort says, whichever version of the code made it."""
    return digest_json(job.store.describe(cohort.first)["arrays"])


def marks_of(job: Job, subjects: Iterable[str]) -> np.ndarray:
    """A mark per id, in the ids' order: `(id,)` uint64."""
    key = job.secret("split").derive("who was in an accepted cohort")
    found = [int.from_bytes(hmac.digest(key, name.encode(), "sha256")[:_MARK_BYTES], "little") for name in subjects]
    return np.array(found, np.uint64)


def newest_content(job: Job) -> str:
    """The content of the cohort that this run released last; "" where it has released none."""
    entries = _entries(job)
    return str(entries[-1]["content"]) if entries else ""


def last_accepted(job: Job, *, besides: str) -> Accepted | None:
    """The cohort that this run released last, other than one of the content `besides`; None = there is none.

    So the night that releases a cohort, and every repetition of it, compare with the same yardstick.

    Raises:
        EnvironmentProblem: the record, the profile or the marks are damaged or gone.
    """
    entry = next((entry for entry in reversed(_entries(job)) if entry["content"] != besides), None)
    if entry is None:
        return None
    name = str(entry["profile"])
    try:
        plain = (_folder(job) / f"{name}.json").read_bytes()
        marks = (_folder(job) / f"{name}.marks").read_bytes()
    except OSError as error:
        raise _lost(job, f"cannot be read ({error.strerror})") from None
    try:
        profile: CohortProfile = from_plain(CohortProfile, json.loads(plain))
    except (ValueError, TypeError, KeyError):
        raise _lost(job, "is damaged") from None
    if record_digest(profile) != name or sha256(marks).hexdigest() != entry["marks"]:
        raise _lost(job, "is damaged")
    return Accepted(str(entry["release"]), str(entry["content"]), name, profile, np.frombuffer(marks, "<u8"))


def accept(job: Job, cohort: Made[Cohort], profile: CohortProfile, subjects: Iterable[str], release: str) -> None:
    """Note that the cohort's release was admitted; a no-op where the newest line says so already.

    Raises:
        EnvironmentProblem: the disk refuses, or the record is damaged.
    """
    content, name = content_of(job, cohort), record_digest(profile)
    entries = _entries(job)
    if entries and (entries[-1]["content"], entries[-1]["release"]) == (content, release):
        return
    marks = np.unique(marks_of(job, subjects)).astype("<u8").tobytes()
    try:
        _folder(job).mkdir(parents=True, exist_ok=True, mode=0o700)
        put_whole(_folder(job) / f"{name}.json", canonical_json(to_plain(profile)))
        put_whole(_folder(job) / f"{name}.marks", marks)
    except OSError as error:
        raise EnvironmentProblem(f"{_folder(job)} cannot be written: {error.strerror}") from None
    facts = {
        "run": job.config.name,
        "release": release,
        "content": content,
        "profile": name,
        "marks": sha256(marks).hexdigest(),
    }
    with writing(_path(job)) as record:
        record.append("accept", facts)


def _entries(job: Job) -> list[Mapping[str, Any]]:
    return [entry for entry in read_chain(_path(job)).entries if entry.get("run") == job.config.name]


def _path(job: Job) -> Path:
    return job.config.workspace / NIGHTS / ACCEPTED_FILE


def _folder(job: Job) -> Path:
    return job.config.workspace / NIGHTS / COHORTS


def _lost(job: Job, how: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the profile or the marks of the last released cohort in {_folder(job)} {how}, so drift cannot be judged; "
        f"bring back a backup, or begin anew by moving {_path(job)} away and saying so: decoct log lost "
        f"{NIGHTS}/{ACCEPTED_FILE} --out {job.config.workspace}"
    )
