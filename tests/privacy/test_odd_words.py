"""Each field of what a receiver reads: absent, unknown, of another type, in another spelling, and rightly signed.

What is behind the signatures is reached, as the right people sign each change. What may still be accepted is listed:
words that the author or the root's holders are free to choose.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from sample_release import SIGNERS, TODAY, audited, propose, released, root_bytes, trusted

from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.claims import follows, gaussian_delta
from pipeline.sharing.layout import ENVELOPE, LEAKAGE, MANIFEST, PAYLOAD_TYPE, POLICY, PREDICATE_KEYS
from pipeline.sharing.receive.verify import read_folder, verify, verify_files
from pipeline.sharing.trust.dsse import Envelope, open_envelope, with_signature
from pipeline.sharing.trust.revocation import KIND as REVOCATIONS
from pipeline.sharing.trust.revocation import draft_revocations, parse_revocations, sign_revocations
from pipeline.sharing.trust.root import KIND as ROOT
from pipeline.sharing.trust.root import parse_root
from pipeline.sharing.trust.signing import make_statement

Document = dict[str, Any]
ODD = (None, True, -1, 2**53 - 1, "x ", "20260301", [], [[]], [{}])
FREE = {
    "manifest": r"data/(channels|tasks/0/name|transforms/\d/kind)(/\d)?|data/tasks/0/description|data/soft_labels|"
    r"licence|data/transforms(/\d)?|guarantee/(accountant|assumed_public)|guarantee/events/\d(/noise_multiplier)?|log|log/size|name|data/step_hours|"
    r"release/(code_version|method|options)",
    "leakage": "",
    "root": r"keys/\d/name|minimum_versions",
    "revocations": r"keys|releases|(keys|releases)/0",
    "statement": "",
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def variants(document: Document) -> Iterator[tuple[str, Document]]:
    """Each place of a document absent, with an unknown field more, and with each odd value."""
    for path in places(document):
        for change in ("absent", "unknown", *ODD):
            changed = copy.deepcopy(document)
            at: Any = changed
            for key in path[:-1]:
                at = at[key]
            if change == "absent":
                del at[path[-1]]
            elif change == "unknown" and isinstance(at[path[-1]], dict):
                at[path[-1]]["unknown"] = 1
            else:
                at[path[-1]] = change
            if rfc8785.dumps(changed) != rfc8785.dumps(document):
                yield "/".join(map(str, path)), changed
    yield "", {**document, "unknown": 1}


def signed(kind: str, content: Any, *roles: str) -> bytes:
    envelope = Envelope(kind, rfc8785.dumps(content), {})
    for role in roles:
        envelope = with_signature(envelope, SIGNERS[role])
    return envelope.data()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    workspace = tmp_path_factory.mktemp("site")
    return dict(read_folder(released(workspace, propose(workspace, audited(), 1))))


def bundle(files: dict[str, bytes], manifest: Document, leakage: Document | None = None) -> dict[str, bytes]:
    """The bundle with other words, signed by author and approver."""
    made = dict(files)
    if leakage is not None:
        made[LEAKAGE] = rfc8785.dumps(leakage)
        told = {"bytes": len(made[LEAKAGE]), "sha256": sha256(made[LEAKAGE]).hexdigest()}
        manifest = {**manifest, "files": {**manifest["files"], LEAKAGE: told}}
    made[MANIFEST] = rfc8785.dumps(manifest)
    told = {key: manifest[key] for key in PREDICATE_KEYS if key in manifest}
    statement = make_statement({name: data for name, data in made.items() if name != ENVELOPE}, told)
    return {**made, ENVELOPE: signed(PAYLOAD_TYPE, statement, "author", "approver")}


def judged(files: dict[str, bytes], part: str) -> tuple[Document, Callable[[Document], object]]:
    """A document, and what a receiver does with a changed one."""
    manifest = json.loads(files[MANIFEST])
    listed = draft_revocations(["a" * 64], ["St. Elsewhere/set/9"], version=1, issued=TODAY)
    parts: dict[str, tuple[Document, Callable[[Document], object]]] = {
        "manifest": (manifest, lambda it: verify_files(bundle(files, it), trusted(), today=TODAY)),
        "leakage": (
            json.loads(files[LEAKAGE]),
            lambda it: verify_files(bundle(files, manifest, it), trusted(), today=TODAY),
        ),
        "root": (
            json.loads(open_envelope(root_bytes(), ROOT, part).payload),
            lambda it: verify_files(files, parse_root(signed(ROOT, it, "root"), part), today=TODAY),
        ),
        "revocations": (
            json.loads(open_envelope(sign_revocations(listed, SIGNERS["root"]), REVOCATIONS, part).payload),
            lambda it: parse_revocations(signed(REVOCATIONS, it, "root"), trusted()),
        ),
        "statement": (
            json.loads(open_envelope(files[ENVELOPE], PAYLOAD_TYPE, part).payload),
            lambda it: verify_files(
                {**files, ENVELOPE: signed(PAYLOAD_TYPE, it, "author", "approver")}, trusted(), today=TODAY
            ),
        ),
    }
    return parts[part]


@pytest.mark.parametrize("part", FREE)
def test_no_field_may_be_absent_unknown_or_otherwise_written(files: dict[str, bytes], part: str) -> None:
    document, look = judged(files, part)
    look(document)
    accepted = set()
    for place, changed in variants(document):
        with suppress(ReleaseRefused):
            look(changed)
            accepted.add(place)
    assert not {place for place in accepted if not re.fullmatch(FREE[part], place)}, accepted


@pytest.mark.parametrize(
    "respelt",
    [
        lambda text: text.replace(b"{", b'{"format":"decoct-bundle/1",', 1),
        lambda text: text + b" ",
        lambda text: text + b"\n",
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b":1,", b":NaN,", 1),
        lambda text: text.replace(b":1,", b":1.0,", 1),
        lambda text: text.replace(b":1,", b":1" + b"0" * 400 + b",", 1),
        lambda text: text.replace(b'"', b'"\\u0041', 1),
    ],
)
@pytest.mark.parametrize("name", [MANIFEST, POLICY, LEAKAGE, ENVELOPE])
def test_bytes_of_a_second_spelling_are_refused_though_signed(
    files: dict[str, bytes], name: str, respelt: Callable[[bytes], bytes]
) -> None:
    text = respelt(files[name])
    made = {**files, name: text}
    manifest = json.loads(files[MANIFEST])
    if name != ENVELOPE:
        if name != MANIFEST:
            told = {"bytes": len(text), "sha256": sha256(text).hexdigest()}
            policy = {**manifest["policy"], **({"digest": told["sha256"]} if name == POLICY else {})}
            manifest = {**manifest, "policy": policy, "files": {**manifest["files"], name: told}}
            made[MANIFEST] = rfc8785.dumps(manifest)
        statement = make_statement(
            {each: data for each, data in made.items() if each != ENVELOPE},
            {key: manifest[key] for key in PREDICATE_KEYS},
        )
        made[ENVELOPE] = signed(PAYLOAD_TYPE, statement, "author", "approver")
    pinned = dataclasses.replace(trusted(), policies={"strict": manifest["policy"]["digest"]})
    if text != files[name]:
        with pytest.raises(ReleaseRefused):
            verify_files(made, pinned, today=TODAY)


def test_a_claim_below_what_its_events_give_is_false_without_dp_accounting() -> None:
    """Two queries were priced at the gate alone; a receiver took any events, none among them."""
    honest = {"epsilon": 1.0, "delta": 1e-6, "events": [{"event": "GaussianDpEvent", "noise_multiplier": 4.2247}]}
    assert gaussian_delta(4.2247, 1.0) == pytest.approx(1e-6, rel=0.01)
    assert follows(honest)
    for false in (
        {"epsilon": 0.99},
        {"delta": 9e-7},
        {"epsilon": 0},
        {"events": []},
        {"events": honest["events"] * 2},
        {"events": [{"event": "Nothing", "noise_multiplier": 4.2247}]},
        {"events": [{"event": "LaplaceDpEvent", "noise_multiplier": 0.99}]},
        {"events": [{"event": "LaplaceDpEvent", "noise_multiplier": 4.0}] * 5},
        {"events": [{"event": "LaplaceDpEvent", "noise_multiplier": 1e3}] * 17},  # nobody here can say
        {"events": [*honest["events"], {"event": "LaplaceDpEvent", "noise_multiplier": 10.0}]},
        {"events": [{"event": "SelfComposedDpEvent", "count": 1, "inner": honest["events"][0]}]},
        {"events": [{"event": "ComposedDpEvent", "events": honest["events"]}]},
        {"events": [{"event": "GaussianDpEvent", "noise_multiplier": 1e200}]},
        {"events": [{"event": "GaussianDpEvent", "noise_multiplier": 5e-324}]},
        {"events": [{"event": "GaussianDpEvent", "noise_multiplier": True}]},
        {"events": [{"event": "parallel", "sites": []}]},
        {"events": [{"event": "parallel", "sites": [{"delta": 1e-6, "events": honest["events"] * 2}]}]},
    ):
        assert not follows({**honest, **false}), false
    assert not follows(
        {**honest, "events": [{"event": "parallel", "sites": [{**honest}, {**honest}]}]}
    )  # nobody's ledger
    laplace = {"event": "LaplaceDpEvent", "noise_multiplier": 4.0}
    assert follows({**honest, "events": [laplace] * 4})
    assert follows({**honest, "epsilon": 1.3, "events": [*honest["events"], laplace]})


@pytest.mark.parametrize("most", [1, 3, 16])
def test_no_price_is_refused_that_the_gate_itself_would_give(most: int) -> None:
    """The bound from below stays below the accountant's price, whatever is composed."""
    from pipeline.core.types import PrivacyGuarantee
    from pipeline.sharing.policy.accounting import recomputed_epsilon

    for gaussian, laplace, delta in ((2.0, 3.0, 1e-6), (0.7, 30.0, 1e-5), (None, 1.5, 1e-9)):
        events = ({"event": "LaplaceDpEvent", "noise_multiplier": laplace},) * most
        if gaussian is not None:
            events += ({"event": "GaussianDpEvent", "noise_multiplier": gaussian},)
        told = PrivacyGuarantee(1.0, delta, "stay", "add-or-remove-one", "dp-accounting", events, ())
        priced = {"epsilon": recomputed_epsilon(told), "delta": delta, "events": list(events)}
        assert follows(priced)
        assert not follows({**priced, "epsilon": priced["epsilon"] / 4})


