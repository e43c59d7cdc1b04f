"""Where training data comes from: documents and dataset rows, read one at a time.

A document is a name and the parts of its text. Long texts come in several parts, cut at line ends: a tokenizer needs
a hundred times the memory of what it is given.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longlora.errors import UserError

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".md", ".txt")
PART = 1 << 17  # characters of a text that are tokenized at once, up to twice as many
REMEDY = "correct the file, or leave it out"


@dataclass(frozen=True)
class Document:
    """``parts``, joined, are the text; they can be read once."""

    name: str
    parts: Iterable[str]


@dataclass(frozen=True)
class TextFile:
    """A file of documents; ``name`` does not depend on where it lies."""

    name: str
    path: Path


def text_files(paths: Sequence[Path], key: str = "train.texts", suffixes: tuple[str, ...] = SUFFIXES) -> list[TextFile]:
    """The files of ``train.texts``: each path itself, or what lies below it, by name. ``key``: for messages.

    Raises:
        UserError: a path is missing, is of no known kind, or a folder without such files.
    """
    files: list[TextFile] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and p.name.lower().endswith(suffixes))
            if not found:
                raise UserError(f"{key}: no {', '.join(suffixes)} file in {path}", "name a folder that has some")
            files += [TextFile(p.relative_to(path).as_posix(), p) for p in found]
        elif not path.is_file():
            raise UserError(f"{key}: {path} does not exist", f"correct {key}")
        elif not path.name.lower().endswith(suffixes):
            raise UserError(f"{key}: {path} is of no known kind", f"known are {', '.join(suffixes)}")
        else:
            files.append(TextFile(path.name, path))
    return files


def documents(files: Iterable[TextFile]) -> Iterator[Document]:
    """All documents of the files, in order. A .txt or .md file is one; Parquet rows and JSON lines are one each.

    Raises:
        UserError: a file cannot be read, or lacks the column or key ``text``.
    """
    for file in files:
        name = file.path.name.lower()
        if name.endswith((".txt", ".md")):
            yield Document(file.name, parts(_blocks(file.path)))
            continue
        texts = _parquet_texts(file.path) if name.endswith(".parquet") else _json_texts(file.path)
        for number, text in enumerate(texts, 1):
            yield Document(f"{file.name}#{number}", parts([text]))


def converted_documents(file: Path, wanted: Collection[str]) -> Iterator[Document]:
    """The ``wanted`` documents of pdf2txt's ``documents.parquet`` (columns doc_id, text)."""
    for row in parquet_rows(file, ("doc_id", "text")):
        if row["doc_id"] in wanted:
            yield Document(str(row["doc_id"]), parts([row["text"] or ""]))


def train_documents(splits: Path) -> set[str]:
    """The train split's ``doc_id``s in ``splits.json``: ``{doc_id: split}`` or ``{split: [doc_id, ...]}``.

    Raises:
        UserError: it is missing, or not of that form.
    """
    try:
        value = json.loads(splits.read_text())
        listed = value.get("train")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{splits} cannot be read: {error}", "give the output of datasets_build, or build it again"
        ) from error
    if isinstance(listed, list):
        return {str(doc_id) for doc_id in listed}
    return {str(doc_id) for doc_id, split in value.items() if split == "train"}


def row_files(dataset: Path) -> list[Path]:
    """The Parquet files of a dataset's train split."""
    return sorted((dataset / "data").glob("train-*.parquet"))


def dataset_rows(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """``id, instruction, output`` of every row; ``messages`` too where a file has that column, alone or besides."""
    for file in files:
        columns = parquet_columns(file)
        wanted = ("id",) if "messages" in columns and "instruction" not in columns else ("id", "instruction", "output")
        yield from parquet_rows(file, (*wanted, *(c for c in ("messages",) if c in columns)), remedy="build it again")


def parquet_columns(path: Path) -> list[str]:
    """Names of a file's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}", "build it again") from error


def parquet_rows(path: Path, columns: Sequence[str], remedy: str = "build it again") -> Iterator[dict[str, Any]]:
    """Rows as dictionaries, a few in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without pre_buffer and with a buffer, pages are read as they are needed and not row groups as a whole.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            missing = [c for c in columns if c not in file.schema_arrow.names]
            if missing:
                raise UserError(f"{path} lacks the column {missing[0]}", remedy)
            for batch in file.iter_batches(batch_size=64, columns=list(columns), use_threads=False):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}", remedy) from error


def parts(chunks: Iterable[str], size: int = PART) -> Iterator[str]:
    """Text anew in parts of ``size`` to ``2 * size`` characters, however it came.

    Parts end where tokenizers that divide text into words first begin a new one, so that the tokens are those of the
    whole text: after a single line break, else before a single space. SentencePiece models get one token more at each
    cut. Text without either is cut anywhere.
    """
    rest = ""
    for chunk in chunks:
        rest += chunk
        at = 0
        while len(rest) - at > 2 * size:
            end = _cut(rest, at, size)
            yield rest[at:end]
            at = end
        rest = rest[at:]
    if rest:
        yield rest


def _cut(text: str, begin: int, size: int) -> int:
    """The place that is best to cut at, ``size`` to ``2 * size`` behind ``begin``; there is text after the latter."""
    start, stop = begin + size, begin + 2 * size
    for mark, after in (("\n", 1), (" ", 0)):
        at = text.find(mark, start - after, stop)
        while at >= 0:
            # at the very beginning what stands before it may be gone
            if at > begin and not text[at - 1].isspace() and not text[at + 1].isspace():
                return at + after
            at = text.find(mark, at + 1, stop)
    return stop


def _blocks(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            while block := file.read(PART):
                yield block
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}", "save it as UTF-8") from error


def _parquet_texts(path: Path) -> Iterator[str]:
    for number, row in enumerate(parquet_rows(path, ("text",), remedy=REMEDY), 1):
        yield _text(row["text"], f"{path}, row {number}")


def _json_texts(path: Path) -> Iterator[str]:
    opened: Any = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path}, line {number}"
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise UserError(f"{where} is not JSON: {error}", REMEDY) from error
                if not isinstance(value, dict) or "text" not in value:
                    raise UserError(f"{where} has no key text", REMEDY)
                yield _text(value["text"], where)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}", REMEDY) from error


def _text(value: Any, where: str) -> str:
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: text is a {type(value).__name__}, not a string", REMEDY)
    return value or ""
