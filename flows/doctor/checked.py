"""What one check of the doctor saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Checked:
    """One check and what it saw. `grave` false: worth a look, and no reason not to run."""

    check: str
    ok: bool
    told: str
    grave: bool = True

    @property
    def word(self) -> str:
        """How the table says it."""
        return "ok" if self.ok else "FAIL" if self.grave else "warn"
