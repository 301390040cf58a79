"""A workspace's own editor, without its keys: what is written into the store by hand is never released."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flows.workspace.job import Job, key_path, new_job
from pipeline.core.codec import to_plain
from pipeline.core.config import Config
from pipeline.core.types import CondensedSet, GateDecision, LeakageReport, Provenance, Task

HONEST = CondensedSet(
    features=np.full((2, 3, 1), 0.5, np.float32),
    labels=np.array([[0], [1]], np.float32),
    channels=("HR",),
    tasks=(Task("death"),),
    step_hours=1.0,
    transforms=({"kind": "scaling", "public": True},),
    method="private_moments",
    starts_from_records=False,
    guarantee=None,
    provenance=Provenance("condense"),
)
PATIENTS = dataclasses.replace(HONEST, features=np.full((2, 3, 1), 0.25, np.float32))


def stages(job: Job) -> tuple[str, str, str]:
    """Condense, audit and gate as a run does them, each from what the one before is noted to have made."""
    condensed = job.once("condense", ("cohort",), {}, 1, lambda provenance: (HONEST,))

    def audit(provenance: object) -> tuple[LeakageReport]:
        return (LeakageReport("private", condensed.first, (), (), True, Provenance("audit")),)

    leakage = job.once("audit", (condensed.first,), {}, 2, audit)
    words = "PASS" if condensed.first == honest_digest(job) else "FAIL"
    decided = job.once(
        "decide", (condensed.first, leakage.first), {}, None, lambda _: (GateDecision(words, "p", "d", ()),)
    )
    return condensed.first, leakage.first, decided.first


def honest_digest(job: Job) -> str:
    return job.store.put(HONEST)


def test_a_forged_chain_of_notes_is_done_again(tmp_path: Path, small_job: Callable[..., Config]) -> None:
    """Real stays under the honest set's name, yesterday's audit with their digest, each note edited to name them."""
    job = dataclasses.replace(new_job(small_job(tmp_path)), resume=True)
    honest = stages(job)
    forged = job.store.put(PATIENTS)
    report = job.only(job.store.made(index(tmp_path)["audit"]), LeakageReport)
    audit = job.store.put(dataclasses.replace(report, artefact_digest=forged))
    for name, digest in (("condense", forged), ("audit", audit)):
        path = tmp_path / "store" / "index" / index(tmp_path)[name]
        path.write_text(json.dumps({**json.loads(path.read_text()), "digests": [digest]}))
    again = dataclasses.replace(new_job(small_job(tmp_path)), resume=True)
    assert stages(again) == honest
    assert stages(again) == honest  # and what was put right stays so


def test_a_note_for_a_stage_that_never_ran_is_no_note(tmp_path: Path, small_job: Callable[..., Config]) -> None:
    """The key of a stage is public knowledge: it is the digest of its parents, options and code."""
    from flows.environment import code_version
    from pipeline.core.digest import digest_json

    job = dataclasses.replace(new_job(small_job(tmp_path)), resume=True)
    key = digest_json(to_plain(Provenance("condense", ("cohort",), {}, code_version(), 1)))
    note = {"digests": [job.store.put(PATIENTS)], "seconds": 1.0, "stage": "condense", "parents": ["cohort"]}
    (tmp_path / "store" / "index" / key).write_text(json.dumps(note))
    assert stages(job)[0] == honest_digest(job)


def test_the_key_of_the_notes_lies_where_the_other_keys_do(tmp_path: Path, small_job: Callable[..., Config]) -> None:
    job = new_job(small_job(tmp_path))
    stages(job)
    path = key_path(tmp_path, "store")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().splitlines()[2].encode() not in b"".join(
        file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()
    )
    path.unlink()
    assert job.store is not new_job(small_job(tmp_path)).store
    fresh = dataclasses.replace(new_job(small_job(tmp_path)), resume=True)
    assert fresh.store.made(index(tmp_path)["condense"]) is None  # under a new key everything is done again


def index(workspace: Path) -> dict[str, str]:
    """Stage -> the key of its note."""
    notes = {path.name: json.loads(path.read_text()) for path in (workspace / "store" / "index").iterdir()}
    return {note["stage"]: name for name, note in notes.items()}
