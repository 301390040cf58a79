"""From a passed gate to a fitted model: payloads of all three kinds, keys and trust roots, card, receiver."""

from __future__ import annotations

import dataclasses
import datetime
import html
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyrage
import pytest
from sample_release import NOTED, behind
from sklearn.linear_model import LogisticRegression

from pipeline.core.codec import record_digest
from pipeline.core.errors import DataError, EnvironmentProblem, ReleaseRefused, UsageError
from pipeline.core.keys.secrets import Secret, new_secret, read_secret, write_secret
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    EncodedCohort,
    LeakageReport,
    Moments,
    PrivacyGuarantee,
    Provenance,
    Task,
    UtilityReport,
    UtilityScore,
)
from pipeline.sharing.bundle.payload import public_options
from pipeline.sharing.bundle.rounding import published_bound
from pipeline.sharing.bundle.write import ReleaseNotes, bundle_name, write_bundle
from pipeline.sharing.canonical import canonical
from pipeline.sharing.policy.gate import admit, decide
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.published import fixed_audit
from pipeline.sharing.policy.recovery import recovery
from pipeline.sharing.receive.received import read_arrays, receive
from pipeline.sharing.receive.verify import VerifiedBundle
from pipeline.sharing.trust.dsse import Envelope, open_envelope, with_signature
from pipeline.sharing.trust.keys import (
    TrustRoot,
    author_signer,
    public_key,
    public_key_from_hex,
    role_signer,
)
from pipeline.sharing.trust.root import KIND, draft_root, load_trust_root, sign_root

ISSUED = datetime.date(2026, 3, 1)
SIGNER = author_signer(Secret(bytes(range(32)), "author"))
SITE = "Example | hospital"
KEY = public_key(SIGNER, "Otto", site=SITE)
HOLDER = role_signer(Secret(bytes(range(1, 33)), "root"))
ME = "Hospital B"
GUARANTEE = PrivacyGuarantee(
    1.0,
    1e-6,
    "stay",
    "add-or-remove-one",
    "dp-accounting 0.6",
    ({"event": "GaussianDpEvent", "noise_multiplier": 4.2247},),
    ("ranges",),
)
NO_PEOPLE = {"kind": "subjects", "known": False, "public": True}
TASKS = (Task("death", "died in hospital"), Task("long_stay"))
DRAWS = np.random.default_rng(1)
SET = CondensedSet(  # its values lie on the grids that leave
    features=(DRAWS.integers(0, 4097, (40, 4, 2)) / 4096).astype(np.float32),
    labels=np.stack([np.tile([0.0, 1.0], 20), DRAWS.integers(0, 1025, 40) / 1024], axis=1).astype(np.float32),
    channels=("heart_rate", "lactate"),
    tasks=TASKS,
    step_hours=2.0,
    transforms=(
        NO_PEOPLE,
        {"kind": "public_ranges", "public": True, "low": [0.0, np.float32(1.0)]},
    ),
    method="private_moments",
    starts_from_records=False,
    guarantee=GUARANTEE,
    provenance=Provenance("condense", ("a" * 64,), {**NOTED, "epsilon": 1.0, "seed": 5}, "0.1.0+abc", 5),
)
COHORT = EncodedCohort(
    features=(DRAWS.integers(-4096, 4097, (30, 4, 2)) / 4096).astype(np.float32),
    labels=np.repeat(np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32), 15, axis=0),
    subject_index=np.arange(30, dtype=np.int32),
    split=np.zeros(30, dtype=np.int8),
    channels=("q0", "q1"),
    tasks=TASKS,
    step_hours=1.0,
    transforms=({"kind": "quantum", "public": True},),
    provenance=Provenance("encode"),
)
SUMS = Moments(
    gram=np.eye(3),
    signed_sums=np.round(DRAWS.normal(size=(2, 3)) * 1024) / 1024,
    signed_counts=np.array([1.5, -2.5]),
    feature_map={"kind": "summary", "clip_norm": 1.0},
    feature_map_digest="f" * 64,
    channels=("heart_rate", "lactate"),
    tasks=TASKS,
    n_steps=4,
    step_hours=1.0,
    transforms=(NO_PEOPLE, {"kind": "public_ranges", "public": True}),
    guarantee=GUARANTEE,
    provenance=Provenance("moments", config=NOTED),
)
NOTES = ReleaseNotes(
    name="ICU & <b>demo</b>",
    site=SITE,
    version=2,
    licence="ODbL-1.0",
    limits=("One site only.",),
    recipients=("Hospital B",),
    agreement="DUA 7/2026",
    contact="data office",
)
IDENTITY = pyrage.x25519.Identity.generate()
SEALED = dataclasses.replace(NOTES, recipient_keys={"Hospital B": str(IDENTITY.to_public())})
UTILITY = UtilityReport(
    tuple(
        UtilityScore("art", "raw", model, "death", "auroc", mean, mean - 0.04, mean + 0.04, 0.01, 5, 800, 40)
        for model, mean in (("tcn", 0.8237), ("lstm", 0.7777))
    ),
    30,
    "bootstrap",
)


