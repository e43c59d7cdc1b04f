"""External inputs by content: the sha256 of files.

Hashing is remembered per (path, size, modification time), so that a plan over thousands of PDFs or a large
model is quick. The cache only saves time; deleting it is harmless.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.errors import UsageError
from pdf2txt.units import write_atomic


class FileHashes:
    """sha256 of files, remembered in one JSON file below the store."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._known: dict[str, list[object]] = {}
        self._changed = False
        if cache is not None:
            try:
                known = json.loads(cache.read_text())
                self._known = known if isinstance(known, dict) else {}
            except (OSError, ValueError):
                pass

    def sha256(self, path: Path) -> str:
        """Hex digest of one file's bytes.

        Raises:
            UsageError: the file cannot be read.
        """
        return self.many([path])[path]

    def many(self, paths: Iterable[Path]) -> dict[Path, str]:
        result: dict[Path, str] = {}
        unknown: list[tuple[Path, os.stat_result]] = []
        for path in paths:
            try:
                stat = path.stat()
            except OSError as error:
                raise UsageError(
                    f"{path} cannot be read: {error.strerror}", "check the file and its permissions"
                ) from error
            known = self._known.get(str(path.resolve()))
            if known is not None and known[:2] == [stat.st_size, stat.st_mtime_ns]:
                result[path] = str(known[2])
            else:
                unknown.append((path, stat))
        with ThreadPoolExecutor(2) as pool:  # hashlib releases the interpreter lock
            for (path, stat), sha in zip(unknown, pool.map(_sha256, [p for p, _ in unknown]), strict=True):
                result[path] = sha
                self._known[str(path.resolve())] = [stat.st_size, stat.st_mtime_ns, sha]
                self._changed = True
        return result

    def save(self) -> None:
        """Keep what was learned; failing to is no error (a read-only store can still be planned over)."""
        if self._cache is None or not self._changed:
            return
        try:
            write_atomic(self._cache, json.dumps(self._known).encode())
            self._changed = False
        except OSError:
            pass


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "check the file and its permissions") from error
