"""Nobody but the author can change a bundle: every altered byte or file is refused, and nothing internal leaves."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.codec import record_digest
from pipeline.core.errors import EnvironmentProblem, ReleaseRefused
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import AttackResult, CondensedSet, LeakageReport, PrivacyGuarantee, Provenance, Task
from pipeline.sharing.bundle.write import ReleaseNotes, write_bundle
from pipeline.sharing.canonical import canonical
from pipeline.sharing.layout import ENVELOPE, MANIFEST, PAYLOAD, PREDICATE_KEYS, SIGNED_FILES
from pipeline.sharing.policy.gate import AuditedRelease, Circumstances, admit, decide
from pipeline.sharing.policy.load import Policy, parse_policy
from pipeline.sharing.policy.rules import LEDGER_QUERIES
from pipeline.sharing.receive.verify import read_folder, verify, verify_files
from pipeline.sharing.trust.keys import TrustRoot, author_signer, public_key, role_signer
from pipeline.sharing.trust.root import draft_root, sign_root
from pipeline.sharing.trust.signing import make_statement, sign_statement

ISSUED = datetime.date(2026, 3, 1)
TODAY = datetime.date(2026, 3, 2)
COHORT_DIGEST = "c0ffee" + "1234567890" * 5 + "beef" + "0123"
SEED = 123456789
SIGNER = author_signer(Secret(bytes(range(32)), "author"))
KEY = public_key(SIGNER, "Example hospital", site="Example hospital")
NOTES = ReleaseNotes(name="icu demo", site="Example hospital", version=3, licence="ODbL-1.0")
EVENTS = ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},)
QUERY = "a" * 64
AROUND = Circumstances(ledger={QUERY: EVENTS}, rules={})


def policy(**changes: object) -> Policy:
    raw = {
        "format": 2,
        "name": "house",
        "summary": "of this test",
        "expires": datetime.date(2100, 1, 1),
        "production": True,
        "release": {
            "kinds": ["condensed"],
            "allow_starts_from_records": False,
            "refused_methods": [],
            "require_agreement": False,
            "encrypted": False,
            "countersign": False,
            "valid_days": 30,
            "most_per_period": 9,
            "why": "r",
        },
        "approval": {"needed": 0, "revocation_days": 0, "why": "p"},
        "budget": {"epsilon": 10.0, "delta": 1e-5, "period_days": 365, "why": "b"},
        "guarantee": {"required": True, "max_epsilon": 2.0, "max_delta": 1e-5, "units": ["stay"], "why": "g"},
        "threat_models": {"condensed": ["T6"], "encoded": [], "moments": [], "why": "t"},
        "history": {"on_regression": "tell", "why": "h"},
        "audit": {"condensed": ["membership"], "encoded": [], "moments": [], "small_cell": 10, "why": "a"},
        "utility": {"required": False, "why": "u"},
        "card": {"rounding": 0.05, "print_utility": False, "why": "c"},
        "limits": [{"attack": "*", "statistic": "auroc", "max_upper": 0.65, "min_n": 100, "why": "l"}],
    }
    return dataclasses.replace(parse_policy(raw, "test"), **changes)


ROOT = TrustRoot((KEY,), 0, 0, policies={"house": policy().digest}, expires="2100-01-01")


def release(rules: Policy, *, steps: int = 6) -> AuditedRelease:
    draws = np.random.default_rng(5)
    condensed = CondensedSet(
        features=draws.random((8, steps, 3), dtype=np.float32),
        labels=draws.random((8, 1), dtype=np.float32),
        channels=("heart_rate", "lactate", "urine"),
        tasks=(Task("in_hospital_death", "died before discharge"),),
        step_hours=1.0,
        transforms=({"kind": "public_ranges", "public": True},),
        method="private_moments",
        starts_from_records=False,
        guarantee=PrivacyGuarantee(
            1.0,
            1e-6,
            "stay",
            "add-or-remove-one",
            "dp-accounting",
            EVENTS,
            ("ranges",),
        ),
        provenance=Provenance(
            "condense",
            (COHORT_DIGEST,),
            {LEDGER_QUERIES: [QUERY], "epsilon": 1.0, "seed": SEED, "cohort_digest": COHORT_DIGEST},
            "0.1",
            SEED,
        ),
    )
    result = AttackResult(
        "membership",
        "T6",
        "private",
        "auroc",
        0.513,
        0.471,
        0.5552,
        400,
        0.5,
        0.99,
        0.55,
        True,
        "m",
        True,
        True,
        False,
        None,
    )
    report = LeakageReport(
        "private", record_digest(condensed), (result,), (), True, Provenance("audit", (COHORT_DIGEST,), seed=SEED)
    )
    decision = decide(rules, condensed, [report], None, AROUND)
    assert decision.verdict == "PASS", decision.reasons
    return admit(rules, decision, condensed, [report], None, AROUND)


def write(folder: Path, rules: Policy | None = None, notes: ReleaseNotes = NOTES) -> Path:
    admitted = release(policy() if rules is None else rules)
    return write_bundle(admitted, folder, signer=SIGNER, notes=notes, issued=ISSUED, scan=lambda files: None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("release"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A bundle that the test may spoil."""
    return write(tmp_path)