ROOT = TrustRoot(
    keys=(KEY,),
    min_approvals=0,
    max_revocation_age_days=0,
    policies={name: load_policy(name).digest for name in ("demo", "agreement")},
    expires="2100-01-01",
)


def signed_root(path: Path, **changes: Any) -> Path:
    """The same, as a file that a holder of a root key has signed."""
    told = {"threshold": 1, "expires": datetime.date(2100, 1, 1), "min_approvals": 0, "max_revocation_age_days": 0}
    told |= {"keys": [KEY, public_key(HOLDER, "Ruth", role="root")], "policies": ROOT.policies}
    path.write_bytes(sign_root(draft_root(**(told | changes)), HOLDER))
    return path


def figure(attack: str, statistic: str, high: float, model: Any = "T6") -> AttackResult:
    return AttackResult(
        attack, model, "art", statistic, 0.5 * high, 0.0, high, 1234, 0.5, 1.0, 1.0, True, "s", True, True, False, None
    )


def write(folder: Path, artefact: Any, policy: str = "demo", notes: ReleaseNotes | None = None) -> Path:
    rules = load_policy(policy)
    results = (
        figure("near_copies", "count", 0.0),
        figure("density_membership", "auroc", 0.5777),
        figure("known_key_inversion", "r2", 0.9913, "T4"),
        figure("aligned_pairs", "r2", 0.31, "T3"),
        figure("aligned_pairs", "r2", 0.97, "T3"),
    )
    kept = results if isinstance(artefact, EncodedCohort) else results[:2]
    report = LeakageReport("art", record_digest(artefact), kept, (), True, Provenance("audit"))
    read = behind(artefact, countersigned=recovery(rules, [report]).code)
    decision = decide(rules, artefact, [report], UTILITY, read)
    release = admit(rules, decision, artefact, [report], UTILITY, read)
    said = notes or (SEALED if rules.encrypted else NOTES)
    return write_bundle(release, folder, signer=SIGNER, notes=said, issued=ISSUED, scan=lambda files: None)


def received(folder: Path, artefact: Any, policy: str = "demo") -> Any:
    return receive(write(folder, artefact, policy), ROOT, today=ISSUED, recipient=ME)


def rows(features: np.ndarray, labels: np.ndarray) -> list[bytes]:
    """The rows, whatever their order."""
    return sorted(f.tobytes() + y.tobytes() for f, y in zip(features, labels, strict=True))


def test_a_condensed_set_comes_back_as_it_was(tmp_path: Path) -> None:
    got = received(tmp_path, SET)
    assert rows(got.features, got.labels) == rows(SET.features, SET.labels)
    assert (got.channels, got.tasks) == (SET.channels, ("death", "long_stay"))
    again = got.condensed_set()
    assert (again.step_hours, again.method, again.guarantee) == (2.0, "private_moments", GUARANTEE)
    assert again.provenance.seed is None
    with pytest.raises(UsageError, match="holds condensed data"):
        got.moments()
    with pytest.raises(ValueError, match="read-only"):
        got.features[0] = 0


def test_moments_come_back_ready_to_be_added(tmp_path: Path) -> None:
    got = received(tmp_path, SUMS)
    again = got.moments()
    np.testing.assert_array_equal(again.gram, SUMS.gram)
    np.testing.assert_array_equal(again.signed_sums, SUMS.signed_sums)
    np.testing.assert_array_equal(again.signed_counts, SUMS.signed_counts)
    assert again.gram.dtype == np.float64
    assert (again.feature_map, again.feature_map_digest) == (dict(SUMS.feature_map), SUMS.feature_map_digest)
    assert again.guarantee == GUARANTEE
    with pytest.raises(UsageError, match="no features"):
        _ = got.features


