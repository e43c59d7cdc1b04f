"""Finished measurements on disk. One unit is one model x task x data: JSON lines, one per sample.

``<units>/evaluation/<key>`` is whole or absent. While it is being made, results are appended batch by batch to
``<work>/partial/<key>.jsonl``, so that a kill repeats one batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from longlora.evaluation.engines.base import Batch
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
        groups: Sequence[Batch],
        measure: Sequence[Callable[[Batch], list[Result]]],
        done: Callable[[int], None],
    ) -> list[Result]:
        """Measure what no earlier attempt has, batch by batch, and store the unit.

        Args:
            groups: the samples as they are measured at once; one that was cut short is measured anew as a whole, so
                that an interruption changes no number.
            measure: one per device, each for a batch at a time.
            done: told how many samples are finished.
        """
        self.partial.mkdir(parents=True, exist_ok=True)
        path = self.partial / f"{key}.jsonl"
        results = {r["digest"]: r for r in self._lines(path)}
        if path.exists():  # a kill can leave half a line at the end
            _write_whole(path, _to_lines(list(results.values())))
        missing = [g for g in groups if any(s.digest not in results for s in g.samples)]
        queue, lock = iter(missing), threading.Lock()

        def stop() -> None:
            """No device takes another batch."""
            with lock:
                deque(queue, maxlen=0)

        def work(measure_one: Callable[[Batch], list[Result]], file: IO[bytes]) -> None:
            while True:
                with lock:
                    group = next(queue, None)
                if group is None:
                    return
                try:
                    found = measure_one(group)
                except BaseException:
                    stop()
                    raise
                with lock:
                    rows = [{"id": s.id, "digest": s.digest, **r} for s, r in zip(group.samples, found, strict=True)]
                    results.update({r["digest"]: r for r in rows})
                    file.write(_to_lines(rows))
                    file.flush()
                    done(sum(s.digest in results for s in samples))

        done(sum(s.digest in results for s in samples))
        with path.open("ab") as file:
            if len(measure) == 1:  # in this thread, where signals arrive
                work(measure[0], file)
            else:
                with ThreadPoolExecutor(len(measure)) as pool:
                    try:
                        for future in [pool.submit(work, one, file) for one in measure]:
                            future.result()
                    except BaseException:  # Ctrl-C arrives here
                        stop()
                        raise
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
