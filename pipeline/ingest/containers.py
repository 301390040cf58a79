"""Zip archives and workbooks as folders: a file or a sheet in one is a table at a path within it.

Such a path (`export.zip/lab.csv`, `export.xlsx/Vitals`) names no file of its own. Cells of a sheet come as text, as a
CSV would have them, so that numbers, dates, limits and units go by the same rules: Excel's own types change with the
rows that happen to be there.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from pipeline.core.errors import DataError, NotInstalled

WORKBOOKS: Final = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
CONTAINERS: Final = (".zip", *WORKBOOKS)
_LARGEST_EXACT: Final = 2**53


def is_container(path: Path) -> bool:
    """Whether it is a zip archive or a workbook, by its name; a folder of such a name is a folder."""
    return path.name.lower().endswith(CONTAINERS) and path.is_file()


def holder(path: Path) -> Path:
    """The file on disk that a table lies in: the path itself, or the archive or workbook that it leads through."""
    return next((above for above in (path, *path.parents) if is_container(above)), path)


def is_sheet(path: Path) -> bool:
    """Whether the path leads into a workbook."""
    return path.parent.name.lower().endswith(WORKBOOKS) and path.parent.is_file()


def tables_in(container: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The tables of a container: files with one of the suffixes, or sheets that hold something; in its order.

    Raises:
        DataError: it cannot be opened. NotInstalled: a workbook, and the library that reads them is missing.
    """
    if container.name.lower().endswith(WORKBOOKS):
        return [container / name for name in _book(container).sheet_names if _cells(container / name).width]
    with _archive(container) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
    return [
        container.joinpath(*name.parts)
        for name in names
        if name.name.lower().endswith(suffixes) and not any(part.startswith((".", "__MACOSX")) for part in name.parts)
    ]


def open_member(path: Path) -> io.RawIOBase:
    """The bytes of a file in an archive.

    Raises:
        DataError: it is not there, is encrypted, or the archive is damaged.
    """
    archive = holder(path)
    name = path.relative_to(archive).as_posix()
    try:
        with _archive(archive) as opened:
            return _Member(opened.open(name))
    except (KeyError, RuntimeError, NotImplementedError):  # what zipfile says of a password, and of rare packings
        raise DataError(f"{path} cannot be unpacked: it is encrypted, or not there") from None


def seekable(path: Path) -> Path | io.BytesIO:
    """What a reader can go back and forth in: the file, or all bytes of a file in an archive.

    Raises:
        DataError: as `open_member`. OSError: the archive is damaged.
    """
    if holder(path) == path:
        return path
    with open_member(path) as member:
        return io.BytesIO(member.read())


class _Member(io.RawIOBase):
    """Reads on; what says that the archive is damaged becomes an `OSError`, as of any other file."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise OSError("damaged") from None

    def close(self) -> None:
        self._stream.close()
        super().close()


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError):
        raise DataError(f"{path} cannot be read as a zip archive: it is damaged or ends early") from None


def sheet(path: Path) -> tuple[list[str], Any]:
    """The names of a sheet's columns, as its first row has them, and a frame of its other rows, all text.

    Raises:
        DataError: a whole number beyond 2^53 stands where Excel has numbers, as ids that it has rounded do.
    """
    cells = _cells(path)
    names = [(name or "").strip() for name in (cells.row(0) if cells.height else ())]
    rows = cells.slice(1)
    rounded = [name for name, column in zip(names, rows.iter_columns(), strict=True) if _rounded(path, column)]
    if rounded:
        raise DataError(
            f"{path}: column {rounded[0]} holds whole numbers beyond 2^53, which Excel has rounded; format the column "
            "as text before anything is typed or pasted there"
        )
    return names, rows


def _rounded(path: Path, column: Any) -> bool:
    long = column.str.contains(r"^-?\d{16,}$")
    if not long.any():
        return False
    typed = _book(path.parent).load_sheet(path.name, header_row=None, skip_rows=1, schema_sample_rows=None).to_polars()
    own = typed.to_series(int(column.name))
    return bool(own.dtype.is_numeric() and (own.abs() > _LARGEST_EXACT).any())


@lru_cache(maxsize=4)
def _read_cells(path: Path, _seen: tuple[int, int]) -> Any:
    frame = _book(path.parent).load_sheet(path.name, header_row=None, dtypes="string").to_polars()
    return frame.rename({name: str(place) for place, name in enumerate(frame.columns)})


def _cells(path: Path) -> Any:
    seen = path.parent.stat()
    return _read_cells(path, (seen.st_mtime_ns, seen.st_size))


def _book(path: Path) -> Any:
    try:
        import fastexcel  # an extra, and only where a workbook is named
    except ImportError:
        raise NotInstalled(
            f"{path}: an Excel workbook needs the extra excel: pip install 'decoct[excel]', or save the sheet as CSV"
        ) from None
    try:
        return fastexcel.read_excel(path)
    except fastexcel.FastExcelError:
        raise DataError(
            f"{path} is no workbook that can be read: it is damaged, encrypted or of another format"
        ) from None
