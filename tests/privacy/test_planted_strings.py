"""Planted strings: no verb and no failure lets a subject's id, a name, a value or a key out.

A small run on people with marked ids and names, under keys whose bytes are known. Every verb of the command line is
called (the list is held against the commands that the program has), then failures are injected. Looked through are what
verbs print, what leaves (proposals, releases, what a receiver unpacks), the run's own page and log, and the audit
history. Paths of the source may stand on the user's own stderr, but in nothing that leaves or is kept in a database.
Prefect's own database is looked through by tests/flows/test_road.py.

*A new verb?* Give it a line in `CALLS` (any call that does something; several are better), or in `ELSEWHERE` with the
test that looks at what it writes. A verb in neither fails here.
"""

from __future__ import annotations

import base64
import csv
import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import pytest
import typer

from flows.cli.main import app
from flows.cli.start import main
from flows.run import walk_until
from flows.workspace.job import KEY_PURPOSES, key_path, new_job
from pipeline.core.config import load_config
from pipeline.core.keys.secrets import Secret, write_secret

FOLDER: Final = "ward-7b-quokka"
PERSON: Final = "Quackenfeather-Zebulon"
STAY: Final = "QZSTAY"
NAME: Final = "Oxymandia Thrupplesworth"
VALUE: Final = "87.40625"
KEYS: Final = {
    purpose: bytes([number] * 3 + [0xA7, 0x5C] * 14 + [number]) for number, purpose in enumerate(KEY_PURPOSES, 65)
}

MAPPING: Final = """
description = "test"
[variables]
HR = { unit = "/min", plausible = [10, 320], scale = [30, 180], normal = 80 }
Lactate = { unit = "mmol/L", plausible = [0.1, 40], scale = [0, 12], normal = 1 }
[statics]
age = { unit = "years", plausible = [10, 120], scale = [15, 95], normal = 65 }
[tasks]
died = { kind = "binary", column = "died", description = "death" }
"""
CONFIG: Final = f"""
name = "small"
workspace = "work"
[source]
kind = "long_table"
events = "{FOLDER}/events.csv"
stays = "{FOLDER}/stays.csv"
subject_column = "subject_id"
split_column = "split"
[cohort]
mapping = "mapping.toml"
n_steps = 4
split = {{ kind = "given" }}
[encode.raw]
kind = "identity"
[encode.rqe]
kind = "quantum"
[condense.private]
kind = "private_moments"
n_per_class = 5
[utility]
models = ["logistic_regression"]
n_seeds = 1
n_random_draws = 1
[audit]
max_targets = 20
n_bootstrap = 20
[release]
artefact = "private"
policy = "policy.toml"
licence = "CC0-1.0"
site = "Here"
[night]
notify_on = "all"
notify_command = ["tee", "notices/here.json"]
"""


def needles() -> dict[str, bytes]:
    """What nobody may find, by what it is called in a failure of this test."""
    found = {"subject id": PERSON.encode(), "stay id": STAY.encode(), "name": NAME.encode(), "value": VALUE.encode()}
    for purpose, raw in KEYS.items():
        found |= {f"{purpose} key, raw": raw, f"{purpose} key, hex": raw.hex().encode()}
        found[f"{purpose} key, base64"] = base64.b64encode(raw).rstrip(b"=")[:40]
    return found


def seen_in(data: bytes, *, path_too: bool) -> list[str]:
    wanted = needles() | ({"path of the source": FOLDER.encode()} if path_too else {})
    utf16 = {f"{name}, UTF-16": text.decode("latin-1").encode("utf-16-le") for name, text in wanted.items()}
    low = data.lower()
    return [name for name, text in (wanted | utf16).items() if text in data or text.lower() in low]


def looked_through(folder: Path, *, path_too: bool) -> int:
    """How many files were looked through; fails on the first that holds something."""
    files_found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files_found:
        found = seen_in(path.read_bytes(), path_too=path_too)
        found += seen_in(path.name.encode(), path_too=path_too)
        assert not found, (path.name, found)
    return len(files_found)


