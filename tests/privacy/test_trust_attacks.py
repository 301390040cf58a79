"""Each attack once got through: downgrades, a policy's word about itself, thresholds chosen by the author."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from pipeline.core.errors import ConfigError, DecoctError, ReleaseRefused, UsageError
from pipeline.core.keys.secrets import Secret, write_secret
from pipeline.sharing.canonical import canonical, sha256_hex
from pipeline.sharing.layout import CROISSANT, ENVELOPE, LEAKAGE, MANIFEST, PAYLOAD_TYPE, POLICY, PREDICATE_KEYS
from pipeline.sharing.policy.load import load_policy, shipped_digests
from pipeline.sharing.receive.receipt import read_receipt, receipt_bytes
from pipeline.sharing.receive.state import load_state
from pipeline.sharing.receive.verify import read_folder, verify, verify_files
from pipeline.sharing.trust.dsse import Envelope, open_envelope, with_signature
from pipeline.sharing.trust.keys import TrustRoot, public_key, role_signer
from pipeline.sharing.trust.revocation import KIND as REVOCATIONS
from pipeline.sharing.trust.revocation import draft_revocations, load_revocations, parse_revocations, sign_revocations
from pipeline.sharing.trust.root import KIND as ROOT
from pipeline.sharing.trust.root import draft_root, load_trust_root, parse_root, read_root
from pipeline.sharing.trust.signing import add_signature, make_statement, sign_statement

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def sample() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("sample_release")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def proposal(sample: ModuleType, tmp_path: Path) -> Path:
    """Signed by its author, approved by nobody."""
    made: Path = sample.propose(tmp_path, sample.audited(), 1)
    return made


@pytest.fixture
def bundle(sample: ModuleType, proposal: Path, tmp_path: Path) -> Path:
    made: Path = sample.released(tmp_path, proposal)
    return made


def refusal(act: Callable[[], object], error: type[DecoctError] = ReleaseRefused) -> str:
    with pytest.raises(error) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def signed(
    sample: ModuleType,
    files: Mapping[str, bytes],
    manifest: Mapping[str, Any] | None = None,
    *,
    by: tuple[str, ...] = ("author",),
    predicate: tuple[str, ...] = PREDICATE_KEYS,
    **statement: Any,
) -> Files:
    """The bundle as these people would sign it with this manifest; `statement` replaces fields of the statement."""
    told = dict(json.loads(files[MANIFEST]) if manifest is None else manifest)
    parts = {name: data for name, data in files.items() if name not in (ENVELOPE, MANIFEST)}
    told["files"] = {name: {"bytes": len(data), "sha256": sha256_hex(data)} for name, data in parts.items()}
    parts[MANIFEST] = canonical(told)
    made = make_statement(parts, {key: told[key] for key in predicate if key in told}) | statement
    first, *more = by
    envelope = sign_statement(made, sample.SIGNERS[first])
    for role in more:
        envelope = add_signature(envelope, sample.SIGNERS[role])
    return {**parts, ENVELOPE: envelope}


def accepted(sample: ModuleType, files: Files, root: TrustRoot | None = None) -> object:
    return verify_files(files, root or sample.trusted(), today=sample.TODAY)


# downgrade


def test_an_unapproved_proposal_rewritten_as_format_1_is_refused(sample: ModuleType, proposal: Path) -> None:
    """Format 1 knew neither policy.json nor approvals: by its author's signature alone it passed under `strict`."""
    files = read_folder(proposal)
    assert "approved by 0 people" in refusal(lambda: accepted(sample, files))
    old = {name: data for name, data in files.items() if name not in (CROISSANT, POLICY)}
    manifest = {key: value for key, value in json.loads(files[MANIFEST]).items() if key not in ("data_use", "log")}
    manifest = {key: value for key, value in manifest.items() if key != "encryption"} | {"format": "decoct-bundle/1"}
    keys = ("format", "site", "name", "version", "issued", "expires", "policy")
    again = signed(sample, old, manifest, predicate=keys)
    assert "of a format that this version does not know" in refusal(lambda: accepted(sample, again))
    for name in (CROISSANT, POLICY):
        (proposal / name).unlink()
    assert "the bundle lacks" in refusal(lambda: read_folder(proposal))


