"""The documents of a build: what is known of each without its text in memory, and each one's reading on demand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets_build.fingerprint import content_digests
from datasets_build.measure import Measure
from datasets_build.parquet import damage_told
from datasets_build.reading import Reading, fold
from pdf2txt.errors import UserError
from pdf2txt.schema import CONVERTED, Document, arrow_schema
from pdf2txt.units import digest

_AGAIN = "convert the documents again (`longfolio run CONFIG --rerun pdf2txt`)"
CACHE_DOCUMENTS = 5  # readings that are kept at least: neighbours are asked for again at once


@dataclass(frozen=True, slots=True)
class Known:
    """A document by reference. Some hundred bytes, so that a corpus of millions is no matter."""

    doc_id: str
    status: str
    content: str  # `fingerprint.content_digest`
    text: str  # equal for documents with the same text but for case and white space
    chars: int  # 0 where there is no text
    group: int  # Parquet row group
    row: int  # in its row group
    language: str = ""  # ISO 639-1, by pdf2txt; empty where it found none

    @property
    def usable(self) -> bool:
        return self.status in CONVERTED and self.chars > 0


class Measured:
    """A reading and the tokens of each of its passages, its separator included."""

    def __init__(self, reading: Reading, measure: Measure) -> None:
        self.reading = reading
        self._measure = measure

    @cached_property
    def counts(self) -> list[int]:
        return self._measure.passages([p.text for p in self.reading.passages])


class Corpus:
    """A ``documents.parquet``. Opened where it is used: a process gets the path, not the file."""

    def __init__(self, path: Path, cache_chars: int = 0) -> None:
        """``cache_chars``: of text whose readings are kept; what stands in a context is asked for again soon."""
        self.path, self.cache_chars = path, cache_chars
        self._cache: OrderedDict[tuple[int, int], tuple[int, Measured]] = OrderedDict()
        self._chars = 0
        self._group: tuple[int, Any] = (-1, None)  # the row group read last

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: which opens the file itself."""
        return Corpus, (self.path, self.cache_chars)

    @cached_property
    def _file(self) -> Any:
        import pyarrow.parquet as pq

        with damage_told(self.path, _AGAIN):
            file = pq.ParquetFile(self.path)
        missing = sorted(set(arrow_schema().names) - set(file.schema_arrow.names))
        if missing:
            raise UserError(f"{self.path} was not made by pdf2txt (no column {', '.join(missing)})", _AGAIN)
        return file

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def known(self) -> Iterator[Known]:
        """Every document in order, a row group in memory at a time."""
        for group in range(self._file.num_row_groups):
            table = self._table(group)
            names = ("doc_id", "status", "language", "text")
            columns = zip(*(table[name] for name in names), content_digests(table), strict=True)
            for row, (doc_id, status, language, text, content) in enumerate(columns):
                words = text.as_py()
                yield Known(
                    doc_id.as_py(), status.as_py(), content, digest(fold(words).casefold())[:32],
                    len(words) if words.strip() else 0, group, row, language.as_py() or "",
                )  # fmt: skip

    def names(self, doc_ids: Collection[str]) -> dict[str, str]:
        """The names of the files that these documents were converted from."""
        found: dict[str, str] = {}
        with damage_told(self.path, _AGAIN):
            for batch in self._file.iter_batches(columns=["doc_id", "source"], use_threads=False):
                both = zip(batch["doc_id"].to_pylist(), batch["source"].to_pylist(), strict=True)
                found |= {doc_id: Path(source).name for doc_id, source in both if doc_id in doc_ids}
        return found

    def text(self, known: Known) -> str:
        """What a document says, white space folded."""
        return fold(self._table(known.group)["text"][known.row].as_py())

    def reading(self, known: Known) -> Reading:
        """The reading of a document."""
        return Reading(Document.from_table(self._table(known.group).slice(known.row, 1)), known.content)

    def measured(self, known: Known, measure: Measure) -> Measured:
        """The reading of a document, kept for a while."""
        place = (known.group, known.row)
        if place in self._cache:
            self._cache.move_to_end(place)
            return self._cache[place][1]
        found = Measured(self.reading(known), measure)
        self._cache[place] = (known.chars, found)
        self._chars += known.chars
        while len(self._cache) > CACHE_DOCUMENTS and self._chars > self.cache_chars:
            self._chars -= self._cache.popitem(last=False)[1][0]
        return found

    def _table(self, group: int) -> Any:
        if self._group[0] != group:
            file = self._file
            with damage_told(self.path, _AGAIN):
                self._group = group, file.read_row_group(group, use_threads=False)
        return self._group[1]
