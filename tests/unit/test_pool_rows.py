"""Rows of several institutions as one training set: what fits goes together, and the first difference is named."""

from __future__ import annotations

import copy
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.receiving import pool as pools
from flows.receiving.pool import load_pool, pool_bundles
from pipeline.core.errors import DataError, ReleaseRefused, UsageError
from pipeline.sharing.receive.pooling import first_difference, pool_rows
from pipeline.sharing.receive.received import Received
from pipeline.sharing.receive.verify import VerifiedBundle
from pipeline.sharing.trust.keys import PublicKey

TODAY = datetime.date(2026, 3, 2)
DATA: dict[str, Any] = {
    "channels": ["HR", "Lactate"],
    "n_steps": 3,
    "step_hours": 1,
    "tasks": [{"name": "death", "description": "died in hospital"}],
    "transforms": [
        {"kind": "subjects", "known": False, "public": True},
        {
            "kind": "scaling",
            "method": "public_ranges",
            "public": True,
            "channels": ["HR", "Lactate"],
            "low": [30, 0],
            "high": [180, 15],
            "units": ["bpm", "mmol/L"],
        },
    ],
}


def received(site: str, rows: int = 4, kind: str = "condensed", data: dict[str, Any] = DATA, **facts: Any) -> Received:
    draws = np.random.default_rng(len(site) + rows)
    arrays = {
        "features": draws.random((rows, data["n_steps"], len(data["channels"])), dtype=np.float32),
        "labels": np.resize(np.array([[0.0], [1.0]], np.float32), (rows, len(data["tasks"]))),
    }
    manifest = {
        "site": site,
        "name": "set",
        "version": 1,
        "issued": "2026-03-01",
        "expires": "2027-03-01",
        "licence": "ODbL-1.0",
        "recipients": [],
        "data_use": [],
        "encryption": None,
        "guarantee": None,
        "policy": {"name": "strict", "digest": "d", "production": True},
        "release": {"kind": kind},
        "data": data,
        "files": {"payload.safetensors": {"sha256": f"of {site}"}},
        **facts,
    }
    key = PublicKey(keyid="k" * 64, public="p" * 64, name=site)
    return Received(VerifiedBundle(path=Path(site), manifest=manifest, files={}, signed_by=key), arrays)


def changed(path: str, value: Any) -> dict[str, Any]:
    """DATA with one thing otherwise; `path` like transforms.1.units.0"""
    data = copy.deepcopy(DATA)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = data
    for part in way:
        place = place[part]
    place[last] = value
    return data


def test_every_row_keeps_its_institution() -> None:
    a, b = received("A", 4), received("B", 6)
    pool = pool_rows([a, b])
    assert pool.institutions == ("A", "B")
    assert pool.institution.tolist() == [0] * 4 + [1] * 6
    np.testing.assert_array_equal(pool.features[4:], b.features)
    np.testing.assert_array_equal(pool.labels[:4], a.labels)
    rest = {institution: features for institution, features, _ in pool.without_each()}
    np.testing.assert_array_equal(rest["A"], b.features)
    np.testing.assert_array_equal(rest["B"], a.features)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("step_hours", 2, r"3 steps of 1 h, the other 3 of 2 h"),
        ("n_steps", 4, "3 steps of 1 h, the other 4"),
        ("channels", ["HR", "Urine"], "channel 2 is Lactate in one and Urine in the other"),
        ("channels", ["Lactate", "HR"], "channel 1 is HR in one and Lactate"),
        ("channels", ["HR", "Lactate", "pH"], "channel 3 is nothing in one and pH"),
        ("transforms.1.units", ["bpm", "mg/dL"], "Lactate is in mmol/L in one and in mg/dL"),
        ("tasks.0.description", "died within 30 days", "label death is defined otherwise"),
        ("tasks.0.name", "long_stay", "a task is death in one and long_stay"),
        ("transforms.1.high", [180, 20], "scaling transforms differ in high"),
        ("transforms", [*DATA["transforms"], {"kind": "quantum", "key_fingerprint": "B"}], "one was made by scaling"),
    ],
)
def test_the_first_difference_is_named(path: str, value: Any, told: str) -> None:
    other = received("B", data=changed(path, value))
    with pytest.raises(DataError, match=told) as refusal:
        pool_rows([received("A"), other])
    assert str(refusal.value).startswith("A and B cannot be pooled: ")
    assert "\n" not in str(refusal.value)


