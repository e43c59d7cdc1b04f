"""Looking at a dataset directory: sampled rows as text, and what differs between two."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from datasets_build.parquet import damage_told
from datasets_build.rows import COLUMNS, Row
from datasets_build.select import SPLITS
from pdf2txt.errors import UserError

_BESIDE_ID = ("evidence", "answer_source", "n_tokens", "source_sha256", "split_group", "license")
_AGAIN = "build the dataset again"


def rows(dataset_dir: Path, n: int, seed: int = 1, task: str | None = None) -> list[Row]:
    """``n`` rows drawn by seed (all if there are fewer), in dataset order, each with its ``split``.

    Raises:
        UserError: the directory is no dataset, a file of it is damaged, or it has no rows of this task.
    """
    columns = list(_columns(dataset_dir))
    tasks = sorted({row["task"] for _, found in columns for row in found})
    if task is not None and task not in tasks:
        near = difflib.get_close_matches(task, tasks, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{dataset_dir} has no rows of task {task!r}{hint}", f"its tasks are {', '.join(tasks)}")
    wanted = [(file, i) for file, found in columns for i, row in enumerate(found) if task in (None, row["task"])]
    drawn = sorted(Random(seed).sample(range(len(wanted)), min(n, len(wanted))))
    by_file: dict[Path, list[int]] = {}
    for k in drawn:
        by_file.setdefault(wanted[k][0], []).append(wanted[k][1])
    return [
        {**row, "split": file.name.split("-")[0]} for file, indices in by_file.items() for row in _take(file, indices)
    ]


def format_row(row: Row, width: int = 400) -> str:
    """A row for the terminal; a long instruction shows its first and last ``width`` characters."""
    text = row["instruction"]
    if len(text) > 2 * width + 40:
        text = f"{text[:width]}\n[... {len(text) - 2 * width} characters ...]\n{text[-width:]}"
    places = ", ".join(f"{e['doc_id']} page {e['page']}" for e in row["evidence"])
    head = f"{row['id']}  {row.get('split', '')}  {row['task']}  {row['n_tokens']} tokens"
    return f"{head}\n{text}\n-> {row['output']}\n({places or row['answer_source']}; licence {row['license']})"


def count(dataset_dir: Path) -> int:
    """How many rows a dataset has."""
    import pyarrow.parquet as pq

    total = 0
    for file in data_files(dataset_dir):
        with damage_told(file, _AGAIN):
            total += pq.read_metadata(file).num_rows
    return total


def diff(dir_a: Path, dir_b: Path) -> dict[str, Any]:
    """What differs between two datasets.

    Returns:
        only_a, only_b: sorted ids of rows only in one; common: how many are in both. A row that asks or answers
            anything else has another id.
        changed: {column: rows}: of the rows in both, those whose evidence, length, licence, ... or split differ.
        tasks: {task: {only_a, only_b, common}}, counts.
        settings: [{key, a, b}] of the section ``dataset``, where they differ.
        documents: {only_a, only_b: sorted doc_ids, moved: [{doc_id, a, b}] between splits}.
    """
    a, b = _rest(dir_a), _rest(dir_b)
    counts = {
        "only_a": Counter(a[i]["task"] for i in a.keys() - b.keys()),
        "only_b": Counter(b[i]["task"] for i in b.keys() - a.keys()),
        "common": Counter(a[i]["task"] for i in a.keys() & b.keys()),
    }
    changed = Counter(name for i in a.keys() & b.keys() for name, value in a[i].items() if b[i][name] != value)
    tasks = sorted({t for c in counts.values() for t in c})
    return {
        "only_a": sorted(a.keys() - b.keys()),
        "only_b": sorted(b.keys() - a.keys()),
        "common": len(a.keys() & b.keys()),
        "changed": dict(sorted(changed.items())),
        "tasks": {t: {name: c[t] for name, c in counts.items()} for t in tasks},
        "settings": _differences(_read(dir_a / "stats.json"), _read(dir_b / "stats.json")),
        "documents": _documents(_read(dir_a / "splits.json"), _read(dir_b / "splits.json")),
    }


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    first, second = dict(_leaves(a.get("settings", {}))), dict(_leaves(b.get("settings", {})))
    return [
        {"key": key, "a": first.get(key), "b": second.get(key)}
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]


def _leaves(tree: Any, prefix: str = "dataset") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}")
    else:
        yield prefix, tree


def _documents(a: dict[str, str], b: dict[str, str]) -> dict[str, Any]:
    return {
        "only_a": sorted(a.keys() - b.keys()),
        "only_b": sorted(b.keys() - a.keys()),
        "moved": [{"doc_id": d, "a": a[d], "b": b[d]} for d in sorted(a.keys() & b.keys()) if a[d] != b[d]],
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def data_files(dataset_dir: Path) -> list[Path]:
    """The Parquet files with rows, train first.

    Raises:
        UserError: there are none.
    """
    files = [f for split in SPLITS for f in sorted((dataset_dir / "data").glob(f"{split}-*.parquet"))]
    if not files:
        raise UserError(f"{dataset_dir} has no data/*.parquet", "give the output directory of datasets_build")
    return files


def _rest(dataset_dir: Path) -> dict[str, dict[str, Any]]:
    """Of each row by id what its id does not tell, its split too."""
    return {
        row["id"]: {"task": row["task"], "split": file.name.split("-")[0]} | {name: row[name] for name in _BESIDE_ID}
        for file, columns in _columns(dataset_dir, _BESIDE_ID)
        for row in columns
    }


def _columns(dataset_dir: Path, more: Sequence[str] = ()) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """``id``, ``task`` and ``more`` of the rows of each file."""
    import pyarrow.parquet as pq

    for file in data_files(dataset_dir):
        with damage_told(file, _AGAIN):
            there = pq.read_schema(file).names
            missing = [name for name in COLUMNS if name not in there]
            if missing:
                raise UserError(
                    f"{file} was not built by Longfolio (no column {', '.join(missing)})",
                    "give the output directory of datasets_build",
                )
            table = pq.read_table(file, columns=["id", "task", *more])
        yield file, table.to_pylist()


def _take(file: Path, indices: list[int]) -> Iterator[Row]:
    """Rows of a file by index, one row group in memory at a time."""
    import pyarrow.parquet as pq

    with damage_told(file, _AGAIN), pq.ParquetFile(file) as parquet:
        start = 0
        for group in range(parquet.num_row_groups):
            end = start + parquet.metadata.row_group(group).num_rows
            inside = [i - start for i in indices if start <= i < end]
            if inside:
                yield from parquet.read_row_group(group).take(inside).to_pylist()
            start = end
