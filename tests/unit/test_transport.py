"""Carrying a bundle to a folder and back: never over another, never half, and on from where it stopped."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import pytest

from pipeline.core.errors import EnvironmentProblem, ReleaseRefused, UsageError
from pipeline.sharing.layout import ENVELOPE, PAYLOAD
from pipeline.sharing.receive import places
from pipeline.sharing.receive.transport import fetch, send
from pipeline.sharing.receive.verify import read_folder

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-2"
BUNDLE, ROOT = GOLDEN / "st-elsewhere-plain-v1", GOLDEN / "root.json"
TODAY = datetime.date(2026, 3, 10)


def visible(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))


def test_there_and_back_by_a_folder_and_by_a_file_address(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    sent = send(BUNDLE, stick.as_uri())
    assert (sent.files, sent.already_there) == (len(read_folder(BUNDLE)), 0)
    assert read_folder(stick / BUNDLE.name) == read_folder(BUNDLE)
    got = fetch(str(stick / BUNDLE.name), tmp_path / "inbox", ROOT, today=TODAY)
    assert got.path == tmp_path / "inbox" / BUNDLE.name
    assert read_folder(got.path) == read_folder(BUNDLE)
    again = send(BUNDLE, str(stick))
    assert again.already_there == sent.files
    assert list(stick.iterdir()) == [stick / BUNDLE.name]  # nothing half is left
    with pytest.raises(UsageError, match="exists already"):
        fetch(str(stick / BUNDLE.name), tmp_path / "inbox", ROOT, today=TODAY)


def test_another_bundle_of_the_name_is_never_overwritten(tmp_path: Path) -> None:
    send(BUNDLE, str(tmp_path))
    changed = tmp_path / "other" / BUNDLE.name
    shutil.copytree(BUNDLE, changed)
    card = changed / "card.md"
    card.write_bytes(b"x" * card.stat().st_size)  # the same size: contents are compared
    before = read_folder(tmp_path / BUNDLE.name)
    with pytest.raises(ReleaseRefused, match=r"another card\.md"):
        send(changed, str(tmp_path))
    assert read_folder(tmp_path / BUNDLE.name) == before


@pytest.mark.parametrize("stop_at", range(9))
def test_a_stop_at_any_file_shows_nothing_and_the_next_try_goes_on(
    stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = places.put_whole, []

    def failing(path: Path, data: bytes) -> None:
        if len(done) == stop_at:
            (path.parent / f".{path.name}.0123").write_bytes(data[:10])  # what a pulled stick leaves
            raise OSError(5, "Input/output error")
        real(path, data)
        done.append(path.name)

    monkeypatch.setattr(places, "put_whole", failing)
    with pytest.raises(EnvironmentProblem, match="goes on from there"):
        send(BUNDLE, str(tmp_path))
    assert visible(tmp_path) == []
    assert ENVELOPE not in done
    with pytest.raises(ReleaseRefused, match="no complete bundle"):
        fetch(str(tmp_path / f".{BUNDLE.name}.partial").replace("/.st-", "/st-"), tmp_path / "in", ROOT, today=TODAY)
    monkeypatch.setattr(places, "put_whole", real)
    sent = send(BUNDLE, str(tmp_path))
    assert sent.already_there == stop_at
    assert list(tmp_path.iterdir()) == [tmp_path / BUNDLE.name]
    assert read_folder(tmp_path / BUNDLE.name) == read_folder(BUNDLE)


def test_an_interrupted_fetch_goes_on_and_a_refused_one_leaves_nothing(tmp_path: Path) -> None:
    inbox, partial = tmp_path / "inbox", tmp_path / "inbox" / f".{BUNDLE.name}.partial"
    partial.mkdir(parents=True)
    shutil.copy(BUNDLE / PAYLOAD, partial)
    (partial / "card.md").write_bytes(b"cut")  # an older attempt's, of another size
    (partial / "foreign").write_bytes(b"x")
    got = fetch(str(BUNDLE), inbox, ROOT, today=TODAY)
    assert read_folder(got.path) == read_folder(BUNDLE)
    assert list(inbox.iterdir()) == [inbox / BUNDLE.name]

    bad = tmp_path / "bad" / BUNDLE.name
    shutil.copytree(BUNDLE, bad)
    payload = bytearray((bad / PAYLOAD).read_bytes())
    payload[-1] ^= 1
    (bad / PAYLOAD).write_bytes(payload)
    with pytest.raises(ReleaseRefused, match="altered"):
        fetch(str(bad), tmp_path / "inbox2", ROOT, today=TODAY)
    assert list((tmp_path / "inbox2").iterdir()) == []


def test_what_is_no_bundle_is_not_fetched_or_sent(tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(BUNDLE, half)
    (half / ENVELOPE).unlink()
    with pytest.raises(ReleaseRefused, match="comes last"):
        fetch(str(half), tmp_path / "in", ROOT, today=TODAY)
    with pytest.raises(ReleaseRefused, match="lacks"):
        send(half, str(tmp_path / "out"))
    more = tmp_path / "more"
    shutil.copytree(BUNDLE, more)
    (more / "run.sh").write_text("x")
    with pytest.raises(ReleaseRefused, match="does not know"):
        fetch(str(more), tmp_path / "in", ROOT, today=TODAY)
    large = tmp_path / "large"
    shutil.copytree(BUNDLE, large)
    with (large / "card.md").open("ab") as stream:
        stream.truncate(5 << 20)
    with pytest.raises(ReleaseRefused, match="larger than"):
        fetch(str(large), tmp_path / "in", ROOT, today=TODAY)
    linked = tmp_path / "linked"
    shutil.copytree(BUNDLE, linked)
    (linked / "card.md").unlink()
    (linked / "card.md").symlink_to(BUNDLE / "card.md")
    with pytest.raises(ReleaseRefused, match="not a regular file"):
        fetch(str(linked), tmp_path / "in", ROOT, today=TODAY)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("ftp://host/folder", "addresses start with"),
        ("s3://key:secret@bucket/x", "no credentials"),
        ("s3://bucket/x?X-Amz-Signature=1", "no credentials or parameters"),
        ("file://host/share", "three slashes"),
    ],
)
def test_addresses_that_are_none(address: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=problem) as refusal:
        send(BUNDLE, address)
    assert "secret" not in str(refusal.value)
    with pytest.raises(UsageError):
        fetch("/tmp/..", tmp_path, ROOT, today=TODAY)
