"""The road on real stays: through Prefect, killed and resumed, repeated elsewhere; and what it must never tell."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyrage
import pytest
from safetensors import SafetensorError

from flows import run as road_module
from flows import tasks
from flows.cli.ending import MAX_LINES, Places, ending
from flows.cli.summary import print_run, print_stage
from flows.receiving.evaluate import evaluate
from flows.watch.page import gather
from flows.workspace.job import KEY_PURPOSES, REPORT_DATA, REPORT_PAGE, Job, new_job, open_job
from flows.workspace.trust import first_root
from pipeline.core.config import Config
from pipeline.core.errors import DataError, EnvironmentProblem, LeakageError, ReleaseRefused
from pipeline.core.keys.secrets import new_secret, read_secret
from pipeline.core.types import Cohort, CondensedSet, LossCurve, ReleaseRecord
from pipeline.report.answers import condition
from pipeline.report.leakage import limits_held, limits_of, limits_sentence, missed_attacks
from pipeline.report.watch import watch_page
from pipeline.sharing.approval import approve, publish
from pipeline.sharing.policy.load import shipped_digests
from pipeline.sharing.receive.received import Received, receive
from pipeline.sharing.receive.verify import verify
from pipeline.sharing.trust.keys import public_key, role_signer
from pipeline.sharing.trust.revocation import draft_revocations, load_revocations, sign_revocations
from pipeline.sharing.trust.root import draft_root, load_trust_root, sign_root
from pipeline.store import Made

pytestmark = pytest.mark.slow
Finished = tuple[Config, dict[str, Made[Any]]]
NOT_REPEATED = {"release"}  # a bundle is dated and counted; what it holds is compared through its candidate
POLICY = "trial.toml"  # of the small job
STAGES = (
    "ingest",
    "validate cohort",
    "drift",
    "prepare",
    "encode rqe",
    "group",
    "condense private",
    "condense centroids",
    "validate private",
    "utility",
    "candidate",
    "audit",
    "decide",
    "release",
    "report",
)


@pytest.fixture(scope="module")
def finished(
    prefect_server: None,
    tmp_path_factory: pytest.TempPathFactory,
    small_job: Callable[..., Config],
    fixed_keys: Callable[[Path], None],
) -> Finished:
    """One whole run through Prefect, shared by the tests that only look."""
    config = small_job(tmp_path_factory.mktemp("site"))
    fixed_keys(config.workspace)
    return config, tasks.road(str(new_job(config).folder))


def trial_root(workspace: Path, file: Path, policy: str = POLICY) -> Path:
    """The trust root that a receiver keeps of releases under the tests' own policy, or a shipped one."""
    named = str(workspace / policy) if policy.endswith(".toml") else policy
    return first_root(workspace, file, "test site", today=datetime.now(tz=UTC).date(), policies=[named], trial=True)


def copy_keys(site: Path, other: Path) -> None:
    """The secrets alone: the counter beside them has seen a ledger that the other workspace does not have."""
    shutil.copytree(site / "keys", other / "keys", ignore=shutil.ignore_patterns("noise.seen"))


def digests(made: dict[str, Made[Any]]) -> dict[str, tuple[str, ...]]:
    return {label: item.digests for label, item in made.items() if label not in NOT_REPEATED}


def test_the_bundle_verifies_and_a_stranger_can_train_on_it(finished: Finished, tmp_path: Path) -> None:
    config, _ = finished
    bundle = next((config.workspace / "releases").iterdir())
    today = datetime.now(tz=UTC).date()
    root = trial_root(config.workspace, tmp_path / "root.json")
    verify(bundle, root, today=today)
    from sklearn.linear_model import LogisticRegression

    received = receive(bundle, root, today=today)
    X, y, weight = received.X_y("in_hospital_death")
    model = LogisticRegression(max_iter=1000).fit(X, y, weight)
    assert model.predict_proba(X).shape == (len(X), 2)
    production = first_root(
        config.workspace,
        tmp_path / "production" / "root.json",
        "test site",
        today=today,
        approvers={"Ann": public_key(role_signer(new_secret("approver")), "Ann", role="approver").public},
    )
    with pytest.raises(ReleaseRefused, match="does not accept releases under policy trial"):
        verify(bundle, production, today=today)


