"""Taking things out of a workspace so that a kill at any moment leaves nothing half taken out.

What is to go is written down first (store/purge.json: digests, stage keys and paths, nothing about anybody), then goes,
notes before artefacts; a plan that is still there is carried out by whoever takes something out next. Nobody works in
the workspace meanwhile: its lock is held.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.whole import put_whole
from pipeline.core.protocols import OnStep, ignore_step

PLAN_FILE: Final = "purge.json"


@final
@dataclass(frozen=True)
class Plan:
    """What is to go: stage keys, artefacts, and paths below the workspace."""

    notes: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.notes or self.objects or self.paths)


def carry_out(workspace: Path, plan: Plan, on_step: OnStep = ignore_step) -> int:
    """Take out what the plan names; returns the bytes that it took.

    Raises:
        EnvironmentProblem: the disk refuses; the plan stays, and the next purge goes on with it.
    """
    if not plan:
        return 0
    store = workspace / "store"
    try:
        put_whole(store / PLAN_FILE, json.dumps(asdict(plan)).encode())
        gone = _take_out(workspace, plan, on_step)
        (store / PLAN_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"{workspace} cannot be cleaned: {error.strerror}; the same command goes on from there"
        ) from None
    return gone


def pending(workspace: Path) -> Plan:
    """The plan of a purge that was cut short; empty if there is none.

    Raises:
        EnvironmentProblem: it cannot be read.
    """
    path = workspace / "store" / PLAN_FILE
    try:
        raw = json.loads(path.read_bytes())
        return Plan(tuple(raw["notes"]), tuple(raw["objects"]), tuple(raw["paths"]))
    except FileNotFoundError:
        return Plan()
    except (OSError, ValueError, KeyError, TypeError):
        raise EnvironmentProblem(f"{path} cannot be read; move it away and run the command again") from None


def finish_pending(workspace: Path, on_step: OnStep = ignore_step) -> bool:
    """Carry out what an interrupted purge left; whether there was any. Raises as `carry_out` and `pending`."""
    plan = pending(workspace)
    if plan:
        carry_out(workspace, plan, on_step)
    return bool(plan)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all below a folder; 0 of nothing."""
    if path.is_symlink() or not path.exists():
        return 0
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def object_folder(workspace: Path, digest: str) -> Path:
    """Where an artefact lies."""
    return workspace / "store" / "objects" / digest[:2] / digest


def _take_out(workspace: Path, plan: Plan, on_step: OnStep) -> int:
    notes = [workspace / "store" / "index" / key for key in plan.notes]
    objects = [object_folder(workspace, digest) for digest in plan.objects]
    others = [workspace / path for path in plan.paths]
    gone = 0
    everything: Iterable[Path] = (*notes, *objects, *others)
    total = len(notes) + len(objects) + len(others)
    for number, path in enumerate(everything, start=1):
        gone += _remove(path, workspace / "store" / "tmp")
        on_step(number, total, float("nan"))
    return gone


def _remove(path: Path, aside: Path) -> int:
    size = size_of(path)
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    elif path.is_dir():
        staged = aside / f"purged-{uuid.uuid4().hex}"  # by one rename: a folder that is there is a whole one
        path.rename(staged)
        shutil.rmtree(staged)
    return size
