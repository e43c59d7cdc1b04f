"""Many documents, cut from the books: rows a second, memory beside a tenth of them, and one document more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.datasets_bench.common import Bench, Built, Part, Skip

_ROWS = 1.2  # of each document
_LESS = 10  # times fewer documents for the comparison of memory
_WINDOW = 8192  # tokens, the default of dataset.max_tokens


def run(bench: Bench) -> Part:
    part = Part()
    n = bench.documents
    texts = [f.read_text(encoding="utf-8") for f in bench.files("books/train", "*.txt")]
    folders = {count: _write(bench.work / f"in-{count}", texts, n, count) for count in (n // _LESS, n, n + 1)}
    small = _build(bench, folders[n // _LESS], "small", n // _LESS)
    full = _build(bench, folders[n], "full", n)
    rows = full.metrics["rows"]
    seconds = full.watched.seconds
    part.add("documents", n, note=f"of {sum(map(len, texts)) // n:,} characters each, no two overlap")
    note = f"{full.metrics['tokens']:,} tokens, {full.metrics['units_made']:,} units"
    part.add("rows", rows, least=int(_ROWS * n), note=note)
    part.add("seconds", seconds, note=f"{bench.workers} processes")
    part.add("rows/s", rows / seconds)
    part.add("tokens/s", full.metrics["tokens"] / seconds)
    for name, one in (("peak_sum", "all processes"), ("peak_one", "the biggest process")):
        few, many = getattr(small.watched, name) / 2**20, getattr(full.watched, name) / 2**20
        note = f"{many:.0f} MB beside {few:.0f} with {n // _LESS:,} documents"
        part.add(f"memory, {one}, times", many / few, most=1.2, note=note)

    more = _build(bench, folders[n + 1], "more", n, units="full")
    computed = more.metrics["units_made"] / (more.metrics["units_made"] + more.metrics["units_reused"])
    part.add("one document more, seconds", more.watched.seconds)
    part.add("one document more, % of the time", 100 * more.watched.seconds / seconds, most=5)
    part.add("one document more, % of the units", 100 * computed, most=5, note=f"{more.metrics['units_made']:,} units")
    # A row takes less time to make there, and as much to read and to write again.
    half = _build(bench, folders[n], "half", n, window=_WINDOW // 2).watched.seconds
    again = _build(bench, folders[n + 1], "half-more", n, units="half", window=_WINDOW // 2).watched.seconds
    note = f"{again:.1f} of {half:.0f} s"
    part.add("the same with half the window, % of the time", 100 * again / half, note=note)
    whole = _build(bench, folders[n + 1], "whole", n)
    same = whole.metrics["row_digest"] == more.metrics["row_digest"]
    part.add("the same rows as from nothing", int(same), least=1, most=1, note=more.metrics["row_digest"][:16])
    part.data = {"tasks": full.metrics["tasks"], "rejects": full.metrics["rejects"]}
    return part


def _build(
    bench: Bench, documents: Path, name: str, count: int, units: str | None = None, window: int = _WINDOW
) -> Built:
    settings = {
        "mix": {"long": int(_ROWS * count), "max_task_share": 0.25},
        "max_tokens": window,
        "lengths": [{"tokens": window // 2}, {"tokens": window}],
        "per_document": 1,
        "license": "public domain",
        "workers": bench.workers,
    }
    return bench.build(documents, name, units, **settings)


def _write(folder: Path, texts: list[str], parts: int, count: int) -> Path:
    """The first ``count`` of ``parts + 1`` pieces of the books, as the stage pdf2txt leaves them."""
    from pdf2txt.schema import Document, Page, write_documents

    pieces = list(_pieces(texts, parts + 1))[:count]
    if len(pieces) < count:
        raise Skip(f"the books give {len(pieces)} documents, not {count}")
    named = sorted((hashlib.sha256(text.encode()).hexdigest(), text) for text in pieces)
    folder.mkdir(parents=True, exist_ok=True)
    page = Page(1, 0.0, 0.0, 0, "text-layer", 1.0, 0, 0)
    write_documents(
        folder / "documents.parquet",
        (
            Document(sha256, f"{i}.txt", "ok", text, "en", (Page(**{**vars(page), "end": len(text)}),))
            for i, (sha256, text) in enumerate(named)
        ),
    )
    return folder


def _pieces(texts: list[str], parts: int) -> Iterator[str]:
    """``texts`` in ``parts`` pieces of whole paragraphs, of much the same length."""
    size = sum(map(len, texts)) / parts
    made, seen = 0, 0
    piece: list[str] = []
    for text in texts:
        for paragraph in text.split("\n\n"):
            piece.append(paragraph)
            seen += len(paragraph) + 2
            if seen >= (made + 1) * size:
                yield "\n\n".join(piece)
                piece, made = [], made + 1
