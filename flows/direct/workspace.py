"""A look at a workspace: its runs, what was released, what that cost, and the artefacts. Writes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from flows.watch.releases import budget_spent, releases
from flows.workspace.job import CONFIG_FILE
from pipeline.core.errors import UsageError
from pipeline.store import KINDS, Entry, Store


@final
class Workspace:
    """The folder that runs write to: `Workspace("decoct-demo")`.

    What it gives is as restricted as the workspace is: cohorts and encodings are records of patients.
    """

    def __init__(self, path: Path | str) -> None:
        """
        Raises:
            UsageError: no run was ever begun there.
        """
        self.path = Path(path)
        if not (self.path / "store" / "objects").is_dir():
            raise UsageError(f"{self.path} is not a workspace: it has no store")

    def __repr__(self) -> str:
        return f"Workspace({str(self.path)!r}, runs={list(self.runs)})"

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs that were begun, in alphabetical order."""
        return tuple(sorted(path.parent.name for path in (self.path / "runs").glob(f"*/{CONFIG_FILE}")))

    @property
    def releases(self) -> tuple[dict[str, Any], ...]:
        """Each release and proposal, the newest first: site, name, version, policy, issued, expires and `state`.

        Raises:
            EnvironmentProblem: the audit log is damaged.
        """
        return tuple(releases(self.path, datetime.now(tz=UTC).date()))

    @property
    def balance(self) -> dict[str, Any] | None:
        """`budget`, and for each of the `cohorts` the epsilon that is spent and left; None = nothing was ever spent.

        Raises:
            BudgetError, EnvironmentProblem: the ledger cannot be trusted or read.
        """
        return budget_spent(self.path)

    @property
    def artefacts(self) -> tuple[Entry, ...]:
        """Digest, kind and size of all that the store holds, in the digests' order."""
        return tuple(self._store.entries())

    def get(self, digest: str) -> Any:
        """The artefact of a digest or its beginning: a `Cohort`, an `EncodedCohort`, a `CondensedSet`, ...

        Raises:
            UsageError: no artefact, or several, begin like that. DataError: it is damaged on disk.
        """
        found = self._store.resolve(digest)
        return self._store.get(found, KINDS[self._store.kind_of(found)])

    @property
    def _store(self) -> Store:
        return Store(self.path / "store")
