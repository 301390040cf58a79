"""The test vectors: what a verifier in any language must find in them, and what it must refuse."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.core.errors import EnvironmentProblem, ReleaseRefused, UsageError
from pipeline.sharing.bundle.encryption import decrypted, encrypted, encryption_description
from pipeline.sharing.receive.received import receive
from pipeline.sharing.receive.verify import read_folder, verify

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDER = GOLDEN / "bundle-2"
ROOT = FOLDER / "root.json"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
TODAY = datetime.date.fromisoformat(EXPECTED["today"])
RECIPIENT = EXPECTED["recipient"]
NAMES = sorted(EXPECTED["bundles"])
ENCRYPTED = next(name for name in NAMES if "encrypted" in name)
PLAIN = next(name for name in NAMES if "plain" in name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy: what a receiver remembers lies beside the root."""
    return Path(shutil.copy(ROOT, tmp_path / "root.json"))


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """The recipient's identity as the owner keeps it; version control keeps no permissions."""
    path = Path(shutil.copy(FOLDER / "identity.txt", tmp_path / "identity.txt"))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_that_shares_no_code_finds_what_is_expected(name: str) -> None:
    told = EXPECTED["bundles"][name]
    files = {path.name: path.read_bytes() for path in (FOLDER / name).iterdir()}
    assert {file: hashlib.sha256(data).hexdigest() for file, data in files.items()} == told["files"]
    envelope = json.loads(files["envelope.dsse.json"])
    statement = base64.b64decode(envelope["payload"], validate=True)
    assert hashlib.sha256(statement).hexdigest() == told["statement_sha256"]
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)
    assert hashlib.sha256(signed).hexdigest() == told["signed_bytes_sha256"]
    keys = {key["keyid"]: key["public"] for key in _keys(json.loads(ROOT.read_bytes()))}
    for signature in envelope["signatures"]:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(keys[signature["keyid"]]))
        public.verify(base64.b64decode(signature["sig"], validate=True), signed)
    subjects = {item["name"]: item["digest"]["sha256"] for item in json.loads(statement)["subject"]}
    assert subjects == {file: digest for file, digest in told["files"].items() if file != "envelope.dsse.json"}


def _keys(value: Any) -> list[dict[str, str]]:
    """Every key that the root lists, wherever its envelope holds them."""
    if isinstance(value, dict) and {"keyid", "public"} <= set(value):
        return [value]
    if isinstance(value, dict) and isinstance(value.get("payload"), str):
        return _keys(json.loads(base64.b64decode(value["payload"])))
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [key for item in items for key in _keys(item)]


@pytest.mark.parametrize("name", NAMES)
def test_they_verify_and_their_arrays_are_the_expected_ones(name: str, root: Path, identity: Path) -> None:
    got = receive(FOLDER / name, root, today=TODAY, identity=identity, recipient=RECIPIENT)
    for array, told in EXPECTED["bundles"][name]["arrays"].items():
        assert list(got.arrays[array].shape) == told["shape"]
        np.testing.assert_array_equal(got.arrays[array].ravel()[:4].astype(float), told["first_values"])


@pytest.mark.parametrize("name", NAMES)
def test_every_listed_change_is_refused(name: str, root: Path, tmp_path: Path) -> None:
    refused = EXPECTED["bundles"][name]["refused"]
    assert {change["file"] for change in refused} == set(read_folder(FOLDER / name))
    for number, change in enumerate(refused):
        altered = tmp_path / str(number)
        shutil.copytree(FOLDER / name, altered)
        data = bytearray((altered / change["file"]).read_bytes())
        data[change["offset"]] ^= change["xor"]
        (altered / change["file"]).write_bytes(data)
        with pytest.raises(ReleaseRefused):
            verify(altered, root, today=TODAY, recipient=RECIPIENT)
    verify(FOLDER / name, root, today=TODAY, recipient=RECIPIENT)


@pytest.mark.parametrize("name", NAMES)
def test_their_metadata_is_valid_and_names_the_very_files(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read = mlcroissant.Dataset(jsonld=FOLDER / name / "croissant.json").metadata
    assert caplog.records == []
    listed = {item.id: item.sha256 for item in read.file_objects}
    expected = dict(EXPECTED["bundles"][name]["files"])
    for file in ("manifest.json", "envelope.dsse.json", "croissant.json"):  # each names the one before it
        expected.pop(file)
    assert listed == expected


def test_the_recipients_stand_in_the_signed_statement(root: Path) -> None:
    envelope = json.loads((FOLDER / ENCRYPTED / "envelope.dsse.json").read_text())
    predicate = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    assert predicate["recipients"] == list(predicate["encryption"]["recipients"]) == [RECIPIENT]
    with pytest.raises(ReleaseRefused, match="other recipients"):
        verify(FOLDER / ENCRYPTED, root, today=TODAY, recipient="Hospital C")


def test_who_is_no_recipient_reads_one_sentence_and_nothing_else(root: Path, tmp_path: Path) -> None:
    import pyrage

    with pytest.raises(ReleaseRefused, match="encrypted to Hospital B; name your identity"):
        receive(FOLDER / ENCRYPTED, root, today=TODAY, recipient=RECIPIENT)
    stranger = tmp_path / "stranger.txt"
    stranger.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    stranger.chmod(0o600)
    with pytest.raises(ReleaseRefused, match=r"the identity stranger\.txt is none of theirs") as refusal:
        receive(FOLDER / ENCRYPTED, root, today=TODAY, recipient=RECIPIENT, identity=stranger)
    assert "\n" not in str(refusal.value)
    with pytest.raises(EnvironmentProblem, match="is a folder"):
        receive(FOLDER / ENCRYPTED, root, today=TODAY, recipient=RECIPIENT, identity=tmp_path)
    verify(FOLDER / ENCRYPTED, root, today=TODAY, recipient=RECIPIENT)  # who only carries it can check it


def test_an_encrypted_payload_is_not_in_the_bundle_in_the_clear(root: Path, identity: Path) -> None:
    plain = (FOLDER / PLAIN / "payload.safetensors").read_bytes()
    whole = b"".join(read_folder(FOLDER / ENCRYPTED).values())
    tail = plain[-400:]
    assert all(tail[start : start + 16] not in whole for start in range(0, 384, 16))
    got = receive(FOLDER / ENCRYPTED, root, today=TODAY, identity=identity, recipient=RECIPIENT)
    same = receive(FOLDER / PLAIN, root, today=TODAY)
    np.testing.assert_array_equal(got.features, same.features)


def test_all_recipients_open_it_and_keys_are_checked(tmp_path: Path) -> None:
    import pyrage

    people = {name: pyrage.x25519.Identity.generate() for name in ("Hospital B", "Hospital C")}
    described = encryption_description({name: str(each.to_public()) for name, each in people.items()})
    assert described is not None
    data = encrypted(b"arrays", described)
    for name, each in people.items():
        path = tmp_path / f"{name}.txt"
        path.write_text(f"{each}\n")
        path.chmod(0o600)
        assert decrypted(data, {"encryption": described}, path) == b"arrays"
    assert encryption_description({}) is None
    with pytest.raises(UsageError, match="secret half"):
        encryption_description({"Hospital B": str(people["Hospital B"])})
    with pytest.raises(UsageError, match="not an age public key"):
        encryption_description({"Hospital B": "age1nonsense"})