OTHER_FORMATS = (
    "decoct-bundle/1",
    "decoct-bundle/0",
    "decoct-bundle/3",
    "decoct-bundle/",
    "decoct-bundle/2 ",
    "",
    None,
    2,
)


@pytest.mark.parametrize("other", OTHER_FORMATS)
def test_another_bundle_format_is_refused(sample: ModuleType, bundle: Path, other: object) -> None:
    files = read_folder(bundle)
    accepted(sample, signed(sample, files, by=("author", "approver")))
    again = signed(sample, files, {**json.loads(files[MANIFEST]), "format": other}, by=("author", "approver"))
    told = refusal(lambda: accepted(sample, again))
    assert told == "the bundle is of a format that this version does not know; it reads decoct-bundle/2"


def test_a_manifest_of_another_format_than_the_statement_is_refused(sample: ModuleType, bundle: Path) -> None:
    files = read_folder(bundle)
    manifest = {**json.loads(files[MANIFEST]), "format": "decoct-bundle/1"}
    predicate = {key: manifest[key] for key in PREDICATE_KEYS} | {"format": "decoct-bundle/2"}
    again = signed(sample, files, manifest, by=("author", "approver"), predicate=predicate)
    statement_says = signed(sample, files, manifest, by=("author", "approver"))
    assert again[MANIFEST] == statement_says[MANIFEST]
    parts = {name: data for name, data in again.items() if name != ENVELOPE}
    envelope = sign_statement(make_statement(parts, predicate), sample.SIGNERS["author"])
    assert "another format" in refusal(lambda: accepted(sample, {**parts, ENVELOPE: envelope}))


@pytest.mark.parametrize("field", ["_type", "predicateType"])
@pytest.mark.parametrize(
    "other", ["https://in-toto.io/Statement/v0.1", "urn:decoct:release:0", "urn:decoct:release:2", ""]
)
def test_another_statement_or_predicate_type_is_refused(
    sample: ModuleType, bundle: Path, field: str, other: str
) -> None:
    again = signed(sample, read_folder(bundle), by=("author", "approver"), **{field: other})
    assert "of an unknown type" in refusal(lambda: accepted(sample, again))


def test_another_payload_type_is_refused(sample: ModuleType, bundle: Path) -> None:
    files = read_folder(bundle)
    payload = open_envelope(files[ENVELOPE], PAYLOAD_TYPE, "it").payload
    other = with_signature(Envelope("application/vnd.in-toto+yaml", payload, {}), sample.SIGNERS["author"]).data()
    assert "is not a DSSE envelope of" in refusal(lambda: accepted(sample, {**files, ENVELOPE: other}))


def test_other_formats_of_what_lies_in_a_bundle_are_refused(sample: ModuleType, bundle: Path) -> None:
    files, by = read_folder(bundle), ("author", "approver")
    manifest, leakage = json.loads(files[MANIFEST]), json.loads(files[LEAKAGE])
    for other in ("decoct-leakage/2", "decoct-leakage/4", None):
        again = signed(sample, {**files, LEAKAGE: canonical({**leakage, "format": other})}, by=by)
        assert "its audit is of a format" in refusal(lambda again=again: accepted(sample, again))
    for origin in ("decoct-log2/0123456789abcdef", "", "0123456789abcdef"):
        again = signed(sample, files, {**manifest, "log": {**manifest["log"], "origin": origin}}, by=by)
        assert "a log that this version does not know" in refusal(lambda again=again: accepted(sample, again))
    encryption = {"scheme": "age-encryption.org/v2", "recipients": {"B": "age1x"}}
    sealed = {name: data for name, data in files.items() if name != "payload.safetensors"}
    sealed["payload.safetensors.age"] = files["payload.safetensors"]
    again = signed(sample, sealed, {**manifest, "encryption": encryption, "recipients": ["B"]}, by=by)
    assert "a scheme that this version does not know" in refusal(lambda: accepted(sample, again))