def opened(payload: Path) -> bytes:
    return bytes(pyrage.decrypt(payload.read_bytes(), [IDENTITY]))


def test_an_encoded_cohort_leaves_without_order_groups_and_parts(tmp_path: Path) -> None:
    """The same stays in another order give the same bytes; subject codes and splits are not among the arrays."""
    shuffled = COHORT.take(np.random.default_rng(3).permutation(30))
    one, two = write(tmp_path / "a", COHORT, "agreement"), write(tmp_path / "b", shuffled, "agreement")
    assert opened(one / "payload.safetensors.age") == opened(two / "payload.safetensors.age")
    identity = tmp_path / "identity.txt"
    identity.write_text(f"{IDENTITY}\n")
    identity.chmod(0o600)
    got = receive(one, ROOT, today=ISSUED, identity=identity, recipient=ME)
    assert set(got.arrays) == {"features", "labels"}
    assert rows(got.features, got.labels) == rows(COHORT.features, COHORT.labels)


def test_an_agreement_needs_recipients_and_the_agreement(tmp_path: Path) -> None:
    for missing in ({"recipients": ()}, {"agreement": " "}):
        with pytest.raises(ReleaseRefused, match="named recipients under a data-use agreement"):
            write(tmp_path, COHORT, "agreement", dataclasses.replace(NOTES, **missing))


def test_under_the_agreement_nothing_leaves_in_the_clear(tmp_path: Path) -> None:
    with pytest.raises(ReleaseRefused, match="releases only encrypted payloads: give each recipient") as refusal:
        write(tmp_path, COHORT, "agreement", NOTES)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())
    assert (write(tmp_path, COHORT, "agreement", SEALED) / "payload.safetensors.age").is_file()


def test_the_worst_step_of_a_ladder_is_published(tmp_path: Path) -> None:
    leakage = json.loads((write(tmp_path, COHORT, "agreement") / "leakage.json").read_text())
    assert [(row["attack"], row["upper_bound"]) for row in leakage["attacks"]] == [
        ("aligned_pairs", 1.0),
        ("density_membership", 0.6),
        ("known_key_inversion", 1.0),
        ("near_copies", 0.0),
    ]


def test_three_lines_to_a_model(tmp_path: Path) -> None:
    got = received(tmp_path, SET)
    X, y, weight = got.X_y("death")
    model = LogisticRegression(max_iter=1000).fit(X, y, weight)
    assert model.predict_proba(X).shape == (40, 2)
    assert X.shape == (40, 8)
    assert weight.tolist() == [1.0] * 40
    with pytest.raises(UsageError, match="no task 'sepsis'; it has death, long_stay"):
        got.X_y("sepsis")


def test_soft_labels_become_weights_with_the_same_loss(tmp_path: Path) -> None:
    """sum w [-y log q - (1 - y) log(1 - q)] over rows = cross-entropy of q against the soft labels."""
    got = received(tmp_path, SET)
    X, y, weight = got.X_y("long_stay")
    flat, p = SET.features.reshape(40, -1), SET.labels[:, 1].astype(np.float64)

    def q(rows: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-rows.sum(axis=1) + 4)), dtype=np.float64)

    loss = -(weight * np.where(y == 1, np.log(q(X)), np.log(1 - q(X)))).sum()
    expected = -(p * np.log(q(flat)) + (1 - p) * np.log(1 - q(flat))).sum()
    assert loss == pytest.approx(expected, rel=1e-12)


def test_missing_labels_are_left_out(tmp_path: Path) -> None:
    labels = SET.labels.copy()
    labels[:7, 0] = np.nan
    X, y, _ = received(tmp_path, dataclasses.replace(SET, labels=labels)).X_y("death")
    assert len(X) == len(y) == 33


def test_torch_data_set(tmp_path: Path) -> None:
    import torch

    dataset = received(tmp_path, SET).torch_dataset("long_stay")
    features, labels = dataset[:]
    assert rows(features.numpy(), labels.numpy()) == rows(SET.features, SET.labels[:, 1:])
    assert features.dtype == torch.float32


