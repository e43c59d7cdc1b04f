"""Finished pieces of work on disk, each whole or absent: ``<root>/<kind>/<key>``.

A unit is one file, written aside, flushed to the disk and renamed, so that a kill at any instant leaves
either nothing or the finished unit. Keys are content digests, so two writers of one key write the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


READING = "reading"  # kind of the folders of documents that are on their way


def digest(*parts: Any) -> str:
    """sha256 (64 hex digits) of JSON-serialisable parts, independent of dict order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomic(path: Path, data: Buffer) -> None:
    """Write ``data`` to ``path`` so that readers see the old file or the new one, never a part."""
    write_atomic_pieces(path, [data])


def write_atomic_pieces(path: Path, pieces: Iterable[Buffer]) -> None:
    """The same for data that comes piece by piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{uuid.uuid4().hex[:12]}.tmp"  # the name may be as long as names can be
    try:
        with aside.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


class Units:
    """The units of one ``kind`` below ``root``."""

    def __init__(self, root: Path, kind: str) -> None:
        self.folder = root / kind
        self.kind = kind

    def path(self, key: str) -> Path:
        return self.folder / key

    def get(self, key: str) -> bytes | None:
        """The unit's bytes, or None if it is not finished."""
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, key: str, data: bytes) -> None:
        write_atomic(self.path(key), data)
