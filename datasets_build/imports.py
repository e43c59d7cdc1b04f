"""Ready-made rows: Alpaca, LongAlpaca and ShareGPT as JSON, JSON lines, Parquet, CSV or a dataset of the hub."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from datasets_build.build import Unit
from datasets_build.conversations import COLUMNS, conversation_pairs
from datasets_build.hub import card_license, folder_rows, hub_folder
from datasets_build.measure import Measure
from datasets_build.rows import FROM_IMPORT, IMPORT_TASK, import_group, long_lines, make_row
from datasets_build.settings import DatasetSettings, ImportSettings
from pdf2txt.errors import UserError
from pdf2txt.units import digest

IMPORT_VERSION = 4  # raised when the same file gives other rows
CHUNK = 256  # rows per unit
AROUND = 30  # characters shown beside half a character

Record = tuple[int, dict[str, Any]]  # (line or element number, from 1; the object)


def source(settings: ImportSettings) -> Path:
    """The file or folder of an import; a hub dataset is fetched.

    Raises:
        UserError: the hub dataset is not to be had.
    """
    return settings.path if settings.path is not None else hub_folder(settings.hub or "", settings.revision)


def license_of(path: Path, settings: ImportSettings) -> str:
    """The licence of an import's rows: the setting, else what the dataset card says."""
    if settings.license != "unknown" or not path.is_dir():
        return settings.license
    return card_license(path) or "unknown"


def read_records(path: Path, settings: ImportSettings) -> Iterator[Record]:
    """The objects of a file, or of a folder's split, with their numbers.

    Raises:
        UserError: the file is missing, cannot be parsed, or is no list of objects; names file and line.
    """
    if path.is_dir():
        yield from enumerate(folder_rows(path, settings), 1)
        return
    if not path.is_file():
        raise UserError(f"import {path}: no such file", "mend dataset.imports, or put the file there")
    form = settings.format if settings.format != "auto" else _sniff(path, settings)
    read = {"json": _read_json, "jsonl": _read_jsonl, "parquet": _read_parquet, "csv": _read_csv}[form]
    try:
        for number, record in read(path):
            if not isinstance(record, dict):
                raise UserError(
                    f"import {path}, {_place(form, number)}: {type(record).__name__} instead of an object",
                    'each row has to be an object such as {"instruction": "...", "output": "..."}',
                )
            yield number, record
    except UnicodeDecodeError as error:
        raise UserError(f"import {path}: not UTF-8 ({error.reason})", "save the file as UTF-8") from error


def _sniff(path: Path, settings: ImportSettings) -> str:
    with path.open("rb") as file:
        head = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"["):
        return "json"
    if not head.startswith(b"{"):
        line = head.splitlines()[0].decode(errors="replace") if head else ""
        cells = [cell.strip(' "') for cell in line.split(_delimiter(line))]
        named = {settings.fields.instruction, settings.fields.output}
        if path.suffix.lower() in (".csv", ".tsv") or named <= set(cells):
            return "csv"
    return "jsonl"


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _read_csv(path: Path) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(sys.maxsize)  # a cell may hold a book
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=_delimiter(header), strict=True)
        try:
            for number, record in enumerate(reader, 1):
                if None in record:
                    raise UserError(
                        f"import {path}, row {number}: more cells than the header has",
                        "put cells with commas, quotation marks or line ends in quotation marks",
                    )
                yield number, record
        except csv.Error as error:
            line = reader.line_num + 1
            raise UserError(f"import {path}, line {line}: not CSV ({error})", "repair the line") from error


def _read_json(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"import {path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})",
            "repair the file there, or set format: jsonl if it has one object per line",
        ) from error
    if not isinstance(rows, list):
        raise UserError(
            f"import {path}: one {type(rows).__name__} instead of a list of rows",
            "put the rows in a list, or set format: jsonl if it has one object per line",
        )
    yield from enumerate(rows, 1)


def _read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"import {path}, line {number}: not JSON ({error.msg})",
                    "repair the line; each line has to be one object (format: json reads one list)",
                ) from error


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=CHUNK):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        what = f"damaged after row {number}" if number else "not Parquet, or damaged"
        raise UserError(f"import {path}: {what} ({error})", "repair the file or set its format") from error


def _place(form: str, number: int) -> str:
    return f"line {number}" if form == "jsonl" else f"row {number}"


