"""A document on its way: what is known of each page, on disk, so that memory does not grow with the pages.

One small file for each thing, written aside and renamed. After a kill the finished ones are there, and a
process that shares the folder may have made them. Files are not flushed to the disk one by one (that would cost
more than reading the page); one that a power cut left damaged counts as absent.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from pdf2txt.spans import Line

_FIELDS = tuple(Line.__slots__)
_values = attrgetter(*_FIELDS)
_CHUNK = 8  # pages that are read, and shaped, in one go
_FAST = 1  # zlib level: twice as quick as the default for a tenth more


def ranges(total: int) -> Iterator[tuple[int, int]]:
    """(first, last) page of each piece of a document."""
    for first in range(1, total + 1, _CHUNK):
        yield first, min(first + _CHUNK - 1, total)


def pack_line(line: Line) -> tuple[Any, ...]:
    """The fields of a line, for JSON."""
    return tuple(round(v, 3) if isinstance(v, float) else v for v in _values(line))


def unpack_line(values: list[Any]) -> Line:
    line = Line(*values)
    line.gaps = tuple((before, x0, x1) for before, x0, x1 in line.gaps)
    return line


class Spool:
    """Values (anything JSON can hold) of one document by name and number, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, name: str, number: int) -> Path:
        return self.folder / f"{name}-{number}"

    def get(self, name: str, number: int = 0) -> Any:
        """The value, or None if it is not there or damaged."""
        try:
            return orjson.loads(zlib.decompress(self._path(name, number).read_bytes()))
        except (FileNotFoundError, zlib.error, ValueError):
            return None

    def put(self, name: str, value: Any, number: int = 0) -> None:
        path = self._path(name, number)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            data = orjson.dumps(value)
        except TypeError:  # half of a surrogate pair, as the name of a file may hold in a message
            data = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        aside.write_bytes(zlib.compress(data, _FAST))
        aside.replace(path)
