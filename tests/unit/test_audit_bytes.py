"""The byte scan finds what is planted in every form and container, and leaves chance alone."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

from pipeline.audit.bytes.scan import ByteScan
from pipeline.audit.run import audit, scan_bytes
from pipeline.audit.scene import BytesScene
from pipeline.core.types import AttackResult

IDS = [str(number) for number in range(132_539, 136_539)]
KEY = np.random.default_rng(5).bytes(32)


def scan(files: dict[str, bytes], **changes: object) -> dict[str, AttackResult]:
    options: dict[str, object] = {"identifiers": IDS, "secrets": [KEY], **changes}
    report = scan_bytes(BytesScene("bundle", "0" * 64, files, **options), seed=0)  # type: ignore[arg-type]
    assert report.controls_held
    return {result.detail["kind"]: result for result in report.results}


def parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def safetensors(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    return bytes(save(arrays, metadata))


def zipped(content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.json", content)
    return sink.getvalue()


SOME = np.array([132_539, 133_000, 134_000, 136_538])
RANDOM = np.random.default_rng(0).normal(size=20_000).astype(np.float32).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b'{"stay": 134000}',
        b'{"file": "stay_134000.csv"}',
        b"row 134000.0 of the table",
        b"\xff\xfe\x80" + "134000".encode("utf-16-le") + b"\x80",
        RANDOM + b"\x80x134000y\x80" + RANDOM,
        RANDOM + SOME.astype("<i4").tobytes() + RANDOM,
        RANDOM + b"\x01" + SOME.astype("<i8").tobytes() + RANDOM,
        RANDOM + SOME.astype("<f4").tobytes(),
        RANDOM + SOME.astype("<f8").tobytes(),
        parquet(stay=SOME.astype(np.int32)),
        parquet(stay=["a", "134000"]),
        parquet(value=SOME.astype(np.float64)),
        safetensors({"x": np.zeros(3, np.float32), "stay": SOME.astype(np.int64)}),
        safetensors({"x": np.zeros(3, np.float32)}, {"from": "stay 134000"}),
        gzip.compress(b'{"stay": "134000"}', mtime=0),
        zipped(b'{"stay": "134000"}'),
        zipped(gzip.compress(b'{"stay": "134000"}', mtime=0)),
    ],
)
def test_an_identifier_is_found_in_every_form(data: bytes) -> None:
    found = scan({"payload": data, "other": b"{}"})["identifiers"]
    assert found.rate >= 1
    assert found.low == found.high == found.rate
    assert all(name.startswith("payload") for name in found.detail["found_in"])


@pytest.mark.parametrize(
    "data",
    [
        b'{"value": 0.134000, "other": 12134000, "digest": "ab134000cd"}',
        RANDOM,
        np.random.default_rng(1).bytes(3_000_000),
        parquet(value=np.linspace(0, 1, 5000), sample=np.arange(5000)),
        json.dumps(np.random.default_rng(2).uniform(size=5000).tolist()).encode(),
    ],
)
def test_chance_is_not_counted(data: bytes) -> None:
    found = scan({"payload": data})
    assert {kind: result.rate for kind, result in found.items()} == dict.fromkeys(found, 0.0)


def test_random_bytes_hold_numbers_by_chance_and_it_is_said() -> None:
    found = scan({"payload": np.random.default_rng(1).bytes(8_000_000)})["identifiers"]
    assert found.detail["expected_by_chance"] == pytest.approx(2 * 8e6 * 4000 / 2**32, rel=0.05)
    assert (found.rate, found.p_value) == (0, 1)


def test_one_identifier_among_many_that_chance_gives_is_weak_evidence() -> None:
    (found,) = (
        scan({"payload": np.random.default_rng(1).bytes(8_000_000) + b" 134000 "})[kind] for kind in ["identifiers"]
    )
    assert found.rate == 1
    assert found.p_value == pytest.approx(1 - np.exp(-found.detail["expected_by_chance"]))


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY.hex().encode(),
        KEY.hex().upper().encode(),
        base64.b64encode(KEY),
        base64.urlsafe_b64encode(b"a" + KEY + b"tail"),
        base64.b64encode(b"ab" + KEY),
    ],
)
def test_a_key_is_found_in_every_form(text: bytes) -> None:
    assert scan({"card.md": b"some text " + text})["secrets"].rate == 1


def test_dates_seeds_and_paths() -> None:
    data = b'{"start": "2012-03-04T05:06", "seed": 918273645, "source": "/home/ana/cohort.csv"}'
    found = scan({"a.json": data}, dates=["2012-03-04"], seeds=[918273645])
    assert (found["dates"].rate, found["seeds"].rate, found["paths"].rate) == (1, 1, 1)
    clean = scan({"a.json": b'{"at": "https://example.org/data/x"}'}, dates=["2012-03-04"], seeds=[918273645])
    assert {result.rate for result in clean.values()} == {0}


def test_numbers_stated_on_purpose_are_no_leak() -> None:
    assert scan({"a.json": b'{"size": 134000}'}, public_numbers=[134000])["identifiers"].rate == 0
    assert scan({"a.json": b'{"size": 134000}'})["identifiers"].rate == 1


def test_dense_short_identifiers_are_not_looked_for() -> None:
    """Ids 1 to 9999 are every number there is: a year in a text is no find, and the result says it looked for none."""
    found = scan({"a.json": b'{"issued": "2026-11-22", "n": 4000}'}, identifiers=[str(i) for i in range(1, 10_000)])
    assert found["identifiers"].rate == 0
    assert found["identifiers"].detail["too_common_to_look_for"] >= 9990
    assert found["identifiers"].powered is False
    assert found["identifiers"].positive_control is None


def test_what_cannot_be_opened_is_under_powered() -> None:
    found = scan({"a.zst": b"\x28\xb5\x2f\xfd" + bytes(50)})
    assert found["identifiers"].powered is False
    assert found["identifiers"].detail["not_opened"] == ["a.zst"]


def test_numbers_in_encrypted_bytes_are_there_by_chance() -> None:
    """In 10 MB of them some are expected, so that now and then one release of many would be refused for nothing."""
    numbers = np.array([int(one) for one in IDS[:6]], dtype="<i4").tobytes()
    assert scan({"a": b"\x00\xff" * 32 + numbers})["identifiers"].rate > 0
    found = scan({"a.age": b"age-encryption.org/v1\n" + b"\x00\xff" * 21 + numbers})["identifiers"]
    assert (found.rate, found.powered, found.detail["not_opened"]) == (0, False, ["a.age"])


def test_nothing_to_scan_is_not_a_pass() -> None:
    report = audit([BytesScene("bundle", "0" * 64, {})], seed=0)[0]
    assert not report.results
    assert not report.controls_held
    assert [item.attack for item in report.not_run] == ["byte_scan"]
    assert ByteScan().unsupported(BytesScene("bundle", "0" * 64, {"a": b"x"})) is not None


def test_no_identifier_shows_in_the_report() -> None:
    report = scan_bytes(BytesScene("bundle", "0" * 64, {"a.json": b'{"stay": 134000}'}, IDS), seed=0)
    assert "134000" not in repr(report)
    assert report.results[0].rate == 1


def test_no_identifier_in_a_files_name_shows_in_the_report() -> None:
    files = {"stay_134000.csv": b"134000", "134000.zst": b"\x28\xb5\x2f\xfd" + bytes(50), "a.json": b'{"stay": 134000}'}
    report = scan_bytes(BytesScene("bundle", "0" * 64, files, IDS), seed=0)
    assert "134000" not in repr(report)
    found = report.results[0].detail
    assert set(found["found_in"]) == {"file 4", "a.json", "names of files"}
    assert found["not_opened"] == ["file 1"]


def test_a_file_name_is_read_too() -> None:
    assert scan({"stay_134000.csv": b"x"})["identifiers"].rate == 1
    assert scan({"a.zip": zipped(b"{}")})["identifiers"].rate == 0


def test_offsets_of_tensors_are_no_identifiers() -> None:
    """A tensor of 33,500 floats ends at byte 134,000, which is the number of a stay."""
    data = safetensors({"a": np.zeros(33_500, np.float32), "b": np.zeros(2, np.float32)})
    assert b"134000" in data
    assert scan({"set.safetensors": data})["identifiers"].rate == 0


def test_bytes_outside_the_tensors_make_the_scan_under_powered() -> None:
    data = safetensors({"a": np.zeros(8, np.float32)}) + b"more"
    found = scan({"set.safetensors": data})["identifiers"]
    assert found.detail["not_opened"] == ["set.safetensors"]
    assert found.powered is False
