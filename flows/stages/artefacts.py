"""What stages hand to one another: the types that tell a prepared cohort from an encoded one, and what may leave."""

from __future__ import annotations

from typing import NewType, final

from pipeline.core.types import EncodedCohort

Prepared = NewType("Prepared", EncodedCohort)
"""Imputed series in [0, 1], still of clinical variables."""
Encoded = NewType("Encoded", EncodedCohort)
"""What an [encode.NAME] table made of them."""


@final
class Candidate:
    """What [release] names, of whichever kind it is: a type for checkers, which nothing is an instance of."""
