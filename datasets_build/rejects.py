"""What did not become a row, kept on disk during a build: there may be more of it than rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Reject = dict[str, Any]  # doc_id, task, reason, detail


class Rejects:
    """Grows like a list; ``reasons`` counts. Read again in the order of `rejects.parquet`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons: Counter[str] = Counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._file = path.open("x", encoding="utf-8")

    def append(self, reject: Reject) -> None:
        self.reasons[reject["reason"]] += 1
        self._file.write(json.dumps([reject[name] for name in ("doc_id", "task", "reason", "detail")]) + "\n")

    def __iadd__(self, rejects: Iterable[Reject]) -> Rejects:
        for reject in rejects:
            self.append(reject)
        return self

    def __iter__(self) -> Iterator[Reject]:
        """All of them, ordered; the lines are sorted as bytes, a fifth of the size of objects."""
        self._file.flush()
        for line in sorted(self.path.read_bytes().splitlines()):
            yield dict(zip(("doc_id", "task", "reason", "detail"), json.loads(line), strict=True))

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)
