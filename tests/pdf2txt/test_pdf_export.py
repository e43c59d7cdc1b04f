"""JSON lines: what a reader of the file gets back, in every compression, and what has no line."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pdf2txt.cli import convert_folder
from pdf2txt.convert import convert
from pdf2txt.errors import UserError
from pdf2txt.export import export, open_jsonl
from pdf2txt.schema import Document, Page, write_documents
from pdf2txt.settings import Pdf2txtSettings

GEOMETRY = Pdf2txtSettings(layout="geometry", ocr="off")
SOURCE = """
#set page(width: 300pt, height: 200pt, margin: 30pt, numbering: "1")
= Ledger №{n} “ß”
Ships of the first page.#pagebreak()#pagebreak()
Cargo of the third page, 𝒳 and naïve.
"""


@pytest.fixture
def documents(typeset) -> list[Document]:
    """Two of three pages, the second one empty, and one that was rejected."""
    made = [convert(typeset(SOURCE.replace("{n}", str(n)), f"ledger{n}.pdf"), GEOMETRY) for n in (1, 2)]
    assert [d.n_pages for d in made] == [3, 3]
    return [*made, Document("f" * 64, "broken.pdf", "corrupt", warnings=("cannot be opened",))]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_datasets_opens_it_and_the_spans_give_each_page(documents, tmp_path: Path, suffix: str):
    from datasets import load_dataset

    path = tmp_path / f"all{suffix}"
    with open_jsonl(path) as add:
        assert [add(d) for d in documents] == [True, True, False]
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["id"] for row in rows] == [d.doc_id for d in documents[:2]]
    for row, document in zip(rows, documents, strict=False):
        assert (row["text"], row["source"]) == (document.text, "longfolio")
        spans = row["attributes"]["pdf_page_numbers"]
        assert [(row["text"][start:end], page) for start, end, page in spans] == [
            (document.page_text(p.number), p.number) for p in document.pages
        ]
        assert all(len(v) == document.n_pages for v in row["attributes"].values())
        assert row["metadata"]["Source-File"] == document.source and row["metadata"]["pdf-total-pages"] == 3


def test_zstandard_holds_the_same(documents, tmp_path: Path):
    for name in ("a.jsonl", "a.jsonl.zst"):
        with open_jsonl(tmp_path / name) as add:
            add(documents[0])
    packed = (tmp_path / "a.jsonl.zst").read_bytes()
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        assert stream.read() == (tmp_path / "a.jsonl").read_bytes()
    assert packed[:4] == b"\x28\xb5\x2f\xfd"


def test_every_line_has_the_same_types(documents, tmp_path: Path):
    """Readers that infer a schema from the first lines meet no other one later."""
    warned = replace(documents[0], status="partial", warnings=("page 2: lost",), sha256="0" * 64)
    with open_jsonl(tmp_path / "a.jsonl") as add:
        add(documents[0])
        add(warned)

    def shape(value):
        if isinstance(value, dict):
            return {k: shape(v) for k, v in value.items()}
        return [shape(value[0])] if isinstance(value, list) else type(value)

    first, second = (shape(json.loads(line)) for line in (tmp_path / "a.jsonl").read_text().splitlines())
    assert first == second


def test_a_stage_a_file_and_a_folder_of_json_give_the_same(documents, tmp_path: Path, typeset):
    stage = tmp_path / "stage"
    stage.mkdir()
    write_documents(stage / "documents.parquet", sorted(documents, key=lambda d: d.doc_id))
    assert export(stage, tmp_path / "a.jsonl") == {"documents": 2, "left_out": 1}
    assert export(stage / "documents.parquet", tmp_path / "b.jsonl") == {"documents": 2, "left_out": 1}
    folder = tmp_path / "json"
    folder.mkdir()
    for d in documents:
        (folder / f"{d.source}.json").write_text(json.dumps(d.to_dict()))
    (folder / "other.json").write_text("[1, 2]")
    assert export(folder, tmp_path / "c.jsonl") == {"documents": 2, "left_out": 1}
    first, second, third = (sorted((tmp_path / f"{n}.jsonl").read_text().splitlines()) for n in "abc")
    assert first == second

    def rounded(lines):  # Parquet keeps confidences as float32
        return [
            {**json.loads(line), "attributes": json.loads(line)["attributes"]["pdf_page_numbers"]} for line in lines
        ]

    assert rounded(first) == rounded(third)


def test_with_the_conversion(typeset, tmp_path: Path):
    pdfs = tmp_path / "pdfs"
    pdfs.mkdir()
    for n in (1, 2):
        typeset(SOURCE.replace("{n}", str(n)), f"d{n}.pdf").rename(pdfs / f"d{n}.pdf")
    (pdfs / "copy.pdf").write_bytes((pdfs / "d1.pdf").read_bytes())
    (pdfs / "empty.pdf").write_bytes(b"")
    out = tmp_path / "out"
    markdown = GEOMETRY.model_copy(update={"format": "markdown"})
    convert_folder([pdfs], out, workers=1, settings=markdown, jsonl=tmp_path / "new" / "all.jsonl.gz")
    packed = (tmp_path / "new" / "all.jsonl.gz").read_bytes()
    lines = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    assert len(lines) == 2 and all(line["text"].startswith("# Ledger") for line in lines)
    assert {line["text"] + "\n" for line in lines} == {(out / f"d{n}.md").read_text("utf-8") for n in (1, 2)}
    assert [f.name for f in (tmp_path / "new").iterdir()] == ["all.jsonl.gz"]


def test_mistakes_are_told_and_leave_nothing(documents, tmp_path: Path):
    with pytest.raises(UserError, match=r"all\.json does not end") as told, open_jsonl(tmp_path / "all.json"):
        pass
    assert ".jsonl.zst" in told.value.remedy
    with pytest.raises(UserError, match="no documents in"):
        export(tmp_path, tmp_path / "all.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), open_jsonl(tmp_path / "file" / "all.jsonl"):
        pass
    with pytest.raises(RuntimeError), open_jsonl(tmp_path / "half.jsonl") as add:
        add(documents[0])
        raise RuntimeError("stopped")
    assert [f.name for f in tmp_path.iterdir() if "jsonl" in f.name] == []


def test_odd_characters_do_not_move_the_spans(tmp_path: Path):
    text = "a\ud800b\u2028c𝒳"  # a lone surrogate, which some PDFs map letters to
    page = Page(1, 10, 10, 0, "text-layer", 1.0, 2, len(text))
    with open_jsonl(tmp_path / "a.jsonl") as add:
        add(Document("1" * 64, "x.pdf", "ok", text, pages=(page,)))
    (line,) = (tmp_path / "a.jsonl").read_bytes().splitlines()
    record = json.loads(line)
    start, end, _ = record["attributes"]["pdf_page_numbers"][0]
    assert record["text"][start:end] == "b\u2028c𝒳"


def test_the_commands(typeset, tmp_path: Path):
    from typer.testing import CliRunner

    from flows.cli import app

    path = typeset(SOURCE.replace("{n}", "1"))
    out, first, second = tmp_path / "out", tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    arguments = ["pdf2txt", path, "--out", out, "--workers", 1, "--format", "markdown", "--view", "--jsonl", first]
    run = CliRunner().invoke(app, [str(a) for a in arguments])
    assert run.exit_code == 0, run.output
    assert {f.suffix for f in out.iterdir()} == {".md", ".json", ".html"}
    run = CliRunner().invoke(app, ["export", str(out), "--jsonl", str(second), "--json"])
    assert run.exit_code == 0 and json.loads(run.output)["documents"] == 1
    assert first.read_text() == second.read_text()
    run = CliRunner().invoke(app, ["export", str(tmp_path / "nowhere"), "--jsonl", str(second)])
    assert run.exit_code == 2