def test_a_site_whose_name_begins_with_anothers_is_no_second_reading(files: dict[str, bytes]) -> None:
    content = json.loads(open_envelope(root_bytes(), ROOT, "root").payload)
    for key in content["keys"]:
        key["site"] = key["site"] and f"{key['site']}{'/b' if key['role'] == 'approver' else ''}"
    with pytest.raises(ReleaseRefused, match="two readings"):
        parse_root(signed(ROOT, content, "root"), "the root")


@pytest.mark.parametrize(
    "release", ["St. Elsewhere/set/9 ", "St. Elsewhere/set", "/set/9", "S/set/09", "S/set/0", "S/set/9\n"]
)
def test_a_revocation_that_revokes_nothing_is_no_revocation(release: str) -> None:
    """A blank too many, and the release went on being accepted."""
    content = {"format": "decoct-revocations/1", "version": 1, "issued": TODAY.isoformat(), "keys": []}
    with pytest.raises(ReleaseRefused, match="site/name/version"):
        parse_revocations(signed(REVOCATIONS, {**content, "releases": [release]}, "root"), trusted())


def test_what_is_loaded_is_what_was_verified_whatever_becomes_of_the_folder(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    """The folder, or one file of it, is replaced between the check and the use."""
    from pipeline.sharing.receive.received import read_arrays

    good, other = tmp_path / "good", tmp_path / "other"
    for folder in (good, other):
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data if folder == good else data[::-1])
    found = verify(good, trusted(), today=TODAY)
    shutil.rmtree(good)
    other.rename(good)
    assert dict(found.files) == files
    assert read_arrays(found).features.shape == (40, 4, 2)


def test_links_into_a_bundle_are_refused_and_hard_links_are_the_bytes_that_they_hold(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for name, data in files.items():
        (good / name).write_bytes(data)
    os.link(good / POLICY, tmp_path / "elsewhere")
    verify(good, trusted(), today=TODAY)
    (tmp_path / "elsewhere").write_bytes(files[POLICY] + b" ")  # the same file, by its other name
    with pytest.raises(ReleaseRefused):
        verify(good, trusted(), today=TODAY)
    (good / POLICY).unlink()
    (good / POLICY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReleaseRefused, match="not a regular file"):
        verify(good, trusted(), today=TODAY)
