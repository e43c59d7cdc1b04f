"""Fourteen books: rows filled to 8k, 16k and 32k tokens; and papers, each too short for that, beside others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.datasets_bench.common import Bench, Part

_LENGTHS = (8192, 16384, 32768)
_NEAR = 0.9  # a row this near below a length is one of that length
_SETTINGS: dict[str, Any] = {
    "max_tokens": 32768, "fill": 1.0, "per_document": 3, "min_validation_rows": 1, "mix": {"max_task_share": 0.25},
    "lengths": [{"tokens": tokens} for tokens in _LENGTHS],
}  # fmt: skip


def run(bench: Bench) -> Part:
    part = Part()
    _lengths(part, bench, "books", bench.files("books/train", "*.txt"))
    _lengths(part, bench, "papers", bench.files("pdfbench/jose", "*.pdf"))
    return part


def _lengths(part: Part, bench: Bench, name: str, files: list[Path]) -> None:
    inner = Bench(bench.shared, bench.work / name, bench.model, bench.documents, bench.workers)
    inner.work.mkdir(exist_ok=True)
    built = inner.build(inner.convert(files), "built", **_SETTINGS)
    rows = list(built.rows("task", "n_tokens", "doc_ids"))
    near = Counter(length for row in rows for length in _LENGTHS if _NEAR * length <= row["n_tokens"] <= length)
    tasks = Counter(row["task"] for row in rows)
    part.add(f"{name}: rows", len(rows), note=", ".join(f"{t} {n}" for t, n in tasks.most_common()))
    for length in _LENGTHS:
        note = f"{_NEAR * length:,.0f} to {length:,} tokens"
        part.add(f"{name}: rows of {length}", near[length], least=20, note=note)
    part.add(f"{name}: at one of the lengths, %", 100 * near.total() / len(rows), note=_apart(rows))
    documents = Counter(len(row["doc_ids"]) for row in rows)
    part.add(
        f"{name}: documents in a row, most", max(documents), note=f"{rows and documents[1]} rows show one document"
    )
    tokens = built.metrics["tokens"]
    seconds = built.watched.seconds
    memory = f"peak memory {built.watched.peak_sum / 2**20:.0f} MB"
    part.add(f"{name}: tokens/s", tokens / seconds, note=f"{tokens:,} tokens in {seconds:.0f} s, one process; {memory}")
    part.data[name] = {"tasks": dict(tasks), "rejects": built.metrics["rejects"]}


def _apart(rows: list[dict[str, Any]]) -> str:
    far = [r for r in rows if not any(_NEAR * length <= r["n_tokens"] <= length for length in _LENGTHS)]
    return "the others: " + ", ".join(f"{t} {n}" for t, n in Counter(r["task"] for r in far).most_common(5))
