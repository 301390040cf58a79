"""The tutorial from an empty folder: every fenced block as it stands, the files, the commands and the Python."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.workspace.job import KEY_PURPOSES, key_path
from pipeline.core.errors import DecoctError
from pipeline.core.keys.secrets import Secret, write_secret

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)(?: (\w+)=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WORD = re.compile(r"[A-Za-z_-]{3,}")


def typed(line: str) -> tuple[int, str]:
    """A line of a shell block: Decoct's in this process, the others in a shell; its exit code and what it printed."""
    if not line.startswith("decoct "):
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr
    answer = CliRunner().invoke(app, shlex.split(line)[1:])
    if isinstance(answer.exception, DecoctError):
        return answer.exception.exit_code, str(answer.exception)
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.stdout


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_the_tutorial_runs_from_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # known keys: by chance an audit refuses one run in some tens
    for number, hospital in enumerate(("north", "south")):
        for place, purpose in enumerate(KEY_PURPOSES, start=1):
            write_secret(key_path(Path(hospital), purpose), Secret(bytes([16 * number + place]) * 32, purpose))
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert [kind for kind, *_ in blocks].count("sh") == 9
    printed, names = "", dict[str, Any]()
    for kind, key, value, text in blocks:
        if kind == "toml":
            Path(value).write_text(text, encoding="utf-8")
        elif kind == "sh":
            for line in text.splitlines():
                code, said = typed(line)
                assert code == (int(value) if key == "exit" else 0), f"{line}: {said}"
                printed += said
        elif kind == "python":
            exec(text, names)
        else:  # what the reader is shown has the lines that were printed, with other figures
            for shown in text.splitlines():
                assert WORD.findall(shown)[0] in printed, shown
    assert names["model"].predict_proba(names["X"]).shape == (len(names["X"]), 2)
    assert "card.md was altered after signing" in printed
