"""Two real sites: each releases its private moments, a third party verifies, adds and condenses them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from condensation.private.condenser import samples_from_moments
from condensation.private.moments import signed_labels
from flows.cli.main import app
from flows.receiving.pool import load_pool, pool_bundles
from flows.run import walk_until
from flows.workspace.job import KEY_PURPOSES, key_path, new_job, open_job
from pipeline.core.config import Config
from pipeline.core.errors import DataError, ReleaseRefused, UsageError
from pipeline.core.keys.secrets import Secret, read_secret, write_secret
from pipeline.core.types import EncodedCohort, Split
from pipeline.sharing.bundle.payload import payload_arrays
from pipeline.sharing.policy.load import Policy, load_policy
from pipeline.sharing.receive.received import receive
from pipeline.sharing.receive.state import STATE_FILE, load_state, memory_of
from pipeline.sharing.trust.keys import PublicKey, author_signer, public_key, role_signer
from pipeline.sharing.trust.log import read_log
from pipeline.sharing.trust.root import draft_root, sign_root

pytestmark = pytest.mark.slow
TODAY = datetime.now(tz=UTC).date()
TASK = "in_hospital_death"
RELEASE = {"kind": "moments", "artefact": "private", "policy": "trial.toml", "licence": "ODbL-1.0"}


def run_site(config: Config, number: int) -> Path:
    """The road up to the release of moments, under known keys; the bundle's folder."""
    for place, purpose in enumerate(KEY_PURPOSES, start=1):
        write_secret(key_path(config.workspace, purpose), Secret(bytes([16 * number + place]) * 32, purpose))
    walk_until(new_job(config, resume=True), "release")
    return next((config.workspace / "releases").iterdir())


def sentence(bundles: list[Path], root: Path, folder: Path, error: type[Exception]) -> str:
    with pytest.raises(error) as refusal:
        pool_bundles(bundles, [root], folder, n_per_class=5, seed=0, hard_labels=False, today=TODAY)
    assert not folder.exists()
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, small_job: Callable[..., Config]) -> dict[str, Any]:
    """Bundles of sites A and B, of B for one task only, and the receiver's trust root with both keys."""
    base = tmp_path_factory.mktemp("sites")
    bundles, keys = {}, []
    for number, name in enumerate(("a", "b")):
        (base / name).mkdir()
        config = small_job(
            base / name,
            source={"kind": "embedded", "sets": [name], "max_stays": 900},
            encode={"raw": {"kind": "identity"}},
            condense={"private": {"kind": "private_moments", "n_per_class": 20}},
            release={**RELEASE, "site": f"Hospital {name.upper()}"},
        )
        bundles[name] = run_site(config, number)
        signer = author_signer(read_secret(key_path(config.workspace, "author"), "author"))
        keys.append(public_key(signer, f"Author {name.upper()}", site=f"Hospital {name.upper()}"))
    policy = load_policy(base / "a" / "trial.toml")
    return {"base": base, "policy": policy, "root": signed_root(base / "root.json", keys, policy), **bundles}


def signed_root(path: Path, keys: list[PublicKey], policy: Policy) -> Path:
    """The receiver's trust root with these authors' keys, for releases that nobody has to approve."""
    holder = role_signer(Secret(b"r" * 32, "root"))
    drafted = draft_root(
        [*keys, public_key(holder, "Ruth", role="root")],
        threshold=1,
        expires=datetime.now(tz=UTC).date() + timedelta(days=1),
        min_approvals=0,
        max_revocation_age_days=0,
        policies={policy.name: policy.digest},
    )
    path.write_bytes(sign_root(drafted, holder))
    return path


def prepared(sites: dict[str, Any], name: str) -> EncodedCohort:
    folder = str(sites["base"] / name / "runs" / "small")
    job = open_job(folder, resume=True)
    made = walk_until(job, "encode")
    found: EncodedCohort = job.only(made["encode raw"], EncodedCohort)
    return found