def write_source(folder: Path) -> None:
    """100 people with 110 stays and two variables, a column with names, and one rare value."""
    rng = np.random.default_rng(0)
    with (folder / "events.csv").open("w", newline="") as events, (folder / "stays.csv").open("w", newline="") as stays:
        rows, table = csv.writer(events), csv.writer(stays)
        rows.writerow(["stay_id", "hours", "variable", "value"])
        table.writerow(["stay_id", "subject_id", "age", "died", "split", "name"])
        for stay in range(110):
            person = stay % 100
            split = ("train", "train", "train", "tuning", "held_out")[person % 5]
            died = int(rng.random() < 0.4)
            table.writerow([f"{STAY}{stay:04d}", f"{PERSON}-{person}", 20 + person % 70, died, split, NAME])
            for hour in range(4):
                rows.writerow([f"{STAY}{stay:04d}", hour + 0.5, "HR", f"{rng.uniform(60, 120):.2f}"])
                rows.writerow([f"{STAY}{stay:04d}", hour + 0.2, "Lactate", f"{rng.uniform(0.5, 9):.2f}"])
        rows.writerow([f"{STAY}0003", 0.7, "HR", VALUE])


def policy() -> str:
    """The demo's, open to anything that this few people can show: what is tested here is what leaves, not whether."""
    text = (files("pipeline.sharing") / "policies" / "demo.toml").read_text(encoding="utf-8")
    text = text.replace('name = "demo"', 'name = "open"')
    text = re.sub(r"max_upper = \S+", 'max_upper = "any"', text)
    return text.replace('["near_copies:count", "density_membership:auroc"]', '["near_copies:count"]')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with source, configuration and keys; the verbs run in it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / FOLDER).mkdir()
    write_source(folder / FOLDER)
    (folder / "notices").mkdir()
    (folder / "run.toml").write_text(CONFIG)
    (folder / "mapping.toml").write_text(MAPPING)
    (folder / "policy.toml").write_text(policy())
    (folder / "ids.txt").write_text(f"{PERSON}-99\n")
    for purpose, raw in KEYS.items():
        write_secret(key_path(folder / "work", purpose), Secret(raw, purpose))
    with mock.patch.dict(os.environ):
        before = Path.cwd()
        os.chdir(folder)
        yield folder
        os.chdir(before)


Answer = tuple[int, str]


