"""What a reader of the text would notice: order, running heads, hyphens, paragraphs, statuses."""

from __future__ import annotations

import errno
import io
import random
import re
import shutil
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pypdfium2 as pdfium
import pytest
from PIL import Image, UnidentifiedImageError

from pdf2txt import convert as conversion
from pdf2txt import reading
from pdf2txt.convert import convert
from pdf2txt.errors import DrawingTimeout
from pdf2txt.ocr import OcrPage
from pdf2txt.render import page_image, poppler_pages
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spans import Line

GEOMETRY = Pdf2txtSettings(layout="geometry", ocr="off")
PROSE = (
    "The harbour master kept a ledger in which every vessel was entered with its cargo and its draught. "
    "On quiet evenings he read it aloud to the apprentices, who learned more about trade from those columns "
    "than from any school. When the new customs office opened, the ledger was copied three times by hand. "
    "One copy went to the governor, one to the bank, and the third was kept in a box beneath the stairs. "
)


def prose(words: int) -> str:
    """One sentence, long, of ordinary words in an order that does not repeat."""
    rng, vocabulary = random.Random(7), sorted(set(re.findall("[a-z]{2,}", PROSE)))
    return "Once " + " ".join(rng.choice(vocabulary) for _ in range(words)) + "."


SMALL = "#set page(width: 300pt, height: 300pt, margin: 40pt)\n#set text(10pt, hyphenate: false)\n"
PAGE = """
#set page(width: 420pt, height: 595pt, margin: 50pt)
#set text(size: 10pt, hyphenate: false)
#set par(justify: true)
"""


def test_two_columns_are_read_one_after_the_other(read):
    left = "Alpha begins the left column. " + PROSE * 2
    right = "Beta begins the right column. " + PROSE * 2
    title, last = "A Title Across Both Columns", "After both columns comes a full line of text."
    grid = f"#grid(columns: (1fr, 1fr), gutter: 18pt, [{left}], [{right}])"
    d = read(f"{PAGE}#align(center)[#text(16pt)[{title}]]\n{grid}\n\n{last}")
    assert d.text.split("\n\n") == [title, left.strip(), right.strip(), last]
    assert [b.kind for b in d.blocks if b.kind == "title"] == ["title"]


def test_table_rows_are_read_across(read):
    rows_in = ("Port Ships Tons", "Bergen 12 3400", "Riga 7 2100", "Turku 9 1800", "Gdansk 15 4100")
    cells = [cell for row in rows_in for cell in row.split()]
    d = read(f"{PAGE}#table(columns: (1fr, 1fr, 1fr), stroke: none, {', '.join(f'[{c}]' for c in cells)})")
    rows = d.text.splitlines()
    assert "| Riga | 7 | 2100 |" in rows and "| Gdansk | 15 | 4100 |" in rows
    assert any(b.kind == "table" for b in d.blocks)


def test_running_heads_and_page_numbers_go_and_the_paragraph_runs_over_the_page(read):
    body = prose(1200)
    d = read(f'{SMALL}#set page(numbering: "1", header: [The Harbour Ledger])\n{body}')
    assert d.n_pages > 3
    assert d.text == body
    assert len(d.paragraphs) == 1
    assert {p.page for p in d.paragraphs[0].places} == set(range(1, d.n_pages + 1))
    assert {b.kind for b in d.blocks if b.start == b.end} == {"header", "page-number"}


def test_headers_are_kept_on_request(read):
    source = f"{SMALL}#set page(header: [The Ledger])\nOne page here.#pagebreak()Another one."
    assert "The Ledger" not in read(source).text
    assert read(source, GEOMETRY.model_copy(update={"keep_headers": True})).text.count("The Ledger") == 2


def test_a_single_page_loses_no_body_text(read):
    d = read("#set page(width: 300pt, height: 200pt, margin: 20pt)\n2 METHODS\n\nWe looked.\n\nThe last line.")
    assert d.text.split("\n\n") == ["2 METHODS", "We looked.", "The last line."]


def test_hyphens_at_line_ends(read):
    broken = ("A long-term plan of information. This is an exam-", "ple of a long-", "term plan for infor-",
              "mation and pre- and post-", "war self-", "made goods.")  # fmt: skip
    assert read(SMALL + "\\\n".join(broken)).text == (
        "A long-term plan of information. This is an example of a long-term plan for information "
        "and pre- and post-war self-made goods."
    )


def test_soft_hyphens_of_the_typesetter(read):
    narrow = "#set page(width: 150pt, height: 595pt, margin: 20pt)\n#set par(justify: true)\n"
    assert read(f'{narrow}#set text(10pt, hyphenate: true, lang: "en")\n{PROSE}').text == PROSE.strip()


