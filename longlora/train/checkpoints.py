"""Checkpoints that are whole or absent: written aside, hashed, synced, renamed.

<root>/step-00000040/   trained.safetensors, optimizer.pt, scheduler.pt, rng_state.pth, trainer_state.json
                        manifest.json: written last; step, fingerprint of the run, sha256 of each file
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEEP = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder, and the optimizer steps done when it was written."""

    path: Path
    step: int


@contextmanager
def writing(root: Path, step: int, fingerprint: str) -> Iterator[Path]:
    """A folder to fill; when the block ends without error it becomes the checkpoint of ``step``.

    Args:
        root: the folder of checkpoints; all but the newest `KEEP` are deleted afterwards.
        step: optimizer steps done.
        fingerprint: what the run is made of; a checkpoint of another run is never resumed.
    """
    target = root / f"step-{step:08d}"
    aside = root / f".{target.name}.{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        files = {p.name: file_sha256(p) for p in sorted(aside.iterdir())}
        manifest = {"step": step, "fingerprint": fingerprint, "files": files}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        for path in aside.iterdir():
            sync(path)
        sync(aside)
        shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step
        aside.rename(target)
        sync(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for old in sorted(root.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def newest(root: Path, fingerprint: str, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint of this run; damaged and foreign ones are removed with a warning."""
    for aside in root.glob(".step-*.tmp"):
        shutil.rmtree(aside, ignore_errors=True)
    for path in sorted(root.glob("step-*"), reverse=True):
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            damaged = [n for n, digest in manifest["files"].items() if file_sha256(path / n) != digest]
        except (OSError, ValueError, KeyError, AttributeError) as error:
            warn(f"checkpoint {path.name} cannot be read ({type(error).__name__}), the one before it is used")
            continue
        if not damaged and manifest["fingerprint"] == fingerprint:
            return Checkpoint(path, int(manifest["step"]))
        if damaged:
            warn(f"checkpoint {path.name} is damaged ({damaged[0]}); removed, the one before it is used")
        else:
            warn(f"checkpoint {path.name} belongs to other settings or data; removed")
        shutil.rmtree(path, ignore_errors=True)  # or it would count among the newest when old ones are deleted
    return None


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have a file or directory on disk, not only in the cache of the system."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
