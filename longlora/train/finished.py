"""Whether the work folder holds the output of this very run, whole; and what the base model's files are."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longlora.train.checkpoints import file_sha256

Report = Callable[..., None]
BLOCK = 1 << 24
QUIET_SECONDS = 2.0  # hashing that takes longer tells of its progress


def write(result: Path, output: Path, fingerprint: str, metrics: dict[str, Any]) -> None:
    """Say in ``result`` what the files of ``output`` are, and of which run."""
    files = {p.relative_to(output).as_posix(): file_sha256(p) for p in sorted(output.rglob("*")) if p.is_file()}
    result.write_text(json.dumps({"fingerprint": fingerprint, "metrics": metrics, "files": files}, indent=2) + "\n")


def metrics_of(output: Path, result: Path, fingerprint: str, report: Report) -> dict[str, Any] | None:
    """The metrics of a finished run with this fingerprint; None, with a warning, where it has to be trained."""
    if not (output.exists() and result.exists()):
        return None
    try:
        record = json.loads(result.read_text())
        if record["fingerprint"] != fingerprint:
            report("warning", message=f"{output} is of other settings, data or base weights; it is trained anew")
            return None
        damaged = [n for n, digest in record["files"].items() if not _is(output / n, digest)]
        metrics: dict[str, Any] = record["metrics"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        report("warning", message=f"{result} cannot be read ({type(error).__name__}); it is trained anew")
        return None
    if damaged:
        report("warning", message=f"{output / damaged[0]} is damaged or missing; it is made anew")
        return None
    return metrics


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


def model_digests(folder: Path, work: Path, report: Report) -> dict[str, str]:
    """sha256 of config and weight files of a model directory, by name.

    Kept in ``work/base_digests.json`` with size, time and inode of each file: gigabytes are read once, not at
    each start. ``report("progress", done=, total=, unit="MB of the base model checked")`` where it takes long.
    """
    cache = work / "base_digests.json"
    try:
        known: dict[str, Any] = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    files = sorted(p for p in folder.iterdir() if p.name == "config.json" or p.suffix in (".safetensors", ".bin"))
    marks = {}
    for path in files:
        stat = path.stat()
        marks[path.name] = [str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    new = [p for p in files if known.get(p.name, [None])[0] != marks[p.name]]
    total, done, told = sum(p.stat().st_size for p in new), 0, time.monotonic()
    digests = {p.name: known[p.name][1] for p in files if p not in new}
    for path in new:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                done += len(block)
                if time.monotonic() - told > QUIET_SECONDS:
                    told = time.monotonic()
                    report("progress", done=done >> 20, total=total >> 20, unit="MB of the base model checked")
        digests[path.name] = digest.hexdigest()
    if new:
        aside = cache.with_suffix(".tmp")
        aside.write_text(json.dumps({name: [marks[name], digests[name]] for name in sorted(digests)}, indent=1) + "\n")
        aside.replace(cache)
    return dict(sorted(digests.items()))
