"""Finished measurements on disk. One unit is one model x task x data: JSON lines, one per sample.

``<units>/evaluation/<key>`` is whole or absent. While it is being made, results are appended one by one to
``<work>/partial/<key>.jsonl``, so that a kill repeats one sample.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from longlora.evaluation.tasks.base import Sample

KIND = "evaluation"
Result = dict[str, Any]


def digest(*parts: Any) -> str:
    """sha256 (64 hex digits) of JSON-serialisable parts."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def data_digest(samples: Sequence[Sample]) -> str:
    """sha256 of what is measured: ids, tokens and expected answers, in order."""
    return digest([[s.id, s.digest] for s in samples])


class Units:
    """Reads and makes units. ``root``: the units folder shared by all runs; ``work``: of this attempt."""

    def __init__(self, root: Path, work: Path) -> None:
        self.folder, self.partial = root / KIND, work / "partial"

    def finished(self, key: str, samples: Sequence[Sample]) -> list[Result] | None:
        """The results of a finished unit in the order of ``samples``, or None."""
        path = self.folder / key
        return self._read(path, samples) if path.is_file() else None

    def make(
        self,
        key: str,
        samples: Sequence[Sample],
        measure: Callable[[Sample], Result],
        done: Callable[[int], None],
    ) -> list[Result]:
        """Measure what no earlier attempt has, and store the unit. ``done(n)``: n samples are finished."""
        self.partial.mkdir(parents=True, exist_ok=True)
        path = self.partial / f"{key}.jsonl"
        results = {r["digest"]: r for r in self._lines(path)}
        if path.exists():  # a kill can leave half a line at the end
            _write_whole(path, _to_lines(list(results.values())))
        with path.open("ab") as file:
            for n, sample in enumerate(samples, 1):
                if sample.digest not in results:
                    results[sample.digest] = {"id": sample.id, "digest": sample.digest, **measure(sample)}
                    file.write(_to_lines([results[sample.digest]]))
                    file.flush()
                done(n)
        ordered = [results[s.digest] for s in samples]
        _write_whole(self.folder / key, _to_lines(ordered))
        path.unlink(missing_ok=True)
        return ordered

    def _read(self, path: Path, samples: Sequence[Sample]) -> list[Result] | None:
        results = {r["digest"]: r for r in self._lines(path)}
        if any(s.digest not in results for s in samples):
            return None
        return [results[s.digest] for s in samples]

    def _lines(self, path: Path) -> list[Result]:
        """The whole lines of a file."""
        results: list[Result] = []
        if not path.is_file():
            return results
        for line in path.read_bytes().split(b"\n")[:-1]:
            try:
                results.append(json.loads(line))
            except ValueError:
                break
        return results


def _to_lines(results: Sequence[Result]) -> bytes:
    return b"".join(json.dumps(r, sort_keys=True, ensure_ascii=False).encode() + b"\n" for r in results)


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
