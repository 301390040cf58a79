"""Custody: passphrases and shared keys work for whom they are meant, and for nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyrage
import pytest

from flows.workspace.job import KEY_PURPOSES
from pipeline.core.errors import EnvironmentProblem, UsageError
from pipeline.core.files.chained import found_chain
from pipeline.core.files.seen import SEEN
from pipeline.core.keys import passphrase as phrases
from pipeline.core.keys.custody.institutions import IDENTITY_FILE, import_key, new_identity, public_identity, share_key
from pipeline.core.keys.custody.keyring import PURPOSES, listed_keys, make_key, rotate_key
from pipeline.core.keys.custody.log import LOG_FILE, append_log, read_log
from pipeline.core.keys.secrets import Secret, key_text, read_secret, write_secret

PHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def _no_passphrase_at_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test begins and ends as a process without a passphrase and without opened files."""
    for name in (phrases.PASSPHRASE_VARIABLE, phrases.DESCRIPTOR_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    forget()
    yield
    forget()


def forget() -> None:
    phrases._from_surroundings.cache_clear()
    phrases._opened.clear()


def test_purposes_are_those_of_a_job() -> None:
    assert PURPOSES == KEY_PURPOSES


# Passphrases


def test_a_key_under_a_passphrase_opens_with_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, secret = tmp_path / "encoder.key", Secret(bytes(range(32)), "encoder", made="2026-01-02")
    write_secret(path, secret, PHRASE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert bytes(range(32)).hex().encode() not in path.read_bytes()
    told = phrases.clear_facts(path.read_bytes())
    assert told == {"purpose": "encoder", "fingerprint": secret.fingerprint, "made": "2026-01-02"}
    with pytest.raises(EnvironmentProblem, match="under a passphrase, and none was given"):
        read_secret(path, "encoder")

    forget()
    monkeypatch.setenv(phrases.PASSPHRASE_VARIABLE, PHRASE)
    assert read_secret(path, "encoder").reveal() == secret.reveal()
    assert phrases.PASSPHRASE_VARIABLE not in os.environ  # no child inherits it
    assert read_secret(path, "encoder").fingerprint == secret.fingerprint  # and the process still has it
    with pytest.raises(EnvironmentProblem, match="purpose 'noise'"):
        read_secret(path, "noise")


def test_a_wrong_passphrase_and_a_damaged_file_say_so_and_show_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "encoder.key"
    write_secret(path, Secret(bytes(range(32)), "encoder"), PHRASE)
    monkeypatch.setenv(phrases.PASSPHRASE_VARIABLE, "wrong horse battery")
    with pytest.raises(EnvironmentProblem, match="does not open") as caught:
        read_secret(path, "encoder")
    assert "horse" not in str(caught.value)

    monkeypatch.setenv(phrases.PASSPHRASE_VARIABLE, PHRASE)
    forget()
    whole = path.read_text()
    for old, new in (
        ("made ", "made 2026-01-02"),
        ("salt ", "salt 0"),
        ("\nsealed ", "\nsealed 00"),
        ("\nsalt", "salt"),
    ):
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(EnvironmentProblem, match="does not open"):
            read_secret(path, "encoder")
    path.write_text(whole)
    assert read_secret(path, "encoder").reveal() == bytes(range(32))


def test_a_passphrase_is_the_same_from_every_keyboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """e with an acute accent is one character on some keyboards and two on others."""
    write_secret(tmp_path / "k", Secret(bytes(32), "noise"), "caf\u00e9 au lait")
    monkeypatch.setenv(phrases.PASSPHRASE_VARIABLE, "cafe\u0301 au lait")
    assert read_secret(tmp_path / "k", "noise").reveal() == bytes(32)


def test_an_unattended_run_takes_the_passphrase_from_a_descriptor(tmp_path: Path) -> None:
    """A fresh process, as at night: the descriptor is read once, for keys that are read twice."""
    path = tmp_path / "noise.key"
    write_secret(path, Secret(bytes(range(32)), "noise"), PHRASE)
    code = (
        "import sys; from pathlib import Path; from pipeline.core.keys.secrets import read_secret\n"
        "print([read_secret(Path(sys.argv[1]), 'noise').fingerprint for _ in range(2)])\n"
    )
    read_end, write_end = os.pipe()
    os.write(write_end, f"{PHRASE}\n".encode())
    os.close(write_end)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {phrases.DESCRIPTOR_VARIABLE: str(read_end)},
        pass_fds=[read_end],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(read_end)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(Secret(bytes(range(32)), "noise").fingerprint) == 2


def test_threads_find_the_passphrase_that_the_first_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(phrases.PASSPHRASE_VARIABLE, PHRASE)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(phrases.passphrase_at_hand, ["key"] * 64)) == {PHRASE}


def test_a_descriptor_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(phrases.DESCRIPTOR_VARIABLE, "ninety")
    with pytest.raises(EnvironmentProblem, match="does not name a file descriptor"):
        phrases.passphrase_at_hand("key")


@pytest.mark.parametrize(
    ("answers", "problem"),
    [([PHRASE, PHRASE], None), ([PHRASE, "other"], "differ"), (["short", "short"], "at least 8"), ([""], "none was")],
)
def test_a_new_passphrase_is_asked_for_twice(
    answers: list[str], problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(answers)
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(asked))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    if problem is None:
        assert phrases.new_passphrase("the new file") == PHRASE
    else:
        with pytest.raises(EnvironmentProblem, match=problem):
            phrases.new_passphrase("the new file")


def test_a_short_passphrase_seals_nothing(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="at least 8"):
        write_secret(tmp_path / "encoder.key", Secret(bytes(32), "encoder"), "1234567")
    assert not list(tmp_path.iterdir())


# The log


def logged(keys: Path) -> Path:
    for number in range(4):
        append_log(keys, "new", {"purpose": "encoder", "fingerprint": f"{number:016x}"})
    return keys / LOG_FILE


def test_the_log_chains_its_lines(tmp_path: Path) -> None:
    path = logged(tmp_path)
    log = read_log(tmp_path)
    assert [entry["fingerprint"] for entry in log.entries] == [f"{number:016x}" for number in range(4)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert append_log(tmp_path, "new", {}) == read_log(tmp_path).head != log.head


@pytest.mark.parametrize(
    ("tampered", "line"),
    [
        pytest.param(lambda rows: [rows[0].replace("0000", "1111", 1), *rows[1:]], 2, id="first line changed"),
        pytest.param(lambda rows: [rows[0], rows[1].replace('"what":"new"', '"what":"old"'), *rows[2:]], 3, id="word"),
        pytest.param(lambda rows: [rows[0], *rows[2:]], 2, id="line removed"),
        pytest.param(lambda rows: rows[1:], 1, id="first line removed"),
        pytest.param(lambda rows: [rows[0], rows[2], rows[1], rows[3]], 2, id="lines swapped"),
        pytest.param(lambda rows: [*rows, rows[3]], 5, id="line repeated"),
        pytest.param(lambda rows: [*rows, "{}"], 5, id="empty line added"),
        pytest.param(lambda rows: [*rows[:3], rows[3][:40]], 4, id="last line cut off"),
        pytest.param(lambda rows: [*rows[:2], "not json", rows[3]], 3, id="not JSON"),
    ],
)
def test_a_tampered_log_line_is_found_and_named(tmp_path: Path, tampered: object, line: int) -> None:
    path = logged(tmp_path)
    rows = path.read_text().splitlines()
    path.write_text("\n".join(tampered(rows)) + "\n")  # type: ignore[operator]
    with pytest.raises(EnvironmentProblem, match=rf"breaks at line {line};"):
        read_log(tmp_path)
    before = path.read_bytes()
    with pytest.raises(EnvironmentProblem, match=rf"breaks at line {line};"):
        make_key(tmp_path, "encoder")
    assert path.read_bytes() == before
    assert not (tmp_path / "encoder.key").exists()


def test_commands_at_the_same_time_make_one_chain(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append_log(tmp_path, "new", {"fingerprint": str(number)}), range(40)))
    entries = read_log(tmp_path).entries
    assert {entry["fingerprint"] for entry in entries} == {str(number) for number in range(40)}


def test_a_missing_last_line_shows_beside_the_keys_and_in_the_digest_that_somebody_kept(tmp_path: Path) -> None:
    """The limit that the page tells: the chain alone cannot know that it went on."""
    path = logged(tmp_path)
    kept = read_log(tmp_path).head
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:-1]))
    with pytest.raises(EnvironmentProblem, match=r"lines of .*log\.jsonl"):
        read_log(tmp_path)
    assert found_chain(path).head != kept