@pytest.mark.parametrize("other", ["decoct-trust-root/1", "decoct-trust-root/2", "decoct-trust-root/4", "", None])
def test_another_root_format_is_refused(sample: ModuleType, other: object) -> None:
    content = json.loads(open_envelope(sample.root_bytes(), ROOT, "it").payload)
    altered = with_signature(Envelope(ROOT, canonical({**content, "format": other}), {}), sample.SIGNERS["root"])
    assert "of a format that this version does not know" in refusal(lambda: parse_root(altered.data(), "the root"))


def test_a_list_of_keys_that_nobody_signed_is_no_root(sample: ModuleType, bundle: Path, tmp_path: Path) -> None:
    """The TOML file of format 1, which the author of a bundle could write as well as its receiver."""
    key = public_key(sample.SIGNERS["author"], "Otto")
    text = f'format = "decoct-trust-root/1"\n[[keys]]\nkeyid = "{key.keyid}"\npublic = "{key.public}"\nname = "Otto"\n'
    (tmp_path / "root.toml").write_text(text)
    refusal(lambda: verify(bundle, tmp_path / "root.toml", today=sample.TODAY))
    refusal(lambda: load_trust_root(tmp_path / "root.toml"))


@pytest.mark.parametrize("other", ["decoct-revocations/0", "decoct-revocations/2", "", None])
def test_another_format_of_a_revocation_list_is_refused(sample: ModuleType, other: object) -> None:
    drafted = draft_revocations([], [], version=1, issued=sample.TODAY)
    content = json.loads(open_envelope(drafted, REVOCATIONS, "it").payload)
    altered = Envelope(REVOCATIONS, canonical({**content, "format": other}), {})
    data = with_signature(altered, sample.SIGNERS["root"]).data()
    assert "of a format that this version does not know" in refusal(lambda: parse_revocations(data, sample.trusted()))


@pytest.mark.parametrize("other", [0, 1, 3, True, 2.5, "2", None])
def test_another_format_of_a_policy_is_refused(other: object, tmp_path: Path) -> None:
    shipped = (Path(__file__).parents[2] / "pipeline/sharing/policies/strict.toml").read_text()
    line = "" if other is None else f"format = {json.dumps(other)}"
    (tmp_path / "p.toml").write_text(shipped.replace("format = 2", line, 1))
    assert "is not of format 2" in refusal(lambda: load_policy(tmp_path / "p.toml"), ConfigError)


@pytest.mark.parametrize("other", ["decoct-receipt/0", "decoct-receipt/2", "", None])
def test_another_format_of_a_receipt_is_refused(
    sample: ModuleType, bundle: Path, tmp_path: Path, other: object
) -> None:
    receipt = json.loads(receipt_bytes(verify(bundle, sample.trusted(), today=sample.TODAY), sample.TODAY))
    (tmp_path / "r.json").write_bytes(canonical({**receipt, "format": other}))
    assert "is not one that this version knows" in refusal(lambda: read_receipt(tmp_path / "r.json"))


@pytest.mark.parametrize("other", ["decoct-receiver/0", "decoct-receiver/2", "", None])
def test_another_format_of_a_receivers_state_is_refused(tmp_path: Path, other: object) -> None:
    state = {"format": other, "releases": {}, "root": None, "revocations": 0}
    (tmp_path / "state.json").write_bytes(canonical(state))
    assert "of a format that this version does not know" in refusal(lambda: load_state(tmp_path / "state.json"))


# a policy's word about itself


def self_declared(sample: ModuleType, bundle: Path, **changes: Any) -> Files:
    """A policy of the author's own making, under the name `strict`, signed as everything else."""
    files = read_folder(bundle)
    policy = {**json.loads(files[POLICY]), **changes}
    manifest = json.loads(files[MANIFEST])
    named = {"name": policy["name"], "digest": sha256_hex(canonical(policy)), "production": policy["production"]}
    return signed(sample, {**files, POLICY: canonical(policy)}, {**manifest, "policy": named})


