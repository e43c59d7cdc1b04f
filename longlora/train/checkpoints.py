"""Checkpoints that are whole or absent: written aside, hashed, synced, renamed.

<root>/step-00000040/   trained.safetensors, optimizer.pt, scheduler.pt, rng_state.pth, trainer_state.json,
                        metrics.jsonl
                        (several processes: rng_state_<rank>.pth; DeepSpeed: global_step40/, latest)
                        manifest.json: written last; step, fingerprint of the run and what it is made of, layout,
                        sha256 of each file
<root>/other-<run>-00000040/   the newest one of other settings, data or base weights: with those again it is continued
<root>/damaged-00000060/       the newest one that is not whole, for whoever wants to look
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longlora.errors import UserError
from longlora.train import distributed

KEEP = 2
MANIFEST = "manifest.json"
NAMED = 5  # differences in a message
# What a damaged folder gives; any other OSError is the disk's or the network's, and may pass.
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


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


class Unreadable(UserError):
    """A checkpoint could not be read this time, which says nothing about what is in it."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"the checkpoint {path} cannot be read: {error}",
            f"try again; if it stays so, move {path} away to continue from the checkpoint before it",
        )
        self.may_pass = not isinstance(error, PermissionError)


@contextmanager
def writing(
    root: Path, step: int, fingerprint: str, layout: Layout = Layout(), parts: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """A folder for all ranks to fill; when the block ends without error it becomes the checkpoint of ``step``.

    To be entered by every rank; an error on one ends the process there, and torchrun the others.

    Args:
        root: the folder of checkpoints; all but the newest `KEEP` are deleted afterwards.
        step: optimizer steps done.
        fingerprint: what the run is made of; a checkpoint of another run is never resumed.
        layout: how the state is divided among the files.
        parts: what the fingerprint is of, as JSON, for `newest` to tell a difference by name.
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
            about = {"step": step, "fingerprint": fingerprint, "parts": parts, "layout": asdict(layout)}
            _complete(aside, target, about)
    finally:
        if distributed.is_main():
            shutil.rmtree(aside, ignore_errors=True)
    distributed.after_main()  # which hashes gigabytes


def _complete(aside: Path, target: Path, manifest: dict[str, object]) -> None:
    files = {
        path.relative_to(aside).as_posix(): file_sha256(path) for path in sorted(aside.rglob("*")) if path.is_file()
    }
    (aside / MANIFEST).write_text(json.dumps({**manifest, "files": files}, indent=2, default=str) + "\n")
    for path in [*aside.rglob("*"), aside]:
        sync(path)
    if target.exists():  # of the same step; `newest` leaves only whole ones of this run
        shutil.rmtree(target)
    aside.rename(target)
    sync(target.parent)
    for old in sorted(target.parent.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def newest(
    root: Path, fingerprint: str, warn: Callable[[str], None], parts: Mapping[str, Any] | None = None
) -> Checkpoint | None:
    """The newest whole checkpoint of this run; others are put aside with a warning.

    Aside, because among the newest they would push out the good one, and because what looks foreign may be wanted
    again: the settings are put back, the disk is well again. Of each kind the newest stays.

    Args:
        root: the folder of checkpoints.
        fingerprint: of this run.
        warn: told of each that is put aside, and why.
        parts: what the fingerprint is of.

    Raises:
        UserError: one cannot be read although it is there.
    """
    for aside in root.glob(".step-*.tmp"):
        shutil.rmtree(aside, ignore_errors=True)
    own: list[_Found] = []
    foreign: list[_Found] = []
    damaged: list[tuple[Path, str]] = []
    for path in sorted([*root.glob("step-*"), *root.glob("other-*")]):
        try:
            manifest = _manifest(path)
        except (*_NOT_THERE, ValueError, KeyError, TypeError, AttributeError) as error:
            damaged.append((path, f"cannot be read ({type(error).__name__})"))
        else:
            (own if manifest["fingerprint"] == fingerprint else foreign).append(_Found(path, manifest))
    found = None
    for item in sorted(own, key=lambda item: (item.step, item.path.name), reverse=True):
        harm = _damaged(item.path, item.manifest["files"])
        if harm is None:
            found = item
            break
        damaged.append((item.path, f"is damaged ({harm})"))
    for path, why in sorted(damaged):
        _put_aside(path, f"damaged-{path.name.rpartition('-')[2]}", warn, why)
    _keep_one(foreign, parts, warn)
    if found is None:
        return None
    path = root / f"step-{found.step:08d}"
    if found.path != path:  # kept aside, and its settings are back
        found.path.rename(path)
    return Checkpoint(path, found.step, found.layout)


@dataclass(frozen=True)
class _Found:
    path: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.manifest["step"])

    @property
    def layout(self) -> Layout:
        return Layout(**self.manifest.get("layout", {}))


def _manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, its fields all there."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except _NOT_THERE:
        raise
    except OSError as error:
        raise Unreadable(path, error) from error
    int(manifest["step"]), manifest["files"].items(), manifest["fingerprint"], Layout(**manifest.get("layout", {}))
    return dict(manifest)


def _damaged(path: Path, files: Mapping[str, str]) -> str | None:
    """The first file that is missing or not what was written."""
    for name, digest in files.items():
        try:
            if file_sha256(path / name) != digest:
                return name
        except _NOT_THERE:
            return name
        except OSError as error:
            raise Unreadable(path, error) from error
    return None


def _keep_one(foreign: Sequence[_Found], parts: Mapping[str, Any] | None, warn: Callable[[str], None]) -> None:
    """Of the checkpoints of other runs the one written last stays, under another name."""
    if not foreign:
        return
    *older, last = sorted(foreign, key=lambda item: (item.path.stat().st_mtime, item.step))
    for item in older:
        _remove(item.path)
        if item.manifest["fingerprint"] != last.manifest["fingerprint"]:
            warn(f"checkpoint {item.path.name} belongs to yet other settings or data; it is deleted")
    if last.path.name.startswith("other-"):  # told of before
        return
    differs = _differences(last.manifest.get("parts"), parts)
    why = f"belongs to other settings or data{f' ({differs})' if differs else ''}"
    _put_aside(last.path, f"other-{str(last.manifest['fingerprint'])[:8]}-{last.step:08d}", warn, why)


def _put_aside(path: Path, name: str, warn: Callable[[str], None], why: str) -> None:
    """Rename it; of damaged ones the last stays."""
    aside = path.with_name(name)
    for old in [aside, *(path.parent.glob("damaged-*") if name.startswith("damaged-") else ())]:
        _remove(old)
    path.rename(aside)
    warn(f"checkpoint {path.name} {why}; it is not used, and kept as {name}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _differences(before: Any, now: Any) -> str:
    """``settings.seed 0, now 1`` of the leaves that differ; empty where one side is not known."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return ""
    old, new = dict(_leaves(before)), dict(_leaves(json.loads(json.dumps(now, default=str))))
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    told = [f"{key} {_short(old.get(key))}, now {_short(new.get(key))}" for key in keys[:NAMED]]
    return "; ".join([*told, *([f"{len(keys) - NAMED} more"] if len(keys) > NAMED else [])])


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


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
