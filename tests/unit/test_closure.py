"""What a stage's key takes of the code: what its module reaches by any import, the data it reads, its plug-ins."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from importlib.util import resolve_name
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import closure, registry
from flows.closure import modules, reach, stage_code
from flows.environment import code_version
from pipeline.core.config import Plugin
from pipeline.core.config.encode import ENCODE_TABLES, PluginEncode

STAGES = sorted(name for name in modules() if name.startswith("flows.stages."))


def reached(stage: str) -> frozenset[str]:
    return closure.closure([f"flows.stages.{stage}"])


def data_of(stage: str) -> set[str]:
    return {place.name for name in reached(stage) for place in reach(modules()[name], name).data}


@pytest.mark.parametrize("stage", sorted({name.rpartition(".")[2] for name in STAGES} - {"report"}))
def test_the_report_s_pages_are_reached_by_the_stages_that_write_it_alone(stage: str) -> None:
    folder = "attacks." if f"flows.stages.attacks.{stage}" in modules() else ""
    if stage == "tables":  # the audit of anybody's tables writes its own page
        return
    assert "pipeline.report.render" not in reached(folder + stage)


def test_stages_reach_what_they_work_with_and_not_what_comes_after() -> None:
    assert {"pipeline.ingest.sources.readers", "pipeline.ingest.mapping.load", "pipeline.store"} <= reached("ingest")
    assert {"mappings", "physionet2012"} <= data_of("ingest")
    assert "templates" in data_of("report")
    assert "policies" in data_of("decide")
    assert "flows.registry" not in reached("prepare")
    for stage in ("ingest", "prepare"):
        assert not [name for name in reached(stage) if name.startswith(("condensation", "encoders"))]
    assert not [name for name in reached("encode") if name.startswith("condensation")]
    assert "flows.closure" not in reached("encode")  # it names results and makes none
    assert "condensation.kernel_matching" not in reached("condense")  # that comes by the table that names it


def test_where_code_is_found_by_name_the_names_are_counted() -> None:
    """Entry points are looked up in one module, data by `files` or `__file__`; nothing is imported by a variable."""
    assert [name for name, path in modules().items() if reach(path, name).looks_up] == ["flows.registry"]
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        assert "import_module(" not in text or name == "flows.closure", name
        assert "__import__(" not in text, name
        assert "PackageLoader(" not in text, name
        if name not in {"flows.environment", "flows.closure", "pipeline.core.redaction"} and (
            "__file__" in text or " files(" in text or ".files(" in text
        ):
            assert reach(path, name).data, name


IMPORTS = {
    "import pipeline.core.seeds": {"pipeline.core.seeds"},
    "from pipeline.core import seeds": {"pipeline.core.seeds"},
    "from pipeline.core.seeds import generator": {"pipeline.core.seeds"},
    "from pipeline.core.seeds import generator as g, child_seed": {"pipeline.core.seeds"},
    "from . import splits": {"pipeline.ingest.splits"},
    "from .cohort.grid import x": {"pipeline.ingest.cohort.grid", "pipeline.ingest.cohort"},
    "from ..core.seeds import generator": {"pipeline.core.seeds"},
    "import numpy as np, pipeline.core.seeds as s": {"pipeline.core.seeds"},
    "from pipeline.core.seeds import (  # (a\n  generator,  # b)\n child_seed)": {"pipeline.core.seeds"},
    "from pipeline.core.seeds import(generator)": {"pipeline.core.seeds"},
    "from pipeline.core \\\n  import \\\n  digest, seeds": {"pipeline.core.seeds"},
    "from . import (\n    text_stream,\n    splits\n)": {"pipeline.ingest.splits"},
    "from .import splits": {"pipeline.ingest.splits"},
    "x = 1; import pipeline.core.seeds": {"pipeline.core.seeds"},
    "import numpy; from pipeline.core import seeds; y = '#'": {"pipeline.core.seeds"},
    "import pipeline . core . seeds as s": {"pipeline.core.seeds"},
    "from importlib import import_module; import_module('pipeline.core.seeds')": {"pipeline.core.seeds"},
}
AROUND = (
    "{0}",
    "def f():\n    {0}",
    "class A:\n    def f(self):\n        if self:\n            {0}",
    "try:\n    {0}\nexcept ImportError:\n    pass",
    "if TYPE_CHECKING:\n    {0}",
    "async def f():\n    with x:\n        {0}",
)


@given(line=st.sampled_from(sorted(IMPORTS)), around=st.sampled_from(AROUND))
def test_an_import_counts_wherever_it_stands(line: str, around: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("source") / "asking.py"
    path.write_text(around.format(line))
    found = reach(path, "pipeline.ingest.asking").modules
    assert IMPORTS[line] <= found
    assert {"pipeline", "pipeline.ingest"} <= found  # the packages that it lies in run first


def test_what_is_found_in_the_text_of_our_modules_is_what_their_statements_import() -> None:
    for name, path in modules().items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        source = path.read_text(encoding="utf-8")
        told = set(closure._imported(source, package))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= told, name
            elif isinstance(node, ast.ImportFrom):
                base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
                assert {f"{base}.{alias.name}" for alias in node.names if alias.name != "*"} | {base} <= told, name


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ('files("pipeline.report") / "templates" / name', {"templates"}),
        ('resources.files("pipeline.sharing") / "policies"', {"policies"}),
        ('files("pipeline.report") / "templates" / "report.css"', {"report.css"}),
        ('files("flows.templates") / name', {"templates"}),
        ('Path(__file__).parents[1] / "mappings"', {"mappings"}),
        ('Path(__file__).parent.parent / "data"', {"data"}),
        ('files("numpy") / "core"', set()),
        ("Path(__file__)", set()),
    ],
)
def test_data_lie_where_a_module_says(line: str, names: set[str]) -> None:
    place = modules()["pipeline.ingest.mapping.load"]
    assert {path.name for path in closure._data(ast.walk(ast.parse(line)), place)} == names


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plug-in of somebody else's: a package that imports of ours what the stage itself does not reach."""
    package = tmp_path / "elsewhere_encoders"
    package.mkdir()
    (package / "__init__.py").write_text("from .core import make\n")
    (package / "core.py").write_text("def make():\n    from pipeline.probes import networks\n    return networks\n")
    point = EntryPoint("elsewhere", "elsewhere_encoders:make", registry.ENCODERS)
    monkeypatch.setattr(registry, "owners", lambda group, name: (point,) if name == "elsewhere" else ())
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    closure._stage_code.cache_clear()
    sys.modules.pop("elsewhere_encoders", None)