def test_a_receiver_tests_the_bundle_on_its_own_stays(
    finished: Finished, tmp_path: Path, small_job: Callable[..., Config]
) -> None:
    config, _ = finished
    bundle = next((config.workspace / "releases").iterdir())
    root = trial_root(config.workspace, tmp_path / "root.json")
    today = datetime.now(tz=UTC).date()
    source = {"kind": "embedded", "sets": ["b"], "max_stays": 300}
    home = small_job(tmp_path, source=source)
    report = evaluate(new_job(home), bundle, root, all_stays=True, today=today)
    score = report.score("received", "logistic_regression", "auroc", "in_hospital_death")
    assert score is not None
    assert score.n_test > 290  # a few stays are without any series
    assert score.high > 0.6
    otherwise = small_job(tmp_path, source=source, encode={"raw": {"kind": "quantum"}, "rqe": {"kind": "quantum"}})
    with pytest.raises(DataError, match="the other by imputation, scaling"):
        evaluate(new_job(otherwise), bundle, root, all_stays=True, today=today)


def test_a_condensation_is_stopped_by_hand_and_keeps_its_best(tmp_path: Path, small_job: Callable[..., Config]) -> None:
    long = {"kind": "kernel_matching", "input": "raw", "n_per_class": 10, "iterations": 100_000, "pool_size": 1}
    config = small_job(tmp_path, condense={"private": {"kind": "private_moments"}, "slow": long})
    job = new_job(config)
    (job.folder / "stop-slow").touch()
    made = road_module.walk_until(job, "condense")
    assert job.only(made["condense slow"], CondensedSet).features.shape[0] == 20
    assert len(job.only(made["condense slow"], LossCurve, 1).losses) == 1
    assert not [file for file in job.folder.iterdir() if "slow" in file.name]


def test_the_report_is_written_beside_its_data(finished: Finished) -> None:
    config, _ = finished
    folder = config.workspace / "runs" / "small"
    page = (folder / REPORT_PAGE).read_text(encoding="utf-8")
    assert "NOT RUN" in page.upper()
    assert json.loads((folder / REPORT_DATA).read_text())["name"] == "small"
    assert not [file for file in folder.iterdir() if file.name.endswith(".new")]


