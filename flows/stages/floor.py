"""The utility floor, held before the audit: a stage of its own, as it writes the page, which nothing else rests on."""

from __future__ import annotations

from collections.abc import Mapping

from flows.stages.decide import shortfall
from flows.stages.report import report
from flows.workspace.job import Job
from pipeline.core.errors import UtilityError
from pipeline.core.types import UtilityReport
from pipeline.store import Made


def floor(job: Job, utility: Made[UtilityReport], made: Mapping[str, Made[object]]) -> None:
    """Stop before the audit, which takes longest, if the release would be of too little use; the page is written.

    Raises:
        UtilityError: below the utility floor.
    """
    if (why := shortfall(job, job.only(utility, UtilityReport))) is not None:
        report(job, made)
        raise UtilityError(f"nothing was released: {why}")
