"""What a stage's result depends on besides its inputs: the code that the stage's module reaches by its imports.

    modules      every import statement counts, wherever it stands, and with a module the packages that it lies in
    data files   `files("PACKAGE") / "FOLDER"`, or a path from `__file__`: all files below that folder
    plug-ins     where a module looks entry points up, what is registered at those that it names: ours by their closure,
                 others by version, files, and what they import of ours

This module names results and makes none: it is no part of any closure.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Final, final

from flows import registry
from flows.environment import code_version, package_files
from pipeline.core.config import Config
from pipeline.core.digest import digest_file, digest_json

Point = tuple[str, str]
"""The group and the name of an entry point."""

_LOOK_UP: Final = "entry_points"
_IMPORT: Final = re.compile(r"(?:\bfrom\b(?P<base>[ \t\f.\w]+?))?\bimport\b\s*(?P<names>\((?:[^)#]|#.*)*\)|[^\n;#(]*)")
"""Every import statement, and what looks like one in a text: that is harmless, and ten times faster than to parse."""
_PARSED: Final = (b"import_module", _LOOK_UP.encode(), b"files(", b"__file__")
"""A file without any of these words is not parsed."""
_NOT_SOURCE: Final = frozenset({".pyc", ".pyo"})


@final
@dataclass(frozen=True)
class Reach:
    """What one file asks for: modules of ours, folders (or files) of data; and whether it looks entry points up."""

    modules: frozenset[str]
    data: frozenset[Path]
    looks_up: bool


def stage_code(module: str, points: Iterable[Point]) -> str:
    """Digest of the code that `module` reaches; of what is registered at `points`, where it looks entry points up.

    A module that is none of ours has the digest of all our code: what it reaches is not known.
    """
    return _stage_code(module, tuple(dict.fromkeys(points)))


def named_by(config: Config) -> tuple[Point, ...]:
    """The entry points of all tables of a configuration."""
    return tuple(registry.point_of(table) for table in (*config.encode.values(), *config.condense.values()))


@cache
def _stage_code(module: str, points: tuple[Point, ...]) -> str:
    if module not in modules():
        return code_version()
    parts = _digests(closure([module]))
    if any(reach(modules()[name], name).looks_up for name in closure([module])):
        for group, name in points:
            owners = registry.owners(group, name)
            parts |= {f"{group} {name} {point.value}": digest_json(_plugin(point)) for point in owners}
    return digest_json(parts)


@cache
def modules() -> Mapping[str, Path]:
    """Every module of ours, by its dotted name."""
    return {_dotted(name): path for name, path in package_files().items() if path.suffix == ".py"}


def closure(begin: Iterable[str]) -> frozenset[str]:
    """The modules of ours that these reach, they themselves included."""
    found: set[str] = set()
    waiting = [name for name in begin if name in modules()]
    while waiting:
        name = waiting.pop()
        if name not in found and name != __name__:
            found.add(name)
            waiting += reach(modules()[name], name).modules
    return frozenset(found)


@cache
def reach(path: Path, name: str) -> Reach:
    """What the source file of the module `name` asks for itself."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    source = path.read_bytes()
    nodes = list(ast.walk(ast.parse(source, str(path)))) if any(word in source for word in _PARSED) else []
    asked = {*_imported(source.decode(errors="replace"), package), *_imported_by_name(nodes)}
    ours = {lead for target in {*asked, name} for lead in _leads(target) if lead in modules()} - {name}
    looks_up = any(target.rpartition(".")[2] == _LOOK_UP for target in asked) or any(
        isinstance(node, ast.Attribute) and node.attr == _LOOK_UP for node in nodes
    )
    return Reach(frozenset(ours), frozenset(_data(nodes, path)), looks_up)


