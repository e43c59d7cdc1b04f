"""Where samples come from: the dataset's validation rows, its validation documents, text files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.prompts import plain_ids
from longlora.train.data import sources
from longlora.train.data.sources import converted_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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

    @classmethod
    def of(cls, dataset: Path | None, documents: Path | None, texts: tuple[Path, ...]) -> Sources:
        """Of paths that somebody typed.

        Raises:
            UserError: one is not there.
        """
        if dataset is not None and not any((dataset / "data").glob("*.parquet")):
            raise UserError(
                f"{dataset} is no built dataset: it has no data/*.parquet", "name the folder that a run printed"
            )
        if documents is not None and not documents.is_file():
            raise UserError(f"{documents} does not exist", "name a documents.parquet, as pdf2txt writes it")
        return cls(dataset, dataset / "splits.json" if dataset else None, documents, texts)


EVALUATION_TEXTS = (*sources.SUFFIXES, ".bin")
# Characters of a document that are looked at per token wanted; no tokenizer makes longer tokens on average.
CHARACTERS_PER_TOKEN = 16


@dataclass(frozen=True)
class Text:
    """A document's name and its text, in parts that are read once; ``tokens``: where it came as token numbers."""

    id: str
    parts: Iterable[str]
    tokens: Path | None = None

    def head(self, tokenizer: PreTrainedTokenizerBase, most: int | None) -> list[int]:
        """Token ids of its beginning, ``most`` or (None) all of them.

        Raises:
            UserError: the token numbers are not this tokenizer's.
        """
        if self.tokens is not None:
            return token_file(self.tokens, len(tokenizer), most)
        text: list[str] = []
        left = None if most is None else most * CHARACTERS_PER_TOKEN
        for part in self.parts:
            text.append(part if left is None else part[:left])
            left = None if left is None else left - len(part)
            if left is not None and left <= 0:
                break
        return plain_ids(tokenizer, "".join(text))[:most]


def token_file(path: Path, vocabulary: int, most: int | None = None) -> list[int]:
    """LongLoRA's ``.bin``: token numbers in a row, little-endian, two bytes each, four if the vocabulary needs them.

    Raises:
        UserError: it cannot be read, or has numbers that are no tokens of this vocabulary.
    """
    import numpy as np

    kind = np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")
    try:
        if path.stat().st_size % kind.itemsize:
            raise UserError(
                f"evaluate.texts: {path} is no file of {kind.itemsize}-byte token numbers: {path.stat().st_size} bytes",
                "write it again for this model's tokenizer",
            )
        ids = np.fromfile(path, kind, -1 if most is None else most)
    except OSError as error:
        raise UserError(f"evaluate.texts: {path} cannot be read: {error}", "correct the path") from error
    if len(ids) and int(ids.max()) >= vocabulary:
        raise UserError(
            f"evaluate.texts: {path} has the token {int(ids.max())}, of {vocabulary} that this model has",
            "write it again for this model's tokenizer",
        )
    return [int(i) for i in ids]


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
    for document in converted_documents(documents, validation_ids(splits)):
        yield Text(document.name, document.parts)


def text_files(paths: Sequence[Path]) -> Iterator[Text]:
    """Documents of text files, of Parquet and JSONL files (``text``), and of token files, below folders by name.

    Raises:
        UserError: a path is missing, of no known kind, or cannot be read.
    """
    for index, path in enumerate(paths):
        for file in sources.text_files([path], "evaluate.texts", EVALUATION_TEXTS):
            if file.path.suffix == ".bin":
                yield Text(f"{index}/{file.name}", (), file.path)
                continue
            for document in sources.documents([file]):
                yield Text(f"{index}/{document.name}", document.parts)
