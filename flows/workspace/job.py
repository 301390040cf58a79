"""One job: a checked configuration in a workspace, with its store, its keys and a folder for its run.

    workspace/  store/  keys/  runs/<name>/  releases/  prefect/

Prefect sees only the path of the run's folder; the configuration and every artefact are read from disk inside the task.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar, final

from flows.closure import Point, named_by, stage_code
from flows.environment import code_version, for_owner_alone, no_core_dumps
from pipeline.core.codec import to_plain
from pipeline.core.config import Config
from pipeline.core.digest import digest_json
from pipeline.core.errors import ConfigError
from pipeline.core.files.whole import put_whole
from pipeline.core.keys.custody.keyring import PURPOSES, keys_of
from pipeline.core.keys.secrets import Secret, read_or_create_secret
from pipeline.core.seeds import child_seed
from pipeline.core.types import Provenance
from pipeline.store import BEGINS, Made, Store

T = TypeVar("T")

CONFIG_FILE: Final = "config.json"
REPORT_PAGE: Final = "report.html"
REPORT_DATA: Final = "report.json"
REPORTS: Final = "reports"
"""In a run's folder: the page of each night that made one, by the night's name."""
KEY_PURPOSES: Final = PURPOSES
MARK_DIGITS: Final = 12
STORE_KEY: Final = "store"
"""The purpose of the secret under which the store's notes stand: made on first use, shared with nobody."""


@final
class Unmade(Exception):
    """A stage would have to make something, and the job only looks."""


@final
@dataclass(frozen=True, eq=False)
class Job:
    """What every stage is given: one object for a verb; it does not travel, a worker opens its own."""

    config: Config
    folder: Path
    resume: bool
    to_release: bool = False  # whether this walk is to end in a release, so that what forbids one stops it early
    looks: bool = False  # finds what is there, and makes nothing: `Unmade` instead
    night: bool = False  # nobody waits for it: no stage may take for ever, and what cannot be released is not made

    @cached_property
    def store(self) -> Store:
        return Store(self.config.workspace / "store", self.secret(STORE_KEY).derive("index"))

    @property
    def config_digest(self) -> str:
        """Digest of all in the configuration that can change a result: not where the workspace lies or what runs it."""
        return digest_json(self.config.model_dump(mode="json", exclude={"workspace", "compute"}))

    def secret(self, purpose: str) -> Secret:
        """The site's secret for `purpose`, made by the operating system on first use."""
        return read_or_create_secret(key_path(self.config.workspace, purpose), purpose)

    def seed(self, *names: str) -> int:
        """The seed of the named child of the run's seed, small enough for canonical JSON."""
        return child_seed(self.config.seed, *names) >> 10

    def once(
        self,
        stage: str,
        parents: tuple[str, ...],
        options: dict[str, Any],
        seed: int | None,
        make: Callable[[Provenance], tuple[Any, ...]],
        points: Iterable[Point] | None = None,
    ) -> Made[Any]:
        """Make a stage's artefacts, or find them if the job resumes and nothing they depend on has changed.

        They name the whole code's version; they depend on what the module of `make` reaches of it.

        Args:
            points: the entry points whose code `make` calls; None = it may call any that the configuration names.
        """
        provenance = Provenance(stage, parents, options, code_version(), seed)
        code = stage_code(make.__module__, named_by(self.config) if points is None else points)
        reached = replace(provenance, code_version=code)
        key = digest_json(to_plain(reached))

        def anew() -> tuple[Any, ...]:
            if self.looks:
                raise Unmade(stage)
            return make(provenance)

        made = self.store.once(key, anew, resume=self.resume, stage=stage, parents=parents)
        self.store.used(self.config.name, key)
        return made

    def replace_file(self, name: str, data: bytes) -> None:
        """Write a file of the run's folder in one step."""
        put_whole(self.folder / name, data)

    def only(self, made: Made[object], kind: type[T], position: int = 0) -> T:
        """Load one artefact that a stage made."""
        return self.store.get(made.digests[position], kind)


def new_job(config: Config, *, resume: bool = False) -> Job:
    """Write the run's folder and return its job, for a verb to keep; workers and tasks open it by its folder.

    Raises:
        EnvironmentProblem: through the store, when the workspace cannot be written.
    """
    for_owner_alone()
    folder = config.workspace / "runs" / config.name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    job = Job(config, folder, resume)
    job.replace_file(CONFIG_FILE, json.dumps(config.model_dump(mode="json"), indent=2).encode())
    job.store.used(config.name, BEGINS)
    return job


def open_job(folder: str, *, resume: bool) -> Job:
    """The job whose run lies in `folder`.

    Raises:
        ConfigError: the folder is not a run of this version.
    """
    for_owner_alone()  # also on a worker
    no_core_dumps()
    path = Path(folder) / CONFIG_FILE
    try:
        return Job(Config.model_validate(json.loads(path.read_bytes())), Path(folder), resume)
    except (OSError, ValueError):
        raise ConfigError(f"{path} is not the configuration of a run of this version") from None


def marks_of(workspace: Path) -> Callable[[str], str]:
    """What stands for an artefact where others read: digest -> `MARK_DIGITS` hex digits, under a key of the workspace.

    Whoever holds a digest can tell whether two sites have the same cohort, and check a guess of it. A mark, the
    beginning of an HMAC-SHA256, says only that this workspace has the same artefact as on another night.

    Raises:
        EnvironmentProblem: the key cannot be read or made.
    """
    key = read_or_create_secret(key_path(workspace, STORE_KEY), STORE_KEY).derive("marks")
    return lambda digest: hmac.new(key, digest.encode("ascii"), hashlib.sha256).hexdigest()[:MARK_DIGITS]


def key_path(workspace: Path, purpose: str) -> Path:
    """Where a workspace keeps the secret for `purpose`."""
    return keys_of(workspace) / f"{purpose}.key"
