"""A plug-in's word about itself: a guarantee and the audit rest on what the site knows, or the plug-in is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import registry
from flows.run import walk_until
from flows.stages.attacks.scenes import has_key
from flows.workspace.job import Job, new_job
from pipeline.core.config import ENCODE_TABLES, Config, PluginEncode, condense_table
from pipeline.core.errors import ConfigError
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.sharing.policy.ledger import ledger_path
from pipeline.store import Made

ENCODER = '''
import dataclasses
import numpy as np

class Scales:
    """A plain scaling that says that it is public and has no key."""
    def __init__(self, factor=0.5, changes="features", kind="quantum"):
        self.factor, self.changes, self.kind = factor, changes, kind
    def fit(self, cohort, key):
        return self
    def public_spec(self):
        return {"kind": self.kind, "public": True, "key_fingerprint": None, "window": 1, "stride": 1, "axis": "time",
                "padded_positions": 0, "noise": {"kind": "none"}, "leakage_bound": None}
    def encode_array(self, features):
        return (features * np.float32(self.factor)).astype(features.dtype)
    def encode(self, cohort, noise=None, device="cpu"):
        made = dataclasses.replace(
            cohort, features=self.encode_array(cohort.features), transforms=(*cohort.transforms, self.public_spec()))
        if self.changes == "labels":
            return dataclasses.replace(made, labels=made.labels[::-1].copy())
        if self.changes == "subjects":
            return dataclasses.replace(made, subject_index=np.zeros_like(made.subject_index))
        if self.changes == "split":
            return dataclasses.replace(made, split=np.zeros_like(made.split))
        if self.changes == "transforms":
            return dataclasses.replace(made, transforms=(self.public_spec(),))
        return made
'''
CONDENSER = '''
import dataclasses
from condensation.private.condenser import PrivateMoments
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret

class Claims:
    """Private moments, and a lie of each kind about them."""
    def __init__(self, lie="none", moments=False):
        self.lie = lie
        if moments:
            self.release = self.released
    def released(self, encoded, *, noise):
        return self.told(PrivateMoments().release(encoded, noise=self.source(noise)))
    def source(self, noise):
        return NoiseSource(Secret(bytes(32), "noise"), "its own") if self.lie == "no reservation" else noise
    def told(self, made):
        guarantee = made.guarantee
        changes = {
            "less noise than it reserved": {"events": guarantee.events[:1]},
            "no events": {"events": ()},
            "events twice": {"events": guarantee.events * 2},
            "another unit": {"unit": "stay" if guarantee.unit == "subject" else "subject"},
        }.get(self.lie, {})
        made = dataclasses.replace(made, guarantee=dataclasses.replace(guarantee, **changes))
        if self.lie == "no transforms":
            made = dataclasses.replace(made, transforms=())
        return made
    def condense(self, encoded, *, n_per_class, seed, noise, device, on_step):
        made = PrivateMoments().condense(encoded, n_per_class=n_per_class, seed=seed, noise=self.source(noise))
        if self.lie == "another name":
            return dataclasses.replace(made, method="private_moments")
        return self.told(made)
'''
LIES = ("no reservation", "less noise than it reserved", "no events", "events twice", "another unit", "no transforms")
ENCODED = {"kind": "encoded", "artefact": "raw", "licence": "CC0-1.0"}
SettingUp = Callable[..., tuple[Job, dict[str, Made]]]


@pytest.fixture
def plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are installed: a module each, and the entry points of a distribution of theirs."""
    folder = tmp_path / "installed"
    told = folder / "of_others-1.0.dist-info"
    told.mkdir(parents=True)
    (folder / "others_encoder.py").write_text(ENCODER, encoding="utf-8")
    (folder / "others_condenser.py").write_text(CONDENSER, encoding="utf-8")
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: of-others\nVersion: 1.0\n", encoding="utf-8")
    points = (
        "[decoct.encoders]\nscales = others_encoder:Scales\n[decoct.condensers]\nclaims = others_condenser:Claims\n"
    )
    (told / "entry_points.txt").write_text(points, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)