# Rotation


@pytest.mark.parametrize("purpose", [name for name in PURPOSES if name != "noise"])
def test_rotation_keeps_the_old_key_and_makes_another(tmp_path: Path, purpose: str) -> None:
    old = make_key(tmp_path, purpose)
    new = rotate_key(tmp_path, purpose)
    assert new.fingerprint != old.fingerprint
    assert read_secret(tmp_path / f"{purpose}.key", purpose).reveal() == new.reveal()
    kept = tmp_path / "retired" / f"{purpose}-{old.fingerprint}.key"
    assert read_secret(kept, purpose).reveal() == old.reveal()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [(entry.fingerprint, entry.retired, entry.age_days) for entry in listed_keys(tmp_path)] == [
        (new.fingerprint, False, 0),
        (old.fingerprint, True, 0),
    ]
    noted = {SEEN, f".{SEEN}.lock"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{purpose}.key", LOG_FILE, "retired", *noted}


def test_the_noise_key_is_rotated_only_as_another_release(tmp_path: Path) -> None:
    old = make_key(tmp_path, "noise")
    with pytest.raises(UsageError, match="another release about the same patients"):
        rotate_key(tmp_path, "noise")
    assert read_secret(tmp_path / "noise.key", "noise").reveal() == old.reveal()
    assert rotate_key(tmp_path, "noise", another_release=True).fingerprint != old.fingerprint


def test_a_rotation_that_was_cut_short_is_finished_by_the_next(tmp_path: Path) -> None:
    """After the copy and the staged key, before the replacement: the old key is still the one that counts."""
    old = make_key(tmp_path, "encoder")
    (tmp_path / "retired").mkdir()
    kept = tmp_path / "retired" / f"encoder-{old.fingerprint}.key"
    kept.write_bytes((tmp_path / "encoder.key").read_bytes())
    kept.chmod(0o600)
    write_secret(tmp_path / ".encoder.key.new", Secret(bytes(32), "encoder"))
    new = rotate_key(tmp_path, "encoder")
    assert read_secret(tmp_path / "encoder.key", "encoder").fingerprint == new.fingerprint
    assert new.reveal() != bytes(32)
    kept.write_text("something else")
    with pytest.raises(UsageError, match="no key has the purpose"):
        rotate_key(tmp_path, "encryption")


def test_a_foreign_file_among_the_retired_stops_a_rotation(tmp_path: Path) -> None:
    old = make_key(tmp_path, "encoder")
    (tmp_path / "retired").mkdir()
    kept = tmp_path / "retired" / f"encoder-{old.fingerprint}.key"
    kept.write_text("something else")
    kept.chmod(0o600)
    with pytest.raises(EnvironmentProblem, match="another file"):
        rotate_key(tmp_path, "encoder")
    assert read_secret(tmp_path / "encoder.key", "encoder").reveal() == old.reveal()


# Two institutions


def test_a_shared_key_gives_the_other_site_the_same_key(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    key = make_key(a, "encoder")
    public = new_identity(b)
    assert public == public_identity(b)
    shared = share_key(a, "encoder", "St. B", public, tmp_path / "for-b.age")
    assert key.reveal().hex().encode() not in (tmp_path / "for-b.age").read_bytes()
    assert (b / IDENTITY_FILE).stat().st_mode & 0o777 == 0o600

    imported = import_key(b, tmp_path / "for-b.age", fingerprint=key.fingerprint)
    assert imported.fingerprint == shared.fingerprint == key.fingerprint
    assert read_secret(b / "encoder.key", "encoder").derive("angles") == key.derive("angles")
    assert import_key(b, tmp_path / "for-b.age").was_there

    entry = read_log(a).entries[-1]
    told = {name: entry[name] for name in ("what", "institution", "recipient", "fingerprint", "file_sha256")}
    assert told == {
        "what": "share",
        "institution": "St. B",
        "recipient": public,
        "fingerprint": key.fingerprint,
        "file_sha256": shared.file_sha256,
    }
    assert shared.log_head == read_log(a).head
    with pytest.raises(EnvironmentProblem, match="never overwritten"):
        share_key(a, "encoder", "St. B", public, tmp_path / "for-b.age")
    assert read_log(a).head == shared.log_head
    with pytest.raises(UsageError, match="as another institution's"):
        share_key(a, "encoder", "St. C", public, tmp_path / "for-c.age")
    with pytest.raises(EnvironmentProblem, match=r"identity .* never overwritten"):
        new_identity(b)


def test_another_sites_identity_opens_nothing(tmp_path: Path) -> None:
    make_key(tmp_path / "a", "encoder")
    share_key(tmp_path / "a", "encoder", "B", new_identity(tmp_path / "b"), tmp_path / "f")
    new_identity(tmp_path / "c")
    with pytest.raises(EnvironmentProblem, match="another identity than this site's"):
        import_key(tmp_path / "c", tmp_path / "f")
    with pytest.raises(EnvironmentProblem, match="make one with: decoct keys identity"):
        import_key(tmp_path / "d", tmp_path / "f")
    assert not (tmp_path / "c" / "encoder.key").exists()


@pytest.mark.parametrize("position", [0.02, 0.3, 0.6, 0.9])
def test_a_damaged_shared_key_is_refused(tmp_path: Path, position: float) -> None:
    make_key(tmp_path / "a", "encoder")
    file = tmp_path / "f"
    share_key(tmp_path / "a", "encoder", "B", new_identity(tmp_path / "b"), file)
    data = bytearray(file.read_bytes())
    data[int(position * len(data))] ^= 1
    file.write_bytes(data)
    with pytest.raises(EnvironmentProblem, match="damaged"):
        import_key(tmp_path / "b", file)
    assert not (tmp_path / "b" / "encoder.key").exists()


def test_an_import_replaces_nothing_unless_told_and_then_retires(tmp_path: Path) -> None:
    key = make_key(tmp_path / "a", "encoder")
    share_key(tmp_path / "a", "encoder", "B", new_identity(tmp_path / "b"), tmp_path / "f")
    mine = make_key(tmp_path / "b", "encoder")
    with pytest.raises(EnvironmentProblem, match="holds another key"):
        import_key(tmp_path / "b", tmp_path / "f")
    with pytest.raises(EnvironmentProblem, match="it is not the sender's"):
        import_key(tmp_path / "b", tmp_path / "f", fingerprint=mine.fingerprint, retire=True)
    assert read_secret(tmp_path / "b" / "encoder.key", "encoder").reveal() == mine.reveal()
    assert import_key(tmp_path / "b", tmp_path / "f", retire=True).retired == mine.fingerprint
    assert [(entry.fingerprint, entry.retired) for entry in listed_keys(tmp_path / "b")] == [
        (key.fingerprint, False),
        (mine.fingerprint, True),
    ]


@pytest.mark.parametrize("purpose", ["noise", "split", "author"])
def test_only_the_encoders_key_is_shared(tmp_path: Path, purpose: str) -> None:
    make_key(tmp_path, purpose)
    with pytest.raises(UsageError, match="never shared"):
        share_key(tmp_path, purpose, "B", str(pyrage.x25519.Identity.generate().to_public()), tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_key_of_another_purpose_in_an_age_file_is_not_imported(tmp_path: Path) -> None:
    public = pyrage.x25519.Recipient.from_str(new_identity(tmp_path))
    (tmp_path / "f").write_bytes(pyrage.encrypt(key_text(Secret(bytes(32), "noise")), [public]))
    with pytest.raises(EnvironmentProblem, match="purpose 'encoder'"):
        import_key(tmp_path, tmp_path / "f")


@pytest.mark.parametrize(
    ("institution", "recipient", "rule"),
    [
        ("B", "age1nonsense", "not an age public key"),
        ("B", "ssh-ed25519 AAAA", "not an age public key"),
        ("B", "AGE-SECRET-KEY-1QQ", "secret half"),
        ("", None, "institution's name"),
        ("  ", None, "institution's name"),
        ("B\n{}", None, "institution's name"),
    ],
)
def test_a_share_names_somebody_real(tmp_path: Path, institution: str, recipient: str | None, rule: str) -> None:
    make_key(tmp_path, "encoder")
    public = str(pyrage.x25519.Identity.generate().to_public())
    with pytest.raises(UsageError, match=rule):
        share_key(tmp_path, "encoder", institution, recipient or public, tmp_path / "f")
    assert len(read_log(tmp_path).entries) == 1


def test_an_identity_under_a_passphrase_imports_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key(tmp_path / "a", "encoder")
    public = new_identity(tmp_path / "b", PHRASE)
    assert public_identity(tmp_path / "b") == public  # nobody is asked
    share_key(tmp_path / "a", "encoder", "B", public, tmp_path / "f")
    with pytest.raises(EnvironmentProblem, match="none was given"):
        import_key(tmp_path / "b", tmp_path / "f")
    forget()
    monkeypatch.setenv(phrases.PASSPHRASE_VARIABLE, PHRASE)
    assert import_key(tmp_path / "b", tmp_path / "f").fingerprint == key.fingerprint


@pytest.mark.parametrize("name", ["encoder.key", IDENTITY_FILE])
def test_files_open_to_the_group_are_refused(tmp_path: Path, name: str) -> None:
    make_key(tmp_path, "encoder")
    share_key(tmp_path, "encoder", "B", new_identity(tmp_path), tmp_path / "f")
    (tmp_path / name).chmod(0o640)
    with pytest.raises(EnvironmentProblem, match="open to group or others"):
        import_key(tmp_path, tmp_path / "f")
