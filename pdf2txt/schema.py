"""What a converted document is, in memory and in ``documents.parquet``.

Offsets (``start``, ``end``) are character positions into ``Document.text``, end exclusive. Boxes are
``(x0, y0, x1, y1)`` in PDF points (1/72 inch), origin top left of the page as a reader sees it
(rotation applied).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdf2txt.units import write_atomic

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
_PLACES = ("blocks", "paragraphs")  # the columns that say where text stands
GROUP_BYTES = 256 * 1024  # of documents that share a row group
_WRITTEN = {  # statistics or a dictionary of the texts would hold them in memory once more, and help no reader
    "compression": "zstd",
    "write_statistics": ["doc_id"],
    "use_dictionary": ["pages.list.element.origin", "blocks.list.element.kind"],
}
_SLICE = 1000  # list entries that are objects in memory at a time


@dataclass(frozen=True)
class Page:
    """One page and the span of its text."""

    number: int  # from 1
    width: float  # points, as seen
    height: float
    rotation: int  # degrees clockwise that were undone: 0, 90, 180, 270
    origin: str  # "text-layer" | "ocr" | "mixed": a text layer, and OCR of regions that it does not cover
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
    def from_table(cls, table: pa.Table, places: bool = True) -> Document:
        """The document of a table of one row; ``places``: with blocks and paragraphs, which take most memory."""
        (row,) = (table if places else table.drop_columns(list(_PLACES))).to_pylist()
        return cls.from_dict(row)

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Document:
        known = {k: d[k] for k in ("sha256", "source", "status", "text", "language")}
        return cls(
            **known,
            pages=tuple(Page(**p) for p in d["pages"]),
            blocks=tuple(Block(**{**b, "box": tuple(b["box"])}) for b in d.get("blocks", ())),
            paragraphs=tuple(
                Paragraph(p["start"], p["end"], tuple(Place(q["page"], tuple(q["box"])) for q in p["places"]))
                for p in d.get("paragraphs", ())
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


class DocumentBuilder:
    """A document that grows piece by piece, kept as columns: 2,000 pages take some ten megabytes.

    As objects (`Document`) they would take ten times that; `table` makes the row of ``documents.parquet``.
    """

    def __init__(self) -> None:
        self.text = bytearray()  # UTF-8
        self.length = 0  # in characters, what all offsets count
        self.pages: list[Page] = []
        self._numbers = {name: array("q") for name in ("page", "kind", "start", "end")}
        self._boxes, self._confidences = array("f"), array("f")
        self._paragraphs = {name: array("q") for name in ("start", "end", "places", "page")}
        self._paragraphs["places"].append(0)
        self._places = array("f")

    def put(self, text: str) -> None:
        self.text += text.encode("utf-8", "replace")
        self.length += len(text)

    def block(self, block: Block) -> None:
        numbers = (block.page, KINDS.index(block.kind), block.start, block.end)
        for column, value in zip(self._numbers.values(), numbers, strict=True):
            column.append(value)
        self._boxes.extend(block.box)
        self._confidences.append(block.confidence)

    def paragraph(self, paragraph: Paragraph) -> None:
        columns = self._paragraphs
        columns["start"].append(paragraph.start)
        columns["end"].append(paragraph.end)
        for place in paragraph.places:
            columns["page"].append(place.page)
            self._places.extend(place.box)
        columns["places"].append(len(columns["page"]))

    def table(self, sha256: str, source: str, status: str, language: str, warnings: Iterable[str]) -> pa.Table:
        """One row; blocks ordered by page and span, pages as they came.

        Made of buffers alone: ``pyarrow.array`` imports pandas where it is installed, half a second.
        """
        import numpy as np
        import pyarrow as pa

        schema = arrow_schema()
        numbers = {name: np.frombuffer(column, np.int64) for name, column in self._numbers.items()}
        order = np.lexsort((numbers["end"], numbers["start"], numbers["page"]))
        numbers = {name: column[order] for name, column in numbers.items()}
        boxes = np.frombuffer(self._boxes, np.float32).reshape(-1, 4)[order]
        blocks = _list_of(schema.field("blocks").type, [
            _numbers(numbers["page"], np.int32),
            pa.DictionaryArray.from_arrays(_numbers(numbers["kind"], np.int64), _strings(KINDS)).cast(pa.string()),
            _box_array(boxes), _numbers(numbers["start"], np.int64), _numbers(numbers["end"], np.int64),
            _numbers(np.frombuffer(self._confidences, np.float32)[order], np.float32),
        ])  # fmt: skip
        columns = {name: np.frombuffer(column, np.int64) for name, column in self._paragraphs.items()}
        places = pa.StructArray.from_arrays(
            [_numbers(columns["page"], np.int32), _box_array(np.frombuffer(self._places, np.float32))],
            fields=list(_struct(schema.field("paragraphs").type.value_type.field("places").type.value_type)),
        )
        paragraphs = _list_of(schema.field("paragraphs").type, [
            _numbers(columns["start"], np.int64), _numbers(columns["end"], np.int64),
            pa.ListArray.from_arrays(_numbers(columns["places"], np.int32), places),
        ])  # fmt: skip
        offsets = pa.py_buffer(np.array([0, len(self.text)], np.int64))
        text = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(self.text)])
        said = _strings([encodable(warning) for warning in warnings])
        row = [
            *(_strings([value]) for value in (sha256[:16], sha256, encodable(source), status, language)),
            _numbers([len(self.pages)], np.int32), text, self._page_array(schema.field("pages").type), blocks,
            paragraphs, pa.ListArray.from_arrays(_numbers([0, len(said)], np.int32), said),
        ]  # fmt: skip
        return pa.Table.from_arrays(row, schema=schema)

    def _page_array(self, kind: Any) -> Any:
        columns = []
        for part in _struct(kind.value_type):
            values = [getattr(page, part.name) for page in self.pages]
            columns.append(_strings(values) if part.name == "origin" else _numbers(values, part.type.to_pandas_dtype()))
        return _list_of(kind, columns)


def _struct(kind: Any) -> Iterator[Any]:
    return (kind.field(k) for k in range(kind.num_fields))


def _numbers(values: Any, kind: Any) -> Any:
    """The array of ``values``, as numbers of the numpy type ``kind``."""
    import numpy as np
    import pyarrow as pa

    column = np.ascontiguousarray(values, kind)
    return pa.Array.from_buffers(pa.from_numpy_dtype(column.dtype), len(column), [None, pa.py_buffer(column)])


def _strings(values: Sequence[str]) -> Any:
    import numpy as np
    import pyarrow as pa

    data = [value.encode() for value in values]
    offsets = np.cumsum([0, *map(len, data)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(data), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(data))])


def _box_array(values: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(_numbers(values.reshape(-1), np.float32), 4)


def _list_of(kind: Any, columns: list[Any]) -> Any:
    """A list array with one element: all rows of the struct that ``columns`` make."""
    import numpy as np
    import pyarrow as pa

    values = pa.StructArray.from_arrays(columns, fields=list(_struct(kind.value_type)))
    return pa.ListArray.from_arrays(_numbers([0, len(values)], np.int32), values)


def encodable(text: str) -> str:
    """``text`` of the same length in UTF-8; names of files and some PDFs' letters are not."""
    return text.encode("utf-8", "replace").decode()


