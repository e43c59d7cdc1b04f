"""The HTML page: boxes lie on what they name, all text of the document is escaped, long documents stay light."""

from __future__ import annotations

import base64
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
import pypdfium2
import pytest
from PIL import Image

from pdf2txt.cli import convert_folder
from pdf2txt.convert import convert
from pdf2txt.schema import Block, Document, Page, as_table
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.view import write_view

GEOMETRY = Pdf2txtSettings(layout="geometry", ocr="off")
PAGE = '#set page(width: 400pt, height: 260pt, margin: 40pt, numbering: "1")\n#set text(11pt, hyphenate: false)\n'
BODY = "= The Ledger\nEvery vessel was entered with its cargo and its draught.\n\nIt was read aloud in the evening.\n"


class Seen(HTMLParser):
    """Elements by class, with the text inside pieces."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.boxes: list[dict[str, str]] = []
        self.pieces: list[list[str]] = []
        self.images: list[str] = []
        self.tags: list[str] = []
        self.inside = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs) -> None:
        found = {k: v or "" for k, v in attrs}
        classes = found.get("class", "").split()
        self.tags.append(tag)
        if "box" in classes:
            self.boxes.append(found)
        elif "piece" in classes:
            self.pieces.append([found["class"], ""])
        elif tag == "img":
            self.images.append(found["src"])
        self.inside = tag == "pre" or (self.inside and tag == "span")

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside and self.pieces:
            self.pieces[-1][1] += data


def ink(source: str, boxes: list[dict[str, str]]) -> tuple[list[float], float]:
    """Share of dark pixels in each box, and in what no box covers."""
    data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    dark = np.asarray(Image.open(io.BytesIO(data)).convert("L")) < 128
    height, width = dark.shape
    rest, shares = dark.copy(), []
    for box in boxes:
        at = {k: float(v) / 100 for k, v in re.findall(r"(left|top|width|height):([\d.]+)%", box["style"])}
        x0, y0 = int(at["left"] * width), int(at["top"] * height)
        x1, y1 = int((at["left"] + at["width"]) * width) + 1, int((at["top"] + at["height"]) * height) + 1
        shares.append(float(dark[y0:y1, x0:x1].mean()))
        rest[max(0, y0 - 3) : y1 + 3, max(0, x0 - 3) : x1 + 3] = False
    return shares, float(rest.mean())


def make(typeset, case: str) -> Path:
    if case == "text drawn sideways":
        sideways = f"#rotate(-90deg, reflow: true)[#block(width: 300pt)[{BODY}]]"
        return typeset(f"#set page(width: 300pt, height: 420pt, margin: 30pt)\n{sideways}")
    path = typeset(PAGE + BODY)
    if case != "upright":
        pdf = pypdfium2.PdfDocument(path)
        if case == "cropped":
            pdf[0].set_cropbox(20, 20, 380, 250)
        else:
            pdf[0].set_rotation(int(case))
        path = path.with_name("turned.pdf")
        pdf.save(path)
    return path


@pytest.mark.parametrize("case", ["upright", "90", "180", "270", "text drawn sideways", "cropped"])
def test_boxes_lie_on_their_text(typeset, tmp_path: Path, case: str):
    path = make(typeset, case)
    document = convert(path, GEOMETRY)
    seen = Seen(write_view(as_table(document), path, tmp_path / "view.html"))
    assert len(seen.boxes) == len(document.blocks) >= 2 and len(seen.images) == 1
    shares, outside = ink(seen.images[0], seen.boxes)
    assert min(shares) > 0.03 and outside < 0.0005


def test_it_shows_order_kinds_text_and_what_was_left_out(typeset, tmp_path: Path):
    path = typeset(PAGE + BODY + "#pagebreak()\nOn the next page.")
    document = convert(path, GEOMETRY)
    html = write_view(as_table(document), path, tmp_path / "view.html")
    seen = Seen(html)
    texts = [document.text[b.start : b.end] for b in document.blocks if b.end > b.start]
    assert [text for look, text in seen.pieces if "gone" not in look] == texts
    numbers = [box["title"].split(":")[0] for box in seen.boxes]
    assert numbers == ["1", "2", "left out", "1", "left out"]
    assert [box["data-b"] for box in seen.boxes] == re.findall(r'class="piece[^>]*data-b="([^"]+)"', html.read_text())
    assert "k-page-number gone" in html.read_text() and not list(tmp_path.glob("*_view"))


def test_nothing_of_the_document_becomes_markup(tmp_path: Path):
    evil = "<script>alert(1)</script> \"quoted\" 'single' & <img src=x onerror=alert(2)> \ud800\x00"
    block = Block(1, 'text" onmouseover="alert(3)', (1, 1, 5, 5), 0, len(evil), 0.5)
    page = Page(1, 10, 10, 0, evil.replace("\ud800", ""), 0.5, 0, len(evil))  # made by us, not by the file
    document = Document("a" * 64, f"{evil}.pdf", "partial", evil, 'en"><b>', (page,), (block,), (), (evil,))
    seen = Seen(write_view(as_table(document), tmp_path / "none.pdf", tmp_path / "view.html"))
    assert seen.tags.count("script") == 1 and "img" not in seen.tags
    assert seen.pieces[0][1].replace("↳ ", "").startswith(evil[:60])
    assert not any("onmouseover" in box or "onerror" in box for box in seen.boxes)


def test_long_documents_keep_their_images_beside(typeset, tmp_path: Path):
    pages = "#pagebreak()".join(f"Page {n} of the ledger." for n in range(1, 31))
    path = typeset(f"#set page(width: 200pt, height: 100pt, margin: 20pt)\n{pages}", "50% of #1?.pdf")
    document = convert(path, GEOMETRY)
    html = write_view(as_table(document), path, tmp_path / "50% of #1?.html")
    seen = Seen(html)
    assert len(seen.images) == 30 and html.stat().st_size < 60_000
    assert all((tmp_path / unquote(source)).is_file() for source in seen.images)
    # Written again, shorter: nothing of the old one is left.
    write_view(as_table(replace(document, pages=document.pages[:2])), path, html)
    assert len(Seen(html).images) == 2 and not list(tmp_path.glob("*_view"))


def test_documents_without_pages_or_images(tmp_path: Path):
    for name, data in (
        ("notes.txt", b"First.\n\nSecond <b>."),
        ("broken.pdf", b"%PDF-1.4 and no more"),
        ("e.pdf", b""),
    ):
        (tmp_path / name).write_bytes(data)
    result = convert_folder([tmp_path], tmp_path / "out", workers=1, settings=GEOMETRY, view=True)
    assert len(result["documents"]) == 3
    notes = Seen(tmp_path / "out" / "notes.html")
    assert [text for _, text in notes.pieces] == ["First.", "Second <b>."] and not notes.images and not notes.boxes
    broken = (tmp_path / "out" / "broken.html").read_text()
    assert "cannot be opened" in broken and "1 warning<" in broken


def test_a_page_that_cannot_be_drawn_still_shows_its_text(typeset, tmp_path: Path):
    path = typeset(PAGE + BODY)
    document = convert(path, GEOMETRY)
    path.write_bytes(b"gone")
    seen = Seen(write_view(as_table(document), path, tmp_path / "view.html"))
    assert not seen.images and len(seen.boxes) == len(document.blocks)
    assert "cannot be drawn" in (tmp_path / "view.html").read_text()


def test_a_name_that_is_not_utf8(typeset, tmp_path: Path):
    """Neither is any other document lost, nor the images of a long one."""
    source = "#set page(width: 200pt, height: 100pt)\n" + "#pagebreak()".join(
        f"Page {n} of the ledger." for n in range(1, 31)
    )
    (tmp_path / "in").mkdir()
    typeset(source).rename(tmp_path / "in" / os.fsdecode(b"caf\xe9.pdf"))
    (tmp_path / "in" / os.fsdecode(b"broken \xe9.pdf")).write_bytes(b"%PDF-1.4 and no more")
    (tmp_path / "in" / "note.txt").write_text("A note.")
    out = tmp_path / "out"
    result = convert_folder([tmp_path / "in"], out, workers=1, settings=GEOMETRY, view=True, jsonl=out / "all.jsonl")
    broken, cafe, note = result["documents"]
    assert (broken["status"], cafe["pages"], note["status"]) == ("corrupt", 30, "ok")
    assert '"A note."' in (out / "all.jsonl").read_text()
    seen = Seen(out / os.fsdecode(b"caf\xe9.html"))
    assert len(seen.images) == 30
    assert all((out / os.fsdecode(unquote_to_bytes(source))).is_file() for source in seen.images)
    convert_folder([tmp_path / "in"], out, workers=1, settings=GEOMETRY)
    # Nothing of an earlier page stays.
    assert not list(out.glob("*.html")) and not list(out.glob("*_view"))
