"""The same by an S3-compatible object store, a server on this machine."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import EnvironmentProblem, ReleaseRefused
from pipeline.sharing.layout import ENVELOPE
from pipeline.sharing.receive import places
from pipeline.sharing.receive.transport import fetch, send
from pipeline.sharing.receive.verify import read_folder

obstore = pytest.importorskip("obstore")
moto_server = pytest.importorskip("moto.server")

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-2"
BUNDLE, ROOT = GOLDEN / "st-elsewhere-plain-v1", GOLDEN / "root.json"
TODAY = datetime.date(2026, 3, 10)
NAMES = sorted(read_folder(BUNDLE))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new, empty bucket's address; credentials and endpoint are in the environment, where users have them."""
    boto3 = pytest.importorskip("boto3")
    settings = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{abs(hash(request.node.name)) % 10**9}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=name)
    return f"s3://{name}"


def objects(bucket: str) -> list[str]:
    from obstore.store import from_url

    return sorted(str(item["path"]) for batch in obstore.list(from_url(bucket)) for item in batch)


def test_there_and_back(bucket: str, tmp_path: Path) -> None:
    sent = send(BUNDLE, f"{bucket}/inbox/")
    assert sent.address == f"{bucket}/inbox/{BUNDLE.name}"
    assert objects(bucket) == [f"inbox/{BUNDLE.name}/{name}" for name in NAMES]
    got = fetch(sent.address, tmp_path, ROOT, today=TODAY)
    assert read_folder(got.path) == read_folder(BUNDLE)
    assert send(BUNDLE, f"{bucket}/inbox").already_there == len(NAMES)


def test_every_put_is_create_only_and_the_envelope_comes_last(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Any]] = []
    real = obstore.put

    def recording(store: Any, name: str, data: bytes, **options: Any) -> Any:
        seen.append((name, options))
        return real(store, name, data, **options)

    monkeypatch.setattr(obstore, "put", recording)
    send(BUNDLE, bucket)
    assert [name for name, _ in seen][-1] == ENVELOPE
    assert len(seen) == len(NAMES)
    assert all(options["mode"] == "create" for _, options in seen)
    with pytest.raises(FileExistsError):  # the store itself refuses, whatever the sender believes to be there
        places.ObjectPlace(f"{bucket}/{BUNDLE.name}").add("card.md", b"other")


def test_an_interrupted_upload_is_no_bundle_and_goes_on(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = places.ObjectPlace.add, []

    def failing(self: places.ObjectPlace, name: str, data: bytes) -> None:
        if len(done) == 4:
            raise EnvironmentProblem("the line is down")
        real(self, name, data)
        done.append(name)

    monkeypatch.setattr(places.ObjectPlace, "add", failing)
    with pytest.raises(EnvironmentProblem, match="line is down"):
        send(BUNDLE, bucket)
    assert len(objects(bucket)) == 4
    with pytest.raises(ReleaseRefused, match="no complete bundle"):
        fetch(f"{bucket}/{BUNDLE.name}", tmp_path, ROOT, today=TODAY)
    monkeypatch.setattr(places.ObjectPlace, "add", real)
    assert send(BUNDLE, bucket).already_there == 4
    assert read_folder(fetch(f"{bucket}/{BUNDLE.name}", tmp_path, ROOT, today=TODAY).path) == read_folder(BUNDLE)


def test_other_content_there_is_refused_and_kept(bucket: str, tmp_path: Path) -> None:
    send(BUNDLE, bucket)
    changed = tmp_path / BUNDLE.name
    shutil.copytree(BUNDLE, changed)
    (changed / "card.md").write_bytes(b"x" * (BUNDLE / "card.md").stat().st_size)
    with pytest.raises(ReleaseRefused, match=r"another card\.md"):
        send(changed, bucket)
    assert read_folder(fetch(f"{bucket}/{BUNDLE.name}", tmp_path / "in", ROOT, today=TODAY).path) == read_folder(BUNDLE)


def test_a_bucket_that_is_not_there_is_one_sentence_without_secrets(bucket: str, tmp_path: Path) -> None:
    del bucket  # its environment is what is needed
    for attempt in (
        lambda: send(BUNDLE, "s3://no-such-bucket/x"),
        lambda: fetch("s3://no-such-bucket/x", tmp_path, ROOT, today=TODAY),
    ):
        with pytest.raises(EnvironmentProblem, match="no such bucket") as refusal:
            attempt()
        assert "\n" not in str(refusal.value)
        assert "testing" not in str(refusal.value)
