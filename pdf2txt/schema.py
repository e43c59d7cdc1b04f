"""What a converted document is, in memory and in ``documents.parquet``.

Offsets (``start``, ``end``) are character positions into ``Document.text``, end exclusive. Boxes are
``(x0, y0, x1, y1)`` in PDF points (1/72 inch), origin top left of the page as a reader sees it
(rotation applied).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Box = tuple[float, float, float, float]

KINDS = (
    "title", "heading", "text", "list", "table", "figure", "caption", "equation",
    "footnote", "header", "footer", "page-number", "reference", "margin",
    "line-number",
)  # fmt: skip
STATUSES = ("ok", "partial", "encrypted", "corrupt", "empty", "timeout", "unsupported")
# Besides these, pdf2txt.cli says "failed" of a file that it got no Document for; no row ever has that status.
CONVERTED = ("ok", "partial")
PAGE_BREAK = "\f"


@dataclass(frozen=True)
class Page:
    """One page and the span of its text."""

    number: int  # from 1
    width: float  # points, as seen
    height: float
    rotation: int  # degrees clockwise that were undone: 0, 90, 180, 270
    origin: str  # "text-layer" | "ocr"; "mixed" is reserved: nothing sets it yet
    confidence: float  # 0..1; 1 for a text layer judged good
    start: int
    end: int


@dataclass(frozen=True)
class Block:
    """A piece of one page that is one thing: a heading, a table, a paragraph's part on this page."""

    page: int  # Page.number
    kind: str  # one of KINDS
    box: Box
    start: int  # start == end for a block whose text is not part of Document.text (running heads, ...)
    end: int
    confidence: float


@dataclass(frozen=True)
class Place:
    """Where on the pages a paragraph, or a part of it, stands."""

    page: int
    box: Box


@dataclass(frozen=True)
class Paragraph:
    """A run of text that reads as one, possibly over columns and pages."""

    start: int
    end: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Document:
    """One file's text and where it stands. A rejected file is a Document with a status and no text."""

    sha256: str
    source: str  # file name at conversion; other names of the same bytes are in the run record
    status: str  # one of STATUSES
    text: str = ""
    language: str = ""  # ISO 639-1, "" if unknown
    pages: tuple[Page, ...] = ()
    blocks: tuple[Block, ...] = ()
    paragraphs: tuple[Paragraph, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def doc_id(self) -> str:
        return self.sha256[:16]

    @property
    def n_pages(self) -> int:
        return len(self.pages)

    def page_text(self, number: int) -> str:
        page = next(p for p in self.pages if p.number == number)
        return self.text[page.start : page.end]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Document:
        known = {k: d[k] for k in ("sha256", "source", "status", "text", "language")}
        return cls(
            **known,
            pages=tuple(Page(**p) for p in d["pages"]),
            blocks=tuple(Block(**{**b, "box": tuple(b["box"])}) for b in d["blocks"]),
            paragraphs=tuple(
                Paragraph(p["start"], p["end"], tuple(Place(q["page"], tuple(q["box"])) for q in p["places"]))
                for p in d["paragraphs"]
            ),
            warnings=tuple(d.get("warnings") or ()),
        )


def arrow_schema() -> pa.Schema:
    """The columns of ``documents.parquet``, one row per document, ordered by ``doc_id``."""
    import pyarrow as pa

    box = pa.list_(pa.float32(), 4)
    page = pa.struct([
        ("number", pa.int32()), ("width", pa.float32()), ("height", pa.float32()), ("rotation", pa.int16()),
        ("origin", pa.string()), ("confidence", pa.float32()), ("start", pa.int64()), ("end", pa.int64()),
    ])  # fmt: skip
    block = pa.struct([
        ("page", pa.int32()), ("kind", pa.string()), ("box", box),
        ("start", pa.int64()), ("end", pa.int64()), ("confidence", pa.float32()),
    ])  # fmt: skip
    place = pa.struct([("page", pa.int32()), ("box", box)])
    paragraph = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("places", pa.list_(place))])
    return pa.schema([
        ("doc_id", pa.string()), ("sha256", pa.string()), ("source", pa.string()), ("status", pa.string()),
        ("language", pa.string()), ("n_pages", pa.int32()), ("text", pa.large_string()),
        ("pages", pa.list_(page)), ("blocks", pa.list_(block)), ("paragraphs", pa.list_(paragraph)),
        ("warnings", pa.list_(pa.string())),
    ])  # fmt: skip


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write ``documents`` (already ordered by ``doc_id``) one row group each; returns how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema()
    n = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for document in documents:
            row = {"doc_id": document.doc_id, "n_pages": document.n_pages, **document.to_dict()}
            writer.write_table(pa.Table.from_pylist([row], schema=schema))
            n += 1
    return n


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of a ``documents.parquet``, one in memory at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for row in file.read_row_group(group).to_pylist():
                yield Document.from_dict(row)