@pytest.fixture
def decoct(site: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Calls the program in this process; what it printed is looked through before the test sees it."""

    def call(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["decoct", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = "".join(capfd.readouterr())
        found = seen_in(printed.encode(), path_too=False)
        assert not found, (words, found)
        assert "Traceback" not in printed
        return int(ended.value.code or 0), printed

    return call


def verbs() -> set[str]:
    """Every command that the program has, sub-verbs with their group's name."""

    def below(command: Any, name: str) -> set[str]:
        if hasattr(command, "commands"):
            return {leaf for key, sub in command.commands.items() for leaf in below(sub, f"{name} {key}".strip())}
        return {name}

    return below(typer.main.get_command(app), "")


OUT: Final = ("--out", "work")
BUNDLE: Final = "work/releases/here-private-v1"
ROOT: Final = ("--root", "root.json")
CALLS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "config init": (("config", "init", "--out", "fresh.toml"),),
    "config check": (("config", "check", "run.toml"),),
    "keys show": (("keys", "show", *OUT), ("keys", "show", "--json", *OUT)),
    "keys new": (("keys", "new", "all", *OUT), ("keys", "new", "all", "--out", "other")),
    "ingest": (
        ("ingest", "run.toml", "--report"),
        ("ingest", "--suggest", FOLDER),
        ("ingest", "run.toml", "--resume", "--json", "-vv"),
    ),
    "encode": (("encode", "run.toml", "--resume"), ("encode", "run.toml", "--resume", "--json")),
    "group": (("group", "run.toml", "--resume"),),
    "condense": (("condense", "run.toml", "--resume"),),
    "validate": (("validate", "run.toml", "--resume"),),
    "audit": (("audit", "run.toml", "--resume"), ("audit", "run.toml", "--resume", "--json")),
    "audit-history": (("audit-history", *OUT), ("audit-history", "--json", *OUT)),
    "audit-diff": (("audit-diff", "1", "1", *OUT),),
    "release propose": (("release", "run.toml", "--resume"),),
    "release review": (("release", "review", BUNDLE, "--workspace", "work"),),
    "release approve": (("release", "approve", "work/proposals/none", "--key", "work/keys/author.key"),),
    "release publish": (("release", "publish", "work/proposals/none"),),
    "trust init": (("trust", "init", "root.json", "--site", "Here", "--trial", "--policy", "policy.toml", *OUT),),
    "verify": (("verify", BUNDLE, *ROOT), ("verify", BUNDLE, *ROOT, "--json")),
    "receive": (("receive", BUNDLE, *ROOT, "--out", "received"),),
    "evaluate": (("evaluate", BUNDLE, *ROOT, "--on", "run.toml"),),
    "pool": (("pool", BUNDLE, BUNDLE, *ROOT, "--out", "pooled"),),
    "send": (("send", BUNDLE, "sent"),),
    "fetch": (("fetch", "sent/here-private-v1", *ROOT, "--out", "fetched"),),
    "ledger": (("ledger", *OUT), ("ledger", "--json", *OUT)),
    "log show": (("log", "show", *OUT), ("log", "show", "--json", *OUT)),
    "log verify": (("log", "verify", *OUT),),
    "log lost": (("log", "lost", *OUT), ("log", "lost", "--json", *OUT)),
    "show": (("show", *OUT), ("show", "--json", *OUT)),
    "store list": (("store", "list", *OUT), ("store", "list", "--json", *OUT)),
    "store verify": (("store", "verify", *OUT),),
    "store gc": (("store", "gc", *OUT),),
    "watch": (("watch", *OUT),),
    "doctor": (("doctor", *OUT),),
    "keys rotate": (("keys", "rotate", "encoder", *OUT), ("keys", "rotate", "noise", *OUT)),
    "keys identity": (("keys", "identity", *OUT),),
    "keys share": (("keys", "share", "for-b.age", "--to", "B", "--recipient", "age1wrong", *OUT),),
    "keys import": (("keys", "import", "for-b.age", *OUT),),
    "night": (("night", "run.toml", "--no-prefect"),),
    "fleet": (("fleet", "notices", *ROOT, "--page", "fleet.html"), ("fleet", "notices", *ROOT, "--json")),
    "trust key": (("trust", "key", "approver", "ann.key"),),
    "trust draft": (("trust", "draft", "absent.toml", "drafted.json"),),
    "trust sign": (("trust", "sign", "root.json", "--key", "ann.key"),),
    "trust show": (("trust", "show", "root.json"),),
    "trust revoke": (("trust", "revoke", "revocations.json", "--root", "root.json"),),
    "forget": (("forget", "run.toml", "--ids", "ids.txt"),),
    "status": (("status", *OUT), ("status", "--json", *OUT)),
    "config schema": (("config", "schema"),),
}
"""In the order in which they are called: later ones find what earlier ones made."""
ELSEWHERE: Final = {
    "run": "tests/flows/test_road.py: the whole road through Prefect, its database included",
    "demo": "tests/flows/test_road.py: it is `run` on a configuration of ours",
    "audit-tables": "tests/flows/test_audit_of_tables.py: what is written holds no id and no path",
    "schedule": "it waits for the night, which is `night`, or writes a file from its own arguments",
}


def test_every_verb_is_called_here_or_told_where() -> None:
    """A verb in neither list may print what it likes."""
    assert verbs() == set(CALLS) | set(ELSEWHERE), "see this module's docstring for what to do about a new verb"
    assert not set(CALLS) & set(ELSEWHERE)


def test_the_planted_strings_can_be_found(site: Path) -> None:
    """The positive control: they are in the source and in the keys, in the forms that are searched for."""
    source = (site / FOLDER / "stays.csv").read_bytes() + (site / FOLDER / "events.csv").read_bytes()
    assert {"subject id", "stay id", "name", "value"} <= set(seen_in(source, path_too=False))
    for purpose, raw in KEYS.items():
        key = key_path(site / "work", purpose).read_bytes()
        assert any(found.startswith(f"{purpose} key") for found in seen_in(key, path_too=False))
        assert f"{purpose} key, raw" in seen_in(b"x" + raw + b"y", path_too=False)
        assert f"{purpose} key, base64" in seen_in(base64.b64encode(raw), path_too=False)
    assert "name, UTF-16" in seen_in(NAME.encode("utf-16-le"), path_too=False)
    assert "path of the source" in seen_in(f"/x/{FOLDER}/y".encode(), path_too=True)


