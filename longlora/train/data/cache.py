"""Tokens on disk: made once, read from there ever after.

    <key>/tokens.bin  int32, all entries one after another; a complement carries no loss (see `tokens`)
          ends.bin    int64, where each entry ends in it         learned.bin  int64, tokens with loss up to there
          names.bin   the entries' names, UTF-8                  name_ends.bin  int64
          cache.json  key, sizes, digest; written last: without it the folder is a cache in the making

A cache in the making (``<key>.part``) is committed every few million tokens, and goes on from there after a kill.
What it becomes does not depend on that.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from longlora.train.checkpoints import sync
from longlora.train.data.tokens import Piece

FORMAT = 1  # raised when the same sources give other files
COMMIT = 1 << 22  # tokens between two commits; part of the digest
ARRAYS = {"tokens": np.int32, "ends": np.int64, "learned": np.int64, "name_ends": np.int64, "names": np.uint8}
QUIET_SECONDS = 5.0  # before progress is first reported, and between two reports

Pieces = Callable[[int], Iterator[Piece]]
Report = Callable[..., None]


class TokenCache:
    """Finished entries. The arrays of positions are memory-mapped; tokens are read where they are needed.

    ``ends`` (n,) int64, ``learned`` (n,) int64: cumulated over entries. ``digest``: of all entries' names and tokens.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "cache.json").read_text())
        self.folder, self.digest = folder, str(meta["digest"])
        self.ends, self.learned, self._name_ends = (
            _mapped(folder, name, meta["bytes"][name]) for name in ("ends", "learned", "name_ends")
        )
        for name in ("tokens", "names"):
            _check(folder, name, meta["bytes"][name])

    def __len__(self) -> int:
        return len(self.ends)

    def __reduce__(self) -> tuple[type[TokenCache], tuple[Path]]:
        return TokenCache, (self.folder,)  # to another process goes the path

    def name(self, entry: int) -> str:
        start = int(self._name_ends[entry - 1]) if entry else 0
        return self._read("names", start, int(self._name_ends[entry])).tobytes().decode()

    def tokens(self, entry: int, start: int, stop: int) -> np.ndarray:
        """Tokens ``start`` to ``stop`` of an entry (int32, complement: no loss)."""
        first = int(self.ends[entry - 1]) if entry else 0
        return self._read("tokens", first + start, first + stop)

    def _read(self, name: str, start: int, stop: int) -> np.ndarray:
        # Not through a mapping: what was read through one counts as this process's memory for good.
        kind: Any = ARRAYS[name]
        return np.fromfile(_file(self.folder, name), kind, stop - start, offset=start * np.dtype(kind).itemsize)


def token_cache(folder: Path, key: Any, pieces: Pieces, report: Report) -> TokenCache:
    """The cache of ``key`` in ``folder``, made if it is not there; caches of other keys are removed.

    Processes that want the same one wait for the first.

    Args:
        key: JSON of what the entries are made from: sources by content, tokenizer, template.
        pieces: called with the number of entries to leave out at the start; yields the rest.
        report: takes ``progress`` in tokens, if it takes longer than some seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(json.dumps([FORMAT, COMMIT, key], sort_keys=True).encode()).hexdigest()[:20]
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        final, part = folder / name, folder / f"{name}.part"
        for path in folder.iterdir():
            if path.is_dir() and path not in (final, part):
                shutil.rmtree(path)
        try:
            return TokenCache(final)
        except (OSError, ValueError, KeyError):  # not there, or not whole
            shutil.rmtree(final, ignore_errors=True)
        _Writer(part).run(pieces, report)
        part.rename(final)
        sync(folder)
        return TokenCache(final)


class _Writer:
    """Appends pieces to the files of an unfinished cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        try:
            state = json.loads((folder / "commit.json").read_text())
        except (OSError, ValueError):
            state = {"seen": 0, "bytes": dict.fromkeys(ARRAYS, 0), "learned": 0, "digest": ""}
        self.seen, self.learned, self.digest = int(state["seen"]), int(state["learned"]), str(state["digest"])
        self.bytes: dict[str, int] = state["bytes"]

    def run(self, pieces: Pieces, report: Report) -> None:
        with ExitStack() as stack:
            self.files: dict[str, BinaryIO] = {}
            for name in ARRAYS:
                file = self.files[name] = stack.enter_context(_file(self.folder, name).open("ab"))
                file.truncate(self.bytes[name])  # what was written after the last commit
            self._append(pieces, report)
        meta = {"digest": self.digest, "bytes": self.bytes, "entries": self.bytes["ends"] // 8}
        _write_json(self.folder / "cache.json", meta)
        (self.folder / "commit.json").unlink(missing_ok=True)

    def _append(self, pieces: Pieces, report: Report) -> None:
        content = hashlib.sha256()
        committed = self.bytes["tokens"]
        length = learned = 0  # of the entry so far
        told = time.monotonic()
        for piece in pieces(self.seen):
            self._write("tokens", piece.tokens.tobytes(), content)
            length, learned = length + len(piece.tokens), learned + int((piece.tokens >= 0).sum())
            if piece.ends:
                self.seen += 1
                if length:
                    self._end_entry(piece.name, learned, content)
                length = learned = 0
                if self.bytes["tokens"] - committed >= 4 * COMMIT:
                    self._commit(content)
                    content, committed = hashlib.sha256(), self.bytes["tokens"]
            if time.monotonic() - told >= QUIET_SECONDS:
                told = time.monotonic()
                report("progress", done=self.bytes["tokens"] // 4, total=None, unit="tokens", documents=self.seen)
        self._commit(content)

    def _end_entry(self, name: str, learned: int, content: Any) -> None:
        self.learned += learned
        self._write("names", name.encode(errors="surrogateescape"), content)
        for array, value in (
            ("ends", self.bytes["tokens"] // 4),
            ("learned", self.learned),
            ("name_ends", self.bytes["names"]),
        ):
            self._write(array, np.int64(value).tobytes(), content)

    def _write(self, name: str, data: bytes, content: Any) -> None:
        self.files[name].write(data)
        self.bytes[name] += len(data)
        content.update(data)

    def _commit(self, content: Any) -> None:
        """From here an interrupted cache goes on. Commits come at the same tokens in every attempt."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        self.digest = hashlib.sha256(self.digest.encode() + content.digest()).hexdigest()
        state = {"seen": self.seen, "bytes": self.bytes, "learned": self.learned, "digest": self.digest}
        _write_json(self.folder / "commit.json", state)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def _check(folder: Path, name: str, size: int) -> None:
    found = _file(folder, name).stat().st_size
    if found != size:
        raise ValueError(f"{_file(folder, name)} has {found} bytes, not {size}")


def _mapped(folder: Path, name: str, size: int) -> np.ndarray:
    _check(folder, name, size)
    kind: Any = ARRAYS[name]
    return np.memmap(_file(folder, name), kind, "r") if size else np.empty(0, kind)  # nothing cannot be mapped


def _write_json(path: Path, value: Any) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(value))
    sync(aside)
    aside.rename(path)
    sync(path.parent)