def again(module: str, *tables: Plugin) -> str:
    closure._stage_code.cache_clear()
    closure.reach.cache_clear()
    return stage_code(module, [registry.point_of(table) for table in tables])


def test_a_plug_in_counts_by_its_files_and_what_they_reach(foreign: Path) -> None:
    table = PluginEncode(kind="plugin", name="elsewhere")
    before = again("flows.stages.encode", table)
    assert before != again("flows.stages.encode")
    assert before == again("flows.stages.encode", table)
    (point,) = registry.owners(registry.ENCODERS, "elsewhere")
    told = closure._plugin(point)
    assert {"elsewhere_encoders/__init__.py", "elsewhere_encoders/core.py", "pipeline.probes.networks"} <= set(told)
    (foreign / "core.py").write_text("def make():\n    return None\n")
    assert again("flows.stages.encode", table) != before
    assert again("flows.stages.prepare", table) == again("flows.stages.prepare")  # it looks no plug-in up


def test_our_own_plug_in_counts_by_its_closure() -> None:
    raw, quantum = ENCODE_TABLES["identity"](kind="identity"), registry.owners(registry.ENCODERS, "quantum")[0]
    assert "encoders.circuits.gates" in closure._plugin(quantum)
    assert again("flows.stages.encode", raw) != again("flows.stages.encode")


def test_a_module_of_nobody_has_the_version_of_everything() -> None:
    assert stage_code(__name__, ()) == code_version()
    assert stage_code("numpy", ()) == code_version()