def resigned(files: Mapping[str, bytes], manifest: Mapping[str, object]) -> dict[str, bytes]:
    """The bundle as its own author would sign another manifest: only the checks after the signature can object."""
    parts = {name: data for name, data in files.items() if name not in (ENVELOPE, MANIFEST)}
    parts[MANIFEST] = canonical(manifest)
    statement = make_statement(parts, {key: manifest[key] for key in PREDICATE_KEYS if key in manifest})
    return {**parts, ENVELOPE: sign_statement(statement, SIGNER)}


def test_an_untouched_bundle_is_accepted(bundle: Path) -> None:
    verified = verify(bundle, ROOT, today=TODAY)
    assert verified.signed_by.name == "Example hospital"
    assert verified.manifest["version"] == 3


def test_ten_thousand_flipped_bytes_are_all_refused(bundle: Path) -> None:
    """One random byte of one random file at a time, to a random other value; every file gets its share."""
    files = read_folder(bundle)
    draws = random.Random(20260301)
    names = sorted(files)
    accepted = []
    for _ in range(10_000):
        name = draws.choice(names)
        place, change = draws.randrange(len(files[name])), draws.randrange(1, 256)
        altered = bytearray(files[name])
        altered[place] ^= change
        try:
            verify_files({**files, name: bytes(altered)}, ROOT, today=TODAY)
        except ReleaseRefused:
            continue
        accepted.append((name, place, change))
    assert accepted == []
    verify_files(files, ROOT, today=TODAY)  # the untouched ones still pass: the loop refused for the right reason


def test_every_single_bit_of_the_envelope_matters(bundle: Path) -> None:
    """Base64 and JSON have many spellings, a signature has unsigned surroundings: none may be changed."""
    files = read_folder(bundle)
    envelope = files[ENVELOPE]
    for place in range(len(envelope)):
        altered = bytearray(envelope)
        altered[place] ^= 1 << (place % 8)
        with pytest.raises(ReleaseRefused):
            verify_files({**files, ENVELOPE: bytes(altered)}, ROOT, today=TODAY)


def test_flips_on_disk_are_refused(own: Path) -> None:
    draws = random.Random(7)
    for name in (*SIGNED_FILES, ENVELOPE):
        path = own / name
        content = path.read_bytes()
        place = draws.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x20]) + content[place + 1 :])
        with pytest.raises(ReleaseRefused):
            verify(own, ROOT, today=TODAY)
        path.write_bytes(content)
    verify(own, ROOT, today=TODAY)


@pytest.mark.parametrize("name", [*SIGNED_FILES, ENVELOPE])
def test_truncated_lengthened_and_swapped_files_are_refused(bundle: Path, name: str) -> None:
    files = read_folder(bundle)
    other = next(item for item in SIGNED_FILES if item != name)
    for content in (b"", files[name][:-1], files[name] + b"\n", b" " + files[name], files[other]):
        with pytest.raises(ReleaseRefused):
            verify_files({**files, name: content}, ROOT, today=TODAY)
    with pytest.raises(ReleaseRefused):
        verify_files({key: data for key, data in files.items() if key != name}, ROOT, today=TODAY)