def test_two_bundles_become_one_set_through_the_command(sites: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "pooled"
    words = [str(sites["a"]), str(sites["b"]), "--root", str(sites["root"])]
    answer = CliRunner().invoke(app, ["pool", *words, "--out", str(out)], catch_exceptions=False)
    assert answer.exit_code == 0
    assert "site    Hospital A: epsilon 1, delta 1e-06 per stay" in answer.stdout
    assert "disjoint" in answer.stdout
    without = [f"{name}_without_{place}.npy" for name in ("features", "labels") for place in (0, 1)]
    assert sorted(file.name for file in out.iterdir()) == sorted(
        ["features.npy", "label_shift.npy", "labels.npy", "manifest.json", *without]
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert [site["site"] for site in manifest["made_from"]] == ["Hospital A", "Hospital B"]
    assert [site["epsilon"] for site in manifest["made_from"]] == [1.0, 1.0]
    assert manifest["guarantee"]["epsilon"] == 1.0
    assert any("disjoint" in line for line in manifest["guarantee"]["assumed_public"])
    assert len(manifest["guarantee"]["events"][0]["sites"]) == 2
    assert manifest["production"] is False
    features, labels = (np.load(out / f"{name}.npy") for name in ("features", "labels"))
    assert manifest["data"]["arrays"]["features"]["shape"] == list(features.shape)
    assert features.shape[0] == len(labels) == 80
    assert list(tmp_path.iterdir()) == [out]  # nothing is left beside it
    again = CliRunner().invoke(app, ["pool", *words, "--out", str(out)])
    assert isinstance(again.exception, UsageError)
    hard = tmp_path / "hard"
    more = [*words, "--out", str(hard), "--n-per-class", "3", "--hard-labels", "--seed", "4", "--json"]
    told = json.loads(CliRunner().invoke(app, ["pool", *more], catch_exceptions=False).stdout)
    assert told["manifest"]["data"]["soft_labels"] is False
    assert told["manifest"]["seed"] == 4
    assert sorted(np.load(hard / "labels.npy")[:, 0].tolist()) == [0, 0, 0, 1, 1, 1]  # in no order that says anything


def test_a_pool_of_moments_also_holds_each_sum_without_one_site(sites: dict[str, Any], tmp_path: Path) -> None:
    words = [str(sites["a"]), str(sites["b"]), "--root", str(sites["root"]), "--n-per-class", "3"]
    folder, alone = tmp_path / "pool", tmp_path / "alone"
    answer = CliRunner().invoke(app, ["pool", *words, "--out", str(folder)], catch_exceptions=False)
    assert answer.exit_code == 0
    pool_bundles([sites["b"]], [sites["root"]], alone, n_per_class=3, seed=0, hard_labels=False, today=TODAY)
    without = {institution: features for institution, features, _ in load_pool(folder, today=TODAY).without_each()}
    assert list(without) == ["Hospital A", "Hospital B"]
    np.testing.assert_array_equal(without["Hospital A"], np.load(alone / "features.npy"))
    assert not np.array_equal(without["Hospital B"], without["Hospital A"])


def test_who_pools_writes_it_down_and_remembers_the_releases(sites: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "root.toml"
    shutil.copy(sites["root"], root)
    pool_bundles(
        [sites["a"], sites["b"]], [root], tmp_path / "set", n_per_class=1, seed=0, hard_labels=False, today=TODAY
    )
    told = [(entry["what"], entry["site"]) for entry in read_log(memory_of(root)).entries]
    assert told == [("pool", "Hospital A"), ("pool", "Hospital B")]
    assert sorted(load_state(memory_of(root) / STATE_FILE)["releases"]) == ["Hospital A/private", "Hospital B/private"]


def test_the_sum_is_what_the_two_sites_know(sites: dict[str, Any], tmp_path: Path) -> None:
    """Its number of patients is theirs within the noise, and a score learnt from it ranks the held-out of both."""
    both = [prepared(sites, name) for name in ("a", "b")]
    moments = [receive(sites[name], sites["root"], today=TODAY).moments() for name in ("a", "b")]
    for one, site in zip(moments, both, strict=True):
        true = len(site.part(Split.TRAIN).labels)
        assert abs(one.gram[0, 0] - true) < 6 * one.guarantee.events[1]["noise_scale"]
        signed = signed_labels(site.part(Split.TRAIN).labels).sum(axis=0)
        assert np.abs(one.signed_counts - signed).max() > 0  # never the exact counts
    folder = tmp_path / "set"
    pool_bundles(
        [sites["a"], sites["b"]], [sites["root"]], folder, n_per_class=200, seed=0, hard_labels=True, today=TODAY
    )
    X, labels = np.load(folder / "features.npy"), np.load(folder / "labels.npy")
    model = LogisticRegression(max_iter=1000, C=0.01).fit(X.reshape(len(X), -1), labels[:, 0])
    scores, truth = [], []
    for site in both:
        test = site.part(Split.HELD_OUT)
        scores.append(model.decision_function(test.features.reshape(len(test.labels), -1)))
        truth.append(test.labels[:, 0])
    # about 45 deaths among 360 stays: the standard error of an AUROC of .5 is about .048
    assert roc_auc_score(np.concatenate(truth), np.concatenate(scores)) > 0.5 + 3 * 0.048


def test_what_does_not_add_up_is_refused_in_one_sentence(
    sites: dict[str, Any], tmp_path: Path, small_job: Callable[..., Config]
) -> None:
    a, b, root, out = sites["a"], sites["b"], sites["root"], tmp_path / "out"
    assert "Hospital A is there twice" in sentence([a, b, a], root, out, UsageError)
    altered = tmp_path / "altered"
    shutil.copytree(b, altered)
    payload = bytearray((altered / "payload.safetensors").read_bytes())
    payload[-1] ^= 1
    (altered / "payload.safetensors").write_bytes(payload)
    assert "payload" in sentence([a, altered], root, out, ReleaseRefused)
    (tmp_path / "c").mkdir()
    other = small_job(
        tmp_path / "c",
        source={"kind": "embedded", "sets": ["b"], "max_stays": 900},
        cohort={"tasks": [TASK, "los_gt_7d"]},
        encode={"raw": {"kind": "identity"}},
        condense={"private": {"kind": "private_moments", "tasks": "all"}},
        release={**RELEASE, "site": "Hospital C"},
    )
    c = run_site(other, 2)
    assert "sign" in sentence([a, c], root, out, ReleaseRefused)  # no key of C in this trust root
    keys = [
        public_key(author_signer(read_secret(key_path(place, "author"), "author")), name, site=f"Hospital {name}")
        for place, name in ((sites["base"] / "a", "A"), (other.workspace, "C"))
    ]
    wide = signed_root(tmp_path / "wide.json", keys, sites["policy"])
    assert "the other in_hospital_death, los_gt_7d" in sentence([a, c], wide, out, DataError)
    assert not out.exists()


def test_stopped_while_writing_nothing_is_left(
    sites: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = np.save

    def second_fails(file: Path, *rest: Any, **options: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(str(file))
        real(file, *rest, **options)

    monkeypatch.setattr("flows.receiving.unpack.np.save", second_fails)
    with pytest.raises(KeyboardInterrupt):
        pool_bundles(
            [sites["a"]], [sites["root"]], tmp_path / "out", n_per_class=3, seed=0, hard_labels=False, today=TODAY
        )
    assert len(written) == 1
    assert not list(tmp_path.iterdir())


def test_one_bundle_alone_is_that_sites_own_set(sites: dict[str, Any], tmp_path: Path) -> None:
    """The samples that the site itself would draw: whoever holds the moments needs nothing else."""
    moments = receive(sites["a"], sites["root"], today=TODAY).moments()
    own = payload_arrays(samples_from_moments(moments, n_per_class=6, seed=3))
    folder = tmp_path / "out"
    made = pool_bundles([sites["a"]], [sites["root"]], folder, n_per_class=6, seed=3, hard_labels=False, today=TODAY)
    np.testing.assert_array_equal(np.load(folder / "features.npy"), own["features"])
    np.testing.assert_array_equal(np.load(folder / "labels.npy"), own["labels"])
    assert [site["site"] for site in made["made_from"]] == ["Hospital A"]
    assert not any("institutions" in line for line in made["guarantee"]["assumed_public"])  # nothing was added