@pytest.mark.slow
def test_no_verb_lets_a_planted_string_out(site: Path, decoct: Callable[..., Answer]) -> None:
    """All verbs, in the order of a run; what they print is looked through by the fixture."""
    codes = {words: decoct(*words)[0] for calls in CALLS.values() for words in calls}
    needed = (
        "ingest",
        "encode",
        "condense",
        "audit",
        "release",
        "verify",
        "receive",
        "send",
        "fetch",
        "show",
        "ledger",
    )
    failed = {words: code for words, code in codes.items() if code and words[0] in needed}
    failed.pop(CALLS["release approve"][0]), failed.pop(CALLS["release publish"][0])  # there is no such proposal
    failed.pop(CALLS["release review"][0], None)  # this is a release already
    assert not failed
    assert codes[CALLS["fleet"][0]] == 0, "the night's notice is signed, and was read"
    for leaves in ("work/releases", "work/proposals", "received", "sent", "fetched", "notices"):
        assert looked_through(site / leaves, path_too=True) or leaves == "work/proposals"
    assert looked_through(site / "work" / "runs", path_too=False)
    histories = [path for path in (site / "work").glob("*") if path.is_file() and path.suffix != ".lock"]
    assert any(path.name == "audits.sqlite" for path in histories)
    for path in histories:
        assert not seen_in(path.read_bytes(), path_too=True), path.name


def broken_source(site: Path, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    rows = (site / FOLDER / "events.csv").read_text().replace(f",HR,{VALUE}", f",HR,{NAME} {PERSON} {VALUE}")
    (site / FOLDER / "events.csv").write_text(rows)
    return ("ingest", "run.toml")


def full_disk(site: Path, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, f"No space left for {PERSON}", f"/{FOLDER}/{STAY}0003")

    shutil.rmtree(
        site / "work" / "store", ignore_errors=True
    )  # or all would be found there, as a copy of a site makes the same artefacts
    patch.setattr("pipeline.store.save_file", full)
    return ("encode", "run.toml")


def wrong_key(site: Path, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    key = key_path(site / "work", "encoder")
    key.write_text(f"not a key {KEYS['encoder'].hex()} {base64.b64encode(KEYS['noise']).decode()}\n")
    return ("encode", "run.toml")


def corrupted_object(site: Path, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    walk_until(new_job(load_config(site / "run.toml"), resume=True), "encode")  # so that there is something
    for path in (site / "work" / "store").rglob("*"):
        if path.is_file() and path.stat().st_size > 2000:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.chmod(0o600)
            path.write_bytes(bytes(data))
    return ("condense", "run.toml")  # without --resume it has to read what it condenses


def refused_gate(site: Path, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    (site / "run.toml").write_text(CONFIG.replace('policy = "policy.toml"', 'policy = "strict"'))
    return ("release", "run.toml", "--resume")


def interrupted(site: Path, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt(f"{PERSON} {KEYS['noise'].hex()}")

    patch.setattr("flows.registry.condenser", stop)
    return ("condense", "run.toml")


def talkative(site: Path, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A library that prints values in its messages, with another error in its past."""

    def talk(*_: Any, **__: Any) -> None:
        try:
            raise KeyError(f"{PERSON}-7 {KEYS['encoder'].hex()}")
        except KeyError as error:
            raise ValueError(f"row of {NAME}: {VALUE} in {STAY}0003") from error

    patch.setattr("flows.registry.condenser", talk)
    return ("condense", "run.toml")


FAILURES: Final = (broken_source, full_disk, wrong_key, corrupted_object, refused_gate, interrupted, talkative)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_no_failure_lets_a_planted_string_out(
    failure: Callable[[Path, pytest.MonkeyPatch], tuple[str, ...]],
    site: Path,
    decoct: Callable[..., Answer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a copy of the site, whose log and page are looked through, too."""
    here = tmp_path / "copy"
    shutil.copytree(site, here)
    monkeypatch.chdir(here)
    words = failure(here, monkeypatch)
    code, printed = decoct(*words)
    assert code not in (0, 2), printed
    assert printed.strip()
    assert looked_through(here / "work" / "runs", path_too=False)
    for path in (here / "work").glob("*.sqlite*"):
        assert not seen_in(path.read_bytes(), path_too=True)
    released = here / "work" / "releases"
    assert not released.exists() or looked_through(released, path_too=True)
