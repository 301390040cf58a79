"""Known breaks must be found: `python benchmarks/audit_known_breaks.py [--stays N] [--only NAME]`.

Real data: PhysioNet 2012 set A (the first N stays, 48 hourly steps x 44 channels, public ranges, no masks), split by a
keyed hash of the stay into training (targets, members), tuning (the attacker's own patients, fresh rows) and held-out
(control). Encoders with their defaults (quantum: embedding range (0, .5); projection: Gaussian 4 x 4), one random key.

* known key; 4 or 100 independent and random pairs; no key but the population's moments; rows recognised without a key,
  whole record, part, and two keys; attributes; planted integer keys up to 10,000.
* one verbatim copy of the rarest stay among 500 fresh rows; leak fraction 0, .01, .05, .2, 1 of 500 rows.

Bars: projection from 4 independent windows R2 >= .99, quantum from at most 100 >= .95, known key >= .95, the copy is
counted, counts rise with the fraction. Every attack's controls are in the file. Seconds are the process's CPU time on
one thread; results are written part by part, and a part that is there is not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from reference import machine
from threadpoolctl import threadpool_limits

from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from pipeline.audit.encodings.aligned_pairs import AlignedPairs, Knowledge
from pipeline.audit.encodings.attribute_inference import AttributeInference
from pipeline.audit.encodings.blind import BlindSeparation
from pipeline.audit.encodings.inversion import KnownKeyInversion
from pipeline.audit.encodings.key_search import WAYS, LongKeySearch
from pipeline.audit.encodings.profiles import ProfileLinkage, TwoKeys
from pipeline.audit.scene import CondensedScene, Encode, EncodingScene, LeakageAttack, encoding_scene
from pipeline.audit.sets.distances import channel_scale, lag_distances, nearest
from pipeline.audit.sets.linkage_inference import Inference, Linkability
from pipeline.audit.sets.membership import Membership
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.audit.sets.singling_out import SinglingOut
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import AttackResult, CondensedSet, EncodedCohort, Provenance, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.splits import keyed_hash_split

ENCODERS = {"projection": RandomProjectionEncoder(), "quantum": QuantumEncoder()}
FRACTIONS = (0.0, 0.01, 0.05, 0.2, 1.0)
ROWS, TARGETS, SURROGATES, SEED = 500, 100, 6, 0
KEY = bytes(np.random.default_rng(2012).integers(0, 256, 32, np.uint8))
LADDER = tuple(Knowledge(k, "window", choice) for k in (4, 100) for choice in ("independent", "random"))


def stays(n: int) -> EncodedCohort:
    """The prepared stays with their split."""
    tables = read_source("embedded", sets=("a",), max_stays=n)
    ids = tables.stays["subject_id"].to_numpy().astype(str)
    split = keyed_hash_split(ids, Secret(bytes(32), "split"), 0.25, 0.3)
    return prepare(build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, split=split)[0])


def encoding(prepared: EncodedCohort, name: str, key: bytes = KEY) -> EncodingScene:
    """The scene of one encoder."""
    encoder = ENCODERS[name]

    def under(material: bytes) -> Encode:
        return encoder.fit(prepared, Secret(material, "encoder")).encode_array

    fitted = encoder.fit(prepared, Secret(key, "encoder"))
    return encoding_scene(
        name,
        "0" * 64,
        prepared=prepared,
        encoded=fitted.encode(prepared, NoiseSource(Secret(key, "noise"), "benchmark")),
        encode=fitted.encode_array,
        spec=fitted.public_spec(),
        surrogates=[under(bytes([100 + number] * 32)) for number in range(SURROGATES)],
        encode_under=under,
        max_targets=TARGETS,
    )


def condensed(prepared: EncodedCohort, samples: np.ndarray, labels: np.ndarray) -> CondensedScene:
    """The scene of a set that holds these rows."""
    members, holdout = prepared.part(Split.TRAIN), prepared.part(Split.HELD_OUT)
    made = CondensedSet(
        features=samples,
        labels=labels,
        channels=prepared.channels,
        tasks=prepared.tasks,
        step_hours=prepared.step_hours,
        transforms=prepared.transforms,
        method="benchmark",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("benchmark"),
    )
    people = members.subject_index, holdout.subject_index, members.labels, holdout.labels
    return CondensedScene("set", "0" * 64, made, members.features, holdout.features, *people)


def told(result: AttackResult, seconds: float) -> dict[str, Any]:
    """What is kept of a result."""
    names = (
        "threat_model",
        "statistic",
        "rate",
        "low",
        "high",
        "n",
        "control",
        "positive_control",
        "controls_held",
        "powered",
    )
    kept = ("method", "attribute", "known", "variant", "score", "keys_tried")
    kept += ("k", "choice", "distinct_pairs")
    row = {name: getattr(result, name) for name in names}
    row = {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}
    return row | {name: result.detail[name] for name in kept if name in result.detail} | {"cpu_seconds": seconds}


def attacked(attack: LeakageAttack, scene: Any) -> list[dict[str, Any]]:
    """The attack's results on the scene, or why it did not run."""
    start = time.process_time()
    if (reason := attack.unsupported(scene)) is not None:
        return [{"not_run": reason}]
    results = attack.run(scene, SEED)
    return [told(result, round(time.process_time() - start, 2)) for result in results]


