"""Checkpoints that are whole or absent: written aside, hashed, synced, renamed.

<root>/step-00000040/   trained.safetensors, optimizer.pt, scheduler.pt, rng_state.pth, trainer_state.json
                        (several processes: rng_state_<rank>.pth; DeepSpeed: global_step40/, latest)
                        manifest.json: written last; step, fingerprint of the run, layout, sha256 of each file
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from longlora.errors import UserError
from longlora.train import distributed

KEEP = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Layout:
    """How the state was divided when it was written: ``ddp`` (each process has all of it), ``zero2``, ``zero3``."""

    world: int = 1
    strategy: str = "ddp"

    def __str__(self) -> str:
        return f"{self.world} process{'es' * (self.world > 1)} with {self.strategy}"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder, the optimizer steps done when it was written, and by how many."""

    path: Path
    step: int
    layout: Layout = Layout()


@contextmanager
def writing(root: Path, step: int, fingerprint: str, layout: Layout = Layout()) -> Iterator[Path]:
    """A folder for all ranks to fill; when the block ends without error it becomes the checkpoint of ``step``.

    To be entered by every rank; an error on one ends the process there, and torchrun the others.

    Args:
        root: the folder of checkpoints; all but the newest `KEEP` are deleted afterwards.
        step: optimizer steps done.
        fingerprint: what the run is made of; a checkpoint of another run is never resumed.
        layout: how the state is divided among the files.
    """
    target = root / f"step-{step:08d}"
    aside = root / f".{target.name}.tmp"
    if distributed.is_main():
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    distributed.barrier()
    try:
        yield aside
        distributed.barrier()  # all have written
        if distributed.is_main():
            _complete(aside, target, {"step": step, "fingerprint": fingerprint, "layout": asdict(layout)})
    finally:
        if distributed.is_main():
            shutil.rmtree(aside, ignore_errors=True)
    distributed.barrier()


def _complete(aside: Path, target: Path, manifest: dict[str, object]) -> None:
    files = {
        path.relative_to(aside).as_posix(): file_sha256(path) for path in sorted(aside.rglob("*")) if path.is_file()
    }
    (aside / MANIFEST).write_text(json.dumps({**manifest, "files": files}, indent=2) + "\n")
    for path in [*aside.rglob("*"), aside]:
        sync(path)
    shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step
    aside.rename(target)
    sync(target.parent)
    for old in sorted(target.parent.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def newest(root: Path, fingerprint: str, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint of this run; others on the way are removed with a warning.

    They have to go: they would count among the newest when old ones are deleted, and push out the good one.
    """
    for aside in root.glob(".step-*.tmp"):
        shutil.rmtree(aside, ignore_errors=True)
    for path in sorted(root.glob("step-*"), reverse=True):
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            damaged = [n for n, digest in manifest["files"].items() if file_sha256(path / n) != digest]
            found = Checkpoint(path, int(manifest["step"]), Layout(**manifest.get("layout", {})))
            foreign = manifest["fingerprint"] != fingerprint
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"cannot be read ({type(error).__name__}); removed, the one before it is used"
        else:
            if damaged:
                why = f"is damaged ({damaged[0]}); removed, the one before it is used"
            elif foreign:
                why = "belongs to other settings or data; removed"
            else:
                return found
        warn(f"checkpoint {path.name} {why}")
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return None


def check_layout(found: Checkpoint, layout: Layout) -> None:
    """Refuse to continue what was divided otherwise: DeepSpeed's shares are those of its processes.

    Raises:
        UserError: naming both numbers.
    """
    if found.layout != layout and {found.layout.strategy, layout.strategy} != {"ddp"}:
        raise UserError(
            f"the checkpoint of step {found.step} was written by {found.layout}, this run has {layout}: "
            "the shares of ZeRO cannot be divided anew",
            f"set train.devices to {found.layout.world} and train.strategy to {found.layout.strategy}, "
            f"or delete {found.path.parent} to train from the start",
        )


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
