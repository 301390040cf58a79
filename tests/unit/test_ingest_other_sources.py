"""Readers of other distributions: their table in the configuration, and what they may give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.stages.source import _content_digest
from pipeline.core.config import OtherSource, parse_config, reader_options
from pipeline.core.errors import ConfigError, DataError
from pipeline.ingest.sources.readers import READERS, read_source

REST = {
    "name": "small",
    "encode": {"raw": {"kind": "identity"}},
    "condense": {"a": {"kind": "centroids", "input": "raw", "n_per_class": 2}},
    "release": {"artefact": "a", "licence": "ODbL-1.0"},
}


def source(base: Path, **table: Any) -> Any:
    return parse_config({**REST, "source": table}, "site.toml", base).source


def test_files_are_found_beside_the_configuration_and_all_options_reach_the_reader(tmp_path: Path) -> None:
    found = source(tmp_path, kind="guest_book", files={"book": "book.csv"}, options={"page": 3})
    assert isinstance(found, OtherSource)
    assert reader_options(found) == {"book": tmp_path / "book.csv", "page": 3}


def test_what_the_files_hold_and_not_where_they_lie_is_the_content(tmp_path: Path) -> None:
    def content(folder: str, text: str, page: int) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "book.csv").write_text(text)
        found = source(tmp_path / folder, kind="guest_book", files={"book": "book.csv"}, options={"page": page})
        return _content_digest(reader_options(found), lambda path: path.read_text())

    first = content("a", "1", 3)
    assert content("b", "1", 3) == first
    assert len({first, content("a", "2", 3), content("a", "1", 4)}) == 3


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"kind": "long_tabel", "events": "e.csv"}, "kind is none of embedded, physionet2012, long_table, tables"),
        ({"kind": "guest_book", "files": {"a": "b"}, "options": {"a": 1}}, "must not share a name"),
        ({"kind": "guest_book", "files": "b"}, "source.files: must be a table"),
        ({"files": {}}, "source.kind: is missing"),
        ({"kind": "long_table"}, "source.events: is missing"),
        ({"kind": "Guest Book"}, "source.kind"),
        ({"kind": 7}, "source.kind"),
    ],
    ids=str,
)
def test_a_table_that_cannot_be_meant_is_refused(table: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        source(tmp_path, **table)


def guest_book(*, book: Path, page: int = 1, on_step: Any = None) -> Any:
    return read_source("embedded", sets=("a",), max_stays=20) if page == 1 else "no tables"


def test_a_reader_of_others_is_called_with_its_options_and_gives_a_sources_tables(tmp_path: Path) -> None:
    readers = {**READERS, "guest_book": guest_book}
    assert read_source("guest_book", readers=readers, book=tmp_path).stays.height == 20
    with pytest.raises(DataError, match="something else than the tables of a source"):
        read_source("guest_book", readers=readers, book=tmp_path, page=2)
    for options in ({}, {"book": tmp_path, "pages": 1}):
        with pytest.raises(ConfigError, match="does not take these options, or needs others"):
            read_source("guest_book", readers=readers, **options)
    with pytest.raises(ConfigError, match="names no reader; there are embedded, physionet2012, long_table, tables"):
        read_source("guest_book", book=tmp_path)
