"""The command line: every verb says what it does, every failure is one sentence with its exit code."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from flows.cli.main import app, config_app, keys_app, log_app, release_app, store_app, trust_app
from flows.cli.start import main
from flows.workspace.locks import workspace_lock

STAGE_VERBS = ["ingest", "encode", "group", "condense", "validate"]
VERBS = [
    *("demo", "run", *STAGE_VERBS, "verify", "receive", "evaluate", "pool", "send", "fetch", "show", "doctor"),
    *("status", "fleet", "watch", "night", "schedule"),
    *("forget", "store+list", "store+gc", "store+verify"),
    *("audit", "audit-tables", "audit-history", "audit-diff"),
    *("config+init", "config+check", "config+schema", "ledger", "log+show", "log+verify", "log+lost"),
    *("release+propose", "release+review", "release+approve", "release+publish"),
    *("trust+init", "trust+key", "trust+draft", "trust+sign", "trust+show", "trust+revoke"),
    *(f"keys+{verb}" for verb in ("new", "show", "rotate", "identity", "share", "import")),
]


def decoct(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in this process, from its `main` on: what is printed, and the code that it ends with."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err), chdir(cwd or Path.cwd()):
        patch.setattr(sys, "argv", ["decoct", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    return subprocess.CompletedProcess(words, code if isinstance(code, int) else -1, out.getvalue(), err.getvalue())


def apart(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line as a user starts it."""
    command = [sys.executable, "-m", "flows.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, check=False)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    answer = decoct(*verb.split("+"), "--help")
    assert answer.returncode == 0
    assert f"Example: decoct {verb.replace('+', ' ')}" in " ".join(answer.stdout.split())


def test_a_process_of_its_own_explains_itself_too() -> None:
    answer = apart("verify", "--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Example: decoct verify" in " ".join(answer.stdout.split())


def test_the_list_of_verbs_in_this_test_is_complete() -> None:
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    groups = {
        "config": config_app,
        "keys": keys_app,
        "log": log_app,
        "release": release_app,
        "store": store_app,
        "trust": trust_app,
    }
    for label, group in groups.items():
        names += [f"{label}+{command.name}" for command in group.registered_commands]
    assert sorted(names) == sorted(VERBS)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("audit", "absent.toml"), 10, "configuration file absent.toml not found"),
        (("audit", "run.toml", "--real", "r.parquet"), 2, "No such option: --real"),
        (("audit-tables", "--real", "r.parquet", "--shared", "s.parquet"), 2, "Missing option '--holdout'"),
        (("audit-tables", "--real", "r", "--shared", "s", "--holdout", "h"), 2, "there is no table at r"),
        (("audit-history", "--out", "absent"), 2, "there is no audit history"),
        (("audit-diff", "1", "2", "--out", "absent"), 2, "there is no audit history"),
        (("nonsense",), 2, "No such command"),
        (("run", "absent.toml"), 10, "configuration file absent.toml not found"),
        (("show", "--out", "absent"), 2, "there is no store"),
        (("watch", "--out", "absent"), 2, "there is no workspace"),
        (("log", "show", "--out", "absent"), 2, "there is no workspace"),
        (("keys", "show", "--out", "absent"), 2, "there is no workspace"),
        (("send", "absent", "elsewhere"), 2, "there is no bundle at absent"),
        (("keys", "new", "nonsense"), 2, "no key has the purpose"),
        (("verify", "absent", "--root", "absent.toml"), 2, "there is no bundle at absent"),
    ],
)
def test_failures_are_one_sentence_and_a_code(words: tuple[str, ...], code: int, sentence: str, tmp_path: Path) -> None:
    answer = decoct(*words, cwd=tmp_path)
    assert answer.returncode == code
    assert answer.stdout == ""
    assert answer.stderr.startswith("decoct: ")
    assert sentence in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert "Traceback" not in answer.stderr