def pairs(path: Path, settings: ImportSettings, name: str) -> Iterator[tuple[int, str, str]]:
    """(number, instruction, output) of each row, as the file has them; of a conversation also several.

    Alpaca's ``input`` follows the instruction after a blank line. A conversation without a question and its
    answer gives two empty texts.

    Raises:
        UserError: a row lacks a field, a field is no text, or there are no rows.
    """
    names = settings.fields
    number = 0
    for number, record in read_records(path, settings):
        column = names.conversation or next((c for c in COLUMNS if c in record and names.instruction not in record), "")
        if column:
            try:
                found = conversation_pairs(record.get(column), settings.turns)
            except ValueError as error:
                raise UserError(
                    f"import {path}, row {number}, {column!r}: {error}",
                    f"mend the row, or set dataset.imports[{name}].fields to the names that the file uses",
                ) from error
            yield from ((number, *pair) for pair in found or [("", "")])
            continue
        values = []
        for field in (names.instruction, names.input, names.output):
            value = record.get(field)
            if isinstance(value, float) and math.isnan(value):  # how pandas writes an empty cell
                value = None
            if field not in record and field != names.input:
                raise UserError(
                    f"import {path}, row {number}: no field {field!r}, only {sorted(record)}",
                    f"set dataset.imports[{name}].fields to the names that the file uses",
                )
            if value is not None and (isinstance(value, bool) or not isinstance(value, str | int | float)):
                raise UserError(
                    f"import {path}, row {number}: {field!r} is a {type(value).__name__}, not text",
                    "give text there, or name another field",
                )
            values.append("" if value is None else str(value))
        instruction, extra, output = values
        if not extra.strip():
            yield number, instruction, output
        else:
            yield number, f"{instruction}\n\n{extra}" if instruction.strip() else extra, output
    if not number:
        raise UserError(f"import {path} has no rows", f"put rows there, or leave out dataset.imports[{name}]")


def half_character(text: str) -> str:
    """Half a character (``"\\ud83d"`` in JSON) and what stands around it, escaped; "" if all is Unicode.

    Text with one cannot be encoded: neither digested nor written.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return escaped(text[max(0, error.start - AROUND) : error.end + AROUND])
    return ""


def escaped(text: str) -> str:
    """The same text, but for half characters, which are shown as ``\\ud83d``."""
    return text.encode(errors="backslashreplace").decode()


def file_sha256(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_sha256(path: Path) -> str:
    """sha256 of a file's content, or of the names and contents of a folder's files."""
    if not path.is_dir():
        return file_sha256(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return digest("folder", [[p.relative_to(path).as_posix(), file_sha256(p)] for p in files])


def common_lines(path: Path, settings: ImportSettings, name: str) -> frozenset[str]:
    """The ``long_lines`` that stand in more than half of the rows of a file: a preamble, no text of their own."""
    counts: Counter[str] = Counter()
    rows = 0
    for _, instruction, _ in pairs(path, settings, name):
        rows += 1
        counts.update(long_lines(escaped(instruction)).keys())
    return frozenset(line for line, n in counts.items() if 2 * n > rows)


def chunks(path: Path, settings: ImportSettings, name: str) -> Iterator[list[tuple[int, str, str]]]:
    """The rows of a file, ``CHUNK`` at a time: one unit each. A conversation is in one chunk."""
    batch: list[tuple[int, str, str]] = []
    for item in pairs(path, settings, name):
        if len(batch) >= CHUNK and item[0] != batch[-1][0]:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def chunk_key(
    batch: list[tuple[int, str, str]],
    sha256: str,
    common: Collection[str],
    all_: DatasetSettings,
    tokenizer: str,
) -> str:
    """Identity of a chunk's unit."""
    settings = [all_.template, all_.max_tokens]
    texts = [[number, escaped(instruction), escaped(output)] for number, instruction, output in batch]
    return digest("import", IMPORT_VERSION, texts, sha256, sorted(common), settings, tokenizer)


def chunk_unit(
    batch: list[tuple[int, str, str]],
    sha256: str,
    common: Collection[str],
    limit: int,
    measure: Measure,
) -> Unit:
    """Rows of a chunk, grouped regardless of ``common`` lines; those of one conversation are one group.

    A row that is empty, longer than ``limit`` tokens or no Unicode is a reject: it is never cut or mended.
    """
    unit: Unit = {"rows": [], "rejects": []}
    groups: dict[int, str] = {}
    for number, instruction, output in batch:
        group = groups.setdefault(number, import_group(escaped(instruction), common))
        half = half_character(instruction) or half_character(output)
        n_tokens = measure.row(instruction, output) if instruction.strip() and output.strip() and not half else 0
        reason = "not-unicode" if half else "empty" if not n_tokens else "too-long" if n_tokens > limit else ""
        if reason:
            why = half or (f"{n_tokens} tokens" if n_tokens else "")
            detail = f"row {number}: {why}" if why else f"row {number}"
            unit["rejects"].append(
                {"doc_id": f"import:{sha256[:16]}", "task": IMPORT_TASK, "reason": reason, "detail": detail}
            )
            continue
        unit["rows"].append(
            make_row(
                instruction=instruction,
                output=output,
                task=IMPORT_TASK,
                n_tokens=n_tokens,
                source_sha256=sha256,
                answer_source=FROM_IMPORT,
                split_group=group,
            )
        )
    return unit
