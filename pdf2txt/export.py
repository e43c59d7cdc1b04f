"""Documents as JSON lines in the form of Dolma (Soldaini et al., 2024), with the pages' places as olmOCR writes them.

One object a line::

    {"id", "text", "source", "added", "created", "metadata": {...},
     "attributes": {"pdf_page_numbers": [[start, end, page], ...], ...}}

``text[start:end]`` is the text of the page (characters, end exclusive; pages count from 1). The other attributes are
lists with an element for each page. Every field has one type in every line, so that readers that infer a schema
(``datasets.load_dataset("json", ...)``) can take any part of the file for it.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pdf2txt.errors import UserError
from pdf2txt.schema import CONVERTED, Document, read_documents
from pdf2txt.sidecar import json_string

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def dolma(document: Document, *, added: str, source: str = "longfolio") -> dict[str, Any]:
    """The record of one document.

    ``added`` is when it was taken up, ISO 8601; it stands for ``created`` too: when a document was written is not
    known, and Dolma asks for a date.
    """
    pages = document.pages
    return {
        "id": document.doc_id,
        "text": document.text,
        "source": source,
        "added": added,
        "created": added,
        "metadata": {
            "Source-File": document.source,
            "sha256": document.sha256,
            "pdf-total-pages": document.n_pages,
            "language": document.language,
            "status": document.status,
            "warnings": "\n".join(document.warnings),
        },
        "attributes": {
            "pdf_page_numbers": [[p.start, p.end, p.number] for p in pages],
            "primary_language": [document.language for _ in pages],
            "rotation_correction": [p.rotation for p in pages],
            "origin": [p.origin for p in pages],
            "confidence": [round(float(p.confidence), 4) for p in pages],
        },
    }


@contextmanager
def open_jsonl(path: Path, *, source: str = "longfolio") -> Iterator[Callable[[Document], bool]]:
    """A function that appends a document to ``path`` and says whether it did: what has no text has no line.

    The file is there when the block ends without an error, and is compressed as its name says.

    Raises:
        UserError: another suffix, or a place that cannot be written.
    """
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path.name} does not end as JSON lines do", f"end the name with {', '.join(SUFFIXES)}")
    added = datetime.now(UTC).strftime("%Y-%m-%d")
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"

    def add(document: Document) -> bool:
        if document.status not in CONVERTED or not document.text:
            return False
        for piece in _line(dolma(document, added=added, source=source)):
            stream.write(piece.encode("utf-8", "replace"))
        return True

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = aside.open("wb")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", "choose another place for the JSON lines") from error
    try:
        with file, _compressed(file, path.suffix) as stream:
            yield add
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _line(record: dict[str, Any]) -> Iterator[str]:
    """The record in JSON; its text, which may be a book's, piece by piece."""
    before, key, after = json.dumps({**record, "text": ""}, ensure_ascii=False).partition('"text": ')
    yield before + key
    yield from json_string(record["text"])
    yield after.removeprefix('""') + "\n"


@contextmanager
def _compressed(file: BinaryIO, suffix: str) -> Iterator[Any]:
    if suffix == ".gz":
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as stream:
            yield stream
    elif suffix == ".zst":
        import pyarrow as pa

        with pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as stream:
            yield stream
    else:
        yield file


def export(source: Path, path: Path) -> dict[str, int]:
    """Write the documents of ``source`` to ``path``, one in memory at a time.

    Args:
        source: a ``documents.parquet``, a directory that holds one (a finished stage), or the ``--out`` folder of
            ``longfolio pdf2txt``.

    Returns:
        ``{"documents", "left_out"}``: lines written, and documents without text.

    Raises:
        UserError: no documents there, or ``path`` cannot be written.
    """
    written = left_out = 0
    documents = _documents(source)
    with open_jsonl(path) as add:
        for document in documents:
            if add(document):
                written += 1
            else:
                left_out += 1
    return {"documents": written, "left_out": left_out}


def _documents(source: Path) -> Iterable[Document]:
    for file in (source, source / "documents.parquet", source / "output" / "documents.parquet"):
        if file.is_file() and file.suffix == ".parquet":
            return read_documents(file, places=False)
    files = sorted(source.glob("*.json")) if source.is_dir() else []
    if not files:
        raise UserError(
            f"no documents in {source}",
            "name a documents.parquet, the directory of a finished pdf2txt stage, or a folder that "
            "`longfolio pdf2txt --out` wrote",
        )
    return _from_json(files)


def _from_json(files: list[Path]) -> Iterator[Document]:
    seen = set()
    for file in files:
        try:
            row = json.loads(file.read_bytes())
            document = Document.from_dict({**row, "blocks": (), "paragraphs": ()})  # no line says where they stand
        except (ValueError, KeyError, TypeError):
            continue  # another program's JSON
        if document.sha256 not in seen:
            seen.add(document.sha256)
            yield document