def _imported(source: str, package: str) -> Iterator[str]:
    """Dotted names that imports may mean: of `from a import b` a and a.b, which is a module of a or a name in it."""
    lines = re.sub(r"\r\n?", "\n", source).replace("\\\n", " ")
    for found in _IMPORT.finditer(lines):
        names = re.sub(r"\s*\.\s*", ".", re.sub(r"#.*", "", found["names"])).strip("()").split(",")
        asked = [words[0] for words in map(str.split, names) if words]
        if found["base"] is None:
            yield from asked
            continue
        with suppress(ImportError):  # beyond the top: words of a text
            base = resolve_name("".join(found["base"].split()), package)
            yield from (base, *(f"{base}.{name}" for name in asked))


def _imported_by_name(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Call) and _called(node) == "import_module" and (told := _text(node.args)) is not None:
            yield told


def _leads(dotted: str) -> Iterator[str]:
    """a, a.b, a.b.c: importing a module runs its packages."""
    parts = dotted.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _data(nodes: Iterable[ast.AST], path: Path) -> Iterator[Path]:
    """Where a module's data lie: at the longest path that it builds of constants from a package or its own file."""
    inner: set[ast.AST] = set()
    for node in nodes:  # outer nodes come first
        if node in inner:
            continue
        place = _place(node, path)
        if place is not None:
            inner |= set(ast.walk(node))
            if place != path and place.exists():
                yield place


def _place(node: ast.AST, path: Path) -> Path | None:
    """The path that an expression stands for; None = it is none, or is not made of constants."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        folder = _place(node.left, path)
        if folder is None or not isinstance(node.right, ast.Constant):
            return None
        return folder / str(node.right.value)
    if isinstance(node, ast.Call) and _called(node) == "files":
        package = _text(node.args)
        return None if package is None or package not in modules() else modules()[package].parent
    if isinstance(node, ast.Call) and _called(node) == "Path" and len(node.args) == 1:
        return path if isinstance(node.args[0], ast.Name) and node.args[0].id == "__file__" else None
    if isinstance(node, ast.Attribute) and node.attr == "parent":
        inside = _place(node.value, path)
        return None if inside is None else inside.parent
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "parents":
        inside = _place(node.value.value, path)
        up = node.slice.value if isinstance(node.slice, ast.Constant) else None
        return inside.parents[up] if inside is not None and isinstance(up, int) else None
    return None


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _text(arguments: list[ast.expr]) -> str | None:
    first = arguments[0] if arguments else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def _digests(names: Iterable[str]) -> dict[str, str]:
    """Digest of each module's source, and of all files of its data folders."""
    found = {name: digest_file(modules()[name]) for name in names}
    for name in names:
        for place in reach(modules()[name], name).data:
            files = [place] if place.is_file() else [path for path in place.rglob("*") if path.suffix != ".py"]
            told = {f"{name}: {path.relative_to(place.parent).as_posix()}": path for path in files if _counts(path)}
            found |= {what: digest_file(path) for what, path in told.items()}
    return found


def _plugin(point: EntryPoint) -> dict[str, str]:
    """What a registered factory depends on: ours by its closure; another's by version, files and imports of ours."""
    if point.module in modules():
        return _digests(closure([point.module]))
    found: dict[str, str] = {}
    files: dict[str, Path] = {}
    if point.dist is not None:
        found["version"] = f"{point.dist.name} {point.dist.version}"
        listed = [file for file in point.dist.files or () if file.suffix == ".py"]
        files |= {file.as_posix(): Path(str(point.dist.locate_file(file))) for file in listed}
    top = point.module.partition(".")[0]
    if (spec := find_spec(top)) is not None:
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
        inside = {f"{top}/{path.relative_to(root).as_posix()}": path for root in folders for path in root.rglob("*")}
        files |= inside if folders else {f"{top}.py": Path(str(spec.origin))}
    files = {name: path for name, path in files.items() if _counts(path)}
    found |= {name: digest_file(path) for name, path in files.items()}
    ours = {one for name, path in files.items() if path.suffix == ".py" for one in reach(path, _dotted(name)).modules}
    return found | _digests(closure(ours))


def _counts(path: Path) -> bool:
    return path.suffix not in _NOT_SOURCE and path.is_file()


def _dotted(name: str) -> str:
    parts = name.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
