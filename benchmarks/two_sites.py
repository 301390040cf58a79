"""Two institutions that share a key, end to end: `python benchmarks/two_sites.py [--stays 4000] [--out FILE]`.

Site A has PhysioNet 2012's set A, site B its set B. Only what a person would type runs here, the `decoct` command:
B makes an identity, A encrypts its encoder key to it, B imports the key and compares fingerprints; A encodes,
countersigns what recipients recover, and proposes its training stays under the policy `agreement`, encrypted to B; a
second person approves, and A publishes; B verifies the bundle against a signed trust root and revocation list, opens
it, trains on it, and tests on its own stays, prepared and encoded with the shared key. Beside it, in the same run and
with the same models:

* the transfer without any encoding (A's prepared training stays, B's prepared stays), which no policy would release;
* a site C that has a key of its own: its test must be refused, with both fingerprints named.

AUROC of in-hospital death on all of B's stays; interval: bootstrap over B's stays and the seeds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from reference import machine

from flows.run import walk_until
from flows.workspace.job import new_job
from pipeline.core.config import load_config
from pipeline.core.types import EncodedCohort, Split
from pipeline.validation.utility import TrainingSet, measure_utility

TASK = "in_hospital_death"
MODELS = ("tcn", "lstm", "gradient_boosting", "logistic_regression")
N_SEEDS, EPOCHS, SEED = 2, 30, 0
KINDS = {"rqe": 'kind = "quantum"', "rp": 'kind = "random_projection"'}
RECIPIENT = "Hospital B"
CONFIG = """
name = "{name}"
workspace = "."
[source]
kind = "embedded"
sets = ["{part}"]
max_stays = {stays}
[cohort]
tasks = ["{task}"]
[encode.raw]
kind = "identity"
[encode.shared]
{encoder}
[condense.centroids]
kind = "centroids"
[utility]
models = {models}
n_seeds = {seeds}
[audit]
n_bootstrap = 200
[release]
kind = "encoded"
artefact = "shared"
policy = "agreement"
licence = "ODbL-1.0"
site = "Hospital A"
recipients = ["{recipient}"]
agreement = "benchmark agreement"
"""
SIGNED_FOR = """countersigned = "{code}"
[release.recipient_keys]
"{recipient}" = "{key}"
"""
KEYS = """
threshold = 1
days = 30
[[keys]]
name = "Otto"
role = "author"
site = "Hospital A"
public = "{author}"
[[keys]]
name = "Ann"
role = "approver"
site = "Hospital A"
public = "{approver}"
[[keys]]
name = "Ruth"
role = "root"
public = "{root}"
"""


def decoct(*words: str, refused: bool = False) -> str:
    """Run the command; its standard output, or its one sentence of refusal."""
    done = subprocess.run([sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True)
    if (done.returncode != 0) is not refused:
        raise SystemExit(f"decoct {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stderr.strip().splitlines()[-1] if refused else done.stdout


def site(folder: Path, part: str, encoder: str, stays: int, models: tuple[str, ...]) -> Path:
    """A workspace with its configuration."""
    folder.mkdir()
    text = CONFIG.format(
        name=folder.name,
        part=part,
        stays=stays,
        task=TASK,
        encoder=encoder,
        models=json.dumps(models),
        seeds=N_SEEDS,
        recipient=RECIPIENT,
    )
    (folder / "run.toml").write_text(text, encoding="utf-8")
    return folder


def share_key(giver: Path, taker: Path) -> tuple[str, str]:
    """The giver's encoder key to the taker, as people would do it; its fingerprint and the taker's public age key."""
    identity = json.loads(decoct("keys", "identity", "--out", str(taker), "--json"))
    recipient = next(value for value in identity.values() if str(value).startswith("age1"))
    handed = giver / "for-b.age"
    decoct("keys", "share", str(handed), "--to", RECIPIENT, "--recipient", recipient, "--out", str(giver))
    told = json.loads(decoct("keys", "import", str(handed), "--out", str(taker), "--json"))
    return str(told["fingerprint"]), str(recipient)


def signed_root(a: Path) -> None:
    """Site A's trust root, its approver's key and an empty revocation list, in the folder `trust`."""
    trust = a / "trust"
    trust.mkdir()
    made = {
        role: json.loads(decoct("trust", "key", role, str(trust / f"{role}.key"), "--json"))["public"]
        for role in ("approver", "root")
    }
    author = json.loads(decoct("keys", "show", "--out", str(a), "--json"))["author_public_key"]
    (trust / "keys.toml").write_text(KEYS.format(author=author, **made), encoding="utf-8")
    root, revoked, key = (str(trust / name) for name in ("root.json", "revocations.json", "root.key"))
    decoct("trust", "draft", str(trust / "keys.toml"), root)
    decoct("trust", "sign", root, "--key", key)
    decoct("trust", "revoke", revoked, "--root", root)
    decoct("trust", "sign", revoked, "--key", key)


def release(a: Path, recipient_key: str) -> Path:
    """Site A's bundle for B: asked what recipients recover, countersigned, proposed, approved, published."""
    config = a / "run.toml"
    asked = decoct("release", str(config), refused=True)
    code = re.search(r"countersign ([0-9a-f]{16}): a recipient who", asked)
    if code is None:
        raise SystemExit(f"the gate asks for no countersignature: {asked}")
    with config.open("a", encoding="utf-8") as file:
        file.write(SIGNED_FOR.format(code=code[1], recipient=RECIPIENT, key=recipient_key))
    decoct("release", "propose", str(config), "--resume")
    proposal = str(next(folder for folder in (a / "proposals").iterdir() if folder.is_dir()))
    decoct("release", "approve", proposal, "--key", str(a / "trust" / "approver.key"))
    return Path(json.loads(decoct("release", "publish", proposal, "--json"))["bundle"])


