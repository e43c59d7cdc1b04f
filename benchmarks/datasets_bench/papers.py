"""Seventeen papers: yield by recipe, and each answer looked for in pypdfium2's own text of the pages it cites."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

from benchmarks.datasets_bench.common import Bench, Built, Part

_SETTINGS = {"max_tokens": 8192, "license": "cc-by-4.0", "mix": {"max_task_share": 0.25}}
# White space, hyphens and dashes, and the signs that pdfium puts where a line ends in a hyphen.
_FOLDED = re.compile(r"[\s\u00ad\u2010-\u2015\x02\ufffe\ufffd-]+")


def run(bench: Bench) -> Part:
    part = Part()
    pdfs = bench.files("pdfbench/jose", "*.pdf")
    documents = bench.convert(pdfs)
    built = bench.build(documents, "first", **_SETTINGS)
    again = bench.build(documents, "again", **_SETTINGS)
    other = bench.build(documents, "other", seed=2, **_SETTINGS)

    rows = list(built.rows())
    tasks = Counter(row["task"] for row in rows)
    several = sum(len(row["doc_ids"]) > 1 for row in rows)
    part.add("rows", len(rows), note=f"of {len(pdfs)} papers, {several} of them beside other papers")
    distinct = {(row["doc_ids"][0], row["task"], row["output"]) for row in rows}
    part.add("distinct (document, task, answer)", len(distinct), least=400)
    answers = {(row["doc_ids"][0], row["output"]) for row in rows}
    note = "multi_document asks again, beside other papers, what other recipes ask of one"
    part.add("distinct (document, answer)", len(answers), least=400, note=note)
    part.add("recipes", len(tasks), least=10, note=", ".join(f"{t} {n}" for t, n in tasks.most_common()))
    part.add("biggest task, %", 100 * max(tasks.values()) / len(rows), most=25)
    lengths = sorted(row["n_tokens"] for row in rows)
    note = f"shortest {lengths[0]}, median {lengths[len(rows) // 2]}"
    part.add("longest row, tokens", lengths[-1], most=8192, note=note)
    _truth(part, built, pdfs)
    part.add("planted answers told once", _planted(built), least=100, note="%, needle")
    part.add("documents in both splits", _leaks(built), most=0)
    digests = [one.metrics["row_digest"] for one in (built, again, other)]
    part.add("one seed, row digests", len(set(digests[:2])), least=1, most=1, note=digests[0][:16])
    part.add("two seeds, row digests", len(set(digests)), least=2, most=2, note=digests[2][:16])
    part.add("seconds", built.watched.seconds, note=f"peak memory {built.watched.peak_sum / 2**20:.0f} MB, one process")
    part.data |= {"tasks": dict(tasks), "rejects": built.metrics["rejects"]}
    return part


def _truth(part: Part, built: Built, pdfs: list[Path]) -> None:
    """How many answers stand, line by line, on the pages that their rows cite."""
    import pypdfium2

    files = {hashlib.sha256(f.read_bytes()).hexdigest()[:16]: f for f in pdfs}

    @cache
    def page(doc_id: str, number: int) -> str:
        with pypdfium2.PdfDocument(files[doc_id]) as pdf:
            return _FOLDED.sub("", pdf[number - 1].get_textpage().get_text_range())

    found: Counter[str] = Counter()
    missed: dict[str, list[str]] = defaultdict(list)
    for row in built.rows():
        if row["answer_source"] != "document":
            continue
        pages = sorted({(e["doc_id"], e["page"]) for e in row["evidence"]})
        text = "".join(page(*p) for p in pages)
        if all(_FOLDED.sub("", line) in text for line in row["output"].splitlines()):
            found[row["task"]] += 1
        else:
            missed[row["task"]].append(f"{row['id']} {row['output'][:160]}")
    total = found.total() + sum(map(len, missed.values()))
    note = f"{found.total()} of {total}; missed: " + ", ".join(f"{t} {len(m)}" for t, m in sorted(missed.items()))
    part.add("answers on their cited pages, %", 100 * found.total() / total, least=98, note=note)
    part.data["missed"] = dict(missed)


def _planted(built: Built) -> float:
    rows = [row for row in built.rows() if row["answer_source"] == "planted"]
    once = [r for r in rows if r["instruction"].count(r["output"]) == 1 and not r["evidence"]]
    return 100 * len(once) / max(1, len(rows))


def _leaks(built: Built) -> int:
    sides: dict[str, set[str]] = defaultdict(set)
    import pyarrow.parquet as pq

    for file in sorted((built.folder / "data").glob("*.parquet")):
        for doc_ids in pq.read_table(file, columns=["doc_ids"])["doc_ids"].to_pylist():
            for doc_id in doc_ids:
                sides[doc_id].add(file.name.split("-")[0])
    return sum(len(splits) > 1 for splits in sides.values())