def test_ligatures_and_quotes(read):
    d = read(PAGE + "The office of the chief was fluffy. “Quoted”, she said—naïvely.")
    assert d.text == "The office of the chief was fluffy. “Quoted”, she said—naïvely."


def test_text_drawn_sideways_is_turned(read):
    page = "#set page(width: 500pt, height: 400pt, margin: 40pt)\n"
    d = read(f"{page}#rotate(-90deg, reflow: true)[#block(width: 300pt)[{PROSE}]]")
    assert d.text == PROSE.strip()
    assert (d.pages[0].rotation, d.pages[0].width, d.pages[0].height) == (90, 400, 500)


def test_rotated_page_entry(typeset, checked):
    import pypdfium2

    path = typeset("#set page(width: 500pt, height: 400pt, margin: 40pt)\n" + PROSE)
    pdf = pypdfium2.PdfDocument(path)
    pdf[0].set_rotation(90)
    pdf.save(path.with_name("turned.pdf"))
    d = convert(path.with_name("turned.pdf"), GEOMETRY)
    checked(d)
    assert d.text == PROSE.strip()


def test_footnote_does_not_break_the_sentence(read):
    words = prose(400)
    d = read(f"{SMALL}Start#footnote[A note that stands at the foot of the page.] {words}")
    assert words in d.text
    assert "A note that stands at the foot" in d.text


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("empty.pdf", b"", "empty"),
        ("junk.pdf", b"%PDF-1.7\nnothing of use\n", "corrupt"),
        ("word.docx", b"PK\x03\x04", "unsupported"),
        ("blank.txt", b"  \n\n", "empty"),
        ("binary.txt", b"a\0b\0\xff\xfe", "corrupt"),
    ],
)
def test_files_that_cannot_be_converted_have_a_status(tmp_path: Path, name: str, data: bytes, status: str):
    path = tmp_path / name
    path.write_bytes(data)
    d = convert(path, GEOMETRY)
    assert (d.status, d.text) == (status, "") and d.warnings


def test_encrypted(tmp_path: Path):
    # Standard handler, revision 2, with a password (the keys need not be right for that).
    body = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj\n"
        b"4 0 obj<</Filter/Standard/V 1/R 2/P -4/O<" + b"41" * 32 + b">/U<" + b"42" * 32 + b">>>endobj\n"
        b"trailer<</Root 1 0 R/Size 5/Encrypt 4 0 R/ID[<00><00>]>>\n%%EOF\n"
    )
    path = tmp_path / "locked.pdf"
    path.write_bytes(body)
    assert convert(path, GEOMETRY).status == "encrypted"
    passwords = tmp_path / "passwords.txt"
    for content, told in (
        ("", "passwords holds none"),
        ("\ufeffone\ntwo\n", "none of the 2 in pdf2txt.passwords fits"),
    ):
        passwords.write_text(content, "utf-8")
        d = convert(path, GEOMETRY.model_copy(update={"passwords": passwords}))
        assert d.status == "encrypted" and told in d.warnings[0]


