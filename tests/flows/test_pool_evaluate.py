"""Two real sites' condensed sets pooled, and tested on one's own held-out stays beside one's own training stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.cli.receive.pool import _print_table
from flows.receiving import pool as pools
from flows.receiving.evaluate import BOTH, OWN, POOLED, WITHOUT, evaluate_pool
from flows.receiving.pool import pool_bundles
from flows.run import walk_until
from flows.workspace.job import Job, new_job
from pipeline.core.config import Config
from pipeline.core.errors import DataError
from pipeline.core.types import CondensedSet
from pipeline.sharing.bundle.payload import data_description, guarantee_description, method_description, payload_arrays
from pipeline.sharing.canonical import plain
from pipeline.sharing.receive.received import Received
from pipeline.sharing.receive.verify import VerifiedBundle
from pipeline.sharing.trust.keys import PublicKey

pytestmark = pytest.mark.slow
TODAY = datetime.now(tz=UTC).date()


def condensed_at(config: Config) -> tuple[Job, CondensedSet]:
    job = new_job(config, resume=True)
    made = walk_until(job, "condense")
    return job, job.only(made["condense centroids"], CondensedSet)


def as_received(condensed: CondensedSet, site: str) -> Received:
    """What a receiver holds after verifying the site's bundle; how bundles are made and checked is tested elsewhere."""
    manifest = {
        "site": site,
        "name": "centroids",
        "version": 1,
        "issued": TODAY.isoformat(),
        "expires": TODAY.isoformat(),
        "licence": "ODbL-1.0",
        "recipients": [],
        "encryption": None,
        "release": method_description(condensed),
        "data": data_description(condensed),
        "guarantee": guarantee_description(condensed.guarantee),
        "policy": {"name": "trial", "digest": "d", "production": False},
        "files": {"payload.safetensors": {"sha256": f"of {site}"}},
    }
    key = PublicKey(keyid="k" * 64, public="p" * 64, name=site)
    bundle = VerifiedBundle(
        path=Path(site), manifest=json.loads(json.dumps(plain(manifest))), files={}, signed_by=key, approved_by=()
    )
    return Received(bundle, payload_arrays(condensed))


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, small_job: Callable[..., Config]) -> dict[str, Any]:
    base = tmp_path_factory.mktemp("pool")
    found: dict[str, Any] = {}
    for name in ("a", "b"):
        (base / name).mkdir()
        config = small_job(
            base / name,
            source={"kind": "embedded", "sets": [name], "max_stays": 600},
            cohort={"tasks": ["in_hospital_death", "los_gt_7d"]},
            encode={"raw": {"kind": "identity"}},
            condense={"centroids": {"kind": "centroids", "n_per_class": 10}},
            group=None,
            release={"artefact": "centroids", "policy": "trial.toml", "site": name, "licence": "ODbL-1.0"},
        )
        job, condensed = condensed_at(config)
        found[name] = {"job": job, "received": as_received(condensed, f"Hospital {name.upper()}")}
    return found


@pytest.fixture
def pooled(sites: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pools, "taken", lambda bundle, root, **_: sites[bundle.name]["received"])
    names = [Path("a"), Path("b")]
    pool_bundles(names, [Path("root")], tmp_path / "pool", n_per_class=1, seed=0, hard_labels=False, today=TODAY)
    return tmp_path / "pool"


def test_a_pool_stands_beside_ones_own_stays_and_without_each_institution(
    sites: dict[str, Any], pooled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = evaluate_pool(sites["b"]["job"], pooled, today=TODAY)
    by_set = {score.training_set: score for score in scores if score.task == "in_hospital_death"}
    assert list(by_set) == [OWN, POOLED, BOTH, f"{WITHOUT}Hospital A", f"{WITHOUT}Hospital B"]
    own, both = by_set[OWN], by_set[BOTH]
    assert both.n_samples == own.n_samples + by_set[POOLED].n_samples
    assert by_set[f"{WITHOUT}Hospital A"].n_samples == 20
    assert (own.difference, own.difference_low, own.difference_high) == (0, 0, 0)
    for score in by_set.values():  # about 120 held-out stays with some 17 deaths: better than chance, no more is asked
        assert score.mean > 0.55
        assert score.low <= score.mean <= score.high
        assert score.difference == pytest.approx(score.mean - own.mean)
    assert {score.task for score in scores} == {"in_hospital_death"}  # the one task that was condensed
    _print_table(scores, "interval")
    table = capsys.readouterr().out
    assert f"{WITHOUT}Hospital A" in table
    assert "own held-out stays, and the difference from own_training_stays" in table


def test_a_label_that_means_something_else_here_is_refused(sites: dict[str, Any], pooled: Path) -> None:
    manifest = json.loads((pooled / "manifest.json").read_text())
    manifest["data"]["tasks"][0]["description"] = "died within a week"
    (pooled / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"the label in_hospital_death means .* in this run and 'died within a week'"):
        evaluate_pool(sites["b"]["job"], pooled, today=TODAY)


def test_the_rows_are_the_sites_own(sites: dict[str, Any], pooled: Path) -> None:
    institution = np.load(pooled / "institution.npy")
    features = np.load(pooled / "features.npy")
    for index, name in enumerate("ab"):
        np.testing.assert_array_equal(features[institution == index], sites[name]["received"].features)
