"""The public face: these names and no others, light until they are asked for, and no stranger behind them."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from base64 import urlsafe_b64encode
from hashlib import sha256
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import decoct
from decoct._owner import NAMES, require_own_packages

ROOT = Path(__file__).parents[2]
FACE = {
    *("load", "verify", "read_bundle", "Cohort", "EncodedCohort", "CondensedSet", "RandomQuantumTransformer"),
    *("RandomProjectionTransformer", "PrivateMoments", "PrivateTeacher", "KernelMatching", "condense", "audit"),
    *("audit_tables", "Policy", "Workspace", "__version__"),
    "DecoctError",  # what all of them raise
    *("example_cohort", "prepare"),  # without them there is nothing to condense in a notebook
    "summaries",  # what the two transformers take
}


def asked(script: str, *path: Path) -> str:
    """What a fresh interpreter prints or, if it fails, the last line of its traceback; `path` goes first."""
    before = f"import sys; sys.path[:0] = {[str(place) for place in path]!r}\n"
    done = subprocess.run([sys.executable, "-c", before + script], capture_output=True, text=True, timeout=60, cwd="/")
    return (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1]


def test_it_shows_exactly_these_names_and_each_is_there_with_a_docstring() -> None:
    assert set(dir(decoct)) == FACE == {*decoct.__all__, "__version__"}
    for name in FACE - {"__version__"}:
        assert inspect.getdoc(getattr(decoct, name)), name
    assert decoct.__version__ == version("decoct")
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = decoct.lode  # type: ignore[attr-defined]


def test_type_checkers_see_what_is_loaded() -> None:
    tree = ast.parse((ROOT / "decoct" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {item.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for item in node.names}
    assert seen == decoct._ROOMS
    for package in ("decoct", *NAMES):
        assert (ROOT / package / "py.typed").is_file()


def test_importing_it_loads_nothing_and_takes_less_than_50_ms() -> None:
    script = """
import time
begin = time.process_time()
import decoct, json
spent = time.process_time() - begin
names = dir(decoct)
ours = ("pipeline", "encoders", "condensation", "flows", "numpy", "torch", "typer", "importlib.metadata")
print(json.dumps([spent, [name for name in ours if name in sys.modules]]))
"""
    told = [json.loads(asked(script)) for _ in range(3)]
    assert min(spent for spent, _ in told) < 0.05
    assert [loaded for _, loaded in told] == [[], [], []]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["package", "module"])
def test_a_strangers_package_of_our_name_is_refused_in_one_sentence(name: str, kind: str, tmp_path: Path) -> None:
    place = tmp_path / name / "__init__.py" if kind == "package" else tmp_path / f"{name}.py"
    place.parent.mkdir(exist_ok=True)
    place.write_text("print('a stranger runs')\n")
    for begin in ("import decoct", f"import {name}, decoct"):
        told = asked(begin, tmp_path)
        assert told.startswith(f"ImportError: another package owns the import name '{name}'"), told
        assert str(tmp_path / name) in told
    assert "stranger runs" not in asked("import decoct", tmp_path)


def test_what_is_written_over_ours_is_refused(tmp_path: Path) -> None:
    """As pip leaves it when another distribution brings a package of that name into the same site-packages folder."""
    rows = []
    for name in NAMES:
        (tmp_path / name).mkdir()
        content = f'"""{name} of ours"""\n'.encode()
        (tmp_path / name / "__init__.py").write_bytes(content)
        digest = urlsafe_b64encode(sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name}/__init__.py,sha256={digest},{len(content)}")
    (tmp_path / "decoct-0.1.0.dist-info").mkdir()
    (tmp_path / "decoct-0.1.0.dist-info" / "RECORD").write_text("\n".join([*rows, "decoct/__init__.py,,"]) + "\n")
    check = (
        f"from pathlib import Path\nfrom decoct._owner import require_own_packages\nhome = Path({str(tmp_path)!r})\n"
    )
    check += "sys.path.insert(0, str(home))\nrequire_own_packages(home)\nprint('all are ours')"
    assert asked(check) == "all are ours"
    (tmp_path / "flows" / "__init__.py").write_text("x = 1\n")
    assert "another distribution has written its package 'flows' over Decoct's" in asked(check)
    (tmp_path / "flows" / "__init__.py").unlink()
    (tmp_path / "flows").rmdir()
    assert "ImportError: " in asked(check)


def test_in_this_checkout_all_names_are_ours() -> None:
    require_own_packages()


def test_python_m_decoct_is_the_script() -> None:
    command = [sys.executable, "-m", "decoct"]
    told = subprocess.run([*command, "verify", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "Check a bundle offline" in told.stdout
    assert {point.value for point in entry_points(group="console_scripts", name="decoct")} == {"decoct.__main__:main"}
    wrong = subprocess.run([*command, "show", "--out", "/absent"], capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, wrong.stderr.splitlines()[-1][:28]) == (2, "decoct: there is no store at")