def test_truncated_file_keeps_its_good_pages_or_says_corrupt(typeset, tmp_path: Path, checked):
    data = typeset(PAGE + PROSE * 20).read_bytes()
    path = tmp_path / "cut.pdf"
    path.write_bytes(data[: len(data) * 2 // 3])
    d = convert(path, GEOMETRY)
    assert d.status in ("ok", "partial", "corrupt", "empty")
    checked(d)


@pytest.mark.parametrize("streams", [False, True])
def test_pages_before_a_files_missing_end_are_kept(typeset, tmp_path: Path, checked, streams: bool):
    """Without its cross-reference table; the objects plain, or packed in object streams."""
    pypdf = pytest.importorskip("pypdf")
    whole = typeset(PAGE + f"{PROSE} first.\n#pagebreak()\n{PROSE} second.")
    path = tmp_path / "cut.pdf"
    if streams:
        data = whole.read_bytes()
    else:
        writer = pypdf.PdfWriter(clone_from=whole)
        writer.write(path)
        data = path.read_bytes()
    path.write_bytes(data[: data.rfind(b"endobj") + 6] if streams else data[: data.rfind(b"trailer") - 30])
    d = convert(path, GEOMETRY)
    checked(d)
    assert (d.status, d.n_pages) == ("partial", 2)
    assert "first." in d.text and "second." in d.text
    assert any("its end is missing" in warning for warning in d.warnings)


def test_text_and_markdown_files(tmp_path: Path, checked):
    path = tmp_path / "notes.md"
    path.write_bytes("# Title\r\n\r\nFirst paragraph,\r\nsecond line.\r\n\r\n\r\nThe oﬃce.\r\n".encode())
    d = convert(path, GEOMETRY)
    checked(d)
    assert [d.text[p.start : p.end] for p in d.paragraphs] == [
        "# Title",
        "First paragraph,\nsecond line.",
        "The office.",
    ]
    assert (d.status, d.n_pages, d.pages[0].origin) == ("ok", 1, "text-layer")


def test_language(tmp_path: Path):
    path = tmp_path / "de.txt"
    path.write_text("Der Hafenmeister führte ein Buch, in dem jedes Schiff mit seiner Ladung verzeichnet war. " * 3)
    assert convert(path, GEOMETRY).language == "de"
    assert convert(path, GEOMETRY.model_copy(update={"language": "nl"})).language == "nl"


def test_skipped_page_makes_the_document_partial(typeset, checked):
    path = typeset(PAGE + "First page.#pagebreak()Second page.")
    d = convert(path, GEOMETRY, skip={2: "over its limit of 1 CPU seconds"})
    checked(d)
    assert (d.status, d.text, d.n_pages) == ("partial", "First page.", 2)
    assert d.warnings == ("page 2: over its limit of 1 CPU seconds",)


def test_image_only_pages_are_read_by_ocr(typeset, tmp_path: Path, checked):
    """A sideways scan: orientation, text and place, in one page (OCR takes seconds)."""
    pytest.importorskip("rapidocr")
    import pypdfium2

    path = typeset("#set page(width: 400pt, height: 300pt, margin: 40pt)\n#set text(13pt, hyphenate: false)\n" + PROSE)
    image = pypdfium2.PdfDocument(path)[0].render(scale=200 / 72).to_pil().rotate(90, expand=True)
    buffer = io.BytesIO()
    image.convert("L").save(buffer, "PDF", resolution=200)
    scan = tmp_path / "scan.pdf"
    scan.write_bytes(buffer.getvalue())
    d = convert(scan, Pdf2txtSettings(layout="geometry"))
    checked(d)
    assert d.text == PROSE.strip()
    page = d.pages[0]
    assert (page.origin, page.rotation) == ("ocr", 90) and page.width > page.height and page.confidence > 0.9
    off = convert(scan, GEOMETRY)
    assert off.status == "empty" and any("OCR is off" in w for w in off.warnings)


@pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="poppler-utils is not installed")
def test_poppler_draws_the_page_that_pdfium_draws(typeset: Callable[..., Path]) -> None:
    """Same size and nearly the same pixels; and it draws a page that pdfium could not load."""
    path = typeset("#set page(width: 300pt, height: 200pt)\n= A heading\nSome words on a page.")
    with pdfium.PdfDocument(path) as pdf:
        first = page_image(path, pdf[0], 1, 2.0, "pdfium").astype(int)
    second = page_image(path, None, 1, 2.0, "pdfium").astype(int)
    assert first.shape == second.shape == (400, 600, 3)
    assert np.abs(first - second).mean() < 5 < first.std()


class FullDisk:
    def get(self, page: int, region: int = 0) -> OcrPage | None:
        return None

    def put(self, page: int, read: OcrPage, region: int = 0) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """A PDF of one page of 300 x 200 points that holds only an image."""
    path = tmp_path / "image.pdf"
    Image.new("L", (600, 400), 128).save(path, "PDF", resolution=144)
    return path


READ = OcrPage([Line("Words that were read.", 20, 20, 120, 32, 10)], 0, 1.0)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (MemoryError(), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (DrawingTimeout("slow"), False),
        (UnidentifiedImageError("cannot identify image file"), True),
        (RuntimeError("damaged"), True),
    ],
)
def test_only_the_files_own_errors_lose_a_page(blank: Path, monkeypatch, error: Exception, lost: bool):
    pytest.importorskip("rapidocr")
    monkeypatch.setattr(reading.ocr, "read", Mock(side_effect=error))
    if lost:
        assert convert(blank, Pdf2txtSettings()).status == "corrupt"
    else:
        with pytest.raises(type(error)):
            convert(blank, Pdf2txtSettings())


def test_a_full_disk_is_not_the_files_fault(blank: Path, monkeypatch):
    pytest.importorskip("rapidocr")
    monkeypatch.setattr(reading.ocr, "read", lambda *a: replace(READ))
    with pytest.raises(OSError, match="No space"):
        convert(blank, Pdf2txtSettings(), store=FullDisk())


