"""A document's row as files beside each other: the text, and everything else as JSON, written piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdf2txt.schema import PAGE_BREAK
from pdf2txt.units import write_atomic_pieces

if TYPE_CHECKING:
    import pyarrow as pa

_CHARACTERS = 100_000  # written at a time
_SLICE = 1000  # list entries that are objects in memory, and written, at a time
_FIRST = {"pages": "number", "blocks": "page", "paragraphs": "start"}  # of an entry's names; none within it has it


def write_text(path: Path, table: pa.Table, page_breaks: bool) -> None:
    """The document's text in UTF-8; ``page_breaks``: pages apart by a form feed instead of by empty lines."""
    text = table["text"][0]
    if not page_breaks:
        write_atomic_pieces(path, [text.as_buffer(), b"\n"])
        return
    whole = text.as_py()
    pages = (whole[p["start"] : p["end"]] for p in table["pages"][0].as_py())
    write_atomic_pieces(path, [PAGE_BREAK.join(pages).encode("utf-8", "replace"), b"\n"])


def write_json(path: Path, table: pa.Table) -> None:
    """The whole document as one JSON object (`schema.Document`), a page, block or paragraph a line."""
    write_atomic_pieces(path, (piece.encode("utf-8", "replace") for piece in _json(table)))


def _json(table: pa.Table) -> Iterator[str]:
    separator = "{\n"
    for name in ("sha256", "source", "status", "language", "warnings"):
        yield f'{separator}"{name}": {json.dumps(table[name][0].as_py(), ensure_ascii=False)}'
        separator = ",\n"
    text = table["text"][0].as_py()
    yield ',\n"text": "'
    for start in range(0, len(text), _CHARACTERS):
        yield json.dumps(text[start : start + _CHARACTERS], ensure_ascii=False)[1:-1]
    yield '"'
    del text
    for name, first in _FIRST.items():
        yield f',\n"{name}": ['
        separator = "\n"
        for entries in _slices(table[name]):
            # One call for all of them, as a call takes longer than an entry; each then gets its line.
            line = f'{{"{first}": '
            yield separator + json.dumps(entries, ensure_ascii=False)[1:-1].replace(f", {line}", f",\n{line}")
            separator = ",\n"
        yield "]"
    yield "\n}\n"


def _slices(column: Any) -> Iterator[list[dict[str, Any]]]:
    values = column[0].values
    for start in range(0, len(values), _SLICE):
        yield values.slice(start, _SLICE).to_pylist()
