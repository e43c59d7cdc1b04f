"""Imported rows: three formats, whole or rejected, and messages that name file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_build.imports import common_lines, pairs
from datasets_build.rows import import_group
from datasets_build.settings import ImportSettings
from pdf2txt.errors import UserError

ROWS = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue."},
    {"instruction": "Translate to French.", "input": "Good morning", "output": "Bonjour"},
    {"instruction": "Name a number.", "output": "Seven."},
]


def write(path: Path, rows: list) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet"])
def test_formats_are_told_by_content_and_read_row_for_row(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    renamed = path.rename(tmp_path / "data")
    assert [(i, o) for _, i, o in pairs(renamed, ImportSettings(path=renamed), "0")] == [
        ("Name a colour.", "Blue."),
        ("Translate to French.\n\nGood morning", "Bonjour"),
        ("Name a number.", "Seven."),
    ]


def test_rows_in_the_dataset(build, tmp_path: Path) -> None:
    rows = [
        *ROWS,
        {"instruction": "Too long. " * 400, "output": "Yes."},
        {"instruction": "No answer?", "output": ""},
        {"instruction": "name a  COLOUR.", "output": "blue."},
    ]
    path = write(tmp_path / "qa.json", rows)
    built = build(imports=[{"path": str(path), "license": "cc0-1.0"}], validation_share=0.2)
    imported = [r for r in built.rows() if r["task"] == "import"]
    assert sorted(r["output"] for r in imported) == ["Blue.", "Bonjour", "Seven."]
    assert {r["license"] for r in imported} == {"cc0-1.0"}
    assert {r["answer_source"] for r in imported} == {"import"}
    reasons = {r["reason"]: r["detail"] for r in built.rejects() if r["task"] == "import"}
    assert reasons["too-long"].startswith("row 4: ") and reasons["empty"] == "row 5" and "duplicate" in reasons
    assert "cc0-1.0" in (built.output / "README.md").read_text()


def test_other_column_names(tmp_path: Path) -> None:
    path = write(tmp_path / "qa.jsonl", [{"q": "Why?", "a": "So."}])
    with pytest.raises(UserError, match=r"row 1: no field 'instruction'.*'a', 'q'") as caught:
        list(pairs(path, ImportSettings(path=path), "0"))
    assert "dataset.imports[0].fields" in caught.value.remedy
    named = ImportSettings.model_validate({"path": path, "fields": {"instruction": "q", "output": "a"}})
    assert list(pairs(path, named, "0")) == [(1, "Why?", "So.")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"instruction": "a",\n "output": }]', "line 2"),
        ('{"instruction": "a", "output": "b"}\nnonsense\n', "line 2: not JSON"),
        ("[1, 2]", "row 1: int instead of an object"),
        ('[{"instruction": ["a"], "output": "b"}]', "'instruction' is a list"),
        ("PAR1 but not really", "not Parquet"),
        (b"\xff\xfe\x00[", "not UTF-8"),
    ],
)
def test_bad_files(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = tmp_path / "qa"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as caught:
        list(pairs(path, ImportSettings(path=path), "0"))
    assert str(path) in str(caught.value) and caught.value.remedy


def test_missing_file(build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        build(imports=[{"path": str(tmp_path / "absent.json")}])


def test_questions_on_one_long_text_share_a_group() -> None:
    text = "A long paragraph of a paper that is asked about twice, " * 5
    one = import_group(f"Below is a paper.\n{text}\nNow answer.\nWhat is it about?")
    assert one == import_group(f"Below is a paper.\n{text}\nNow answer.\nWho wrote it?")
    assert one != import_group("What is it about?")


def test_a_preamble_or_a_short_line_makes_no_group(build, tmp_path: Path) -> None:
    short = [import_group(f"Answer in one short and polite sentence please.\n{q}") for q in ("Why?", "Who?")]
    assert len(set(short)) == 2

    preamble = "You are an assistant who answers with care. " * 10
    texts = ["One long paragraph of the first paper. " * 8, "Another long paragraph of the second paper. " * 8]
    rows = [
        {"instruction": f"{preamble}\n{text}\nQuestion {i}?", "output": f"Answer {t} {i}."}
        for t, text in enumerate([*texts, *("" for _ in range(3))])
        for i in range(2)
    ]
    path = write(tmp_path / "qa.json", rows)
    assert len(common_lines(path, ImportSettings(path=path), "0")) == 1
    built = build(imports=[{"path": str(path)}], recipes=["title"])
    groups = {r["output"]: r["split_group"] for r in built.rows() if r["task"] == "import"}
    assert groups["Answer 0 0."] == groups["Answer 0 1."] != groups["Answer 1 0."] == groups["Answer 1 1."]
    assert len(set(groups.values())) == 4  # the two papers, and the two questions without one