def test_a_payload_that_is_not_what_the_manifest_says_is_refused(tmp_path: Path) -> None:
    """Verification is about who and whether altered; that an author signed nonsense is found here."""
    got = received(tmp_path, SET)
    for payload in (b"", b"\x80\x04K\x01.", got.bundle.files["payload.safetensors"][:-4]):
        files = {**got.bundle.files, "payload.safetensors": payload}
        with pytest.raises(DataError, match="not a safetensors file"):
            read_arrays(VerifiedBundle(got.bundle.path, got.manifest, files, got.bundle.signed_by))
    manifest = {**got.manifest, "data": {**got.manifest["data"], "arrays": {}}}
    with pytest.raises(DataError, match="does not hold the arrays"):
        read_arrays(VerifiedBundle(got.bundle.path, manifest, got.bundle.files, got.bundle.signed_by))


def test_options_lose_what_is_secret_or_in_doubt() -> None:
    config = {
        "epsilon": 1.0,
        "seed": 3,
        "encoder_key": "x",
        "cohort_digest": "y",
        "monkey": "kept",
        "where": "/home/somebody/data",
        "hash": "ab" * 20,
        "nested": {"rng_seed": 1, "depth": 2, "list": [1, "c:\\data", "fine"]},
        "nan": float("nan"),
        "huge": 2**60,
    }
    assert public_options(config) == {"epsilon": 1.0, "monkey": "kept", "nested": {"depth": 2, "list": [1, "fine"]}}


@pytest.mark.parametrize(
    ("statistic", "high", "published"),
    [
        ("r2", -0.3, 0.0),
        ("auroc", 0.5, 0.5),
        ("auroc", 0.5001, 0.55),
        ("auroc", 0.55, 0.55),
        ("r2", 0.9999, 1.0),
        ("count", 0, 0),
        ("count", 1, 10),
        ("count", 10, 10),
        ("count", 11, 20),
        ("count", 234, 300),
    ],
)
def test_published_bounds_are_rounded_up_and_never_down(statistic: str, high: float, published: float) -> None:
    found = published_bound(statistic, high, 0.05, 10)
    assert found == pytest.approx(published)
    assert found >= high - 1e-12 or high < 0


def test_no_exact_figure_is_in_the_bundle(tmp_path: Path) -> None:
    bundle = write(tmp_path, SET)
    text = b"".join(path.read_bytes() for path in sorted(bundle.iterdir()) if path.suffix != ".safetensors")
    for exact in (b"0.5777", b"0.8237", b"0.7777", b"0.82", b"1234", b"0.28885"):
        assert exact not in text, exact
    card = (bundle / "card.md").read_text()
    assert "0.75 to 0.80" not in card  # beside a guarantee not even rounded figures, though the demo policy prints them
    open_bundle = write(tmp_path / "agreement", dataclasses.replace(SET, guarantee=None), policy="agreement")
    open_text = b"".join(path.read_bytes() for path in sorted(open_bundle.iterdir()) if path.suffix != ".age")
    assert "death: 0.75 to 0.80" in (open_bundle / "card.md").read_text()  # without one: rounded down
    for exact in (b"0.5777", b"0.8237", b"0.7777", b"0.82", b"1234", b"0.28885"):
        assert exact not in open_text, exact