@pytest.mark.parametrize(
    "changes",
    [
        {"approvals": 0},
        {"revocation_days": 0},
        {"approvals": 0, "revocation_days": 0, "require_guarantee": False, "refused_methods": []},
        {"max_epsilon": 100.0},
        {"summary": "the same in other words"},
    ],
)
def test_a_policy_that_calls_itself_strict_is_refused(
    sample: ModuleType, bundle: Path, changes: dict[str, Any]
) -> None:
    told = refusal(lambda: accepted(sample, self_declared(sample, bundle, **changes)))
    assert told == "the bundle's policy calls itself strict and is not the one that the root pins"


@pytest.mark.parametrize("name", ["Strict", "strict ", "\uff53trict", "house", ""])
def test_a_policy_by_another_name_is_refused_though_it_says_production(
    sample: ModuleType, bundle: Path, name: str
) -> None:
    again = self_declared(sample, bundle, name=name, approvals=0, revocation_days=0)
    assert "the trust root does not accept releases under policy" in refusal(lambda: accepted(sample, again))


def test_the_pinned_digest_without_the_pinned_file_is_refused(sample: ModuleType, bundle: Path) -> None:
    """The manifest names the digest that the root pins, and another policy lies in the bundle."""
    files = read_folder(bundle)
    other = canonical({**json.loads(files[POLICY]), "approvals": 0})
    again = signed(sample, {**files, POLICY: other}, by=("author", "approver"))
    assert "is not the policy whose digest was signed" in refusal(lambda: accepted(sample, again))


def test_approvals_are_the_roots_and_not_the_policys(sample: ModuleType, proposal: Path) -> None:
    """A root that pins a policy which asks for nobody still asks for as many as its holders said."""
    files = self_declared(sample, proposal, approvals=0)
    pinned = {"strict": sha256_hex(files[POLICY])}
    keys = sample.trusted().keys
    for needed in (1, 2):
        root = TrustRoot(keys, needed, 0, pinned, expires="2100-01-01")
        told = refusal(lambda root=root: accepted(sample, files, root))
        assert told == f"the bundle is approved by 0 people, and the trust root asks for {needed}"
    accepted(sample, files, TrustRoot(keys, 0, 0, pinned, expires="2100-01-01"))


@pytest.mark.parametrize(
    ("age", "sentence"),
    [(None, "INCONCLUSIVE: the trust root asks"), (31, "31 days old"), (8 * 365, "days old"), (-1, "in the future")],
)
def test_no_list_a_stale_list_and_one_of_tomorrow_are_refused_whatever_the_policy_says(
    sample: ModuleType, bundle: Path, age: int | None, sentence: str
) -> None:
    files = read_folder(bundle)
    root = dataclasses.replace(sample.trusted(), max_revocation_age_days=30)
    for days in (0, 30):
        issued = sample.TODAY - datetime.timedelta(days=age or 0)
        data = sign_revocations(draft_revocations([], [], version=1, issued=issued), sample.SIGNERS["root"])
        listed = None if age is None else parse_revocations(data, root)
        told = refusal(lambda listed=listed: verify_files(files, root, today=sample.TODAY, revocations=listed))
        assert sentence in told, days


def test_a_revoked_authors_key_is_refused_by_a_list_that_the_root_makes_one_bring(
    sample: ModuleType, bundle: Path
) -> None:
    root = dataclasses.replace(sample.trusted(), max_revocation_age_days=30)
    author = next(key for key in root.keys if key.role == "author")
    data = sign_revocations(
        draft_revocations([author.keyid], [], version=2, issued=sample.TODAY), sample.SIGNERS["root"]
    )
    verify_with = {"today": sample.TODAY, "revocations": parse_revocations(data, root)}
    assert "is revoked" in refusal(lambda: verify_files(read_folder(bundle), root, **verify_with))


