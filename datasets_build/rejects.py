"""What did not become a row, kept in columns during a build: there may be more of it than rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from datasets_build.rows import rejects_schema

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 10_000  # rejects that are objects, until they become columns: some ten megabytes
Reject = dict[str, Any]  # doc_id, task, reason, detail


class Rejects:
    """Grows like a list; ``reasons`` counts."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self._latest: list[Reject] = []
        self._chunks: list[pa.Table] = []

    def append(self, reject: Reject) -> None:
        self.reasons[reject["reason"]] += 1
        self._latest.append(reject)
        if len(self._latest) == CHUNK:
            self._pack()

    def __iadd__(self, rejects: Iterable[Reject]) -> Rejects:
        for reject in rejects:
            self.append(reject)
        return self

    def table(self) -> pa.Table:
        """All of them, in the schema of ``rejects.parquet``, ordered by all columns."""
        import pyarrow as pa

        self._pack()
        whole = pa.concat_tables(self._chunks)
        return whole.sort_by([(name, "ascending") for name in whole.column_names])

    def _pack(self) -> None:
        import pyarrow as pa

        self._chunks.append(pa.Table.from_pylist(self._latest, rejects_schema()))
        self._latest = []
