"""Privacy noise, expanded from a secret of the site.

The noise of a release is a secret: were it drawn from the recorded seed, the receiver could subtract it. It is a PRF of
(site secret, cohort digest, query, scale, shape), so that the same query replays the same answer, another cohort gets
fresh noise, and nothing recorded with an artefact lets a receiver compute it (docs/keys.md has the steps and vectors).

A guarantee's noise is `discrete_normal`: whole numbers, exactly distributed, for answers on a grid
(`condensation.private.granular`). `normal` is float64 and carries none: its low bits tell of what it was added to
(Mironov 2012).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, final

import numpy as np

from pipeline.core.errors import BudgetError
from pipeline.core.keys.discrete import keystream_discrete_normal as keystream_discrete_normal
from pipeline.core.keys.keystream import keystream_normal as keystream_normal
from pipeline.core.keys.keystream import keystream_uniform as keystream_uniform
from pipeline.core.keys.keystream import keystream_words as keystream_words
from pipeline.core.keys.secrets import Secret

STREAM_NAME: Final = "noise"

Reserve = Callable[[str, Sequence[Mapping[str, Any]]], None]
"""Called with a query's name and its accounted events before its noise is drawn; raises `BudgetError` to forbid it."""


@final
class NoiseSource:
    """Replayable secret noise for one cohort at one site.

    With `ledger`, noise is drawn only for queries that were reserved there first.
    """

    def __init__(self, site_secret: Secret, cohort_digest: str, ledger: Reserve | None = None) -> None:
        self._secret = site_secret
        self._cohort_digest = cohort_digest
        self._ledger = ledger
        self._reserved: list[Mapping[str, object]] = []
        self._events: list[Mapping[str, Any]] = []

    def reserve(self, query: Mapping[str, object], events: Sequence[Mapping[str, Any]]) -> None:
        """Put on record what all answers to `query` cost together, before the first noise; without a ledger, nothing.

        What is drawn afterwards must be asked for by queries that hold every item of `query`. The same query with the
        same events draws the same noise, so it has one name and costs once.

        Raises:
            BudgetError: the ledger refuses; nothing may be drawn.
        """
        if self._ledger is None:
            return
        asked = {
            "cohort": self._cohort_digest,
            "key": self._secret.fingerprint,
            "query": dict(query),
            "events": [dict(event) for event in events],
        }
        self._ledger(sha256(json.dumps(asked, sort_keys=True, allow_nan=False).encode()).hexdigest(), events)
        self._reserved.append(dict(query))
        self._events += [dict(event) for event in events]

    @property
    def reserved_events(self) -> tuple[Mapping[str, Any], ...]:
        """The events of all that was reserved in the ledger through this source."""
        return tuple(self._events)

    def normal(self, query: object, scale: float, shape: tuple[int, ...]) -> np.ndarray:
        """N(0, scale^2) noise for `query`, any JSON-able description of *everything* the true answer depends on.

        Float64, for answers without a guarantee.

        Raises:
            BudgetError: the source has a ledger, and nobody reserved this query there.
        """
        self._check_reserved(query)
        subkey = self._subkey({"query": query, "scale": float(scale).hex(), "shape": list(shape)})
        return scale * keystream_normal(subkey, STREAM_NAME, shape)

    def discrete_normal(self, query: object, scale: int, shape: tuple[int, ...]) -> np.ndarray:
        """int64 noise with P(k) proportional to exp(-k^2 / (2 scale^2)), for `query`, described as for `normal`.

        Exact, whatever the machine; unrelated to the query's normals, and to those of another scale or shape.

        Raises:
            BudgetError: as `normal`. EnvironmentProblem: the scale is none of 1 to 2^46.
        """
        self._check_reserved(query)
        asked = {"law": "discrete normal", "query": query, "scale": scale, "shape": list(shape)}
        return keystream_discrete_normal(self._subkey(asked), STREAM_NAME, scale, shape)

    def uniform(self, query: object, shape: tuple[int, ...]) -> np.ndarray:
        """Uniforms in (0, 1) for `query`, described as for `normal`; unrelated to its normals of the same query."""
        self._check_reserved(query)
        return keystream_uniform(
            self._subkey({"law": "uniform", "query": query, "shape": list(shape)}), STREAM_NAME, shape
        )

    def _check_reserved(self, query: object) -> None:
        if self._ledger is None:
            return
        asked = query if isinstance(query, Mapping) else {}
        if not any(reserved.items() <= asked.items() for reserved in self._reserved):
            raise BudgetError("a method asked for privacy noise without reserving what it costs; nothing was drawn")

    def _subkey(self, asked: dict[str, object]) -> bytes:
        return self._secret.derive(json.dumps({"cohort": self._cohort_digest} | asked, sort_keys=True, allow_nan=False))

    def __repr__(self) -> str:
        return f"NoiseSource(cohort={self._cohort_digest[:12]})"