def test_a_root_without_policies_accepts_nothing(sample: ModuleType, bundle: Path) -> None:
    """An empty list once meant every policy that called itself one for production."""
    bare = TrustRoot(keys=sample.trusted().keys, max_revocation_age_days=0, expires="2100-01-01")
    assert "does not accept releases under policy strict" in refusal(
        lambda: accepted(sample, read_folder(bundle), bare)
    )


# people


def people(sample: ModuleType, approver: str = "Ann", holder: str = "Rosa") -> list[Any]:
    return [
        public_key(sample.SIGNERS["author"], "Otto", site=sample.SITE),
        public_key(sample.SIGNERS["approver"], approver, role="approver", site=sample.SITE),
        public_key(sample.SIGNERS["root"], holder, role="root"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("Otto", "otto", " Otto", "Ot to", "Otto\u200b", "\uff2ftto", "OTTO\u00ad"),
        *("Ott\u043e", "\u041e\u0442\u0442\u043e", "\u039f\u03c4\u03c4\u03bf", "0tto", "\u0555tto"),
    ],
)
def test_an_author_by_another_spelling_neither_approves_nor_holds_the_root_alone(
    sample: ModuleType, bundle: Path, name: str
) -> None:
    settings = {"threshold": 1, "expires": datetime.date(2100, 1, 1), "policies": shipped_digests()}
    assert "more approvals than" in refusal(lambda: draft_root(people(sample, approver=name), **settings), UsageError)
    assert "by its authors alone" in refusal(lambda: draft_root(people(sample, holder=name), **settings), UsageError)
    keys = tuple(people(sample, approver=name))
    root = dataclasses.replace(sample.trusted(), keys=keys)
    assert "approved a release of their own" in refusal(lambda: accepted(sample, read_folder(bundle), root))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"approver": "Ann\x1b[2J\x1b[H"}, "cannot be seen"),  # writes another fingerprint over the one that is shown
        ({"holder": "Rosa\nfingerprint"}, "cannot be seen"),
        ({"holder": "Rosa\u202e"}, "cannot be seen"),
        ({"site": "St. Elsewhere "}, "two sites that a reader cannot tell apart"),
        ({"site": "St. Els\u0435where"}, "two sites that a reader cannot tell apart"),
    ],
)
def test_a_root_has_no_words_that_read_otherwise_than_they_are(
    sample: ModuleType, changes: dict[str, str], sentence: str
) -> None:
    keys = people(sample, **{name: value for name, value in changes.items() if name != "site"})
    if "site" in changes:
        keys[1] = dataclasses.replace(keys[1], site=changes["site"])
    settings = {"threshold": 1, "expires": datetime.date(2100, 1, 1), "policies": shipped_digests()}
    assert sentence in refusal(lambda: draft_root(keys, **settings), UsageError)


def test_two_holders_of_one_name_are_one_when_they_sign(sample: ModuleType) -> None:
    """A root and a list signed by `R1` and `R1 ` once counted as signed by two."""
    second = role_signer(Secret(bytes([9]) * 32, "root"))
    keys = [*people(sample), public_key(second, " rosa", role="root")]
    told = refusal(
        lambda: draft_root(keys, threshold=2, expires=datetime.date(2100, 1, 1), policies=shipped_digests()),
        UsageError,
    )
    assert "the number of people" in told
    root = dataclasses.replace(sample.trusted(), keys=tuple(keys), threshold=2)
    data = draft_revocations([], [], version=1, issued=sample.TODAY)
    for signer in (sample.SIGNERS["root"], second):
        data = sign_revocations(data, signer)
    assert "signed by 1 of its root keys' holders, and 2 are needed" in refusal(lambda: parse_revocations(data, root))


# the small case


