"""Workbooks as programs write them: xlsx, xlsb and OpenDocument made here, and one of the old Excel.

The binary forms follow [MS-XLSB] (records of a type, a size and data) and OpenDocument 1.2. `XLS_LAB` was written with
xlwt 1.3 from the rows of `test_ingest_containers.LAB`: numbers as numbers, times as serial numbers with a format.
"""

from __future__ import annotations

import base64
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

OFFICE: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
SHEETS: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
LINKS: Final = "http://schemas.openxmlformats.org/package/2006/relationships"
Cell = str | float | datetime | None


def _xlsx_cell(value: Cell) -> str:
    if value is None:
        return "<c/>"
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    if isinstance(value, datetime):
        return f'<c s="1"><v>{(value - datetime(1899, 12, 30)).total_seconds() / 86400!r}</v></c>'
    return f"<c><v>{value}</v></c>"


def xlsx(path: Path, sheets: Mapping[str, Sequence[Sequence[Cell]]]) -> None:
    """As Excel writes one: numbers as numbers, dates as serial numbers with a format."""
    links = [("styles", "styles.xml"), *(("worksheet", f"worksheets/{i}.xml") for i in range(len(sheets)))]
    named = "".join(f'<sheet name="{n}" sheetId="{i}" r:id="r{i}"/>' for i, n in enumerate(sheets, 1))
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{LINKS}"><Relationship Id="r" Type="{OFFICE}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{SHEETS}"><cellXfs><xf numFmtId="0"/><xf numFmtId="22"/></cellXfs>'
        "</styleSheet>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{LINKS}">'
        + "".join(f'<Relationship Id="r{i}" Type="{OFFICE}/{k}" Target="{t}"/>' for i, (k, t) in enumerate(links))
        + "</Relationships>",
        "xl/workbook.xml": f'<workbook xmlns="{SHEETS}" xmlns:r="{OFFICE}"><sheets>{named}</sheets></workbook>',
    }
    for i, rows in enumerate(sheets.values()):
        lines = "".join(f"<row>{''.join(map(_xlsx_cell, row))}</row>" for row in rows)
        parts[f"xl/worksheets/{i}.xml"] = f'<worksheet xmlns="{SHEETS}"><sheetData>{lines}</sheetData></worksheet>'
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)


def _serial(time: datetime) -> float:
    return (time - datetime(1899, 12, 30)).total_seconds() / 86400


TABLE: Final = "urn:oasis:names:tc:opendocument:xmlns:table:1.0"
BODY: Final = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"
TEXT: Final = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"


MANIFEST: Final = "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"


def _ods_cell(value: Cell) -> str:
    kind = "table:table-cell"
    if value is None:
        return f"<{kind}/>"
    if isinstance(value, str):
        return f'<{kind} office:value-type="string"><text:p>{escape(value)}</text:p></{kind}>'
    if isinstance(value, datetime):
        return f'<{kind} office:value-type="date" office:date-value="{value.isoformat()}"><text:p>?</text:p></{kind}>'
    return f'<{kind} office:value-type="float" office:value="{value}"><text:p>{value:.1f}</text:p></{kind}>'


