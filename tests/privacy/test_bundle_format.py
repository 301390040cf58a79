"""The format page is enough: a verifier written from it alone, sharing no code with ours, accepts what ours writes."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sample_release import NOTED, behind

from pipeline.core.codec import record_digest
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    LeakageReport,
    PrivacyGuarantee,
    Provenance,
    Task,
    UtilityReport,
    UtilityScore,
)
from pipeline.sharing.bundle.write import ReleaseNotes, write_bundle
from pipeline.sharing.policy.gate import admit, decide
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.trust.keys import author_signer, public_key, role_signer
from pipeline.sharing.trust.root import draft_root, sign_root

PAGE = (Path(__file__).parents[2] / "docs" / "bundle-format.md").read_text(encoding="utf-8")
FEATURES = (np.random.default_rng(2).integers(0, 4097, (40, 3, 2)) / 4096).astype(np.float32)


def write(folder: Path) -> tuple[Path, Path]:
    condensed = CondensedSet(
        features=FEATURES,
        labels=np.tile(np.array([[0.0], [1.0]], dtype=np.float32), (20, 1)),
        channels=("a", "b"),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=({"kind": "subjects", "known": False, "public": True}, {"kind": "public_ranges", "public": True}),
        method="private_moments",
        starts_from_records=False,
        guarantee=PrivacyGuarantee(
            1.0,
            1e-6,
            "stay",
            "add-or-remove-one",
            "dp-accounting",
            ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},),
            (),
        ),
        provenance=Provenance("condense", config=NOTED),
    )
    figures = (("near_copies", "count", 0.0), ("density_membership", "auroc", 0.55))
    figures += (("density_membership", "tpr_at_1pct_fpr", 0.03),)
    results = tuple(
        AttackResult(name, "T6", "p", what, high / 2, 0.0, high, 500, 0.0, 1.0, 1.0, True, "s", True, True, False, None)
        for name, what, high in figures
    )
    report = LeakageReport("p", record_digest(condensed), results, (), True, Provenance("audit"))
    utility = UtilityReport((UtilityScore("p", "raw", "tcn", "death", "auroc", 0.8, 0.7, 0.9, 0.0, 1, 9, 9),), 1, "i")
    policy = load_policy("strict")
    case = condensed, [report], utility, behind(condensed)
    release = admit(policy, decide(policy, *case), *case)
    signer = author_signer(Secret(b"k" * 32, "author"))
    root, holder = folder / "root.json", role_signer(Secret(b"r" * 32, "root"))
    keys = [public_key(signer, "Otto", site="Site"), public_key(holder, "Ruth", role="root")]
    drafted = draft_root(
        keys, threshold=1, expires=datetime.date(2027, 1, 1), min_approvals=0, policies={"strict": policy.digest}
    )
    root.write_bytes(sign_root(drafted, holder))
    notes = ReleaseNotes("set", "Site", 1, "ODbL-1.0")
    issued = datetime.date(2026, 3, 1)
    return write_bundle(release, folder, signer=signer, notes=notes, issued=issued, scan=lambda files: None), root


def canonical(value: Any) -> bytes:
    """RFC 8785 for what these files hold: ASCII keys, and numbers that Python and JavaScript write alike."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def verified_by_the_page(bundle: Path, root: Path) -> dict[str, Any]:
    """Steps 2 to 4 of the page's last section."""
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    envelope = json.loads(files["envelope.dsse.json"])
    assert canonical(envelope) == files["envelope.dsse.json"]
    statement = base64.b64decode(envelope["payload"], validate=True)
    (signature,) = envelope["signatures"]
    trusted = json.loads(base64.b64decode(json.loads(root.read_bytes())["payload"]))
    (key,) = [key for key in trusted["keys"] if key["role"] == "author"]
    described = {"keytype": "ed25519", "keyval": {"public": key["public"]}, "scheme": "ed25519"}
    assert signature["keyid"] == key["keyid"] == hashlib.sha256(canonical(described)).hexdigest()
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(key["public"])).verify(
        base64.b64decode(signature["sig"], validate=True), signed
    )
    told = json.loads(statement)
    digests = {subject["name"]: subject["digest"]["sha256"] for subject in told["subject"]}
    assert digests == {n: hashlib.sha256(d).hexdigest() for n, d in files.items() if n != "envelope.dsse.json"}
    manifest: dict[str, Any] = json.loads(files["manifest.json"])
    assert told["predicate"] == {key: manifest[key] for key in told["predicate"]}
    policy = manifest["policy"]
    assert trusted["policies"][policy["name"]] == policy["digest"] == digests["policy.json"]
    for name, entry in manifest["files"].items():
        assert entry == {"bytes": len(files[name]), "sha256": digests[name]}
    return manifest


def test_a_verifier_written_from_the_page_accepts_a_bundle(tmp_path: Path) -> None:
    bundle, root = write(tmp_path)
    manifest = verified_by_the_page(bundle, root)
    assert manifest["policy"]["name"] == "strict"


def test_and_refuses_another_payload(tmp_path: Path) -> None:
    bundle, root = write(tmp_path)
    envelope = json.loads((bundle / "envelope.dsse.json").read_text())
    statement = base64.b64decode(envelope["payload"]).replace(b"strict", b"stricT")
    (bundle / "envelope.dsse.json").write_bytes(
        canonical({**envelope, "payload": base64.b64encode(statement).decode()})
    )
    with pytest.raises(InvalidSignature):
        verified_by_the_page(bundle, root)


def test_the_payload_reads_with_eight_bytes_of_length_and_a_json_header(tmp_path: Path) -> None:
    bundle, _ = write(tmp_path)
    data = (bundle / "payload.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert set(header) == {"features", "labels"}  # and no __metadata__
    start, end = header["features"]["data_offsets"]
    body = data[8 + length :]
    found = np.frombuffer(body[start:end], dtype="<f4").reshape(header["features"]["shape"])
    order = sorted(range(40), key=lambda row: FEATURES[row].tobytes())
    np.testing.assert_array_equal(found, FEATURES[order])
    assert (length + 8) % 8 == 0
    assert data[8 : 8 + length].rstrip(b" ") == json.dumps(header, separators=(",", ":")).encode()


def test_the_page_names_every_file_and_every_manifest_key(tmp_path: Path) -> None:
    bundle, root = write(tmp_path)
    manifest = verified_by_the_page(bundle, root)
    for name in [path.name for path in bundle.iterdir()] + list(manifest):
        assert f"`{name}`" in PAGE, name
    for table in ("release", "data", "guarantee"):
        for key in manifest[table]:
            assert f"`{key}`" in PAGE, f"{table}.{key}"
    for key in json.loads((bundle / "leakage.json").read_text()):
        assert f"`{key}`" in PAGE or key == "format", key
    for key in json.loads(base64.b64decode(json.loads(root.read_bytes())["payload"])):
        assert f"`{key}`" in PAGE, key
