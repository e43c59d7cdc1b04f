"""Real PDFs made on the spot: typeset by Typst, or page images wrapped by Pillow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pdf2txt.convert import convert
from pdf2txt.schema import Document
from pdf2txt.settings import Pdf2txtSettings

GEOMETRY = Pdf2txtSettings(layout="geometry", ocr="off")


@pytest.fixture
def typeset(tmp_path: Path) -> Callable[..., Path]:
    """``typeset(source, name="doc.pdf")``: the path of a PDF typeset from Typst markup."""
    typst = pytest.importorskip("typst")

    def make(source: str, name: str = "doc.pdf") -> Path:
        markup = tmp_path / f"{name}.typ"
        markup.write_text(source, encoding="utf-8")
        typst.compile(str(markup), output=str(tmp_path / name))
        return tmp_path / name

    return make


@pytest.fixture
def read(typeset: Callable[..., Path]) -> Callable[..., Document]:
    """``read(source)``: the Document of typeset markup, by geometry alone, its spans checked."""

    def make(source: str, settings: Pdf2txtSettings = GEOMETRY) -> Document:
        document = convert(typeset(source), settings)
        check_spans(document)
        return document

    return make


@pytest.fixture(scope="session")
def checked() -> Callable[[Document], None]:
    return check_spans


def check_spans(d: Document) -> None:
    """Every span lies in the text; pages and paragraphs are in order, apart by white space only."""
    at = 0
    for page in d.pages:
        assert at <= page.start <= page.end <= len(d.text)
        assert not d.text[at : page.start].strip()
        at = page.end
    assert not d.text[at:].strip()
    at = 0
    for p in d.paragraphs:
        assert at <= p.start < p.end <= len(d.text)
        assert not d.text[at : p.start].strip()
        assert d.text[p.start : p.end].strip() == d.text[p.start : p.end]
        at = p.end
    assert at == len(d.text)
    pages = {p.number: p for p in d.pages}
    for b in d.blocks:
        page = pages[b.page]
        assert page.start <= b.start <= b.end <= page.end
        x0, y0, x1, y1 = b.box
        assert x0 <= x1 and y0 <= y1
