"""A document's row as files beside each other: the text, and everything else as JSON, written piece by piece."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from pdf2txt.schema import PAGE_BREAK, entries
from pdf2txt.units import write_atomic_pieces

if TYPE_CHECKING:
    import pyarrow as pa

_CHARACTERS = 100_000  # written at a time


def write_text(path: Path, table: pa.Table, page_breaks: bool) -> None:
    """The document's text in UTF-8; ``page_breaks``: pages apart by a form feed instead of by empty lines."""
    pieces = _pages(table) if page_breaks else [table["text"][0].as_buffer()]
    write_atomic_pieces(path, itertools.chain(pieces, [b"\n"]))


def _pages(table: pa.Table) -> Iterator[bytes]:
    text = table["text"][0].as_py()
    for n, page in enumerate(entries(table, "pages")):
        yield ((PAGE_BREAK if n else "") + text[page["start"] : page["end"]]).encode("utf-8", "replace")


def write_json(path: Path, table: pa.Table) -> None:
    """The whole document as one JSON object (`schema.Document`), a page, block or paragraph a line."""
    write_atomic_pieces(path, (piece.encode("utf-8", "replace") for piece in _json(table)))


def _json(table: pa.Table) -> Iterator[str]:
    separator = "{\n"
    for name in ("sha256", "source", "status", "language", "warnings"):
        yield f'{separator}"{name}": {json.dumps(table[name][0].as_py(), ensure_ascii=False)}'
        separator = ",\n"
    text = table["text"][0].as_py()
    yield ',\n"text": '
    yield from json_string(text)
    del text
    for name in ("pages", "blocks", "paragraphs"):
        yield f',\n"{name}": ['
        separator = "\n"
        for item in entries(table, name):
            yield separator + orjson.dumps(item).decode()
            separator = ",\n"
        yield "]"
    yield "\n}\n"


def json_string(text: str) -> Iterator[str]:
    """``text`` as a JSON string, piece by piece."""
    yield '"'
    for start in range(0, len(text), _CHARACTERS):
        yield json.dumps(text[start : start + _CHARACTERS], ensure_ascii=False)[1:-1]
    yield '"'