def exchange(base: Path, encoder: str, stays: int) -> tuple[dict[str, Any], Path, Path]:
    """The whole exchange for one encoder: B's report, what C was told, and the sites' folders."""
    base.mkdir()
    a = site(base / "a", "a", encoder, stays, ("logistic_regression",))
    b, c = (site(base / name, "b", encoder, stays, MODELS) for name in ("b", "c"))
    decoct("keys", "new", "all", "--out", str(a))
    fingerprint, recipient_key = share_key(a, b)
    signed_root(a)
    started = time.perf_counter()
    bundle = release(a, recipient_key)
    released = time.perf_counter()
    held = base / "received"  # the root and the list, as they reach B by another way than the bundle
    held.mkdir()
    for name in ("root.json", "revocations.json"):
        shutil.copy(a / "trust" / name, held)
    root = ("--root", str(held / "root.json"), "--recipient", RECIPIENT)
    decoct("verify", str(bundle), *root)
    opened = ("--bundle", str(bundle), *root, "--identity", str(b / "keys" / "identity.age"))
    asked = (*opened, "--all-stays", "--json")
    report = json.loads(decoct("evaluate", str(b / "run.toml"), *asked))
    found = {
        "key_fingerprint": fingerprint,
        "scores": [row for row in report["scores"] if row["metric"] in ("auroc", "auprc")],
        "bundle_megabytes": round(sum(file.stat().st_size for file in bundle.iterdir()) / 1e6, 1),
        "seconds_to_release": round(released - started),
        "seconds_to_evaluate": round(time.perf_counter() - released),
        "another_key_was_told": decoct("evaluate", str(c / "run.toml"), *asked, refused=True),
    }
    return found, a, b


def raw_transfer(a: Path, b: Path) -> list[dict[str, Any]]:
    """The same models on A's prepared training stays, tested on all of B's: nothing is encoded."""
    sides = []
    for folder in (a, b):
        job = new_job(load_config(folder / "run.toml"), resume=True)
        made = walk_until(job, "encode")
        sides.append(job.only(made["encode raw"], EncodedCohort))
    training, test = sides[0].part(Split.TRAIN), sides[1]
    report = measure_utility(
        {"raw": TrainingSet("raw", training.features, training.labels, test)},
        models=MODELS,
        n_seeds=N_SEEDS,
        epochs=EPOCHS,
        seed=SEED,
    )
    return [vars(row) for row in report.scores if row.metric in ("auroc", "auprc")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stays", type=int, default=4000, help="of each set; fewer to try the script out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "two_sites.json")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results: dict[str, Any] = {
        "benchmark": "two_sites",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine(np, sklearn, torch),
        "task": TASK,
        "stays_per_site": arguments.stays,
        "n_seeds": N_SEEDS,
        "encoded": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, encoder in KINDS.items():
            found, a, b = exchange(Path(folder) / name, encoder, arguments.stays)
            results["encoded"][name] = found
            show(name, found["scores"])
            print(f"{name:<6} another key: {found['another_key_was_told']}", flush=True)
        results["raw"] = raw_transfer(a, b)
        show("raw", results["raw"])
    arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def show(name: str, scores: list[dict[str, Any]]) -> None:
    """One line per model."""
    for row in scores:
        told = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        print(f"{name:<6} {row['model']:<20} {row['metric']:<6} {told}  n = {row['n_test']}", flush=True)


if __name__ == "__main__":
    main()
