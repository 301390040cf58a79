"""Real, public stays to try things out on: what ships with Decoct, as a cohort."""

from __future__ import annotations

from typing import Final

from pipeline.core.errors import UsageError
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import Cohort
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.embedded import read_embedded
from pipeline.ingest.splits import keyed_hash_split

STEPS: Final = 48
_SPLIT_KEY: Final = Secret(b"a split that is known to anybody", "split")


def example_cohort(max_stays: int | None = None) -> Cohort:
    """The 8,000 embedded stays of PhysioNet 2012 (ODC-BY 1.0), or the first so many, in 48 steps of an hour.

    They are public, and so is the key by which they are split: 70 % to train, 10 % to tune, 20 % held out.

    Raises:
        UsageError: `max_stays` is below 1.
    """
    if max_stays is not None and max_stays < 1:
        raise UsageError("max_stays is a whole number from 1 on")
    tables = read_embedded(max_stays=max_stays)
    split = keyed_hash_split(tables.stays["subject_id"].to_numpy(), _SPLIT_KEY, 0.1, 0.2)
    return build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=STEPS, split=split)[0]
