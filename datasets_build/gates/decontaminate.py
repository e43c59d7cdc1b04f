"""Decontamination: runs of words that a row has in common with an evaluation file.

The convention is 13 words in a row (GPT-3, Llama 2), whatever case and punctuation. It finds copies, not
paraphrases. Every word of a row is looked up in the vocabulary of the evaluation files; only runs all of whose words
are in it are hashed and looked up, and a hit is compared word by word. So a row costs little more than splitting it.

A question or an answer with fewer words is looked for as a whole, down to ``WHOLE_WORDS``; with fewer still it is a
phrase that anyone might have written, and is counted as not looked for.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from datasets_build.gates.runs import run_hashes, words
from datasets_build.parquet import damage_told
from pdf2txt.errors import UserError
from pdf2txt.units import Units, digest

NGRAMS_VERSION = 3  # raised when the same files give another index
SUFFIXES = (".txt", ".md", ".json", ".jsonl", ".parquet", ".csv")
KIND = "ngrams"  # of the index's unit
WHOLE_WORDS = 8


def evaluation_files(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """(name, file) of the declared files and of those below the declared folders.

    Raises:
        UserError: one is missing, of no known kind, or a folder without such files.
    """
    files: list[tuple[str, Path]] = []
    for i, path in enumerate(paths):
        key = f"dataset.decontaminate.{i}"
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
            if not found:
                raise UserError(f"{key}: no {', '.join(SUFFIXES)} file in {path}", "name a folder that has some")
            files += [(p.relative_to(path).as_posix(), p) for p in found]
        elif not path.is_file():
            raise UserError(f"{key}: {path} does not exist", f"correct {key}")
        elif path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{key}: {path} is of no known kind", f"known are {', '.join(SUFFIXES)}")
        else:
            files.append((path.name, path))
    return files


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """(number of the record, text) of every text of a file, however deep in its records; 0: the file is one text.

    Raises:
        UserError: the file cannot be read; names file and line.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in (".txt", ".md"):
            yield 0, path.read_text(encoding="utf-8-sig")
        elif suffix == ".json":
            value = json.loads(path.read_text(encoding="utf-8-sig"))
            for number, record in enumerate(value, 1) if isinstance(value, list) else [(0, value)]:
                yield from ((number, text) for text in _strings(record))
        elif suffix == ".jsonl":
            with path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield from ((number, text) for text in _strings(_parsed(path, number, line)))
        elif suffix == ".csv":
            csv.field_size_limit(sys.maxsize)
            with path.open(encoding="utf-8-sig", newline="") as file:
                for number, cells in enumerate(csv.reader(file)):  # 0: the header
                    yield from ((number, text) for text in cells)
        else:
            yield from _parquet(path)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"evaluation file {path}: {error}", "repair it, or mend dataset.decontaminate") from error


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"evaluation file {path}, line {number}: not JSON ({error.msg})",
            "repair the line, or mend dataset.decontaminate",
        ) from error


def _parquet(path: Path) -> Iterator[tuple[int, str]]:
    import pyarrow.parquet as pq

    number = 0
    with damage_told(path, "repair it, or leave it out", "evaluation file"), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=64):
            for record in batch.to_pylist():
                number += 1
                yield from ((number, text) for text in _strings(record))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def index_key(files: Sequence[tuple[str, str]], n: int) -> str:
    """Of the index's unit. ``files``: (name, sha256) each."""
    return digest("ngrams", NGRAMS_VERSION, n, [list(file) for file in files])


def build_index(files: Sequence[tuple[str, Path]], n: int) -> bytes:
    """The runs of ``n`` words of the evaluation files, as a unit holds them."""
    number_of: dict[str, int] = {}
    ids: list[np.ndarray] = []
    starts: list[int] = []
    places: list[list[Any]] = []  # [file name, record]
    total = seen = short = 0
    for name, path in files:
        for record, text in texts(path):
            found = words(text)
            seen += bool(found)
            if len(found) < min(n, WHOLE_WORDS):
                short += bool(found)
                continue
            ids.append(np.array([number_of.setdefault(w, len(number_of)) for w in found], dtype="<i4"))
            starts.append(total)
            places.append([name, record])
            total += len(found)
    known = np.concatenate(ids) if ids else np.zeros(0, "<i4")
    runs: dict[int, list[np.ndarray]] = {}  # words of a run -> where such runs start
    for start, part in zip(starts, ids, strict=True):
        length = min(n, len(part))
        runs.setdefault(length, []).append(np.arange(start, start + len(part) - length + 1))
    tables = {}
    for length, at in sorted(runs.items()):
        positions = np.concatenate(at)
        hashes, first = np.unique(run_hashes(known, length, positions), return_index=True)
        tables[length] = [hashes.astype("<u8").tobytes(), positions[first].astype("<i8").tobytes()]
    return msgpack.packb(
        {
            "words": list(number_of),
            "text": known.tobytes(),
            "runs": tables,
            "starts": starts,
            "places": places,
            "texts": seen,
            "too_short": short,
            "min_words": min(n, WHOLE_WORDS),
        }
    )


@dataclass(frozen=True)
class Index:
    """The runs of words of the evaluation files: a unit, read when it is first asked."""

    units: Units
    key: str

    @cached_property
    def _data(self) -> dict[str, Any]:
        data = self.units.get(self.key)
        if data is None:
            raise FileNotFoundError(f"unit {self.units.path(self.key)} vanished during the build")
        value = msgpack.unpackb(data, strict_map_key=False)
        value["number"] = {word: i for i, word in enumerate(value["words"])}
        value["text"] = np.frombuffer(value["text"], "<i4")
        value["runs"] = {
            length: (np.frombuffer(hashes, "<u8"), np.frombuffer(positions, "<i8"))
            for length, (hashes, positions) in value["runs"].items()
        }
        return value

    def statistics(self) -> dict[str, int]:
        """Texts of the evaluation files, and how many are too short to be looked for."""
        return {name: self._data[name] for name in ("texts", "too_short", "min_words")}

    def warning(self) -> str:
        """What a person should know of an index that finds nothing, whatever the rows; "" of any other."""
        n = self.statistics()
        if n["too_short"] < n["texts"]:
            return ""
        return (
            f"dataset.decontaminate finds nothing: the evaluation files have {n['texts']} texts, none of "
            f"{n['min_words']} words or more"
        )

    def hit(self, text: str) -> str:
        """Where a run of words of ``text`` stands in the evaluation files, and the run; "" if nowhere."""
        data = self._data
        asked = words(text)
        if not data["runs"] or len(asked) < min(data["runs"]):
            return ""
        get = data["number"].get
        ids = np.fromiter((get(w, -1) for w in asked), dtype=np.int32, count=len(asked))
        unknown = np.concatenate([[0], np.cumsum(ids < 0)])
        for n, (known, positions) in sorted(data["runs"].items(), reverse=True):  # the longest says most
            if len(asked) < n:
                continue
            whole = np.flatnonzero(unknown[n:] == unknown[:-n])  # runs of known words
            if not len(whole):
                continue
            hashes = run_hashes(ids, n, whole)
            found = np.searchsorted(known, hashes)
            found[found == len(known)] = 0
            for k in np.flatnonzero(known[found] == hashes):
                start, position = int(whole[k]), int(positions[found[k]])
                if np.array_equal(ids[start : start + n], data["text"][position : position + n]):
                    place = int(np.searchsorted(data["starts"], position, side="right")) - 1
                    name, record = data["places"][place]
                    return f"{name}{f', record {record}' if record else ''}: “{' '.join(asked[start : start + n])}”"
        return ""