def respelt(envelope: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    value = json.loads(envelope)
    change(value)
    return canonical(value)


def test_other_spellings_of_the_same_envelope_are_refused(bundle: Path) -> None:
    files = read_folder(bundle)
    envelope = files[ENVELOPE]
    value = json.loads(envelope)
    payload, signature = value["payload"], value["signatures"][0]
    spellings = {
        "white space": json.dumps(value).encode(),
        "key order": json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode(),
        "key twice": envelope.replace(b'{"payload":', b'{"payload":"","payload":', 1),
        "unsigned field": respelt(envelope, lambda v: v.update(note="x")),
        "unsigned field in the signature": respelt(envelope, lambda v: v["signatures"][0].update(note="x")),
        "two signatures": respelt(envelope, lambda v: v["signatures"].append(signature)),
        "no signature": respelt(envelope, lambda v: v["signatures"].clear()),
        "base64 with a line break": respelt(envelope, lambda v: v.update(payload=payload[:8] + "\n" + payload[8:])),
        "base64 without padding": respelt(
            envelope, lambda v: v["signatures"][0].update(sig=signature["sig"].strip("="))
        ),
        "keyid in capitals": respelt(envelope, lambda v: v["signatures"][0].update(keyid=signature["keyid"].upper())),
        "byte order mark": b"\xef\xbb\xbf" + envelope,
        "not an object": b"[]",
        "deep nesting": b"[" * 100_000,
    }
    for name, spelling in spellings.items():
        assert spelling != envelope, name
        with pytest.raises(ReleaseRefused):
            verify_files({**files, ENVELOPE: spelling}, ROOT, today=TODAY)


def test_stray_bits_at_the_end_of_base64_are_refused(bundle: Path) -> None:
    """64 signature bytes leave 4 unused bits in base64: 16 spellings decode alike, one is accepted."""
    files = read_folder(bundle)
    sig = json.loads(files[ENVELOPE])["signatures"][0]["sig"]
    assert sig.endswith("==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = sig[:-3] + alphabet[alphabet.index(sig[-3]) ^ 1] + "=="
    altered = respelt(files[ENVELOPE], lambda value: value["signatures"][0].update(sig=twin))
    with pytest.raises(ReleaseRefused, match="second spelling"):
        verify_files({**files, ENVELOPE: altered}, ROOT, today=TODAY)


def test_a_key_that_the_root_does_not_list_is_refused(bundle: Path) -> None:
    stranger = public_key(author_signer(Secret(b"x" * 32, "author")), "Somebody else")
    with pytest.raises(ReleaseRefused, match="does not list"):
        verify(bundle, TrustRoot(keys=(stranger,)), today=TODAY)


def test_a_stranger_cannot_sign_under_the_authors_key_id(bundle: Path) -> None:
    files = read_folder(bundle)
    stranger = author_signer(Secret(b"x" * 32, "author"))
    value = json.loads(files[ENVELOPE])
    statement = json.loads(base64.b64decode(value["payload"]))
    forged = json.loads(sign_statement(statement, stranger))
    forged["signatures"][0]["keyid"] = value["signatures"][0]["keyid"]
    with pytest.raises(ReleaseRefused, match="signature is not one by Example hospital"):
        verify_files({**files, ENVELOPE: canonical(forged)}, ROOT, today=TODAY)


def test_no_root_no_trust(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseRefused, match="no trust root"):
        verify(bundle, tmp_path / "absent.toml", today=TODAY)


def test_extra_missing_linked_and_odd_entries_are_refused(own: Path) -> None:
    (own / "notes.txt").write_text("hello")
    with pytest.raises(ReleaseRefused, match="does not know"):
        verify(own, ROOT, today=TODAY)
    (own / "notes.txt").unlink()

    payload = own / PAYLOAD
    elsewhere = own.parent / "payload"
    payload.rename(elsewhere)
    with pytest.raises(ReleaseRefused, match="lacks payload"):
        verify(own, ROOT, today=TODAY)
    payload.symlink_to(elsewhere)
    with pytest.raises(ReleaseRefused, match="link"):
        verify(own, ROOT, today=TODAY)
    payload.unlink()
    os.mkfifo(payload)
    with pytest.raises(ReleaseRefused, match="regular file"):
        verify(own, ROOT, today=TODAY)
    payload.unlink()
    payload.mkdir()
    with pytest.raises(ReleaseRefused, match="regular file"):
        verify(own, ROOT, today=TODAY)
    payload.rmdir()
    elsewhere.rename(payload)
    verify(own, ROOT, today=TODAY)

    link = own.parent / "linked"
    link.symlink_to(own)
    with pytest.raises(ReleaseRefused, match="not a bundle folder"):
        verify(link, ROOT, today=TODAY)


def test_an_oversize_file_is_refused_before_it_is_read(own: Path) -> None:
    with (own / MANIFEST).open("r+b") as stream:
        stream.truncate(1 << 40)  # sparse: reading it would fill the memory
    with pytest.raises(ReleaseRefused, match="larger than"):
        verify(own, ROOT, today=TODAY)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("../payload.safetensors", "outside the bundle"),
        ("/etc/passwd", "outside the bundle"),
        ("..", "outside the bundle"),
        ("sub\\file", "outside the bundle"),
        ("payload.safetensors\x00", "outside the bundle"),
        ("Payload.safetensors", "exactly the format's files"),
    ],
)
def test_path_tricks_in_a_signed_statement_are_refused(bundle: Path, name: str, sentence: str) -> None:
    files = read_folder(bundle)
    manifest = json.loads(files[MANIFEST])
    parts = {key: data for key, data in files.items() if key not in (ENVELOPE, PAYLOAD)}
    predicate = {key: manifest[key] for key in ("format", "site", "name", "version", "issued", "expires", "policy")}
    statement = make_statement({**parts, name: files[PAYLOAD]}, predicate)
    with pytest.raises(ReleaseRefused, match=sentence):
        verify_files({**files, ENVELOPE: sign_statement(statement, SIGNER)}, ROOT, today=TODAY)


