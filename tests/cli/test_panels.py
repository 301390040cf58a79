"""The command line as a newcomer meets it: five panels, -h, --version, near misses, exit code 2 for a typing error."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flows.cli.look.artefacts import artefacts, size, table
from flows.cli.main import app
from flows.cli.panels import PANELS
from flows.cli.start import ALONE, command_line
from pipeline.core.config.load import Config, parse_config
from pipeline.core.errors import ConfigError, EnvironmentProblem, UsageError
from pipeline.core.types import LossCurve
from pipeline.store import Store

MINIMAL: dict[str, Any] = {
    "name": "demo",
    "source": {"kind": "embedded"},
    "encode": {"raw": {"kind": "identity"}, "rqe": {"kind": "quantum"}},
    "condense": {"private": {"kind": "private_moments", "input": "raw"}},
    "release": {"artefact": "private", "licence": "ODC-By-1.0"},
}


def asked(*words: str, code: int = 0) -> str:
    answer = CliRunner().invoke(app, [*words])
    assert answer.exit_code == code, answer.output
    return answer.output


def test_every_command_stands_in_one_panel_and_no_panel_names_what_is_not_there() -> None:
    group = typer.main.get_group(app)
    placed = [name for names in PANELS.values() for name in names]
    shown = [name for name, command in group.commands.items() if not command.hidden]
    assert sorted(placed) == sorted(shown)
    text = asked("--help")
    assert [line.rstrip(":") for line in text.splitlines() if line.rstrip(":") in PANELS] == list(PANELS)
    assert "More" not in text
    assert "..." not in text.split("Make:")[1]
    assert max(map(len, text.splitlines())) <= 80
    assert "encode" not in text


@pytest.mark.parametrize("words", [("-h",), ("run", "-h"), ("keys", "-h"), ("release", "propose", "-h")])
def test_short_help_is_help(words: tuple[str, ...]) -> None:
    assert asked(*words) == asked(*words[:-1], "--help")


@pytest.mark.parametrize("verb", ALONE)
def test_a_verb_that_starts_alone_is_the_same_verb(verb: str) -> None:
    alone = CliRunner().invoke(command_line([verb]), [verb, "--help"])
    assert alone.output == asked(verb, "--help")
    assert set(typer.main.get_group(command_line([verb])).commands) <= set(ALONE)
    assert command_line(["--help"]) is command_line([]) is command_line(["run", verb]) is app


def test_the_version_is_the_distribution_s() -> None:
    assert re.fullmatch(r"decoct \d+\.\d+\.\d+\S*\n", asked("--version"))


def test_out_is_a_workspace_in_every_help() -> None:
    def walk(command: Any, name: str) -> None:
        for parameter in command.params:
            if "--out" in parameter.opts:
                assert parameter.help.startswith("Workspace folder"), name
        for child, one in getattr(command, "commands", {}).items():
            walk(one, f"{name} {child}")

    walk(typer.main.get_group(app), "decoct")


def test_the_earlier_out_still_writes_where_it_is_told(tmp_path: Path) -> None:
    for option in ("--to", "--out"):
        path = tmp_path / f"{option[2:]}.toml"
        told = asked("config", "init", option, str(path))
        assert path.exists()
        assert ("now says --to for --out" in told) is (option == "--out")


def bundle(folder: Path) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "nowhere", "--root", "root.json"),
        ("verify", "bundle", "--root", "nowhere.json"),
        ("verify", "empty", "--root", "root.json"),
        ("verify", "root.json", "--root", "root.json"),
        ("verify", "bundle", "--root", "root.json", "--revocations", "nowhere.json"),
        ("receive", "nowhere", "--root", "root.json", "--to", "new"),
        ("receive", "bundle", "--root", "root.json", "--to", "new", "--identity", "nowhere.age"),
        ("pool", "bundle", "nowhere", "--root", "root.json"),
        ("pool", "bundle", "bundle", "--root", "nowhere.json"),
        ("evaluate", "run.toml", "--bundle", "nowhere", "--root", "root.json"),
        ("evaluate", "run.toml", "--bundle", "bundle", "--root", "nowhere.json"),
        ("fetch", "bundle", "--root", "nowhere.json"),
    ],
    ids=" ".join,
)
def test_a_typing_error_in_a_path_is_a_usage_error(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle(tmp_path / "bundle")
    (tmp_path / "empty").mkdir()
    for name in ("root.json", "run.toml"):
        (tmp_path / name).write_text("{}")
    answer = CliRunner().invoke(app, list(words))
    assert isinstance(answer.exception, UsageError)
    assert any(word in str(answer.exception) for word in words if word.startswith(("nowhere", "empty", "root")))


def test_a_workspace_that_cannot_be_made_is_named() -> None:
    answer = CliRunner().invoke(app, ["demo", "--out", "/proc/x"])
    assert isinstance(answer.exception, EnvironmentProblem)
    assert "/proc/x" in str(answer.exception)


def test_a_device_that_is_not_there_stops_before_anything_is_made(tmp_path: Path) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    answer = CliRunner().invoke(app, ["demo", "--device", "mps", "--out", str(tmp_path / "w")])
    assert isinstance(answer.exception, EnvironmentProblem)
    assert not (tmp_path / "w").exists()


def test_until_names_the_stages(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["run", str(tmp_path / "run.toml"), "--until", "condens"])
    assert isinstance(answer.exception, ConfigError | UsageError)


def fault(**changes: Any) -> str:
    raw = copy.deepcopy(MINIMAL)
    for key, value in changes.items():
        *path, last = key.split("__")
        here = raw
        for name in path:
            here = here.setdefault(name, {})
        here[last] = value
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, "run.toml", Path())
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sede": 1}, "sede: no such key; did you mean seed?"),
        ({"condense__private__epsilonn": 1}, "condense.private.epsilonn: no such key; did you mean epsilon?"),
        ({"encode__rqe__n_qbits": 1}, "encode.rqe.n_qbits: no such key; did you mean n_qubits?"),
        ({"condense__private__kind": "private_moment"}, "condense.private.kind: no such kind; did you mean private_"),
        ({"condense__private__epsilon": -1}, "condense.private.epsilon: must be more than 0"),
        ({"utility__floor_auroc": 2}, "utility.floor_auroc: must be 1 or less"),
        ({"audit__level": "ful"}, "audit.level: must be one of 'screen' or 'full'"),
        ({"seed": "x"}, "seed: must be a whole number"),
        ({"release": {}}, "release.artefact: is missing"),
        ({"condense__private__input": "nope"}, "condense.private.input names no [encode.*] table"),
    ],
)
def test_a_fault_is_told_in_our_words_and_by_the_file_s_own_path(changes: dict[str, Any], said: str) -> None:
    told = fault(**changes)
    assert said in told
    assert "Input" not in told
    assert "Value error" not in told


def test_all_faults_are_told_at_once_and_no_value_is_repeated() -> None:
    told = fault(sede=1, seed="patient-17", condense__private__epsilonn="patient-17")
    assert told.count(";") >= 2
    assert "patient-17" not in told


def test_show_names_dates_and_sizes_what_is_in_the_store(tmp_path: Path) -> None:
    import numpy as np

    store = Store(tmp_path / "store")
    digest = store.put(LossCurve(np.ones(2000, dtype=np.float32), "private"))
    other = store.put(LossCurve(np.zeros(3, dtype=np.float32), "private"))
    run = tmp_path / "runs" / "nightly"
    run.mkdir(parents=True)
    line = {"digests": [digest[:12]], "stage": "condense private", "time": "2026-11-30T11:10:48.959+00:00"}
    (run / "log.jsonl").write_text(json.dumps(line) + "\n")
    rows = artefacts(tmp_path, store)
    assert [row["digest"] for row in rows] == [other, digest]
    header, unknown, known = table(rows).splitlines()
    assert header.split() == ["digest", "name", "run", "made", "(UTC)", "kind", "size"]
    assert unknown.split()[:4] == [other[:12], "-", "-", "-"]
    assert re.search(r"condense private +nightly +2026-11-30 11:10 +LossCurve +[\d.]+ (B|KiB)", known)
    assert [size(n) for n in (0, 999, 1023, 1 << 20, 5 << 30)] == ["0 B", "999 B", "0.999 KiB", "1 MiB", "5 GiB"]


def test_the_configuration_has_a_json_schema_whose_keys_can_be_found() -> None:
    assert Config.model_json_schema()["properties"]["condense"]["patternProperties"]