def test_the_run_ends_with_one_screen_that_the_report_agrees_with(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    config, made = finished
    job = open_job(str(config.workspace / "runs" / "small"), resume=True)
    print_run(job, made)
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert len(lines) <= MAX_LINES
    assert [line.split()[0] for line in lines if line[:1].isupper()] == [
        *("Done:", "SHARED", "USEFUL", "LEAKS", "UNKNOWN", "PASS")
    ]
    assert "not for production" in " ".join(shown.split())
    assert str(job.folder / REPORT_PAGE) in shown
    assert "\x1b" not in shown
    print_stage(job, "release", made)
    assert capsys.readouterr().out == shown
    print_run(job, made, verbose=1)
    longer = capsys.readouterr().out
    assert longer.endswith(shown)
    assert "leak    private" in longer
    missed = missed_attacks(json.loads((job.folder / REPORT_DATA).read_text(encoding="utf-8")))
    assert f"not run private: {', '.join(name.replace('_', ' ') for name in missed)}\n" in longer
    assert re.findall(r"eps\w* [\d.]+", longer) == re.findall(r"epsilon [\d.]+(?=, delta)", longer)


def test_a_set_made_of_the_embedded_stays_names_their_source_and_licence(finished: Finished) -> None:
    bundle = next((finished[0].workspace / "releases").iterdir())
    for name in ("LICENSE.txt", "card.html", "croissant.json"):
        text = (bundle / name).read_text(encoding="utf-8")
        assert "Open Data Commons Attribution License v1.0" in text
        assert "Silva I, Moody G" in text


def test_every_stage_shows_in_prefect(finished: Finished) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        names = {run.name.rsplit("-", 1)[0] for run in client.read_task_runs(limit=200)}
    assert set(STAGES) <= names


def test_nothing_of_a_patient_or_a_key_reaches_prefect_the_page_or_the_bundle(
    finished: Finished,
) -> None:
    config, made = finished
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    database = Path(str(PREFECT_API_DATABASE_CONNECTION_URL.value()).split("///", 1)[1])

    job = open_job(str(config.workspace / "runs" / "small"), resume=True)
    secrets = [read_secret(config.workspace / "keys" / f"{name}.key", name).reveal() for name in KEY_PURPOSES]
    needles = [re.escape(needle) for secret in secrets for needle in (secret, secret.hex().encode())]
    # six digits are also a time's microseconds or a part of a digest: an id stands alone
    stays = job.only(made["ingest"], Cohort).stay_ids[:50]
    needles += [rb"(?<![0-9A-Fa-f.])" + stay.encode() + rb"(?![0-9A-Fa-f])" for stay in stays]
    assert b"condense private" in b"".join(file.read_bytes() for file in database.parent.glob(f"{database.name}*"))
    places = [*database.parent.glob(f"{database.name}*"), *(config.workspace / "runs").rglob("*")]
    places += (config.workspace / "releases").rglob("*")
    looked_at = [place for place in places if place.is_file()]
    for place in looked_at:
        data = place.read_bytes()
        assert not [needle for needle in needles if re.search(needle, data)], place.name


def test_two_processes_make_the_same_artefacts(finished: Finished, tmp_path: Path) -> None:
    """Same seed and site secrets, another workspace and another process: every digest agrees."""
    config, made = finished
    other = config.model_copy(update={"workspace": tmp_path / "again"})
    copy_keys(config.workspace, other.workspace)
    folder = new_job(other).folder
    code = (
        "import json, sys\nfrom flows.environment import quiet\nquiet()\nfrom flows.run import walk_until\n"
        "from flows.workspace.job import open_job\nmade = walk_until(open_job(sys.argv[1], resume=False), 'release')\n"
        "import flows.nights.night, flows.watch.page\nassert 'prefect' not in sys.modules\n"  # night --no-prefect
        "print(json.dumps({label: item.digests for label, item in made.items()}))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=900, check=True
    )
    found = {label: tuple(listed) for label, listed in json.loads(answer.stdout).items() if label not in NOT_REPEATED}
    assert found == digests(made)
    payloads = [
        next(w.glob("releases/*/payload.safetensors")).read_bytes() for w in (config.workspace, other.workspace)
    ]
    assert payloads[0] == payloads[1]


def test_another_noise_secret_changes_the_private_set_and_nothing_public(finished: Finished, tmp_path: Path) -> None:
    """What is recorded with the release does not determine the noise: the site secret does."""
    config, made = finished
    other = config.model_copy(update={"workspace": tmp_path / "again"})
    copy_keys(config.workspace, other.workspace)
    (other.workspace / "keys" / "noise.key").unlink()
    again = road_module.walk_until(new_job(other), "condense")
    sets = [
        open_job(str(place / "runs" / "small"), resume=True).only(them["condense private"], CondensedSet)
        for place, them in ((config.workspace, made), (other.workspace, again))
    ]
    assert not np.array_equal(sets[0].features, sets[1].features)
    assert sets[0].guarantee == sets[1].guarantee
    assert again["encode rqe"].digests == made["encode rqe"].digests


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_in_any_stage_nothing_is_half_written_and_resume_agrees(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Ctrl-C at the end of a stage's work, after its computation and before its result is noted."""
    config, made = finished
    other = config.model_copy(update={"workspace": tmp_path / "again"})
    shutil.copytree(config.workspace, other.workspace, ignore=shutil.ignore_patterns("releases", "index"))
    shutil.copytree(config.workspace / "store" / "index", other.workspace / "store" / "index")
    job = new_job(other, resume=True)
    real = road_module.execute

    def interrupted(job: Job, label: str, *rest: Any) -> Made[Any] | None:
        if label == stage:
            with monkeypatch.context() as patch:
                patch.setattr("pipeline.store.Store.remember", _interrupt)
                patch.setattr("flows.workspace.job.Job.replace_file", _interrupt)
                return real(replace(job, resume=False), label, *rest)
        return real(job, label, *rest)

    monkeypatch.setattr(road_module, "execute", interrupted)
    if stage != "candidate":  # of a condensed set the candidate is the set itself: nothing is computed
        with pytest.raises(KeyboardInterrupt):
            road_module.walk_until(job, "release")
    assert not list((other.workspace / "store" / "tmp").iterdir())
    assert not [path for path in (other.workspace / "runs").rglob(".*") if path.suffix != ".lock"]
    monkeypatch.setattr(road_module, "execute", real)
    assert digests(road_module.walk_until(job, "release")) == digests(made)


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_is_told_and_leaves_nothing(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = finished
    other = config.model_copy(update={"workspace": tmp_path / "again", "seed": 1})  # so that something is to be made
    shutil.copytree(config.workspace, other.workspace)
    job = new_job(other, resume=True)
    before = {entry.digest for entry in job.store.entries()}

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("pipeline.store.save_file", full)
    with pytest.raises(EnvironmentProblem, match="disk is full"):
        road_module.walk_until(job, "condense")
    assert {entry.digest for entry in job.store.entries()} == before
    assert not list((other.workspace / "store" / "tmp").iterdir())


@pytest.mark.parametrize(
    ("release", "verdict"),
    [
        ({"kind": "moments", "artefact": "private", "policy": "trial.toml"}, "PASS"),
        ({"kind": "encoded", "artefact": "rqe", "policy": "demo"}, "FAIL"),
        ({"kind": "condensed", "artefact": "centroids", "policy": "strict"}, "FAIL"),
        (
            {"kind": "encoded", "artefact": "rqe", "policy": "agreement", "recipients": ["B"], "agreement": "DUA 1"},
            "PASS",
        ),
    ],
)
def test_each_kind_leaves_only_under_a_policy_that_says_so(
    finished: Finished, tmp_path: Path, small_job: Callable[..., Config], release: dict[str, Any], verdict: str
) -> None:
    config, _ = finished
    mine = pyrage.x25519.Identity.generate()
    shutil.copytree(config.workspace, tmp_path / "site", ignore=shutil.ignore_patterns("releases"))
    other = small_job(tmp_path / "site", release=release | {"site": "test site", "licence": "ODbL-1.0"})
    job = new_job(other, resume=True)
    if release["policy"] == "agreement":
        with pytest.raises(ReleaseRefused, match="what recipients recover is not countersigned") as asked:
            road_module.walk_until(job, "release")
        code = re.search(r"countersign ([0-9a-f]{16}): a recipient who", str(asked.value))
        assert code
        told = {"site": "test site", "licence": "ODbL-1.0", "countersigned": code[1]}
        in_the_clear = new_job(small_job(tmp_path / "site", release=release | told), resume=True)
        with pytest.raises(ReleaseRefused, match="agreement releases only encrypted payloads"):
            road_module.walk_until(in_the_clear, "release")
        assert not list((other.workspace / "proposals").iterdir())
        told |= {"recipient_keys": {"B": str(mine.to_public())}}
        job = new_job(small_job(tmp_path / "site", release=release | told), resume=True)
    if verdict == "PASS":
        made = road_module.walk_until(job, "release")
        name = job.only(made["release"], ReleaseRecord).name
        if release["policy"] == "agreement":
            received = _published_and_received(other.workspace, name, tmp_path, mine)
        else:
            root = trial_root(other.workspace, tmp_path / "root.json", release["policy"])
            today = datetime.now(tz=UTC).date()
            received = receive(other.workspace / "releases" / name, root, today=today, recipient="B")
        assert received.manifest["release"]["kind"] == release["kind"]
    else:
        with pytest.raises((ReleaseRefused, LeakageError), match="release refused under policy"):
            road_module.walk_until(job, "release")
        assert not (other.workspace / "releases").exists()
    assert verdict in (job.folder / REPORT_PAGE).read_text(encoding="utf-8")
    _pages_agree(job)


def _pages_agree(job: Job) -> None:
    """Terminal, report, watch page and bundle of one run say the same counts, bounds and condition."""
    data = json.loads((job.folder / REPORT_DATA).read_text(encoding="utf-8"))
    workspace, name = job.config.workspace, data["release_artefact"]
    limits = limits_of(data["terms"], name)
    pages = {
        "terminal": "\n".join(ending(data, Places("report.html", "bundle", "root.json", is_demo=False))),
        "report": re.sub(r"<(style|svg)\b.*?</\1>", " ", (job.folder / REPORT_PAGE).read_text(), flags=re.DOTALL),
        "watch": watch_page(gather(workspace, now=datetime.now(tz=UTC))),
    }
    said = {
        page: " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split()).lower() for page, text in pages.items()
    }
    missed = missed_attacks(data)
    for page, text in said.items():
        assert limits_sentence(limits_held(limits)) in text, page
        if page != "watch":
            assert condition(data).lower() in text, page
            assert set(re.findall(r"(\d+) attacks? did not run", text)) <= {str(len(missed))}, page
    for file in (workspace / "releases").glob(f"*-{name}-*/leakage.json") if data["bundle_path"] else ():
        stated = json.loads(file.read_bytes())
        if stated["rounding"] is not None:  # without a guarantee: what is published bounds what the report has
            assert {row["attack"] for row in stated["not_run"]} == set(missed)
            for row in limits:
                key = (row["attack"], row["threat_model"], row["statistic"])
                (bound,) = [
                    (one["upper_bound"], one["limit"])
                    for one in stated["attacks"]
                    if (one["attack"], one["threat_model"], one["statistic"]) == key
                ]
                assert bound[0] >= row["high"] - 1e-9
                assert bound[1] == row["limit"]


def _published_and_received(workspace: Path, name: str, folder: Path, mine: pyrage.x25519.Identity) -> Received:
    """What a policy that asks for an approval takes: a signed root, a revocation list, another's signature, a key."""
    today = datetime.now(tz=UTC).date()
    author = role_signer(read_secret(workspace / "keys" / "author.key", "author"))
    approver, holder = (role_signer(new_secret(role)) for role in ("approver", "root"))
    keys = (
        public_key(author, "Otto", role="author", site="test site"),
        public_key(approver, "Ann", role="approver", site="test site"),
        public_key(holder, "Ruth", role="root"),
    )
    root, revoked, identity = (folder / file for file in ("root.json", "revocations.json", "identity.txt"))
    drafted = draft_root(keys, threshold=1, expires=today + timedelta(days=1), policies=shipped_digests())
    root.write_bytes(sign_root(drafted, holder))
    revoked.write_bytes(sign_revocations(draft_revocations([], [], version=1, issued=today), holder))
    identity.write_text(f"{mine}\n")
    identity.chmod(0o600)
    trusted = load_trust_root(root)
    listed, proposal = load_revocations(revoked, trusted), workspace / "proposals" / name
    checked: dict[str, Any] = {"root": trusted, "today": today, "workspace": workspace, "revocations": listed}
    approve(proposal, signer=approver, **checked)
    bundle = publish(proposal, workspace / "releases", **checked)
    return receive(bundle, root, today=today, identity=identity, recipient="B")
