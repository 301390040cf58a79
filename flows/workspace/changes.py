"""The outlines of released cohorts, and what changed since the last of them.

workspace/outlines/<bundle>.npz    keyed marks and counts of the cohort that a bundle came from; its owner's alone
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from flows.workspace.job import Job
from flows.workspace.releases import PROPOSALS
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.owner import read_owner_file, write_owner_file
from pipeline.core.types import Cohort
from pipeline.report.changes import Outline, changes, outline_bytes, outline_of, parse_outline
from pipeline.sharing.bundle.write import ReleaseNotes, bundle_name
from pipeline.store import Made

OUTLINES: Final = "outlines"
_VERSION: Final = re.compile(r"-v(\d+)$")


def keep_outline(job: Job, cohort: Made[Cohort], bundle: str) -> None:
    """Keep the outline of the cohort that a bundle came from.

    Raises:
        EnvironmentProblem: the disk refuses.
    """
    path = _folder(job) / f"{bundle}.npz"
    if not path.exists():
        write_owner_file(path, outline_bytes(_outline(job, cohort)), "outline")


def since_last_release(job: Job, cohort: Made[Cohort], made_now: str | None) -> dict[str, Any] | None:
    """What changed since the cohort of the last release before `made_now`; None where there was none, or its outline
    was made with another key or is gone.
    """
    last = _last(job, made_now)
    if last is None:
        return None
    try:
        before = parse_outline(read_owner_file(last, "outline"))
    except (EnvironmentProblem, ValueError, KeyError, OSError):
        return None
    return {"release": last.stem, **changes(before, _outline(job, cohort))}


def _outline(job: Job, cohort: Made[Cohort]) -> Outline:
    return outline_of(job.only(cohort, Cohort), job.secret("split").derive("outline of a released cohort"))


def _last(job: Job, besides: str | None) -> Path | None:
    settings = job.config.release
    found: list[tuple[int, Path]] = []
    for path in _folder(job).glob("[!.]*.npz"):
        version = _VERSION.search(path.stem)
        number = int(version[1]) if version else 0
        own = bundle_name(ReleaseNotes(settings.artefact, settings.site, number, settings.licence)) == path.stem
        waiting = (job.config.workspace / PROPOSALS / path.stem).exists()
        if own and path.stem != besides and not waiting:
            found.append((number, path))
    return max(found)[1] if found else None


def _folder(job: Job) -> Path:
    return job.config.workspace / OUTLINES