def ods(path: Path, sheets: Mapping[str, Sequence[Sequence[Cell]]]) -> None:
    """As LibreOffice writes one: each cell with its type and value, beside the text that is shown."""
    tables = "".join(
        f'<table:table table:name="{name}">'
        + "".join(f"<table:table-row>{''.join(map(_ods_cell, row))}</table:table-row>" for row in rows)
        + "</table:table>"
        for name, rows in sheets.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        kind = "application/vnd.oasis.opendocument.spreadsheet"
        entry = f'<m:file-entry m:full-path="/" m:media-type="{kind}"/>'
        archive.writestr("mimetype", kind)
        archive.writestr("META-INF/manifest.xml", f'<m:manifest xmlns:m="{MANIFEST}">{entry}</m:manifest>')
        archive.writestr(
            "content.xml",
            f'<office:document-content xmlns:office="{BODY}" xmlns:table="{TABLE}" xmlns:text="{TEXT}" '
            f'office:version="1.2"><office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body>'
            "</office:document-content>",
        )


def _record(kind: int, data: bytes = b"") -> bytes:
    """A record of BIFF12: its type and size, seven bits a byte."""
    head = [kind] if kind < 128 else [kind & 127 | 128, kind >> 7]
    size, sizes = len(data), list[int]()
    while size > 127:
        sizes.append(size & 127 | 128)
        size >>= 7
    return bytes([*head, *sizes, size]) + data


def _wide(text: str) -> bytes:
    return struct.pack("<I", len(text.encode("utf-16-le")) // 2) + text.encode("utf-16-le")


def _xlsb_cell(column: int, value: Cell) -> bytes:
    place = struct.pack("<II", column, 1 if isinstance(value, datetime) else 0)
    if value is None:
        return _record(1, place)
    if isinstance(value, str):
        return _record(6, place + _wide(value))
    return _record(5, place + struct.pack("<d", _serial(value) if isinstance(value, datetime) else value))


def xlsb(path: Path, sheets: Mapping[str, Sequence[Sequence[Cell]]]) -> None:
    """As Excel writes a binary workbook, in the fewest records."""
    styles = _record(278) + _record(617, struct.pack("<I", 2))
    styles += b"".join(_record(47, struct.pack("<HHHHHHHH", 0, form, 0, 0, 0, 0, 0, 0)) for form in (0, 22))
    styles += _record(618) + _record(279)
    bundle = b"".join(
        _record(156, struct.pack("<II", 0, i) + _wide(f"r{i}") + _wide(name)) for i, name in enumerate(sheets, 1)
    )
    links = "".join(
        f'<Relationship Id="r{i}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{i}.bin"/>'
        for i in range(1, len(sheets) + 1)
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/_rels/workbook.bin.rels", f'<Relationships xmlns="{LINKS}">{links}</Relationships>')
        book = _record(131) + _record(143) + bundle + _record(144) + _record(157, bytes(26)) + _record(132)
        archive.writestr("xl/workbook.bin", book)
        archive.writestr("xl/styles.bin", styles)
        for i, rows in enumerate(sheets.values(), 1):
            last = (max(len(rows), 1) - 1, max(map(len, rows), default=1) - 1)
            data = _record(129) + _record(148, struct.pack("<IIII", 0, last[0], 0, last[1])) + _record(145)
            for number, row in enumerate(rows):
                data += _record(0, struct.pack("<I", number) + bytes(13))
                data += b"".join(_xlsb_cell(column, value) for column, value in enumerate(row))
            archive.writestr(f"xl/worksheets/sheet{i}.bin", data + _record(146) + _record(130))


XLS_LAB: Final = zlib.decompress(
    base64.b64decode(
        "eNrtmEtIVFEYx79zH3Mf83A0DTQSEbTygYWbiHQsTKUcUSF6ENSosxDnET4CW5RlLoOgVY+NYIsMrDY9qEXtWgRGLYIg0II2rYKCFur0"
        "ne+euXnsBgolWPMN9zvnfOec3/3mf+659868ms2fm7xfMg8rrBFUWMpY4FsWY3hY2UYYsD+T4dVsaeKRydmGMsvEhfTp8CT40uBryNd7"
        "HhS4pz1HD/ABjxNwGjrSqXjZOtp+yiHGeA4N6BncxEgIiimrAvK95DeRv0sjn5Jvoshl8g04do4dh9lIR9VucRUfVcqpLwSc+5DmvKPI"
        "LiiCF/wqPn+FOWN12DfYH0tssI5SLQBTgAvaGk/FB3m7CG7xLXsMrTYarW1uLmtr2xONzkEhLvkUfMuUAXzN7u1nZbn4+sYZYPy7HDd+"
        "EzdxKVfGryoawBhkTtFWmQA/NGi8R4X2WM8CdMFWbNh4YHRoODaKxXB/Mo5Fb7ovrgOciSVGeHMk1T+MO6GtG+t1yf4Uv4YSI73poTje"
        "GZLJdKKuXQXYW7+Tw5ybR1i6eQRpUwXQ90Ee1fNpa4Ux74XbX15HezojJykyRg8M57FSwfOHDFzgM3ByiHqC5DE7qKIZ1eQvEnUL1UvI"
        "F+IYLCs7i0SlZZzGXKLeSjxPPdmbyLZl9e1Yn/jc9ah04mNkB9ZnWufPFs68jUxCOT7m+nA+/4xDDath169xexzJlkzcgt6TL/7ldmQq"
        "YZF7Rjw782CRFgBQD25Oi6vD3JYitHJaKrZUt6VhSxNktoJ8TrEplk8roKJ6PPMC6vZXfGriBEZ0rqUzmtNbmENnRPcJuuJBVyS6QvTD"
        "aAFBV4huCLpC9BumQ1eIbgq6St9FpqsSXSX6nenp6aCgq27uTovTLcHTPLLViGcLnuZqUS14mqSFRryDQgtN0kL3oOsSXXe1qBF0XdJC"
        "l7TQJS18Hlr4JLrP1aJW0H2SFj5JC8MjW4N4IcEzXC0OCZ4haWEQr0NoYUhamB50U6Kbrhbtgm5KWpiSFqakheWhhSXRLVeLqKBbkhaW"
        "pIXtka1NvALBs10tBgTPlrSwidcttLAlLfwedL9E97taJATdL2nhl7TwS1oEPLQISPSAq0VS0AOSFgFXi0alAB7w7YuvRT/NhpzlLGc5"
        "y9l/bYxeO0G8ljkv2/whZ4j/dRbxWMr9TfLPWjek8TOMPycPQArLQRhd0/WzGXSWZbFVzsn+X8jtCJ59EAagh/IYWPP1iz/D2PLvs+qJ"
        "4T+3hdZ6/qW15PmXz/8DFJs5Fg=="
    )
)