def test_a_bundle_is_refused_before_its_date_and_after_its_term(bundle: Path) -> None:
    with pytest.raises(ReleaseRefused, match="in the future"):
        verify(bundle, ROOT, today=ISSUED - datetime.timedelta(days=1))
    last = ISSUED + datetime.timedelta(days=30)
    verify(bundle, ROOT, today=last)
    with pytest.raises(ReleaseRefused, match="expired on 2026-03-31"):
        verify(bundle, ROOT, today=last + datetime.timedelta(days=1))


def test_what_the_author_signed_is_still_checked(bundle: Path) -> None:
    files = read_folder(bundle)
    manifest = json.loads(files[MANIFEST])
    verify_files(resigned(files, manifest), ROOT, today=TODAY)
    wrong = {
        "format that this version does not know": {"format": "decoct-bundle/3"},
        "unknown keys": {"surprise": 1},
        "another size or digest": {
            "files": {**manifest["files"], PAYLOAD: {**manifest["files"][PAYLOAD], "bytes": 7}},
        },
        "exactly the format's files": {"files": {}},
        "wrong type": {"version": "3"},
        "what kind of release": {"release": {"kind": "pickle"}},
        "what the arrays mean": {"data": {"arrays": {}}},
        "date that is not one": {"expires": "soon"},
        "addressed to other recipients": {"recipients": ["Another hospital"]},
        "names the policy, its digest": {"policy": {"name": "house"}},
    }
    for sentence, change in wrong.items():
        with pytest.raises(ReleaseRefused, match=sentence.replace("names", "name")):
            verify_files(resigned(files, {**manifest, **change}), ROOT, today=TODAY)


