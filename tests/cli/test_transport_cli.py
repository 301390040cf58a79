"""The verbs that carry, receive and pool, as somebody types them."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.receive import evaluate as evaluate_cli
from flows.cli.receive import pool as pool_cli
from flows.cli.receive import receive as sharing_cli
from flows.cli.receive import transport as transport_cli
from flows.stages.release import _notes
from pipeline.core.config import Config, EmbeddedSource, ReleaseConfig
from pipeline.core.errors import DecoctError, ReleaseRefused, UsageError

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-2"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
TODAY = datetime.date.fromisoformat(EXPECTED["today"])
PLAIN, SECRET = "st-elsewhere-plain-v1", "st-elsewhere-encrypted-v2"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A receiver's folder with root and identity, on the day of the test vectors."""
    for module in (sharing_cli, transport_cli, pool_cli, evaluate_cli):
        monkeypatch.setattr(module, "today", lambda: TODAY)
    shutil.copy(GOLDEN / "root.json", tmp_path)
    Path(shutil.copy(GOLDEN / "identity.txt", tmp_path)).chmod(0o600)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def decoct(*words: object) -> str:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).stdout


def refused(*words: object) -> DecoctError:
    answer = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(answer.exception, DecoctError), answer.exception
    return answer.exception


def test_a_bundle_goes_by_a_stick_to_a_receiver(here: Path) -> None:
    assert "files" in decoct("send", GOLDEN / PLAIN, "stick")
    assert "of them there already" in decoct("send", GOLDEN / PLAIN, "stick")
    assert "verified" in decoct("fetch", f"stick/{PLAIN}", "--root", "root.json", "--out", "inbox")
    told = json.loads(decoct("receive", f"inbox/{PLAIN}", "--root", "root.json", "--out", "got", "--json"))
    assert told["arrays"]["features"] == [40, 3, 2]
    assert isinstance(refused("fetch", f"stick/{PLAIN}", "--root", "root.json", "--out", "inbox"), UsageError)


def test_an_encrypted_bundle_opens_for_its_recipient_alone(here: Path) -> None:
    words = ("receive", GOLDEN / SECRET, "--root", "root.json", "--recipient", EXPECTED["recipient"], "--out", "got")
    without = refused(*words)
    assert isinstance(without, ReleaseRefused)
    assert "--identity" in str(without)
    assert not (here / "got").exists()
    decoct(*words, "--identity", "identity.txt")
    decoct("receive", GOLDEN / PLAIN, "--root", "root.json", "--out", "plain")
    np.testing.assert_array_equal(np.load("got/features.npy"), np.load("plain/features.npy"))


def test_two_bundles_of_one_site_are_not_pooled_and_one_is(here: Path) -> None:
    both = ("pool", GOLDEN / PLAIN, GOLDEN / SECRET, "--root", "root.json", "--out", "pooled")
    twice = refused(*both, "--identity", "identity.txt", "--recipient", EXPECTED["recipient"])
    assert "is there twice" in str(twice)
    assert not (here / "pooled").exists()
    told = decoct("pool", GOLDEN / PLAIN, "--root", "root.json", "--out", "pooled")
    assert "epsilon 1, delta 1e-06 per stay, 40 rows" in told
    assert sorted(path.name for path in (here / "pooled").iterdir()) == [
        *("features.npy", "institution.npy", "labels.npy", "manifest.json")
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("evaluate", "run.toml"), "needs --bundle and --root"),
        (("evaluate", "absent", "--on", "run.toml"), "is not a pool's folder"),
        (("evaluate", "x", "--on", "run.toml", "--all-stays"), "none of the options"),
    ],
)
def test_evaluate_says_which_form_it_lacks(words: tuple[str, ...], told: str, here: Path) -> None:
    assert told in str(refused(*words))


def settings(**changes: Any) -> ReleaseConfig:
    return ReleaseConfig(artefact="private", licence="ODbL-1.0", **changes)


def test_the_configuration_reaches_the_release() -> None:
    release = settings(recipients=("B",), recipient_keys={"B": "age1x"}, duo=("DUO:0000042", "DUO:0000046"))
    notes = _notes(Config.model_construct(release=release, source=EmbeddedSource(kind="embedded")), 1, ("55 of 80",))
    assert notes.limits == ("55 of 80",)
    assert "Challenge 2012" in notes.attribution  # of the embedded stays
    assert notes.recipient_keys == {"B": "age1x"}
    assert notes.data_use == ("DUO:0000042", "DUO:0000046")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"duo": ("DUO:9999999",)}, "no known term"),
        ({"duo": ("DUO:0000046",)}, "exactly one permission"),
        ({"duo": ("DUO:0000042", "DUO:0000022")}, "needs particulars"),
        ({"recipient_keys": {"B": "age1x"}}, "names each of the recipients"),
        ({"recipients": ("B", "C"), "recipient_keys": {"B": "age1x"}}, "names each of the recipients"),
    ],
)
def test_terms_that_contradict_themselves_are_refused_in_the_configuration(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        settings(**changes)
