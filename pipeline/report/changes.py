"""What changed between the cohort of the last release and this one, without telling of fewer than ten people.

Cohorts are compared by outlines: keyed marks of stays, of subjects and of what each stay says, and how many stays lack
each variable. An outline outlives its cohort, which a clean-up or a withdrawal may take away, and names nobody.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import math
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np

from pipeline.core.codec import to_plain
from pipeline.core.digest import digest_json
from pipeline.core.files.mapped import row_chunks
from pipeline.core.types import Cohort
from pipeline.report.suppress import SUPPRESSED, THRESHOLD, WITHHELD, is_small

_MARK_BYTES: Final = 8
_FINEST: Final = 0.01

Cell = int | str


@final
@dataclass(frozen=True, eq=False, repr=False)
class Outline:
    """A cohort's marks; all of one key, so that they can be compared with those of another night."""

    stays: np.ndarray  # (stay,) uint64
    subjects: np.ndarray  # (stay,) uint64, whose stay it is
    content: np.ndarray  # (stay,) uint64, of everything that the stay says
    without: np.ndarray  # (variable,) int64, stays without any value
    variables: tuple[str, ...]
    shape: str  # digest of grid, variables, statics and tasks: only of one shape can contents be compared
    subjects_known: bool


def outline_of(cohort: Cohort, key: bytes) -> Outline:
    """The outline of a cohort under a site's key."""
    shape = [to_plain(cohort.variables), to_plain(cohort.static_variables), to_plain(cohort.tasks)]
    without = np.zeros(len(cohort.variables), np.int64)
    content = np.zeros(len(cohort.stay_ids), np.uint64)
    for part in row_chunks(cohort.values):
        without += (~cohort.observed[part].any(axis=1)).sum(axis=0)
        rows = range(*part.indices(len(cohort.stay_ids)))
        said = (
            cohort.values[row].tobytes() + cohort.static[row].tobytes() + cohort.labels[row].tobytes() for row in rows
        )
        content[part] = [_mark(key, b"content" + hashlib.sha256(data).digest()) for data in said]
    return Outline(
        stays=_marks(key, b"stay", cohort.stay_ids),
        subjects=_marks(key, b"subject", cohort.subject_ids),
        content=content,
        without=without,
        variables=tuple(variable.name for variable in cohort.variables),
        shape=digest_json([*shape, cohort.step_hours, cohort.values.shape[1]]),
        subjects_known=cohort.subjects_known,
    )


def outline_bytes(outline: Outline) -> bytes:
    """A file's content, without pickled objects."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        stays=outline.stays,
        subjects=outline.subjects,
        content=outline.content,
        without=outline.without,
        variables=np.array(outline.variables, dtype=str),
        shape=np.array(outline.shape),
        subjects_known=np.array(outline.subjects_known),
    )
    return buffer.getvalue()


def parse_outline(data: bytes) -> Outline:
    """The inverse of `outline_bytes`.

    Raises:
        ValueError, KeyError, OSError: it is none.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return Outline(
            stays=file["stays"],
            subjects=file["subjects"],
            content=file["content"],
            without=file["without"],
            variables=tuple(str(name) for name in file["variables"]),
            shape=str(file["shape"]),
            subjects_known=bool(file["subjects_known"]),
        )


def changes(before: Outline, after: Outline) -> dict[str, Any]:
    """Counts of what came, went and was corrected, and shares of stays without a variable; fit for the site's page.

    A count of one to nine people's stays is suppressed. What came and what went are told together or not at all: the
    difference of the two is known to everybody who saw both nights' totals. So are stays and subjects that differ by
    fewer than ten. Shares are rounded so coarsely that one step stands for ten people at least.
    """
    _, here, there = np.intersect1d(after.stays, before.stays, assume_unique=True, return_indices=True)
    comparable = after.shape == before.shape
    new, gone = np.delete(after.subjects, here), np.delete(before.subjects, there)
    stays = _together(len(new), len(gone), (len(np.unique(new)), len(np.unique(gone))))
    found: dict[str, Any] = {"stays_added": stays[0], "stays_removed": stays[1], "comparable": comparable}
    corrected = after.subjects[here[after.content[here] != before.content[there]]]
    found["stays_corrected"] = _cell(len(corrected), len(np.unique(corrected))) if comparable else None
    if after.subjects_known and before.subjects_known:
        people = _moved(np.unique(after.subjects), np.unique(before.subjects))
        told = _together(*people)
        counts = (len(new), len(gone))
        close = any(is_small(abs(count - person)) for count, person in zip(counts, people, strict=True))
        found |= dict(zip(("subjects_added", "subjects_removed"), (WITHHELD, WITHHELD) if close else told, strict=True))
    else:
        found |= {"subjects_added": None, "subjects_removed": None}
    return found | {"missing": _missing(before, after), "grain": _grain(before, after)}


def _moved(after: np.ndarray, before: np.ndarray) -> tuple[int, int]:
    """How many came and how many went."""
    both = len(np.intersect1d(after, before, assume_unique=True))
    return len(after) - both, len(before) - both


def _together(came: int, went: int, people: tuple[int, int] | None = None) -> tuple[Cell, Cell]:
    """Both counts; where one is of few people the other is withheld, or their known difference would tell it."""
    of_came, of_went = people or (came, went)
    if is_small(of_came) == is_small(of_went):
        return _cell(came, of_came), _cell(went, of_went)
    return (SUPPRESSED, WITHHELD) if is_small(of_came) else (WITHHELD, SUPPRESSED)


def _cell(count: int, people: int) -> Cell:
    return SUPPRESSED if is_small(people) else count


def _grain(before: Outline, after: Outline) -> float:
    """The step of shares: a hundredth, or as much as ten of the smaller cohort's people are."""
    smaller = max(min(len(np.unique(before.subjects)), len(np.unique(after.subjects))), 1)
    return max(_FINEST, math.ceil(100 * THRESHOLD / smaller) / 100)


def _missing(before: Outline, after: Outline) -> list[dict[str, Any]]:
    grain, rows = _grain(before, after), []
    known = dict(zip(before.variables, before.without.tolist(), strict=True))
    for name, count in zip(after.variables, after.without.tolist(), strict=True):
        if name not in known:
            continue
        shares = _share(known[name], len(before.stays), grain), _share(count, len(after.stays), grain)
        moved = SUPPRESSED not in shares and shares[0] != shares[1]
        rows.append({"variable": name, "before": shares[0], "after": shares[1], "moved": moved})
    return rows


def _share(count: int, stays: int, grain: float) -> float | str:
    if is_small(count) or is_small(stays - count):
        return SUPPRESSED
    return round(round(count / max(stays, 1) / grain) * grain, 2)


def _marks(key: bytes, kind: bytes, ids: np.ndarray) -> np.ndarray:
    names, places = np.unique(ids, return_inverse=True)
    marks = np.array([_mark(key, kind + b"\x00" + str(name).encode()) for name in names], np.uint64)
    return np.asarray(marks[places.reshape(-1)])


def _mark(key: bytes, data: bytes) -> int:
    return int.from_bytes(hmac.digest(key, data, "sha256")[:_MARK_BYTES], "little")