def test_a_manifest_that_is_not_canonical_is_refused_even_if_signed(bundle: Path) -> None:
    files = read_folder(bundle)
    manifest = json.loads(files[MANIFEST])
    parts = {key: data for key, data in files.items() if key != ENVELOPE}
    predicate = {key: manifest[key] for key in ("format", "site", "name", "version", "issued", "expires", "policy")}
    for text in (json.dumps(manifest), files[MANIFEST].decode().replace('"version":3', '"version":3,"version":3')):
        parts[MANIFEST] = text.encode()
        envelope = sign_statement(make_statement(parts, predicate), SIGNER)
        with pytest.raises(ReleaseRefused, match=r"manifest\.json is not (in canonical form|valid canonical JSON)"):
            verify_files({**parts, ENVELOPE: envelope}, ROOT, today=TODAY)


def test_statement_and_manifest_must_agree(bundle: Path) -> None:
    files = read_folder(bundle)
    manifest = json.loads(files[MANIFEST])
    parts = {key: data for key, data in files.items() if key != ENVELOPE}
    predicate = {key: manifest[key] for key in ("format", "site", "name", "version", "issued", "policy")}
    envelope = sign_statement(make_statement(parts, {**predicate, "expires": "2036-01-01"}), SIGNER)
    with pytest.raises(ReleaseRefused, match="disagree"):
        verify_files({**files, ENVELOPE: envelope}, ROOT, today=TODAY)


def test_policies_recipients_and_rollback_are_the_receivers_choice(tmp_path: Path) -> None:
    bundle = write(tmp_path)
    with pytest.raises(ReleaseRefused, match="does not accept releases under policy house"):
        verify(bundle, dataclasses.replace(ROOT, policies={"strict": policy().digest}), today=TODAY)
    with pytest.raises(ReleaseRefused, match="calls itself house and is not the one that the root pins"):
        verify(bundle, dataclasses.replace(ROOT, policies={"house": "0" * 64}), today=TODAY)
    with pytest.raises(ReleaseRefused, match="does not accept releases under policy house"):
        verify(bundle, dataclasses.replace(ROOT, policies={}), today=TODAY)

    newer = dataclasses.replace(ROOT, minimum_versions={"Example hospital/icu demo": 4})
    with pytest.raises(ReleaseRefused, match="older than 4"):
        verify(bundle, newer, today=TODAY)

    named = write(tmp_path / "named", notes=dataclasses.replace(NOTES, recipients=("Hospital B", "Hospital C")))
    with pytest.raises(ReleaseRefused, match="other recipients"):
        verify(named, ROOT, today=TODAY, recipient="Hospital D")
    verify(named, ROOT, today=TODAY, recipient="Hospital C")


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first.name == second.name == "example-hospital-icu-demo-v3"
    assert read_folder(first) == read_folder(second)


def test_nothing_that_names_the_cohort_or_replays_the_noise_leaves(bundle: Path) -> None:
    """The noise is a function of (site secret, cohort digest, query, scale): neither of the first two may be in it."""
    admitted = release(policy())
    internal = {
        "cohort digest": COHORT_DIGEST.encode(),
        "cohort digest, raw": bytes.fromhex(COHORT_DIGEST),
        "cohort digest, short": COHORT_DIGEST[:12].encode(),
        "artefact digest": record_digest(admitted.artefact).encode(),
        "seed": str(SEED).encode(),
        "seed, little-endian": SEED.to_bytes(8, "little"),
        "author's secret": bytes(range(32)),
        "author's secret, hex": bytes(range(32)).hex().encode(),
        "author's private key": Secret(bytes(range(32)), "author").derive("ed25519"),
        "exact rate": b"0.513",
        "exact bound": b"0.5552",
        "exact n": b'"n":',
    }
    content = read_folder(bundle)
    envelope = base64.b64decode(json.loads(content[ENVELOPE])["payload"])
    for name, data in {**content, "statement": envelope}.items():
        for what, needle in internal.items():
            assert needle not in data, f"{what} in {name}"
    first = json.loads(content["leakage.json"])["attacks"][0]
    assert first["upper_bound"] == first["limit"] == 0.65  # beside a guarantee: the policy's figure, not the patients'