def decoct(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_one_command_makes_a_root_that_asks_for_everything(sample: ModuleType, tmp_path: Path) -> None:
    public = public_key(sample.SIGNERS["approver"], "Ann", role="approver").public
    for role in ("author", "root"):
        place = {"author": 1, "root": 3}[role]
        write_secret(tmp_path / "keys" / f"{role}.key", Secret(bytes([place]) * 32, role))
    words = ("--site", sample.SITE, "--author", "Otto", "--holder", "Rosa", "--out", tmp_path)
    alone = decoct("trust", "init", *words)
    assert "more approvals than there are approvers" in str(alone.exception)
    assert not (tmp_path / "trust").exists()
    done = decoct("trust", "init", *words, "--approver", f"Ann={public}", "--json")
    path = tmp_path / "trust" / "root.json"
    assert json.loads(done.stdout)["file"] == str(path)
    root = load_trust_root(path)
    assert (root.min_approvals, root.max_revocation_age_days, root.threshold) == (1, 30, 1)
    assert dict(root.policies) == shipped_digests(production=True)
    assert load_revocations(path.with_name("revocations.json"), root).version == 1
    assert "never overwritten" in str(decoct("trust", "init", *words, "--approver", f"Ann={public}").exception)
    shown = decoct("trust", "show", path).stdout
    assert f"policy   strict  {load_policy('strict').digest}" in shown
    assert "a release needs 1 approvals; a revocation list may be 30 days old" in shown


def test_what_is_for_trying_out_must_be_asked_for(tmp_path: Path) -> None:
    done = decoct("trust", "init", "--site", "S", "--trial", "--out", tmp_path)
    assert done.exit_code == 0
    root = load_trust_root(tmp_path / "trust" / "root.json")
    assert (root.min_approvals, root.max_revocation_age_days) == (0, 0)
    assert dict(root.policies) == shipped_digests(production=False)
    assert not (tmp_path / "trust" / "revocations.json").exists()


def test_a_described_root_pins_digests_and_never_names(sample: ModuleType, tmp_path: Path) -> None:
    entry = '[[keys]]\nname = "{}"\nrole = "{}"\npublic = "{}"\n'
    listed = "".join(
        entry.format(key.name, key.role, key.public) + (f'site = "{key.site}"\n' if key.site else "")
        for key in people(sample)
    )
    shipped = (Path(__file__).parents[2] / "pipeline/sharing/policies/research.toml").read_text()
    (tmp_path / "ours.toml").write_text(shipped.replace('name = "research"', 'name = "ours"'))
    cases = {
        "": shipped_digests(production=True),
        'policies = ["strict"]\n': {"strict": load_policy("strict").digest},
        'policies = ["ours.toml"]\n': {"ours": load_policy(tmp_path / "ours.toml").digest},
    }
    for number, (line, pinned) in enumerate(cases.items()):
        (tmp_path / "keys.toml").write_text(f"threshold = 1\ndays = 30\n{line}{listed}")
        out = tmp_path / f"{number}.json"
        assert decoct("trust", "draft", tmp_path / "keys.toml", out).exit_code == 0
        assert json.loads(open_envelope(read_root(out), ROOT, "it").payload)["policies"] == pinned
    for line in ('policies = ["absent"]\n', 'policies = "strict"\n', "policies = [1]\n", "accepted_policies = []\n"):
        (tmp_path / "keys.toml").write_text(f"threshold = 1\ndays = 30\n{line}{listed}")
        failed = decoct("trust", "draft", tmp_path / "keys.toml", tmp_path / "bad.json")
        assert isinstance(failed.exception, UsageError | ConfigError)
    (tmp_path / "ours.toml").write_text(shipped.replace('name = "research"', 'name = "strict"'))
    (tmp_path / "keys.toml").write_text(f'threshold = 1\ndays = 30\npolicies = ["ours.toml"]\n{listed}')
    failed = decoct("trust", "draft", tmp_path / "keys.toml", tmp_path / "bad.json")
    assert "calls itself strict and is not the policy of that name" in str(failed.exception)


def test_base64_of_the_statement_is_what_was_signed(sample: ModuleType, bundle: Path) -> None:
    """The helper of this page signs as the site does, so that its refusals are about what it changed."""
    files = read_folder(bundle)
    again = signed(sample, files, by=("author", "approver"))
    ours, theirs = (json.loads(each[ENVELOPE])["payload"] for each in (again, files))
    assert base64.b64decode(ours) == base64.b64decode(theirs)