def as_table(document: Document) -> pa.Table:
    """The row of one document."""
    import pyarrow as pa

    row = {"doc_id": document.doc_id, "n_pages": document.n_pages, **document.to_dict()}
    row |= {"source": encodable(document.source), "text": encodable(document.text)}
    row["warnings"] = list(map(encodable, document.warnings))
    return pa.Table.from_pylist([row], schema=arrow_schema())


def facts(table: pa.Table) -> dict[str, Any]:
    """What a summary needs to know of a document's row, without its text and blocks in memory as objects."""
    import pyarrow.compute as pc

    names = ("doc_id", "sha256", "source", "status", "language", "warnings")
    (row,) = table.select(list(names)).to_pylist()
    origins = pc.struct_field(pc.list_flatten(table["pages"]), "origin")
    row |= {
        "pages": table["n_pages"][0].as_py(),
        "pages_ocr": sum(origin != "text-layer" for origin in origins.to_pylist()),
        "characters": pc.utf8_length(table["text"])[0].as_py(),
    }
    return dict(row)


def entries(table: pa.Table, column: str) -> Iterator[Any]:
    """The pages, blocks or paragraphs of a document's row as objects, few in memory at a time."""
    values = table[column][0].values
    for start in range(0, len(values), _SLICE):
        yield from values.slice(start, _SLICE).to_pylist()


_SECONDS = b"longfolio.seconds"


def write_unit(path: Path, table: pa.Table, seconds: float) -> None:
    """Write a document's row as a file of its own, with the seconds that it took."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    described = table.replace_schema_metadata({_SECONDS: str(seconds)})
    pq.write_table(described, buffer, **_WRITTEN)
    write_atomic(path, buffer.getvalue())


def read_unit(path: Path) -> tuple[pa.Table, float]:
    """What `write_unit` wrote."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read(use_threads=False)
    return table.cast(arrow_schema()), float((table.schema.metadata or {}).get(_SECONDS, 0.0))


def write_tables(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write documents (tables of one row, already ordered by ``doc_id``); returns how many.

    Small documents share a row group: a file of ten thousand groups takes 50 MB of memory to open, and a
    millisecond for each group to read. A large document has one of its own.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    n, group, size = 0, list[Any](), 0
    with pq.ParquetWriter(path, arrow_schema(), **_WRITTEN) as writer:
        for table in tables:
            if group and size + table.nbytes > GROUP_BYTES:
                writer.write_table(pa.concat_tables(group))
                group, size = [], 0
            group.append(table)
            size += table.nbytes
            n += 1
        if group:
            writer.write_table(pa.concat_tables(group))
    return n


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """The same for documents in memory."""
    return write_tables(path, map(as_table, documents))


def read_documents(path: Path, places: bool = True) -> Iterator[Document]:
    """Documents of a ``documents.parquet``, one in memory at a time; ``places``: with blocks and paragraphs."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if places or name not in _PLACES]
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns)
            for row in range(table.num_rows):
                yield Document.from_dict(table.slice(row, 1).to_pylist()[0])
