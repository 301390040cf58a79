"""No room beside the meaning: every covert channel that was once shown in a signed payload is refused."""

from __future__ import annotations

import dataclasses
import importlib
import json
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load, save

from pipeline.core.errors import DecoctError, ReleaseRefused
from pipeline.core.types import CondensedSet, Moments, Provenance, Task
from pipeline.sharing.bundle.payload import payload_arrays, payload_bytes
from pipeline.sharing.bundle.payload_form import feature_step, header, moments_step, require_canonical
from pipeline.sharing.canonical import canonical, sha256_hex
from pipeline.sharing.layout import ENVELOPE, LEAKAGE, MANIFEST, PAYLOAD, PREDICATE_KEYS
from pipeline.sharing.receive.verify import read_folder, verify_files
from pipeline.sharing.trust.signing import add_signature, make_statement, sign_statement

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def sample() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("sample_release")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def files(sample: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    base = tmp_path_factory.mktemp("release")
    return read_folder(sample.released(base, sample.propose(base, sample.audited(), 1)))


def signed_with(sample: ModuleType, files: dict[str, bytes], payload: bytes, **data: Any) -> dict[str, bytes]:
    """The bundle with another payload, as author and approver would sign it; `data` replaces its description."""
    leakage = {**json.loads(files[LEAKAGE]), "payload_sha256": sha256_hex(payload)}
    parts = {**files, PAYLOAD: payload, LEAKAGE: canonical(leakage)}
    manifest = json.loads(files[MANIFEST])
    manifest["data"] = {**manifest["data"], **data}
    parts = {name: content for name, content in parts.items() if name not in (ENVELOPE, MANIFEST)}
    manifest["files"] = {name: {"bytes": len(each), "sha256": sha256_hex(each)} for name, each in parts.items()}
    parts[MANIFEST] = canonical(manifest)
    statement = make_statement(parts, {key: manifest[key] for key in PREDICATE_KEYS})
    envelope = add_signature(sign_statement(statement, sample.SIGNERS["author"]), sample.SIGNERS["approver"])
    return {**parts, ENVELOPE: envelope}


def refused(sample: ModuleType, files: dict[str, bytes], payload: bytes, **data: Any) -> str:
    with pytest.raises(ReleaseRefused) as caught:
        verify_files(signed_with(sample, files, payload, **data), sample.trusted(), today=sample.TODAY)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def of(files: dict[str, bytes]) -> Arrays:
    return {name: array.copy() for name, array in load(files[PAYLOAD]).items()}


def write(found: Arrays) -> bytes:
    head = header({name: {"dtype": each.dtype.name, "shape": list(each.shape)} for name, each in found.items()})
    return head + b"".join(found[name].tobytes() for name in sorted(found))


def test_what_is_written_is_what_safetensors_writes(sample: ModuleType, files: dict[str, bytes]) -> None:
    """So that every reader of the format reads it, and there is one file for one set of arrays."""
    assert write(of(files)) == files[PAYLOAD] == save(of(files))
    verify_files(signed_with(sample, files, files[PAYLOAD]), sample.trusted(), today=sample.TODAY)


def low_bits(found: Arrays) -> None:
    """Eight whole records once lay in the low mantissa bits."""
    words = found["features"].view("<u4")
    words |= np.arange(words.size, dtype="<u4").reshape(words.shape) & 0x3F


def one_low_bit(found: Arrays) -> None:
    found["features"].view("<u4")[-1, 0, 0] ^= 1


def order_of_rows(found: Arrays) -> None:
    """40 membership bits once lay in the order of rows."""
    order = [1, 0, *range(2, 40)]
    found["features"], found["labels"] = found["features"][order], found["labels"][order]


def order_within_equal_features(found: Arrays) -> None:
    found["features"][:] = found["features"][:1]
    found["labels"][:, 0] = np.tile([1.0, 0.0], 20)


def label_decimals(found: Arrays) -> None:
    found["labels"][:] = np.linspace(0.1, 0.9, 40, dtype=np.float32)[:, None]


def label_nan_bits(found: Arrays) -> None:
    """A NaN has 22 bits that nobody looks at."""
    found["labels"].view("<u4")[-1, 0] = 0x7FC00001


def label_negative_nan(found: Arrays) -> None:
    found["labels"].view("<u4")[-1, 0] = 0xFFC00000


def minus_zero(found: Arrays) -> None:
    found["features"].view("<u4")[-1, 0, 0] = 0x80000000


def label_minus_zero(found: Arrays) -> None:
    found["labels"].view("<u4")[0, 0] = 0x80000000


def label_of_seven(found: Arrays) -> None:
    found["labels"][-1, 0] = 7


def label_below_zero(found: Arrays) -> None:
    found["labels"][-1, 0] = -0.5


def label_infinite(found: Arrays) -> None:
    found["labels"][-1, 0] = np.inf


def all_nan(found: Arrays) -> None:
    found["features"][:] = np.nan


def one_nan(found: Arrays) -> None:
    found["features"][-1, 1, 1] = np.nan


def infinite(found: Arrays) -> None:
    found["features"][-1, 1, 1] = np.inf


def subnormal(found: Arrays) -> None:
    found["features"].view("<u4")[-1, 0, 0] = 1


def sorted_again(found: Arrays) -> Arrays:
    rows = sorted(range(40), key=lambda row: found["features"][row].tobytes() + found["labels"][row].tobytes())
    return {name: np.ascontiguousarray(each[rows]) for name, each in found.items()}


@pytest.mark.parametrize(
    ("channel", "sentence"),
    [
        (low_bits, "features have decimals below"),
        (one_low_bit, "features have decimals below"),
        (minus_zero, "features have decimals below"),
        (subnormal, "features have decimals below"),
        (label_decimals, "labels have decimals below"),
        (label_minus_zero, "labels have decimals below"),
        (label_nan_bits, "labels that are not finite"),
        (label_negative_nan, "labels that are not finite"),
        (label_infinite, "labels that are not finite"),
        (label_of_seven, "labels outside of 0 to 1"),
        (label_below_zero, "labels outside of 0 to 1"),
        (all_nan, "features that are not finite"),
        (one_nan, "features that are not finite"),
        (infinite, "features that are not finite"),
    ],
)
def test_a_value_that_says_more_than_it_means_is_refused(
    sample: ModuleType, files: dict[str, bytes], channel: Callable[[Arrays], None], sentence: str
) -> None:
    found = of(files)
    channel(found)
    assert sentence in refused(sample, files, write(sorted_again(found)))


def test_outcomes_have_no_decimals(sample: ModuleType, files: dict[str, bytes]) -> None:
    """Ten bits once lay in each label of an encoded stay, and of a set whose labels are said not to be soft."""
    found = of(files)
    found["labels"][-1, 0] = 1 - 3 / 1024
    payload, number = write(sorted_again(found)), {"kind": "regression", "low": 0, "high": 9, "unit": "d"}
    assert "says that none is soft" in refused(sample, files, payload)
    told = json.loads(files[MANIFEST])["data"]
    for other in ({"soft_labels": True}, {"tasks": [{**told["tasks"][0], **number}]}):
        require_canonical(
            payload, {"data": {**told, **other}, "release": {"kind": "condensed"}, "guarantee": {"events": []}}
        )


@pytest.mark.parametrize("channel", [order_of_rows, order_within_equal_features])
def test_another_order_of_rows_is_refused(
    sample: ModuleType, files: dict[str, bytes], channel: Callable[[Arrays], None]
) -> None:
    found = of(files)
    channel(found)
    assert "rows are not sorted" in refused(sample, files, write(found))


def respelt(payload: bytes, text: bytes) -> bytes:
    (length,) = struct.unpack("<Q", payload[:8])
    return struct.pack("<Q", len(text)) + text + payload[8 + length :]


def test_another_header_is_refused(sample: ModuleType, files: dict[str, bytes]) -> None:
    """50 kB of text in `__metadata__`, 1 MB of blanks, a name given twice, other offsets, keys in another order."""
    payload = files[PAYLOAD]
    (length,) = struct.unpack("<Q", payload[:8])
    text = payload[8 : 8 + length]
    told = json.loads(text)
    spare = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    swapped = {name: dict(reversed(each.items())) for name, each in told.items()}
    headers = {
        "metadata": json.dumps({"__metadata__": {"x": "word " * 10_000}, **told}).encode(),
        "empty metadata": json.dumps({"__metadata__": {}, **told}, separators=(",", ":")).encode(),
        "blanks": text + b" " * 1_000_000,
        "eight blanks": text + b" " * 8,
        "no blanks": text.rstrip(b" ") if text.endswith(b" ") else text + b" ",
        "spaces after commas": json.dumps(told).encode(),
        "a name twice": text.replace(b'{"features":', b'{"features":{},"features":', 1),
        "one tensor more": json.dumps({**told, "notes": spare}, separators=(",", ":")).encode(),
        "another order": json.dumps(dict(reversed(told.items())), separators=(",", ":")).encode(),
        "keys in another order": json.dumps(swapped, separators=(",", ":")).encode(),
        "an escape": text.replace(b"features", b"f\\u0065atures", 1),
        "another number": text.replace(b'"shape":[40,', b'"shape":[40.0,', 1),
        "cut": text[:-9],
        "none": b"",
        "nested": b"[" * 50_000,
    }
    for name, other in headers.items():
        assert other != text, name
        assert "the one header" in refused(sample, files, respelt(payload, other)), name
    for tail in (b"\x00", b"hidden" * 1000):
        assert "or is longer" in refused(sample, files, payload + tail)
    assert "the one header" in refused(sample, files, payload[:-4])
    assert "the one header" in refused(sample, files, struct.pack("<Q", 2**62) + payload[8:])
    assert "the one header" in refused(sample, files, b"")


def test_the_manifest_cannot_describe_another_form(sample: ModuleType, files: dict[str, bytes]) -> None:
    told = json.loads(files[MANIFEST])["data"]["arrays"]

    def with_features(**changes: Any) -> dict[str, Any]:
        return {**told, "features": {**told["features"], **changes}}

    for other in (
        with_features(dtype="float64"),
        with_features(dtype=["float32"]),
        with_features(shape=[40, 8]),
        with_features(shape=[40, 4, -2]),
        with_features(shape=[40, 4, True]),
        with_features(shape=[40, 4, 2**40]),
        with_features(shape="x"),
    ):
        assert "a type or a shape that no payload has" in refused(sample, files, files[PAYLOAD], arrays=other)
    assert "describe the payload's arrays" in refused(sample, files, files[PAYLOAD], arrays={**told, "features": None})
    for beside in (["teacher"], ["label_shift", "teacher", "notes"], ["notes"]):
        more = {name: {"dtype": "float64", "shape": [1]} for name in beside}
        assert "names other arrays" in refused(sample, files, files[PAYLOAD], arrays={**told, **more})
    for shape in ([4, 40, 2], [40, 2, 4], [20, 8, 2]):
        other = with_features(shape=shape)
        found = of(files)
        found["features"] = found["features"].reshape(shape)
        assert "than the manifest says" in refused(sample, files, write(found), arrays=other)


finite = arrays.arrays(
    np.float32,
    (6, 3, 2),
    elements=st.floats(-(2.0**99), 2.0**99, width=32) | st.floats(-2, 2, width=32),
)
soft = arrays.arrays(np.float32, (6, 2), elements=st.floats(0, 1, width=32) | st.just(float("nan")))


@given(finite, soft)
def test_whatever_is_released_is_canonical_and_stays_near(features: np.ndarray, labels: np.ndarray) -> None:
    """Rounding twice is rounding once, and moves a value by at most half a step of its channel."""
    made = CondensedSet(features, labels, ("a", "b"), (Task("x"), Task("y")), 1.0, (), "m", False, None, PROVENANCE)
    manifest = {
        "data": {
            "arrays": {
                "features": {"dtype": "float32", "shape": [6, 3, 2]},
                "labels": {"dtype": "float32", "shape": [6, 2]},
            },
            "channels": ["a", "b"],
            "tasks": [{}, {}],
            "n_steps": 3,
            "soft_labels": made.has_soft_labels,
        },
        "release": {"kind": "condensed"},
        "guarantee": None,
    }
    data = payload_bytes(made)
    require_canonical(data, manifest)
    found = payload_arrays(made)
    again = dataclasses.replace(made, features=found["features"], labels=found["labels"])
    assert payload_bytes(again) == data
    for channel in range(2):
        step = feature_step(float(np.abs(features[..., channel]).max()))
        ours, theirs = np.sort(features[..., channel].ravel()), np.sort(found["features"][..., channel].ravel())
        assert np.abs(ours.astype(float) - theirs).max() <= step / 2


PROVENANCE = Provenance("condense")


def test_moments_lie_on_a_grid_below_their_noise(tmp_path: Path) -> None:
    noise = {"event": "GaussianDpEvent", "noise_scale": 5.0}
    assert moments_step({"events": [noise, {**noise, "noise_scale": 13.0}]}) == 4 / 1024
    assert moments_step(None) == moments_step({"events": []}) == 2.0**-10
    for scale in (0, -1.0, 1e-30, "x", None, True):
        with pytest.raises(ReleaseRefused, match="a scale of noise that is none"):
            moments_step({"events": [{**noise, "noise_scale": scale}]})
    draws = np.random.default_rng(1).normal(size=(3, 3))
    made = Moments(
        draws + draws.T, draws[:1], draws[0, :1], {}, "f" * 64, ("a",), (Task("x"),), 2, 1.0, (), None, PROVENANCE
    )
    manifest: dict[str, Any] = {
        "data": {
            "arrays": {
                "gram": {"dtype": "float64", "shape": [3, 3]},
                "signed_counts": {"dtype": "float64", "shape": [1]},
                "signed_sums": {"dtype": "float64", "shape": [1, 3]},
            }
        },
        "release": {"kind": "moments"},
        "guarantee": None,
    }
    found = payload_arrays(made)
    require_canonical(write(found), manifest)
    for change, sentence in (("bit", "far below its noise"), ("lopsided", "not symmetric"), ("nan", "not finite")):
        bent = {name: each.copy() for name, each in found.items()}
        bent["gram"][0, 1] += {"bit": 2.0**-40, "lopsided": 1.0, "nan": np.nan}[change]
        with pytest.raises(DecoctError, match=sentence):
            require_canonical(write(bent), manifest)