def test_a_process_of_its_own_ends_with_the_code_and_the_sentence(tmp_path: Path) -> None:
    answer = apart("audit-tables", "--real", "r", "--shared", "s", "--holdout", "h", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "decoct: there is no table at r\n"


def written_config(folder: Path) -> Path:
    """`run.toml` as `config init` writes it, with the one value that nobody else can choose."""
    assert decoct("config", "init", "--out", "run.toml", cwd=folder).returncode == 0
    path = folder / "run.toml"
    path.write_text(path.read_text().replace('licence = ""', 'licence = "CC0-1.0"'))
    return path


def test_the_template_leaves_the_licence_to_the_site(tmp_path: Path) -> None:
    made = decoct("config", "init", "--out", "run.toml", cwd=tmp_path)
    assert "name your licence under [release]" in made.stderr
    for verb in (("config", "check"), ("run",), ("ingest",), ("release",)):
        refused = decoct(*verb, "run.toml", cwd=tmp_path)
        assert refused.returncode == 10
        assert "licence is empty" in refused.stderr
    assert not (tmp_path / "decoct-work").exists()


def test_a_config_that_was_written_passes_its_check_once_it_names_a_licence(tmp_path: Path) -> None:
    written_config(tmp_path)
    assert decoct("config", "check", "run.toml", cwd=tmp_path).returncode == 0
    assert json.loads(decoct("config", "check", "run.toml", "--json", cwd=tmp_path).stdout)["name"] == "nightly"
    again = decoct("config", "init", "--out", "run.toml", cwd=tmp_path)
    assert again.returncode == 2
    assert "not overwritten" in again.stderr


def test_what_the_policy_would_refuse_is_told_before_anything_runs(tmp_path: Path) -> None:
    text = written_config(tmp_path).read_text()
    (tmp_path / "run.toml").write_text(text.replace('policy = "strict"', 'policy = "agreement"'))
    for verb in (("config", "check"), ("run",)):
        refused = decoct(*verb, "run.toml", cwd=tmp_path)
        assert refused.returncode == 14
        assert "named recipients under a data-use agreement" in refused.stderr
    assert not (tmp_path / "decoct-work").exists()


def test_a_stream_that_the_policy_would_refuse_is_told_by_the_check(tmp_path: Path) -> None:
    text = written_config(tmp_path).read_text()
    kind = 'kind = "private_teacher"'
    assert kind in text
    for epsilon, code in (("4.0", 14), ("2.0", 0)):
        stream = f'kind = "private_stream"\nbegins = "2026-12-01"\nepsilon = {epsilon}'
        options = text.replace(kind, stream, 1)
        kept = "\n".join(line for line in options.splitlines() if line != "epsilon = 1.0")
        (tmp_path / "run.toml").write_text(kept)
        checked = decoct("config", "check", "run.toml", cwd=tmp_path)
        assert checked.returncode == code, checked.stderr
        if code:
            assert "epsilon 4 of condense.private is above the 2 that policy strict" in checked.stderr
            assert "every night's set claims the price of all nights" in checked.stderr
    assert not (tmp_path / "decoct-work").exists()


def test_keys_are_made_once_and_only_fingerprints_are_shown(tmp_path: Path) -> None:
    assert decoct("keys", "new", "all", "--out", "w", cwd=tmp_path).returncode == 0
    assert decoct("keys", "new", "noise", "--out", "w", cwd=tmp_path).returncode == 15
    shown = decoct("keys", "show", "--out", "w", cwd=tmp_path).stdout
    for path in (tmp_path / "w" / "keys").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.suffix != ".key" or path.read_text().splitlines()[2] not in shown
    assert decoct("trust", "init", "--site", "A", "--trial", "--out", "w", cwd=tmp_path).returncode == 0
    assert (tmp_path / "w" / "keys" / "root.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "words", [("--help",), ("verify", "x", "--root", "y"), ("show", "--out", "z"), ("keys", "show")]
)
def test_light_verbs_load_neither_torch_nor_prefect(words: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import sys\nsys.argv = ['decoct', *sys.argv[1:]]\nfrom flows.cli.start import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'prefect', 'pennylane', 'great_expectations', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("words", [(), ("--no-prefect",)])
def test_a_second_night_is_refused_before_anything_heavy_is_loaded(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "night.toml").write_text(
        'name = "x"\nworkspace = "work"\nsource = { kind = "embedded", sets = ["a"] }\n'
        'encode.raw = { kind = "identity" }\ncondense.c = { kind = "centroids" }\n'
        'release = { artefact = "c", licence = "ODbL-1.0" }\n'
    )
    code = (
        "import sys\nsys.argv = ['decoct', 'night', 'night.toml', *sys.argv[1:]]\nfrom flows.cli.start import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 15, end.code\n"
        "heavy = {'torch', 'prefect', 'pennylane', 'great_expectations', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    with workspace_lock(tmp_path / "work", "decoct store gc"):
        answer = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
        )
    assert answer.returncode == 0, answer.stderr
    assert f"in use by decoct store gc (process {os.getpid()}, since" in answer.stderr
    assert not (tmp_path / "work" / "nights").exists()


def test_ctrl_c_ends_a_long_stage_with_its_own_exit_code(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'name = "long"\nworkspace = "work"\nsource = { kind = "embedded", sets = ["a"], max_stays = 300 }\n'
        'encode.raw = { kind = "identity" }\nrelease = { artefact = "c", licence = "CC0-1.0" }\n'
        'condense.c = { kind = "distribution_matching", iterations = 100000, initialisation = "noise" }\n'
    )
    command = [sys.executable, "-m", "flows.cli", "condense", "run.toml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "encode raw" in line:  # the endless stage comes next
                time.sleep(3)
                break
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
        assert run.wait(timeout=60) == 130, rest
    assert rest.splitlines()[-1].startswith("decoct: interrupted; nothing is half-written")
    assert not list((tmp_path / "work" / "store" / "tmp").iterdir())


def test_a_mappings_faults_are_told_by_check_and_ingest_alike(tmp_path: Path) -> None:
    text = written_config(tmp_path).read_text()
    (tmp_path / "m.toml").write_text('base = "physionet2012"\nnonsense = 3\n')
    (tmp_path / "run.toml").write_text(text.replace('mapping = "physionet2012"', 'mapping = "m.toml"'))
    assert "m.toml" in (tmp_path / "run.toml").read_text()
    for verb in (("config", "check"), ("ingest",)):
        refused = decoct(*verb, "run.toml", cwd=tmp_path)
        assert refused.returncode == 10
        assert "unknown key nonsense" in refused.stderr
    assert not (tmp_path / "decoct-work").exists()
