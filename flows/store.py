"""The store: the only authority on what is done (DESIGN section 3).

    stages/<stage>/<digest>/   a finished output with its manifest.json, never modified
    work/<stage>/<digest>/     an attempt in progress, and beside it <digest>.lock
    units/<kind>/<key>         finished pieces shared by all digests
    runs/<run-id>.json         one record per run
    models/                    embedded base models, converted once
    cache/                     what only saves time
    excluded.json              documents that were taken down: no run takes them in (takedown.py)
    trash/                     on its way out

A kill at any instant leaves a finished output or a resumable attempt: an output is made inside the attempt,
every file is flushed to the disk, the manifest is written last, and the whole directory is renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flows.errors import UsageError
from pdf2txt.units import write_atomic

MANIFEST = "manifest.json"
OUTPUT = "output"
UNITS_LOG = "units.log"


class Store:
    """Paths and the few atomic moves that make up the store's guarantee."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def units(self) -> Path:
        return self.root / "units"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def finished(self, stage: str, digest: str) -> Path:
        return self.root / "stages" / stage / digest

    def attempt(self, stage: str, digest: str) -> Path:
        return self.root / "work" / stage / digest

    def prepare(self) -> None:
        """Make sure that the store can be written.

        Raises:
            UsageError: it cannot, and why.
        """
        try:
            for folder in (self.runs, self.units, self.models, self.cache):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{uuid.uuid4().hex[:8]}"
            probe.write_bytes(b"x" * 4096)
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"store {self.root} cannot be written: {error.strerror}",
                "use --store with a directory that can be written and has free space",
            ) from error

    def manifest(self, stage: str, digest: str) -> dict[str, Any] | None:
        """The manifest of a finished output, or None."""
        return read_manifest(self.finished(stage, digest))

    def outputs(self, stage: str | None = None) -> Iterator[tuple[str, str, Path]]:
        """``(stage, digest, path)`` of every finished output."""
        yield from self._folders("stages", stage)

    def attempts(self, stage: str | None = None) -> Iterator[tuple[str, str, Path]]:
        """``(stage, digest, path)`` of every attempt in progress or left behind."""
        yield from self._folders("work", stage)

    def _folders(self, part: str, stage: str | None) -> Iterator[tuple[str, str, Path]]:
        for folder in sorted((self.root / part).glob(f"{stage or '*'}/*")):
            if folder.is_dir() and not folder.name.startswith("."):
                yield folder.parent.name, folder.name, folder

    @contextmanager
    def lock(self, stage: str, digest: str, *, on_wait: Any = None) -> Iterator[None]:
        """Hold a digest for this process. The lock goes with the process, also when it is killed.

        ``on_wait()`` is called once if another process holds it.
        """
        path = self.attempt(stage, digest).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if on_wait is not None:
                on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def locked(self, stage: str, digest: str) -> bool:
        """Whether a process is working on this digest now."""
        path = self.attempt(stage, digest).with_suffix(".lock")
        if not path.exists():
            return False
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def finish(self, stage: str, digest: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Turn the attempt's ``output`` into the finished output; returns the manifest with its file list.

        The caller holds the lock. An older output of the digest (incomplete, or run again) is replaced.
        """
        attempt, target = self.attempt(stage, digest), self.finished(stage, digest)
        output = attempt / OUTPUT
        files = list_files(output)
        manifest = {**manifest, "outputs": files, "outputs_sha256": outputs_sha256(files)}
        for file in files:
            _fsync(output / file["path"])
        write_atomic(output / MANIFEST, json.dumps(manifest, indent=1).encode())
        for folder in {output, *(p for p in output.rglob("*") if p.is_dir())}:
            _fsync(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.replace(attempt / f"replaced-{uuid.uuid4().hex[:8]}")
        output.replace(target)
        _fsync(target.parent)
        remove(attempt)
        return manifest

    def discard(self, path: Path) -> None:
        """Delete an output or an attempt. It leaves its place in one step, so a kill leaves no part of it there."""
        trash = self.root / "trash"
        trash.mkdir(parents=True, exist_ok=True)
        aside = trash / uuid.uuid4().hex
        try:
            path.replace(aside)
        except FileNotFoundError:
            return
        remove(aside)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        data = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def list_files(folder: Path) -> list[dict[str, Any]]:
    """``{"path", "bytes", "sha256"}`` of every file below ``folder`` except the manifest, by path."""
    files = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        with path.open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
        files.append({"path": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": sha})
    return files


def outputs_sha256(files: list[dict[str, Any]]) -> str:
    """One digest for the content of an output."""
    text = "\n".join(f"{f['sha256']}  {f['path']}" for f in files)
    return hashlib.sha256(text.encode()).hexdigest()


def remove(path: Path) -> None:
    """Delete a folder or file; a name that vanishes meanwhile is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
