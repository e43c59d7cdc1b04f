"""A near duplicate, an evaluation passage, an over-long row and an e-mail address are planted: each has to be caught
with its reason. And a file of LongAlpaca's form is taken over row for row.

Long rows are pages of books with a question, as LongAlpaca's are of papers.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.datasets_bench.common import Bench, Built, Part

_ROWS = 1000
_PAGE = 6000  # characters of a book in a long row
_QUESTIONS = ("Who speaks here, and of what?", "What happens on these pages?", "How does this passage end?")


def run(bench: Bench) -> Part:
    part = Part()
    rows = _long_alpaca(bench.files("books/train", "*.txt"))
    inner = Bench(bench.shared, bench.work / "gates", bench.model, bench.documents, bench.workers)
    inner.work.mkdir(exist_ok=True)
    documents = inner.convert(bench.files("pdfbench/jose", "*.pdf")[:3])
    file = _written(inner.work / "long-alpaca.json", rows)
    settings: dict[str, Any] = {"recipes": ["title"], "validation_share": 0, "exclude_duplicates": False}
    imported = inner.build(documents, "imported", imports=[{"path": file, "kind": "long"}], **settings)
    wanted = Counter((_instruction(row), row["output"]) for row in rows)
    got = _imported(imported)
    part.add("LongAlpaca rows taken over, of 1,000", (got & wanted).total(), least=_ROWS, note="text unchanged")
    part.add("rows that the file does not have", (got - wanted).total(), most=0)

    planted, evaluation = _planted(rows)
    names = _written(inner.work / "planted.json", [*rows[:200], *planted.values()])
    held = inner.work / "evaluation.jsonl"
    held.write_text(json.dumps({"question": evaluation}) + "\n", encoding="utf-8")
    built = inner.build(
        documents, "planted", recipes=["title"], validation_share=0, imports=[{"path": names, "kind": "long"}],
        decontaminate=[str(held)], gates={"levels": {"pii": "drop"}},
    )  # fmt: skip
    reasons = _reasons(built)
    for name, (reason, note) in {
        "near duplicate": ("near-duplicate", "another first word and another stop"),
        "evaluation passage": ("decontamination", "a sentence of an evaluation file inside a page"),
        "over-long row": ("too-long", "never cut"),
        "e-mail address": ("pii", "with gates.levels.pii: drop"),
    }.items():
        part.add(f"planted {name}: rejects with reason {reason}", reasons[reason], least=1, note=note)
    kept = _imported(built)
    published = [name for name, row in planted.items() if (_instruction(row), row["output"]) in kept]
    part.add("planted rows that were published", len(published), most=0, note=", ".join(published))
    part.add("other rows of the file that were published, of 200", kept.total(), note=f"rejects: {dict(reasons)}")
    return part


def _long_alpaca(books: list[Path]) -> list[dict[str, str]]:
    """Rows ``instruction``, ``output``, every fifth also ``input``: a page of a book, and its last sentence."""
    texts = [book.read_text(encoding="utf-8") for book in books]
    rows = []
    for i in range(_ROWS):
        text = texts[i % len(texts)]
        at = 2000 + i // len(texts) * _PAGE % (len(text) - _PAGE)
        page = text[at : at + _PAGE]
        row = {"instruction": f"Below is a part of a book.\n{page}\nNow answer.\n{_QUESTIONS[i % 3]}"}
        if i % 5 == 0:
            row = {"instruction": _QUESTIONS[i % 3], "input": page}
        rows.append(row | {"output": f"{page.split('.')[-2].strip()} ({i})."})
    return rows


def _planted(rows: list[dict[str, str]]) -> tuple[dict[str, dict[str, str]], str]:
    """The planted rows by name, and the text of the evaluation file."""
    near = {"instruction": rows[1]["instruction"].replace("Below", "Here", 1), "output": rows[1]["output"] + "!"}
    evaluation = (
        "The lamplighter of the upper town keeps a ledger of every window that was dark before the bells of nine."
    )
    return {
        "near duplicate": near,
        "evaluation passage": {"instruction": f"Read this. {evaluation.upper()} Who keeps it?", "output": "He does."},
        "over-long row": {"instruction": "word " * 20_000, "output": "Too long to be a row."},
        "e-mail address": {"instruction": "Whom may I ask?", "output": "Write to ada.example@example.org, she knows."},
    }, evaluation  # fmt: skip


def _instruction(row: dict[str, str]) -> str:
    return f"{row['instruction']}\n\n{row['input']}" if row.get("input") else row["instruction"]


def _written(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


def _imported(built: Built) -> Counter[tuple[str, str]]:
    rows = built.rows("task", "instruction", "output")
    return Counter((row["instruction"], row["output"]) for row in rows if row["task"] == "import")


def _reasons(built: Built) -> Counter[str]:
    import pyarrow.parquet as pq

    table = pq.read_table(built.folder / "rejects.parquet")
    return Counter(r["reason"] for r in table.to_pylist() if r["task"] == "import")