def test_what_a_release_derives_from_is_said_wherever_its_licence_is(tmp_path: Path) -> None:
    derived = dataclasses.replace(NOTES, attribution="Derived from the challenge of 2012, A B. Title. 39:245.")
    bundle, without = write(tmp_path / "a", SET, notes=derived), write(tmp_path / "b", SET)
    for name in ("LICENSE.txt", "card.md", "card.html", "croissant.json"):
        assert "Derived from the challenge of 2012, A B. Title. 39:245." in (bundle / name).read_text()
        assert "Attribution" not in (without / name).read_text()


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_self_contained_and_escapes(tmp_path: Path) -> None:
    text = (write(tmp_path, SET) / "card.html").read_text()
    page = _Page()
    page.feed(text)
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "b", "form", "object"})
    assert all(not {"src", "href", "onload", "style"} & set(attrs) for _, attrs in page.tags)
    policies = [attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "http://" not in text
    assert "https://" not in text
    assert "ICU &amp; &lt;b&gt;demo&lt;/b&gt;" in text


def test_the_markdown_card_escapes_and_keeps_its_table(tmp_path: Path) -> None:
    card = (write(tmp_path, SET) / "card.md").read_text()
    assert "ICU \\& \\<b\\>demo\\</b\\>" in card
    assert "Example \\| hospital" in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(fixed_audit(dataclasses.asdict(load_policy("demo")), "condensed")["attacks"])
    assert {row.replace("\\|", "").count("|") for row in rows} == {7}


@pytest.mark.parametrize("name", ["card.md", "card.html", "LICENSE.txt"])
def test_cards_use_no_word_that_promises_too_much(tmp_path: Path, name: str) -> None:
    for artefact, policy in ((SET, "demo"), (SUMS, "demo"), (COHORT, "agreement")):
        text = (write(tmp_path / policy / type(artefact).__name__, artefact, policy) / name).read_text()
        text = text.lower().replace("'unsafe-inline'", "")  # the page's security policy calls a keyword so
        for word in ("anonym", "irreversib", "safe", "complian"):
            assert word not in text, word


def test_the_examples_on_the_cards_run_as_they_stand(tmp_path: Path) -> None:
    """Both pages show the same lines, for each kind and for an encrypted payload; what they train fits the data."""
    import torch

    identity, root = tmp_path / "identity.txt", signed_root(tmp_path / "root.json")
    identity.write_text(f"{IDENTITY}\n")
    identity.chmod(0o600)
    for artefact, policy in ((SET, "demo"), (SUMS, "demo"), (COHORT, "agreement")):
        bundle = write(tmp_path / type(artefact).__name__, artefact, policy)
        blocks = re.findall(r"```python\n(.*?)\n```", (bundle / "card.md").read_text(), re.DOTALL)
        assert len(blocks) == (1 if artefact is SUMS else 2)
        page = html.unescape((bundle / "card.html").read_text())
        names: dict[str, Any] = {"bundle": bundle, "root": root, "identity": identity, "today": ISSUED}
        for block in blocks:
            assert f"<pre>{block}</pre>" in page
            said = block.replace('"FOLDER", "TRUST_ROOT"', "bundle, root, today=today").replace("YOU", ME)
            with torch.random.fork_rng():
                exec(said.replace('"IDENTITY"', "identity"), names)
        if artefact is SUMS:
            np.testing.assert_array_equal(names["moments"].gram, SUMS.gram)
        else:
            assert names["model"].coef_.shape == (1, 8)
            assert names["x"].shape == artefact.features.shape
            assert names["loss"].isfinite()


def test_the_card_says_what_the_guarantee_means(tmp_path: Path) -> None:
    """e = 2.718...: odds change by at most 2.72; 100 * (0.01 e + 1e-6) = 2.718 members of 100, rounded up to 2.8."""
    card = (write(tmp_path, SET) / "card.md").read_text()
    assert "Epsilon 1, delta 1e-06, per stay" in card
    assert "a factor of at most 2.72" in card
    assert "at most 2.8 of 100 members" in card
    bare = (write(tmp_path / "other", COHORT, "agreement") / "card.md").read_text()
    assert "**None.** No differential-privacy guarantee" in bare
    assert "Every row belongs to a person." in bare


def test_folder_names_are_plain() -> None:
    assert bundle_name(NOTES) == "example-hospital-icu-b-demo-b-v2"
    assert bundle_name(dataclasses.replace(NOTES, name="../../etc", site="")) == "etc-v2"


def test_notes_that_say_too_little_are_refused(tmp_path: Path) -> None:
    for changes in ({"version": 0}, {"licence": " "}, {"name": "?", "site": "!"}):
        with pytest.raises(UsageError):
            write(tmp_path, SET, notes=dataclasses.replace(NOTES, **changes))


def test_a_key_file_signs_and_only_an_authors(tmp_path: Path) -> None:
    write_secret(tmp_path / "author.key", new_secret("author"))
    first = public_key(author_signer(read_secret(tmp_path / "author.key", "author")), "A")
    assert first == public_key(author_signer(read_secret(tmp_path / "author.key", "author")), "A")
    (tmp_path / "author.key").chmod(0o644)
    with pytest.raises(EnvironmentProblem, match="open to group or others"):
        read_secret(tmp_path / "author.key", "author")
    with pytest.raises(UsageError, match="does not sign"):
        author_signer(new_secret("noise"))


def test_a_trust_root_comes_back_as_it_was_written(tmp_path: Path) -> None:
    key = public_key(SIGNER, "Hôpital St. Elsewhere, Zürich", site="s")
    approver = public_key(role_signer(Secret(b"a" * 32, "approver")), "Ann", role="approver", site="s")
    keys = (key, approver, public_key(HOLDER, "Ruth", role="root"))
    path = signed_root(
        tmp_path / "root.json", keys=keys, min_approvals=1, max_revocation_age_days=7, minimum_versions={"s/n": 3}
    )
    root = load_trust_root(path)
    assert dataclasses.replace(root, digest="") == TrustRoot(
        keys=tuple(sorted(keys, key=lambda key: key.keyid)),
        min_approvals=1,
        max_revocation_age_days=7,
        policies=ROOT.policies,
        minimum_versions={"s/n": 3},
        expires="2100-01-01",
        threshold=1,
    )
    assert public_key_from_hex(key.public, key.name, site="s") == key
    with pytest.raises(UsageError, match="64 lower-case hex"):
        public_key_from_hex("AB", "x")


def test_what_a_trust_root_leaves_out_is_strict() -> None:
    root = TrustRoot(keys=(KEY,))
    assert (root.min_approvals, root.max_revocation_age_days, dict(root.policies)) == (1, 30, {})


def test_a_damaged_trust_root_is_refused(tmp_path: Path) -> None:
    """Signed by its holder each time: what it says is refused, not only that it was altered."""
    path = signed_root(tmp_path / "root.json")
    content = json.loads(open_envelope(path.read_bytes(), KIND, "root").payload)
    author, holder = (next(key for key in content["keys"] if key["role"] == role) for role in ("author", "root"))

    def with_author(**changes: str) -> dict[str, Any]:
        return {"keys": sorted(({**author, **changes}, holder), key=lambda key: key["keyid"])}

    damaged: list[tuple[str, dict[str, Any]]] = [
        ("of a format that this version does not know", {"format": "decoct-trust-root/1"}),
        ("of a format that this version does not know", {"format": "decoct-trust-root/2"}),
        ("of a format that this version does not know", {"format": "decoct-trust-root/4"}),
        ("of a format that this version does not know", {"format": None}),
        ("missing or unknown keys", {"accepted_policies": ["strict"]}),
        ("missing or unknown keys", {"min_approvals": True}),
        ("missing or unknown keys", {"policies": ["strict"]}),
        ("a name alone says nothing", {"policies": {}}),
        ("a name alone says nothing", {"policies": {"strict": ""}}),
        ("a name alone says nothing", {"policies": {"strict": "strict"}}),
        ("a name alone says nothing", {"policies": {"strict": None}}),
        ("more approvals than there are approvers", {"min_approvals": 1}),
        ("more approvals than there are approvers", {"min_approvals": -1}),
        ("max_revocation_age_days", {"max_revocation_age_days": -1}),
        ("max_revocation_age_days", {"max_revocation_age_days": 10**9}),
        ("each key once", {"keys": [author, author, holder]}),
        ("each key once", {"keys": sorted((author, holder), key=lambda key: key["keyid"], reverse=True)}),
        ("a threshold of 1 to the number", {"keys": [author]}),
        ("does not belong", with_author(keyid="0" * 64)),
        ("not an Ed25519 key", with_author(public="zz")),
        ("not an Ed25519 key", with_author(public=author["public"].upper())),
        ("and nothing else", with_author(scheme="rsa")),
        ("names its holder", with_author(name="\u200b ")),
        ("whole numbers", {"minimum_versions": {"a/b": 1.5}}),
    ]
    for sentence, changes in damaged:
        altered = Envelope(KIND, canonical({**content, **changes}), {})
        path.write_bytes(with_signature(altered, HOLDER).data())
        with pytest.raises(ReleaseRefused, match=sentence) as caught:
            load_trust_root(path)
        assert "\n" not in str(caught.value)
    path.write_text(f'format = "decoct-trust-root/1"\n[[keys]]\npublic = "{KEY.public}"\n')
    with pytest.raises(ReleaseRefused, match="not valid canonical JSON"):  # a list of keys that nobody signed
        load_trust_root(path)
