"""A real run under a policy with approvals: proposed, approved, published, received; and charged to the ledger once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.summary import outcome
from flows.run import walk_until
from flows.workspace.job import new_job
from pipeline.core.config import Config
from pipeline.core.errors import BudgetError, ReleaseRefused
from pipeline.core.types import AttackResult, LeakageReport, Provenance

pytestmark = pytest.mark.slow
SITE = "St. Elsewhere"
PRIVATE = {"private": {"kind": "private_moments", "n_per_class": 20, "tasks": "first"}}
RELEASE = {"kind": "condensed", "artefact": "private", "policy": "trial.toml", "licence": "ODbL-1.0", "site": SITE}


def decoct(*words: object) -> str:
    answer = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def quiet_audit(scenes: Sequence[Any], **_: Any) -> tuple[LeakageReport, ...]:
    """What an audit that finds nothing reports: this page is about what comes after it."""

    def figure(scene: Any, attack: str, statistic: str, high: float) -> AttackResult:
        return AttackResult(
            attack,
            "T6",
            scene.artefact,
            statistic,
            high / 2,
            0.0,
            high,
            900,
            0.0,
            1.0,
            1.0,
            True,
            "quiet",
            True,
            True,
            False,
            None,
        )

    return tuple(
        LeakageReport(
            scene.artefact,
            scene.artefact_digest,
            (figure(scene, "near_copies", "count", 0.0), figure(scene, "density_membership", "auroc", 0.5)),
            (),
            True,
            Provenance("audit"),
        )
        for scene in scenes
    )


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, small_job: Callable[..., Config], fixed_keys: Callable[[Path], None]
) -> Iterator[dict[str, Any]]:
    """A workspace whose policy asks for one approval, run up to the proposal."""
    workspace = tmp_path_factory.mktemp("approvals")
    patched = pytest.MonkeyPatch()
    patched.setattr("flows.stages.attacks.scenes.audit", quiet_audit)

    def config(**changes: Any) -> Config:
        settled = {"encode": {"raw": {"kind": "identity"}}, "condense": PRIVATE, "group": None, "release": RELEASE}
        made = small_job(workspace, **(settled | changes))
        policy = workspace / "trial.toml"
        policy.write_text(policy.read_text().replace("needed = 0", "needed = 1", 1))
        return made

    fixed_keys(workspace)
    job = new_job(config(), resume=True)
    made = walk_until(job, "release")
    yield {"workspace": workspace, "job": job, "made": made, "config": config}
    patched.undo()


def trust_root(workspace: Path, people: Path) -> Path:
    """Otto writes, Ann approves, Rosa holds the root; every key made and every file signed by the command line."""
    shown = json.loads(decoct("keys", "show", "--out", workspace, "--json"))
    public = {"author": shown["author_public_key"]}
    for role in ("approver", "root"):
        public[role] = json.loads(decoct("trust", "key", role, people / f"{role}.key", "--json"))["public"]
    listed = [("Otto", "author", SITE), ("Ann", "approver", SITE), ("Rosa", "root", "")]
    keys = "".join(
        f'[[keys]]\nname = "{name}"\nrole = "{role}"\npublic = "{public[role]}"\n' + (f'site = "{at}"\n' if at else "")
        for name, role, at in listed
    )
    (people / "keys.toml").write_text(f'threshold = 1\ndays = 30\npolicies = ["{workspace}/trial.toml"]\n{keys}')
    root = workspace / "trust" / "root.json"
    decoct("trust", "draft", people / "keys.toml", root)
    with pytest.raises(ReleaseRefused, match="signed by 0"):
        decoct("trust", "show", root)
    decoct("trust", "sign", root, "--key", people / "root.key")
    decoct("trust", "revoke", workspace / "trust" / "revocations.json", "--root", root)
    decoct("trust", "sign", workspace / "trust" / "revocations.json", "--key", people / "root.key")
    assert "Ann, St. Elsewhere" in decoct("trust", "show", root)
    return root


def test_from_a_run_to_a_receipt_by_the_command_line(site: dict[str, Any], tmp_path: Path) -> None:
    workspace = site["workspace"]
    told = outcome(site["job"], site["made"])
    proposal = Path(told["proposal"])
    assert proposal.parent == workspace / "proposals"
    assert not (workspace / "releases").exists()
    with pytest.raises(ReleaseRefused, match="is a proposal"):
        decoct("send", proposal, tmp_path / "stick")
    root = trust_root(workspace, tmp_path)
    with pytest.raises(ReleaseRefused, match="approved by 0 people"):
        decoct("release", "publish", proposal)
    assert "Ann approved" in decoct("release", "approve", proposal, "--key", tmp_path / "approver.key")
    bundle = Path(json.loads(decoct("release", "publish", proposal, "--json"))["bundle"])
    assert bundle == workspace / "releases" / proposal.name
    assert "approved by Ann" in decoct("verify", bundle, "--root", root)

    received = json.loads(decoct("receive", bundle, "--root", root, "--out", tmp_path / "arrays", "--json"))
    receipt = Path(received["receipt"])
    assert "releases and 1 receipts agree" in decoct("log", "verify", "--receipt", receipt, "--out", workspace)
    acts = json.loads(decoct("log", "show", "--out", workspace, "--json"))["entries"]
    assert [entry["what"] for entry in acts] == ["ledger", "propose", "approve", "publish"]
    assert [
        entry["what"] for entry in json.loads(decoct("log", "show", "--out", receipt.parents[1], "--json"))["entries"]
    ]

    decoct("send", bundle, tmp_path / "stick")
    last = json.loads(decoct("log", "show", "--last", 1, "--out", workspace, "--json"))["entries"][0]
    assert (last["what"], last["to"]) == ("send", str(tmp_path / "stick"))

    decoct("trust", "revoke", tmp_path / "list.json", "--root", root, "--release", f"{SITE}/private/1")
    decoct("trust", "sign", tmp_path / "list.json", "--key", tmp_path / "root.key")
    with pytest.raises(ReleaseRefused, match="withdrew"):
        decoct("verify", bundle, "--root", root, "--revocations", tmp_path / "list.json")


def test_under_a_policy_without_approvals_the_run_publishes_at_once(site: dict[str, Any]) -> None:
    """And goes on counting: no version is used for two releases, also where the folder of the first is gone."""
    workspace, config = site["workspace"], site["config"]
    alone = config(name="alone")
    policy = workspace / "trial.toml"
    asked = policy.read_text()
    policy.write_text(asked.replace("needed = 1", "needed = 0", 1))
    job = new_job(alone, resume=True)
    bundle = Path(outcome(job, walk_until(job, "release"))["bundle"])
    assert bundle == workspace / "releases" / "st-elsewhere-private-v2"
    assert Path(outcome(job, walk_until(job, "release"))["bundle"]) == bundle
    assert "the log is whole" in decoct("log", "verify", "--out", workspace)
    shutil.rmtree(bundle)
    again = Path(outcome(job, walk_until(job, "release"))["bundle"])
    assert again.name == "st-elsewhere-private-v3"
    policy.write_text(asked)


def test_set_and_moments_of_one_table_cost_once_and_more_than_the_budget_is_refused(site: dict[str, Any]) -> None:
    workspace, config = site["workspace"], site["config"]

    def spent() -> dict[str, Any]:
        return json.loads(decoct("ledger", "--out", workspace, "--json"))["cohorts"][0]

    before = spent()
    assert (before["queries"], before["unit"]) == (1, "stay")
    assert 0.8 < before["epsilon"] < 1
    job = new_job(config(name="moments", release={**RELEASE, "kind": "moments"}), resume=True)
    walk_until(job, "audit")
    assert spent() == before

    cheap = {"private": {**PRIVATE["private"], "epsilon": 0.5}}
    walk_until(new_job(config(name="cheap", condense=cheap), resume=True), "condense")
    between = spent()
    assert between["queries"] == 2
    assert before["epsilon"] < between["epsilon"] < before["epsilon"] + 0.5

    dear = {"private": {**PRIVATE["private"], "epsilon": 1.5}}
    job = new_job(config(name="dear", condense=dear), resume=True)
    policy = workspace / "trial.toml"
    policy.write_text(policy.read_text().replace("epsilon = 10.0", "epsilon = 1.2", 1))
    store = sorted(path.name for path in (workspace / "store").rglob("*"))
    with pytest.raises(BudgetError, match=r"above the 1\.2 that policy trial allows"):
        walk_until(job, "condense")
    assert spent()["queries"] == 2
    assert sorted(path.name for path in (workspace / "store").rglob("*")) == store