def test_a_digest_that_slips_into_the_description_stops_the_release(tmp_path: Path) -> None:
    """A third party's transform that carries its parent's digest is found in the bytes, whatever its key is called."""
    rules = policy()
    good = release(rules)
    transforms = ({"kind": "public_ranges", "public": True, "of": COHORT_DIGEST},)
    leaky = dataclasses.replace(good.artefact, transforms=transforms)
    report = dataclasses.replace(good.reports[0], artefact_digest=record_digest(leaky))
    case = leaky, [report], None, AROUND
    admitted = admit(rules, decide(rules, *case), *case)
    with pytest.raises(ReleaseRefused, match="names the site's own data"):
        write_bundle(admitted, tmp_path, signer=SIGNER, notes=NOTES, issued=ISSUED, scan=lambda files: None)
    assert list(tmp_path.iterdir()) == []


def test_the_scan_sees_every_signed_byte_and_can_stop_the_release(tmp_path: Path) -> None:
    seen: dict[str, bytes] = {}
    written = write_bundle(
        release(policy()), tmp_path, signer=SIGNER, notes=NOTES, issued=ISSUED, scan=lambda files: seen.update(files)
    )
    assert {name: data for name, data in read_folder(written).items() if name != ENVELOPE} == seen

    def found(files: Mapping[str, bytes]) -> None:
        raise ReleaseRefused("an identifier is in the bytes")

    with pytest.raises(ReleaseRefused, match="identifier"):
        write_bundle(
            release(policy()),
            tmp_path,
            signer=SIGNER,
            notes=dataclasses.replace(NOTES, version=4),
            issued=ISSUED,
            scan=found,
        )
    assert [item.name for item in tmp_path.iterdir()] == [written.name]


def test_an_existing_release_is_never_overwritten(own: Path) -> None:
    with pytest.raises(ReleaseRefused, match="never overwritten"):
        write(own.parent)
    verify(own, ROOT, today=TODAY)


@pytest.mark.parametrize("failing", range(11))
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """ENOSPC at the n-th sync: nine files, the folder, its parent."""
    real, calls = os.fsync, iter(range(100))

    def fsync(handle: int) -> None:
        if next(calls) == failing:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(EnvironmentProblem, match="disk is full"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    verify(write(tmp_path), ROOT, today=TODAY)


def test_a_kill_leaves_no_bundle_and_the_next_run_succeeds(tmp_path: Path) -> None:
    """The process dies without clean-up after the fourth file: no folder carries the bundle's name."""
    script = f"""
import importlib.util, os, pathlib
spec = importlib.util.spec_from_file_location("t", {str(Path(__file__))!r})
t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)
real, calls = os.fsync, iter(range(100))
os.fsync = lambda handle: os._exit(9) if next(calls) == 4 else real(handle)
t.write(pathlib.Path({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=120)
    assert done.returncode == 9
    assert [item for item in tmp_path.iterdir() if not item.name.startswith(".")] == []
    verify(write(tmp_path), ROOT, today=TODAY)


def test_verification_loads_no_heavy_library(own: Path) -> None:
    """In a process of its own: the verifier's third-party imports are cryptography and rfc8785."""
    root, holder = own.parent / "root.json", role_signer(Secret(b"r" * 32, "root"))
    drafted = draft_root(
        [KEY, public_key(holder, "Ruth", role="root")],
        threshold=1,
        expires=datetime.date(2026, 12, 31),
        min_approvals=0,
        max_revocation_age_days=0,
        policies=ROOT.policies,
    )
    root.write_bytes(sign_root(drafted, holder))
    script = f"""
import datetime, pathlib, sys, sysconfig
before = set(sys.modules)
from pipeline.sharing.receive.verify import verify
verify(pathlib.Path({str(own)!r}), pathlib.Path({str(root)!r}), today=datetime.date(2026, 3, 2))
site = sysconfig.get_paths()["purelib"]
for name in sorted(set(sys.modules) - before):
    path = getattr(sys.modules[name], "__file__", None) or ""
    if path.startswith(site):
        print(name.split(".")[0])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120)
    loaded = set(done.stdout.split()) - {"pipeline"}
    assert loaded - {"_cffi_backend"} == {"cryptography", "rfc8785"}  # cffi belongs to cryptography