def test_encoded_cohorts_only_under_one_key() -> None:
    def under(key: str) -> dict[str, Any]:
        return {**DATA, "transforms": [*DATA["transforms"], {"kind": "random_projection", "key_fingerprint": key}]}

    same = [received(site, kind="encoded", data=under("one")) for site in "AB"]
    assert len(pool_rows(same).features) == 8
    with pytest.raises(DataError, match="under different keys, one and two"):
        pool_rows([same[0], received("C", kind="encoded", data=under("two"))])


def test_what_says_something_about_the_site_alone_does_not_matter() -> None:
    assert first_difference(DATA, changed("transforms.0.known", True)) == ""


def test_one_site_twice_kinds_mixed_and_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="A is there twice"):
        pool_rows([received("A"), received("A")])
    with pytest.raises(UsageError, match="there twice"):
        pool_rows([received("A"), received("B", files={"payload.safetensors": {"sha256": "of A"}})])
    with pytest.raises(UsageError, match="A released condensed data and B encoded"):
        pool_rows([received("A"), received("B", kind="encoded")])
    with pytest.raises(UsageError, match="no bundle"):
        pool_rows([])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool of two sites, of which B's bundle runs out first and carries a guarantee and data-use terms."""
    promise = {"epsilon": 1.0, "delta": 1e-6, "unit": "stay", "adjacency": "add-or-remove-one", "accountant": "x"}
    sites = {
        "a": received("A"),
        "b": received("B", 6, expires="2026-06-01", guarantee=promise, data_use=["DUO:0000042"], licence="CC-BY-4.0"),
    }
    monkeypatch.setattr(pools, "taken", lambda bundle, root, **_: sites[bundle.name])
    out = tmp_path / "pool"
    pool_bundles([Path("a"), Path("b")], [Path("root")], out, n_per_class=1, seed=0, hard_labels=False, today=TODAY)
    return out


def test_the_pools_manifest_holds_the_strictest_terms_of_its_parts(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["expires"] == "2026-06-01"
    assert manifest["licences"] == ["CC-BY-4.0", "ODbL-1.0"]
    assert manifest["data_use"] == ["DUO:0000042"]
    assert [(site["site"], site["rows"], site["epsilon"]) for site in manifest["made_from"]] == [
        ("A", 4, None),
        ("B", 6, 1.0),
    ]
    assert sorted(file.name for file in folder.iterdir()) == [
        *("features.npy", "institution.npy", "labels.npy", "manifest.json")
    ]


def test_a_pool_comes_back_as_it_was_and_only_then(folder: Path) -> None:
    pool = load_pool(folder, today=TODAY)
    assert (pool.institutions, pool.institution.tolist()) == (("A", "B"), [0] * 4 + [1] * 6)
    with pytest.raises(ReleaseRefused, match="expired on 2026-06-01"):
        load_pool(folder, today=datetime.date(2026, 6, 2))
    labels = np.load(folder / "labels.npy")
    np.save(folder / "labels.npy", 1 - labels)
    with pytest.raises(DataError, match="not those that were pooled"):
        load_pool(folder, today=TODAY)
    (folder / "labels.npy").unlink()
    with pytest.raises(UsageError, match="features and labels"):
        load_pool(folder, today=TODAY)


def test_roots_are_one_for_all_or_one_for_each(tmp_path: Path) -> None:
    bundles, roots = [Path("a"), Path("b"), Path("c")], [Path("r"), Path("s")]
    with pytest.raises(UsageError, match="one trust root for all"):
        pool_bundles(bundles, roots, tmp_path / "x", n_per_class=1, seed=0, hard_labels=False, today=TODAY)