@pytest.fixture
def walked(tmp_path: Path, small_job: Callable[..., Config], plugged_in: None) -> SettingUp:
    """The small job on few stays with these tables, walked until a stage."""

    def walk(until: str, **tables: Any) -> tuple[Job, dict[str, Made]]:
        few = {"kind": "embedded", "sets": ["a"], "max_stays": 200}
        config = small_job(tmp_path, source=few, cohort={"tasks": ["in_hospital_death"]}, group=None, **tables)
        job = new_job(config, resume=True)
        return job, walk_until(job, until)

    return walk


def scaled(**settings: Any) -> dict[str, Any]:
    return {"kind": "plugin", "name": "scales", "settings": settings}


def private(name: str = "private_moments", **settings: Any) -> dict[str, Any]:
    table = {"input": "raw", "n_per_class": 10}
    return {**table, **({"kind": name} if name != "claims" else {"kind": "plugin", "name": name, "settings": settings})}


def test_a_plug_in_encoder_is_no_public_input_of_a_guarantee(walked: SettingUp) -> None:
    with pytest.raises(ConfigError, match=r"no privacy guarantee can be given.*scales"):
        walked("condense", encode={"raw": scaled()}, condense={"private": private()})


def test_a_plug_in_encoding_is_audited_under_the_site_s_key_whatever_it_says(walked: SettingUp) -> None:
    encode = {"raw": {"kind": "identity"}, "half": scaled(), "same": scaled(factor=1.0), "rqe": {"kind": "quantum"}}
    job, made = walked("encode", encode=encode, condense={"private": private()})
    audited = {name: has_key(job, made[f"encode {name}"]) for name in encode}
    assert audited == {"raw": False, "half": True, "same": False, "rqe": True}
    told = job.only(made["encode half"], EncodedCohort).transforms[-1]
    assert (told["kind"], told["public"]) == ("scales", False)
    assert told["key_fingerprint"] == job.secret("encoder").fingerprint


@pytest.mark.parametrize("changes", ["labels", "subjects", "split", "transforms"])
def test_a_plug_in_encoder_changes_features_and_nothing_else(changes: str, walked: SettingUp) -> None:
    with pytest.raises(ConfigError, match=r"encode\.raw changed labels, subjects, the split, tasks"):
        walked("encode", encode={"raw": scaled(changes=changes)}, condense={"private": private()})


@pytest.mark.parametrize("tasks", ["first", "each_task"])
@pytest.mark.parametrize("lie", LIES)
def test_a_guarantee_that_the_ledger_does_not_know_is_refused(lie: str, tasks: str, walked: SettingUp) -> None:
    """Of one set, and of several from one release of moments."""
    table = {**private("claims", lie=lie, moments=tasks != "first"), "tasks": tasks}
    with pytest.raises(ConfigError, match=r"condense\.private (claims|says other transforms)"):
        walked("condense", encode={"raw": {"kind": "identity"}}, condense={"private": table}, release=ENCODED)


def test_a_plug_in_that_reserves_what_it_claims_is_taken_under_its_own_name(walked: SettingUp) -> None:
    table = private("claims", lie="another name")
    job, made = walked("condense", encode={"raw": {"kind": "identity"}}, condense={"private": table})
    found = job.only(made["condense private"], CondensedSet)
    assert found.method == "claims"
    assert found.guarantee is not None
    assert ledger_path(job.config.workspace).read_text(encoding="utf-8").count('"reserve"') == 1


def test_whose_code_a_table_runs_is_said_by_its_distribution(plugged_in: None) -> None:
    assert registry.foreign_owner(registry.ENCODERS, PluginEncode(kind="plugin", name="scales")) == "of-others 1.0"
    assert registry.foreign_owner(registry.CONDENSERS, condense_table("claims")) == "of-others 1.0"
    for kind, table in ENCODE_TABLES.items():
        assert registry.foreign_owner(registry.ENCODERS, table(kind=kind)) is None
        assert registry.foreign_owner(registry.ENCODERS, PluginEncode(kind="plugin", name=kind)) is None


def test_a_stranger_s_entry_point_to_our_code_is_a_stranger_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "wraps-2.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: wraps\nVersion: 2\n", encoding="utf-8")
    (told / "entry_points.txt").write_text("[decoct.encoders]\nwraps = encoders.quantum:QuantumEncoder\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.foreign_owner(registry.ENCODERS, PluginEncode(kind="plugin", name="wraps")) == "wraps 2"
