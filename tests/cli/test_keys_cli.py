"""`decoct keys`: two sites by the command line alone, and not one secret byte on the way."""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.cli.keep.keys import keys_app
from flows.cli.start import main
from pipeline.core.keys import passphrase as phrases
from pipeline.core.keys.secrets import Secret, read_secret, write_secret

PHRASE = "correct horse battery"
VERBS = [command.name or "" for command in keys_app.registered_commands]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Decoct = Callable[..., Answer]


@pytest.fixture
def decoct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Decoct]:
    """The command line in this process, as a fresh one sees it, in an empty folder and with nobody at the terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", None)

    def run(*words: str, passphrase: str | None = None) -> Answer:
        phrases._from_surroundings.cache_clear()
        phrases._opened.clear()
        if passphrase is not None:
            monkeypatch.setenv(phrases.PASSPHRASE_VARIABLE, passphrase)
        monkeypatch.setattr(sys, "argv", ["decoct", "keys", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code, shown = ended.value.code, capsys.readouterr()
        return Answer(code if isinstance(code, int) else -1, shown.out, shown.err)

    yield run
    phrases._from_surroundings.cache_clear()
    phrases._opened.clear()


def test_the_verbs_are_these() -> None:
    assert set(VERBS) == {"new", "show", "rotate", "identity", "share", "import"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example(decoct: Decoct, verb: str) -> None:
    answer = decoct(verb, "--help")
    assert answer.code == 0
    assert f"Example: decoct keys {verb}" in " ".join(answer.out.split())


def test_two_sites_come_to_hold_one_key(decoct: Decoct) -> None:
    made = json.loads(decoct("new", "encoder", "--out", "a", "--json").out)[0]
    public = decoct("identity", "--out", "b").out.strip()
    told = decoct("share", "for-b.age", "--to", "St. B", "--recipient", public, "--out", "a", "--json")
    shared = json.loads(told.out)
    assert shared["fingerprint"] == made["fingerprint"]
    assert "by telephone" in told.err

    refused = decoct("import", "for-b.age", "--fingerprint", "0" * 16, "--out", "b")
    assert (refused.code, refused.out) == (15, "")
    assert "nothing was imported" in refused.err
    unsure = decoct("import", "for-b.age", "--out", "b")
    assert "does not prove who made it" in unsure.err
    assert made["fingerprint"] in unsure.out
    sure = decoct("import", "for-b.age", "--fingerprint", made["fingerprint"], "--out", "b", "--json")
    assert json.loads(sure.out)["was_there"] is True
    assert sure.err == ""
    keys = [read_secret(Path(site, "keys", "encoder.key"), "encoder").derive("angles") for site in "ab"]
    assert keys[0] == keys[1]

    shown = json.loads(decoct("show", "--out", "a", "--json").out)
    assert shown["log"]["head"] == shared["log_head"]
    assert [line["what"] for line in shown["log"]["last"]] == ["new", "share"]
    assert shown["log"]["last"][1]["institution"] == "St. B"
    again = decoct("share", "for-b.age", "--to", "St. B", "--recipient", public, "--out", "a")
    assert (again.code, again.err.count("\n")) == (15, 1)
    assert "never overwritten" in again.err


def test_rotation_says_what_it_means_and_show_lists_the_retired(decoct: Decoct) -> None:
    decoct("new", "all", "--out", "a")
    before = json.loads(decoct("show", "--out", "a", "--json").out)
    old = {entry["purpose"]: entry["fingerprint"] for entry in before["keys"]}
    assert list(old) == ["encoder", "noise", "split", "author"]
    turned = decoct("rotate", "encoder", "--out", "a")
    assert old["encoder"] in turned.out
    assert "cannot be mixed" in turned.err
    refused = decoct("rotate", "noise", "--out", "a")
    assert (refused.code, refused.out) == (2, "")
    assert "another release about the same patients" in refused.err
    accounted = json.loads(decoct("rotate", "noise", "--another-release", "--out", "a", "--json").out)
    assert accounted["retired"] == old["noise"]
    after = json.loads(decoct("show", "--out", "a", "--json").out)
    assert {(entry["purpose"], entry["fingerprint"]) for entry in after["keys"] if entry["retired"]} == {
        ("encoder", old["encoder"]),
        ("noise", old["noise"]),
    }
    assert len(before["author_public_key"]) == 64
    assert after["author_public_key"] == before["author_public_key"]
    text = decoct("show", "--out", "a").out
    assert "(0 days old, retired)" in text
    assert "chain whole" in text


def test_a_tampered_log_stops_every_verb_that_reads_it(decoct: Decoct) -> None:
    decoct("new", "all", "--out", "a")
    log = Path("a/keys/log.jsonl")
    log.write_text(log.read_text().replace('"purpose":"noise"', '"purpose":"other"'))
    for words in (("show",), ("rotate", "split")):
        answer = decoct(*words, "--out", "a")
        assert (answer.code, answer.out) == (15, "")
        assert "the chain breaks at line 3" in answer.err


def test_a_key_under_a_passphrase_stays_so_when_it_is_rotated(decoct: Decoct) -> None:
    assert decoct("new", "encoder", "--passphrase", "--out", "a").code == 15  # nobody to ask
    assert not Path("a").exists()
    assert decoct("new", "encoder", "--passphrase", "--out", "a", passphrase=PHRASE).code == 0
    listed = json.loads(decoct("show", "--out", "a", "--json").out)["keys"][0]  # without a passphrase
    assert listed["sealed"] is True
    assert decoct("rotate", "encoder", "--out", "a", passphrase="wrong horse battery").code == 15
    turned = json.loads(decoct("rotate", "encoder", "--out", "a", "--json", passphrase=PHRASE).out)
    assert turned["retired"] == listed["fingerprint"]
    assert all(entry["sealed"] for entry in json.loads(decoct("show", "--out", "a", "--json").out)["keys"])


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("new", "nonsense"), 2, "no key has the purpose"),
        (("rotate", "nonsense"), 2, "no key has the purpose"),
        (("rotate", "encoder"), 15, "make one with: decoct keys new encoder"),
        (("share", "f", "--to", "B", "--recipient", "age1x"), 2, "not an age public key"),
        (("share", "f", "--to", "B", "--recipient", "age1x", "--purpose", "noise"), 2, "never shared"),
        (("import", "absent"), 15, "shared key absent cannot be read"),
    ],
)
def test_failures_are_one_sentence(decoct: Decoct, words: tuple[str, ...], code: int, sentence: str) -> None:
    answer = decoct(*words)
    assert (answer.code, answer.out) == (code, "")
    assert sentence in answer.err
    assert answer.err.count("\n") == 1


def needles(secret: bytes) -> set[str]:
    """How 32 bytes could show."""
    plain = {secret.hex(), base64.b64encode(secret).decode(), base64.urlsafe_b64encode(secret).decode(), repr(secret)}
    parts = {secret[:16].hex(), secret[16:].hex(), str(list(secret))[1:-1], str(int.from_bytes(secret, "big"))}
    return {text.casefold().rstrip("=") for text in plain | parts}


def test_no_verb_shows_a_secret_byte(decoct: Decoct, caplog: pytest.LogCaptureFixture) -> None:
    """Every verb, in success and in failure: stdout, stderr, the key log and all logging hold no secret, as hex,
    base64 or digits.
    """
    caplog.set_level(logging.DEBUG)
    known = {
        purpose: Secret(bytes((17 * number + 29 * place) % 256 for place in range(32)), purpose)
        for number, purpose in enumerate(("encoder", "noise", "split", "author"), start=1)
    }
    for purpose, secret in known.items():
        write_secret(Path("a", "keys", f"{purpose}.key"), secret)
    answers, verbs = [], set()

    def run(verb: str, *words: str, site: str = "a", passphrase: str | None = None) -> Answer:
        verbs.add(verb)
        answers.append(decoct(verb, *words, "--out", site, passphrase=passphrase))
        return answers[-1]

    run("new", "encoder")
    run("new", "all", site="c", passphrase=PHRASE)
    run("show")
    run("show", "--json")
    public = run("identity", site="b").out.strip()
    run("identity", "--json", site="b")
    run("share", "f.age", "--to", "B", "--recipient", public)
    run("share", "f.age", "--to", "B", "--recipient", public, "--json")
    run("import", "f.age", site="b")
    run("import", "f.age", site="c")
    Path("f.age").write_bytes(Path("f.age").read_bytes()[:-60])
    run("import", "f.age", site="b")
    for purpose in known:
        run("rotate", purpose, "--another-release", "--json")
    Path("a/keys/encoder.key").write_text(Path("a/keys/encoder.key").read_text().replace("\nfinger", "x\nfinger"))
    run("rotate", "encoder")
    run("show")
    assert verbs == set(VERBS)
    assert {answer.code for answer in answers} == {0, 15}

    identity = Path("b/keys/identity.age").read_text().splitlines()[-1]
    assert identity.startswith("AGE-SECRET-KEY-")
    secrets = [*known.values(), *(read_secret(path, path.stem) for path in Path("c/keys").glob("*.key"))]
    hidden = {identity.casefold(), PHRASE}
    for secret in secrets:
        hidden |= needles(secret.reveal()) | needles(secret.derive("ed25519"))
    shown = [text for answer in answers for text in (answer.out, answer.err)]
    shown += [path.read_text() for path in Path().glob("*/keys/log.jsonl")]
    shown += [caplog.text]
    for text in shown:
        low = text.casefold()
        assert not [needle for needle in hidden if needle in low]

    key_file = Path("c/keys/noise.key").read_text().casefold()
    assert any(needle in key_file for needle in needles(read_secret(Path("c/keys/noise.key"), "noise").reveal()))