def test_the_layout_model_may_fail_but_not_for_want_of_memory(typeset, monkeypatch):
    pytest.importorskip("rapid_layout")
    path = typeset("Some words.")
    settings = Pdf2txtSettings(layout="rapid", ocr="off")
    monkeypatch.setattr(conversion.layout, "load", Mock(side_effect=ValueError("odd")))
    assert convert(path, settings).status == "ok"
    monkeypatch.setattr(conversion.layout, "load", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        convert(path, settings)


@pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="poppler-utils is not installed")
def test_a_slow_poppler_may_be_faster_next_time(blank: Path, monkeypatch):
    import pdf2image

    slow = Mock(side_effect=pdf2image.exceptions.PDFPopplerTimeoutError("slow"))
    monkeypatch.setattr(pdf2image, "pdfinfo_from_path", slow)
    monkeypatch.setattr(pdf2image, "convert_from_path", slow)
    with pytest.raises(DrawingTimeout, match="over its limit"):
        poppler_pages(blank)
    with pytest.raises(DrawingTimeout):
        page_image(blank, None, 1, 1.0, "pdfium")


@pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="poppler-utils is not installed")
def test_a_page_that_only_poppler_can_draw_has_its_own_size(blank: Path, monkeypatch):
    pytest.importorskip("rapidocr")
    monkeypatch.setattr(reading.ocr, "read", lambda *a: replace(READ))
    monkeypatch.setattr(pdfium, "PdfDocument", Mock(side_effect=pdfium.PdfiumError("damaged", err_code=3)))
    d = convert(blank, Pdf2txtSettings())
    assert (d.status, d.text) == ("ok", "Words that were read.")
    assert (d.pages[0].width, d.pages[0].height) == pytest.approx((300, 200), abs=1)


def without_its_second_page(path: Path) -> Path:
    """The file of three pages with a page tree that names an object which is not there."""
    data = path.read_bytes()
    second = re.search(rb"/Kids\s*\[\d+ 0 R (\d+) 0 R \d+ 0 R\]", data)
    assert second is not None
    start, end = second.span(1)
    path.write_bytes(data[:start] + b"9" * (end - start) + data[end:])
    return path


@pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="poppler-utils is not installed")
def test_no_other_page_is_drawn_in_place_of_a_missing_one(typeset: Callable[..., Path], monkeypatch):
    source = "#set page(width: 300pt, height: 200pt)\n" + "\n#pagebreak()\n".join(
        f"#text(40pt)[Page {n}]" for n in ("one", "two", "three")
    )
    path = without_its_second_page(typeset(source))
    with closing(pdfium.PdfDocument(path)) as pdf, closing(pdf[2]) as third:
        drawn = page_image(path, third, 3, 1.0, "pdfium")
        assert np.array_equal(page_image(path, third, 3, 1.0, "poppler"), drawn)  # poppler calls it the second
    with pytest.raises(RuntimeError, match="missing pages"):
        page_image(path, None, 2, 1.0, "pdfium")
    # A file that pdfium cannot open has poppler's numbers only.
    assert page_image(path, None, 2, 1.0, "pdfium", opened=False).min() < 128
    with pytest.raises(RuntimeError, match="no such page"):
        page_image(path, None, 3, 1.0, "pdfium", opened=False)
    assert page_image(typeset(source, "whole.pdf"), None, 2, 1.0, "pdfium").min() < 128
    monkeypatch.setattr(reading.ocr, "read", lambda *a: replace(READ))
    d = convert(path, Pdf2txtSettings(layout="geometry"))
    assert (d.status, d.text.split("\n\n")) == ("partial", ["Page one", "Page three"])


@pytest.mark.parametrize(
    "title", ["ANNUAL REPORT 2023", "FORM 1040", "100 YEARS OF SOLITUDE", "ANNUAL REPORT #h(1fr) 2023", "1984"]
)
@pytest.mark.parametrize("size", [10, 16])
def test_a_title_with_a_number_stays(read, title: str, size: int):
    if title == "1984" and size == 10:
        return  # nothing tells it from a page number
    d = read(f"{PAGE}#text({size}pt)[{title}]\n#v(60pt)\n{PROSE}")
    assert re.sub(r"\W+", " ", d.text).startswith(title.replace(" #h(1fr)", ""))


def test_a_foot_with_the_page_number_goes_even_alone(read):
    d = read(f"{PAGE}#set page(footer: [A Journal of Ports #h(1fr) 7])\n{PROSE}")
    assert d.text == PROSE.strip()


def test_long_texts_without_empty_lines_take_little_memory(tmp_path: Path):
    path = tmp_path / "long.txt"
    path.write_text("A line of some words.\n" * 50_000)
    tracemalloc.start()
    try:
        assert len(convert(path, GEOMETRY.model_copy(update={"language": "en"})).paragraphs) == 1
        assert tracemalloc.get_traced_memory()[1] < 25 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_whole_document_steps_are_announced(typeset):
    steps: list[tuple[int, int, str]] = []
    convert(typeset("One.#pagebreak()Two."), GEOMETRY, on_page=lambda *step: steps.append(step))
    whole = (0, 2, "document")
    assert steps == [(1, 2, "read"), (2, 2, "read"), whole, (1, 2, "order"), (2, 2, "order"), whole]