def rarest(prepared: EncodedCohort) -> int:
    """The training stay that lies farthest from any other."""
    members = prepared.part(Split.TRAIN).features
    scaled = members / channel_scale(members)
    return int(nearest(lag_distances(scaled, scaled, max_lag=0)).second.argmax())


def one_copy(prepared: EncodedCohort) -> dict[str, Any]:
    """Near copies among fresh rows, and with the rarest stay beside them."""
    fresh, members = prepared.part(Split.TUNING), prepared.part(Split.TRAIN)
    row = rarest(prepared)
    features = np.concatenate([fresh.features[:ROWS], members.features[[row]]])
    labels = np.concatenate([fresh.labels[:ROWS], members.labels[[row]]])
    without = attacked(NearCopies(), condensed(prepared, features[:-1], labels[:-1]))
    found = attacked(NearCopies(), condensed(prepared, features, labels))
    return {"fresh_rows": without, "with_the_rarest_stay": found, "bar_met": found[0]["rate"] > without[0]["rate"]}


def leak_fraction(prepared: EncodedCohort, fraction: float) -> dict[str, Any]:
    """All attacks on a set of which a fraction is verbatim."""
    fresh, members = prepared.part(Split.TUNING), prepared.part(Split.TRAIN)
    copies = round(ROWS * fraction)
    features = np.concatenate([members.features[:copies], fresh.features[: ROWS - copies]])
    labels = np.concatenate([members.labels[:copies], fresh.labels[: ROWS - copies]])
    scene = condensed(prepared, features, labels)
    attacks: tuple[LeakageAttack, ...] = (NearCopies(), Membership(), SinglingOut(), Linkability(), Inference())
    return {attack.name: attacked(attack, scene) for attack in attacks}


def planted_keys(prepared: EncodedCohort) -> dict[str, Any]:
    """The last of 10,000 integers as a key, and a random key, against the search of the full audit."""
    few = dataclasses.replace(
        prepared.take(np.arange(400)), split=(np.arange(400) % 2).astype(np.int8)
    )  # half targets, half the attacker's own
    way = "digest of a number"
    keys = {f"{way}, 9,999": WAYS[way](9_999), "random": KEY}
    return {name: attacked(LongKeySearch(), encoding(few, "projection", key)) for name, key in keys.items()}


def parts(prepared: EncodedCohort) -> dict[str, Callable[[], Any]]:
    """Everything that is measured, by name."""
    found: dict[str, Callable[[], Any]] = {}
    attacks: tuple[LeakageAttack, ...] = (
        BlindSeparation(),
        ProfileLinkage(),
        TwoKeys(),
        AttributeInference(),
        KnownKeyInversion(),
        AlignedPairs(ladder=LADDER),
    )
    for attack in attacks:
        for name in ENCODERS:
            found[f"{attack.name}/{name}"] = lambda attack=attack, name=name: attacked(  # type: ignore[misc]
                attack, encoding(prepared, name)
            )
    found["rarest_copy"] = lambda: one_copy(prepared)
    for fraction in FRACTIONS:
        found[f"leak_fraction/{fraction:g}"] = lambda fraction=fraction: leak_fraction(prepared, fraction)  # type: ignore[misc]
    found["planted_keys"] = lambda: planted_keys(prepared)
    return found


def main() -> None:
    """Measure what is not there yet, write after every part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stays", type=int, default=4000)
    parser.add_argument("--only", default="", help="parts whose name begins so")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "audit_known_breaks.json")
    asked = parser.parse_args()
    report: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    if report.get("stays", asked.stays) != asked.stays:
        raise SystemExit(f"{asked.out} was made of {report['stays']} stays: give another --out")
    report |= {"stays": asked.stays, "seed": SEED, "machine": machine(np, scipy, sklearn)}
    results = report.setdefault("results", {})
    with threadpool_limits(1):
        prepared = stays(asked.stays)
        report["split"] = {part.name.lower(): int((prepared.split == part).sum()) for part in Split}
        for name, measure in parts(prepared).items():
            if name not in results and name.startswith(asked.only):
                results[name] = measure()
                asked.out.write_text(json.dumps(report, indent=1) + "\n")
                print(name, json.dumps(results[name])[:300], flush=True)


if __name__ == "__main__":
    main()
