"""croissant.json: valid under the reference reader, the same bytes each time, and nothing that the card may not say."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pytest

from pipeline.core.data_use import data_use_problem
from pipeline.core.errors import UsageError
from pipeline.core.types import CondensedSet, EncodedCohort, Moments, PrivacyGuarantee, Provenance, Task
from pipeline.sharing.bundle.croissant import croissant_bytes
from pipeline.sharing.bundle.facts import ReleaseFacts, ReleaseNotes, _check_terms
from pipeline.sharing.bundle.payload import data_description, guarantee_description, method_description, payload_bytes
from pipeline.sharing.canonical import canonical, plain

TASKS = (Task("death", "died in hospital"), Task("long_stay"))
PREPARED = ({"kind": "missingness", "mode": "drop", "public": True}, {"kind": "public_ranges", "public": True})
GUARANTEE = PrivacyGuarantee(
    1.0,
    1e-6,
    "stay",
    "add-or-remove-one",
    "dp-accounting 0.6",
    ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},),
    ("ranges",),
)
DRAWS = np.random.default_rng(4)
SHARED: dict[str, Any] = {"tasks": TASKS, "step_hours": 1.0, "transforms": PREPARED, "provenance": Provenance("made")}
ARTEFACTS: dict[str, Any] = {
    "condensed": CondensedSet(
        features=DRAWS.random((10, 4, 2), dtype=np.float32),
        labels=np.tile(np.array([[0.0, 1.0]], dtype=np.float32), (10, 1)),
        channels=("heart_rate", "lactate"),
        method="private_moments",
        starts_from_records=False,
        guarantee=GUARANTEE,
        **SHARED,
    ),
    "encoded": EncodedCohort(
        features=DRAWS.random((12, 4, 3), dtype=np.float32),
        labels=np.zeros((12, 2), dtype=np.float32),
        subject_index=np.arange(12, dtype=np.int32),
        split=np.zeros(12, dtype=np.int8),
        channels=("q0", "q1", "q2"),
        **SHARED,
    ),
    "moments": Moments(
        gram=np.eye(3),
        signed_sums=DRAWS.normal(size=(2, 3)),
        signed_counts=np.array([1.5, -2.5]),
        feature_map={"kind": "summary"},
        feature_map_digest="f" * 64,
        channels=("heart_rate", "lactate"),
        n_steps=4,
        guarantee=GUARANTEE,
        **SHARED,
    ),
}


def facts(kind: str, **changes: Any) -> ReleaseFacts:
    artefact = ARTEFACTS[kind]
    manifest = {
        "name": 'ICU & "demo"',
        "site": "Klinik Nürnberg",
        "version": 3,
        "issued": "2026-03-01",
        "expires": "2027-03-01",
        "licence": "ODbL-1.0",
        "data_use": ["DUO:0000042", "DUO:0000021"],
        "recipients": [],
        "encryption": None,
        "release": method_description(artefact),
        "data": data_description(artefact),
        "guarantee": guarantee_description(getattr(artefact, "guarantee", None)),
        "policy": {"name": "strict", "digest": "d" * 64, "production": True},
    }
    attack = {"attack": "near_copies", "threat_model": "T6", "statistic": "count", "limit": 0.0, "upper_bound": 0.0}
    leakage = {"attacks": [{**attack, "verdict": "PASS"}], "not_run": [], "controls_held": True, "rounding": 0.05}
    return ReleaseFacts(
        manifest=plain({**manifest, **changes}),
        leakage=leakage,
        utility=(("death", 0.7, 0.8),) if kind == "encoded" else (),
        intended_use="Comparing models.",
        limits=("One site only.",),
        agreement="",
        contact="data office",
        policy={},
        payload=b"",
    )


def written(kind: str, payload: str = "payload.safetensors", **changes: Any) -> bytes:
    sizes = {"bytes": len(payload_bytes(ARTEFACTS[kind])), "sha256": "0123456789abcdef" * 4}
    files = dict.fromkeys((payload, "card.md", "card.html", "leakage.json", "LICENSE.txt"), sizes)
    return croissant_bytes(facts(kind, **changes), files, payload)


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_the_reference_reader_finds_no_error_and_no_warning(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "croissant.json"
    path.write_bytes(written(kind))
    with caplog.at_level(logging.WARNING):
        read = mlcroissant.Dataset(jsonld=path).metadata
    assert not read.ctx.issues.errors
    assert not read.ctx.issues.warnings
    assert caplog.records == []  # such as: the context is not standard
    assert read.date_published == datetime.datetime(2026, 3, 1)
    assert read.version == "3.0.0"
    assert [item.id for item in read.file_objects if item.sha256] == [
        *("LICENSE.txt", "card.html", "card.md", "leakage.json", "payload.safetensors")
    ]
    (records,) = read.record_sets
    shapes = {field.name: field.array_shape for field in records.fields}
    assert (
        shapes
        == {
            "condensed": {"features": "4,2", "labels": "2"},
            "encoded": {"features": "4,3", "labels": "2"},
            "moments": {"gram": "3,3", "signed_sums": "2,3", "signed_counts": "2"},
        }[kind]
    )


def test_the_responsible_ai_fields_are_filled_from_provenance_audit_and_utility(tmp_path: Path) -> None:
    path = tmp_path / "croissant.json"
    path.write_bytes(written("encoded"))
    read = mlcroissant.Dataset(jsonld=path).metadata
    assert "public ranges: public constants only" in read.data_preprocessing_protocol
    assert any("0.70 to 0.80" in text for text in read.data_use_cases)
    assert any("near copies" in text and "limit 0" in text for text in read.personal_sensitive_information)
    assert any("pseudonymisation" in text for text in read.data_limitations)
    assert "One site only." in read.data_limitations
    assert read.data_annotation_protocol[0] == "death: died in hospital"
    assert "carried forward" in read.data_collection_missing_data
    assert "2027-03-01" in read.data_release_maintenance_plan
    path.write_bytes(written("condensed"))
    with_guarantee = mlcroissant.Dataset(jsonld=path).metadata
    assert "epsilon 1" in with_guarantee.personal_sensitive_information[0]


def test_the_same_release_gives_the_same_canonical_bytes() -> None:
    first = written("condensed")
    assert first == written("condensed")
    assert canonical(json.loads(first)) == first
    assert b"2027-03-01" in first
    assert str(datetime.datetime.now(tz=datetime.UTC).date()).encode() not in first


def test_data_use_terms_licence_and_encrypted_payload() -> None:
    told = json.loads(written("condensed"))
    assert [term["@id"] for term in told["usageInfo"]] == [
        "http://purl.obolibrary.org/obo/DUO_0000042",
        "http://purl.obolibrary.org/obo/DUO_0000021",
    ]
    assert told["license"] == "https://spdx.org/licenses/ODbL-1.0.html"
    other = json.loads(written("condensed", "payload.safetensors.age", licence="DUA 7/2026", data_use=[]))
    assert "usageInfo" not in other
    assert other["license"] == "DUA 7/2026"
    assert {field["source"]["fileObject"]["@id"] for field in other["recordSet"][0]["field"]} == {
        "payload.safetensors.age"
    }


def test_who_cites_the_release_cites_what_it_derives_from() -> None:
    assert json.loads(written("condensed"))["citeAs"].endswith("version 3. 2026-03-01.")
    derived = dataclasses.replace(facts("condensed"), attribution="Derived from A & B, ODC-BY 1.0.")
    said = json.loads(croissant_bytes(derived, {"p.safetensors": {"bytes": 1, "sha256": "0" * 64}}, "p.safetensors"))
    assert said["citeAs"].endswith("version 3. 2026-03-01. Derived from A & B, ODC-BY 1.0.")


@pytest.mark.parametrize(
    ("codes", "agreement", "problem"),
    [
        ((), "", ""),
        (("DUO:0000042", "DUO:0000046"), "", ""),
        (("DUO:0000007",), "DUA 7", ""),
        (("DUO:0000007",), "", "needs particulars"),
        (("DUO:0000042", "DUO:0000022"), " ", "needs particulars"),
        (("GRU",), "", "no known term"),
        (("DUO:0000046",), "", "exactly one permission"),
        (("DUO:0000042", "DUO:0000006"), "", "exactly one permission"),
        (("DUO:0000042", "DUO:0000042"), "", "twice"),
        (("DUO:0000004", "DUO:0000046"), "", "no restriction"),
    ],
)
def test_a_data_use_statement_is_one_permission_and_its_modifiers(
    codes: tuple[str, ...], agreement: str, problem: str
) -> None:
    found = data_use_problem(codes, agreement)
    assert found == problem == "" or (problem and problem in found)
    notes = ReleaseNotes("set", "Site", 1, "ODbL-1.0", data_use=codes, agreement=agreement)
    if problem:
        with pytest.raises(UsageError, match=problem):
            _check_terms(notes)
    else:
        _check_terms(notes)
