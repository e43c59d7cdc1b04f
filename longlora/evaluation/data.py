"""Where samples come from: the dataset's validation rows, its validation documents, text files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longlora.errors import UserError


@dataclass(frozen=True)
class Sources:
    """Paths that may be absent: a task whose source is None is skipped.

    dataset: directory with ``data/validation-*.parquet``; splits: its ``splits.json``;
    documents: ``documents.parquet``; texts: files or folders.
    """

    dataset: Path | None = None
    splits: Path | None = None
    documents: Path | None = None
    texts: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Text:
    """A document's name and its plain text."""

    id: str
    text: str


def validation_rows(dataset: Path) -> list[dict[str, Any]]:
    """The validation rows (``id, task, instruction, output``), ordered by id.

    Raises:
        UserError: a file cannot be read or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    for path in sorted((dataset / "data").glob("validation-*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                names = set(file.schema_arrow.names)
                if missing := {"instruction", "output"} - names:
                    raise UserError(f"{path} lacks the column {sorted(missing)[0]}", "build the dataset again")
                columns = [c for c in ("id", "task", "instruction", "output") if c in names]
                rows += file.read(columns).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}", "build the dataset again") from error
    for row in rows:
        row.setdefault("task", "")
        if not row.get("id"):
            content = f"{row['instruction']}\0{row['output']}"
            row["id"] = hashlib.sha256(content.encode()).hexdigest()[:16]
    return sorted(rows, key=lambda r: str(r["id"]))


def validation_ids(splits: Path) -> set[str]:
    """``doc_id``s of the validation split, from ``{"validation": [...]}`` or ``{doc_id: "validation"}``."""
    try:
        value = json.loads(splits.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{splits} cannot be read: {error}", "build the dataset again") from error
    for key in ("documents", "splits"):
        if isinstance(value.get(key), dict):
            value = value[key]
    if isinstance(value.get("validation"), list):
        return {str(v) for v in value["validation"]}
    return {k for k, v in value.items() if v == "validation"}


def validation_documents(documents: Path, splits: Path) -> Iterator[Text]:
    """Converted documents of the validation split, in file order (by doc_id), one in memory at a time.

    Raises:
        UserError: the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = validation_ids(splits)
    try:
        with pq.ParquetFile(documents) as file:
            for group in range(file.num_row_groups):
                for row in file.read_row_group(group, ["doc_id", "text"]).to_pylist():
                    if row["doc_id"] in wanted and row["text"]:
                        yield Text(row["doc_id"], row["text"])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{documents} cannot be read: {error}", "run pdf2txt again") from error


def text_files(paths: tuple[Path, ...]) -> Iterator[Text]:
    """UTF-8 text files, and the .txt and .md files below folders, by name.

    Raises:
        UserError: a path is missing, holds no text, or is not UTF-8.
    """
    for index, path in enumerate(paths):
        if not path.exists():
            raise UserError(f"evaluate.texts: {path} does not exist", "give a text file or a folder of text files")
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".md"))
        if not files:
            raise UserError(f"evaluate.texts: {path} holds no .txt or .md file", "give another folder")
        for file in files:
            name = file.name if path.is_file() else str(file.relative_to(path))
            try:
                yield Text(f"{index}/{name}", file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"evaluate.texts: {file} cannot be read: {error}", "save it as UTF-8") from error
