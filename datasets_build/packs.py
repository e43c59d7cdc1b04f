"""The units of one document in one file, a recipe each: ten thousand documents are no hundred thousand files.

A pack is ``<key>-<digest of its parts>.<version>``: what is the same for all its recipes, and which recipes it holds. A
build with one more recipe finds the document's packs by their key and writes one more, with that recipe alone.

The file: the length of the header in 8 bytes; the header, JSON by zlib, part -> [begin behind the header, bytes,
facts of its rows, rejects]; the parts, each as `build.pack` makes it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

from datasets_build.build import Unit, pack, unpack
from datasets_build.rows import Row, facts
from pdf2txt.units import Units, digest

PACK_VERSION = 2  # raised when a pack's bytes are laid out anew
KEY = 40  # hex digits of the key in a pack's name
_SUFFIX = f".{PACK_VERSION}"
_HEAD = 8  # bytes that tell the header's length


@dataclass(frozen=True, slots=True)
class Filed:
    """The unit of one recipe: where it is, and what of it is needed before its rows are written."""

    name: str  # of the pack
    part: str
    at: int  # where it begins behind the header
    size: int  # in bytes
    rows: list[dict[str, Any]]  # `rows.facts` of each
    rejects: list[dict[str, Any]]

    @property
    def unit(self) -> str:
        """What `Packs.rows` finds the rows by."""
        return f"{self.name}#{self.at}+{self.size}"


class Packs:
    """The packs below ``units``, those known that were there at the first look."""

    def __init__(self, units: Units) -> None:
        self.units = units

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which looks for no packs."""
        return {"units": self.units}

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        folder = self.units.folder
        for name in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ():
            key, dash, _ = name.partition("-")
            if dash and len(key) == KEY and name.endswith(_SUFFIX):
                names.setdefault(key, []).append(name)
        return names

    def find(self, key: str) -> dict[str, Filed]:
        """The finished units under ``key``, by part."""
        found: dict[str, Filed] = {}
        for name in self._names.get(key[:KEY], ()):
            with suppress(FileNotFoundError):
                found = self.filed(name) | found
        return found

    def filed(self, name: str) -> dict[str, Filed]:
        """The units of a pack, by part.

        Raises:
            FileNotFoundError: the pack is gone.
        """
        with self._open(name) as file:
            header = _header(file)
        return {part: Filed(name, part, *known) for part, known in header.items()}

    def put(self, key: str, made: Mapping[str, Unit]) -> dict[str, Filed]:
        """File the units of some parts together."""
        blobs = {part: pack(unit) for part, unit in sorted(made.items())}
        header: dict[str, Any] = {}
        at = 0
        for part, blob in blobs.items():
            header[part] = [at, len(blob), [facts(row) for row in made[part]["rows"]], made[part]["rejects"]]
            at += len(blob)
        head = zlib.compress(json.dumps(header, ensure_ascii=False, sort_keys=True).encode(), 1)
        name = f"{key[:KEY]}-{digest(sorted(blobs))[:16]}{_SUFFIX}"
        self.units.put(name, b"".join([len(head).to_bytes(_HEAD, "big"), head, *blobs.values()]))
        return {part: Filed(name, part, *header[part]) for part in blobs}

    def read(self, name: str, part: str = "") -> dict[str, Unit]:
        """The units of a pack, or the one of ``part``, with their rows.

        Raises:
            FileNotFoundError: the pack is gone.
        """
        with self._open(name) as file:
            header = _header(file)
            data = file.read()
        return {p: unpack(data[at : at + size]) for p, (at, size, *_) in header.items() if part in ("", p)}

    def rows(self, unit: str) -> list[Row]:
        """The rows of a `Filed.unit`.

        Raises:
            FileNotFoundError: the pack is gone.
        """
        name, _, place = unit.partition("#")
        at, _, size = place.partition("+")
        with self._open(name) as file:
            file.seek(int.from_bytes(file.read(_HEAD), "big") + int(at), os.SEEK_CUR)
            return unpack(file.read(int(size)))["rows"]

    def _open(self, name: str) -> BinaryIO:
        try:
            return self.units.path(name).open("rb")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"unit {self.units.path(name)} vanished during the build") from error


def _header(file: BinaryIO) -> dict[str, Any]:
    """The header of a pack that was just opened; the first part is next."""
    size = int.from_bytes(file.read(_HEAD), "big")
    return json.loads(zlib.decompress(file.read(size)))
