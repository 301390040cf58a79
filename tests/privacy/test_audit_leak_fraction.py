"""Condensed sets of real stays (PhysioNet 2012, embedded): one copy is one too many, and more copies are more risk."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pipeline.audit.scene import CondensedScene
from pipeline.audit.sets.distances import channel_scale, lag_distances, nearest
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.audit.sets.singling_out import SinglingOut
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.splits import keyed_hash_split

FRACTIONS = (0.0, 0.01, 0.05, 0.2, 1.0)
FRESH = 500


@pytest.fixture(scope="module")
def prepared() -> EncodedCohort:
    tables = read_source("embedded", sets=("a",), max_stays=2400)
    ids = tables.stays["subject_id"].to_numpy().astype(str)
    split = keyed_hash_split(ids, Secret(bytes(32), "split"), 0.25, 0.35)
    cohort = build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, tasks=(), split=split)[0]
    return prepare(cohort, imputation="carry_forward", scaling="public_ranges", observed="drop")


def scene_of(prepared: EncodedCohort, samples: np.ndarray) -> CondensedScene:
    members, holdout = prepared.part(Split.TRAIN), prepared.part(Split.HELD_OUT)
    condensed = CondensedSet(
        features=samples,
        labels=np.zeros((len(samples), 1), np.float32),
        channels=prepared.channels,
        tasks=prepared.tasks[:1],
        step_hours=prepared.step_hours,
        transforms=prepared.transforms,
        method="test",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("test"),
    )
    subjects = members.subject_index, holdout.subject_index
    return CondensedScene("set", "0" * 64, condensed, members.features, holdout.features, *subjects)


def test_one_copy_of_the_rarest_stay_among_fresh_rows_is_counted(prepared: EncodedCohort) -> None:
    """The policies' limit is 0: one counted sample fails the release, whatever averages say."""
    fresh = prepared.part(Split.TUNING).features[:FRESH]
    members = prepared.part(Split.TRAIN).features
    scaled = members / channel_scale(members)
    rarest = int(nearest(lag_distances(scaled, scaled, max_lag=0)).second.argmax())
    without = NearCopies().run(scene_of(prepared, fresh), 0)
    found = NearCopies().run(scene_of(prepared, np.concatenate([fresh, members[[rarest]]])), 0)
    assert found[0].statistic == "count"
    assert found[0].gates
    assert found[0].rate == without[0].rate + 1
    assert found[0].controls_held


def test_more_copies_are_more_risk(prepared: EncodedCohort) -> None:
    fresh, members = prepared.part(Split.TUNING).features, prepared.part(Split.TRAIN).features
    counts, risks = [], []
    for fraction in FRACTIONS:
        copies = round(200 * fraction)
        scene = scene_of(prepared, np.concatenate([members[:copies], fresh[: 200 - copies]]))
        counts.append(NearCopies().run(scene, 0)[0].rate)
        risks.append(SinglingOut().run(scene, 0)[0])
    assert all(fewer < more for fewer, more in pairwise(counts))
    assert counts[-1] >= 190  # stays with hardly a measurement have twins
    rates = [risk.rate for risk in risks]
    assert rates[2] < rates[3] < rates[4]
    assert max(rates[:2]) < rates[3]
    assert risks[0].low <= 0
    assert risks[3].low > 0
