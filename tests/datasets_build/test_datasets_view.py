"""The HTML page of rows: the page image with the evidence on it, and what stands in its place where there is none."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_build.rows import COLUMNS
from datasets_build.view import count, diff, rows
from datasets_build.view_html import DocumentFile, write_view
from pdf2txt.errors import UserError
from pdf2txt.schema import Page

PDFS = Path(__file__).parents[2] / "examples" / "pdfs"


def row(**changes) -> dict:
    return {
        "instruction": "Read this.\n" + "Some words of the paper. " * 200 + "The answer is\nforty two. "
        + "More of it. " * 200 + "What is the answer?",
        "output": "forty two", "id": "0123456789abcdef", "task": "number", "doc_ids": ["d"],
        "evidence": [{"doc_id": "d", "page": 2, "box": [61.2, 79.2, 122.4, 158.4]}],
        "answer_source": "document", "n_tokens": 1234, "source_sha256": "", "split_group": "d", "license": "cc0-1.0",
        "split": "train", **changes,
    }  # fmt: skip


class Reader(HTMLParser):
    """Every tag closed, and what attributes point outside."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.images = 0
        self.feed(page.read_text())
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)
        self.images += tag == "img"
        self.outside += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("data:", "#"))]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("known_pages", [True, False])
def test_evidence_is_drawn_on_the_page(tmp_path: Path, known_pages: bool) -> None:
    pages = {2: Page(2, 612.0, 792.0, 0, "text-layer", 1.0, 0, 0)} if known_pages else {}
    document = DocumentFile("two-column-article.pdf", PDFS / "two-column-article.pdf", pages=pages)
    page = write_view(tmp_path / "view.html", "d", [row()], {"d": document}, 10)
    read = Reader(page)
    text = page.read_text()
    assert read.images == 1 and not read.outside and "data:image/jpeg;base64," in text
    assert "1 of 10 rows" in text and "two-column-article.pdf, page 2" in text
    style = re.search(r'class="box k-evidence" data-b="0-1" style="([^"]*)"', text)
    assert style
    if known_pages:
        assert style[1] == "left:10.000%;top:10.000%;width:10.000%;height:10.000%"
    assert "<mark>forty two</mark>" in text and "<details>" in text


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "The document is not known here."),
        (DocumentFile("a.pdf", None, "The file is gone: /x/a.pdf"), "The file is gone: /x/a.pdf"),
        (DocumentFile("encrypted.pdf", PDFS / "encrypted.pdf"), "This page cannot be drawn."),
        (DocumentFile("a.txt", Path(__file__), pages={2: Page(2, 0, 0, 0, "", 1, 0, 0)}), "A text file"),
    ],
)
def test_what_stands_in_place_of_an_image(tmp_path: Path, document: DocumentFile | None, words: str) -> None:
    page = write_view(tmp_path / "view.html", "d", [row()], {"d": document} if document else {}, 1)
    assert Reader(page).images == 0 and words in page.read_text()


def test_rows_are_text_and_not_markup(tmp_path: Path) -> None:
    bad = "</pre><script>alert(1)</script>"
    page = write_view(
        tmp_path / "view.html", bad,
        [row(instruction=f"What is {bad}?", output=bad, task="<b>", license="<i>", evidence=[]), row(output="")],
        {}, 2,
    )  # fmt: skip
    Reader(page)
    assert page.read_text().count("<script>") == 1
    assert "<mark>&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;</mark>" in page.read_text()


def test_long_text_is_hidden_once_and_lost_nowhere(tmp_path: Path) -> None:
    text = " ".join(f"word{i}" for i in range(3000))
    page = write_view(tmp_path / "view.html", "d", [row(instruction=text, output="word1500 word1501")], {}, 1)
    shown = re.sub(r"<summary>.*?</summary>|</?(?:pre|details|mark)>", "", page.read_text())
    assert text in shown
    assert page.read_text().count("<details>") == 2


def write_dataset(folder: Path, names: tuple[str, ...] = COLUMNS) -> Path:
    whole = row()
    file = folder / "data" / "train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{name: whole[name] for name in names}]), file)
    return file


def test_a_task_that_the_dataset_lacks(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    assert [r["task"] for r in rows(tmp_path, 5, task="number")] == ["number"]
    with pytest.raises(UserError, match="no rows of task 'numbers', did you mean 'number'") as caught:
        rows(tmp_path, 5, task="numbers")
    assert "number" in caught.value.remedy


def test_files_that_are_no_dataset_of_ours(tmp_path: Path) -> None:
    write_dataset(tmp_path / "foreign", ("instruction", "output"))
    whole = write_dataset(tmp_path / "damaged").read_bytes()
    file = write_dataset(tmp_path / "mine")
    for data in (b"junk", whole[: len(whole) // 2], b"PAR1" + b"\xff" * (len(whole) - 200) + whole[-196:]):
        (tmp_path / "damaged" / "data" / file.name).write_bytes(data)
        for look in (lambda d: rows(d, 5), lambda d: diff(tmp_path / "mine", d)):
            with pytest.raises(UserError, match="is not Parquet, or damaged"):
                look(tmp_path / "damaged")
    (tmp_path / "damaged" / "data" / file.name).write_bytes(b"junk")
    with pytest.raises(UserError, match="is not Parquet, or damaged"):
        count(tmp_path / "damaged")
    for look in (lambda d: rows(d, 5), lambda d: diff(tmp_path / "mine", d)):
        with pytest.raises(UserError, match=r"was not built by Longfolio \(no column id"):
            look(tmp_path / "foreign")
