"""Characters read in few calls are those that pdfium gives one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium
import pytest

from pdf2txt import textlayer
from pdf2txt.characters import read_characters
from pdf2txt.schema import Document

MARKUP = """
#set page(width: 80mm, height: 160mm)
#set par(justify: true)
#set text(hyphenate: true, lang: "en")
= Measured, not guessed
Incomprehensibilities of internationalisation necessitate *bold* and _slanted_ typographical
considerations#super[2], naturally; x #sym.times y, 𝒳 and 𝔸, naïve “quotes”.
#rotate(90deg, reflow: true)[Along the margin, upwards]
#rotate(180deg)[Upside down]
#text(size: 4pt)[Fine print] #text(size: 20pt)[Big]
"""


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_each_character_is_as_pdfium_gives_it(typeset: Callable[..., Path], rotation: int):
    with pypdfium2.PdfDocument(typeset(MARKUP)) as pdf:
        page = pdf[0]
        page.set_rotation(rotation)
        textpage = page.get_textpage()
        handle = textpage.raw
        found = read_characters(handle, 10_000)
        n = pdfium.FPDFText_CountChars(handle)
        assert found.codes == [pdfium.FPDFText_GetUnicode(handle, i) for i in range(n)]
        assert any(0xD800 <= c < 0xE000 for c in found.codes)
        assert rotation or {2, 0xFFFE} & set(found.codes)  # pdfium looks for hyphens on upright pages only
        assert found.sizes == [pdfium.FPDFText_GetFontSize(handle, i) for i in range(n)]
        assert len(set(found.sizes)) > 3
        box = pdfium.FS_RECTF()
        frame = textlayer.Frame(*page.get_bbox(), rotation)
        seen = frame.seen_boxes(found.boxes)
        width, height = frame.size
        for i in range(n):
            pdfium.FPDFText_GetLooseCharBox(handle, i, box)
            assert tuple(found.boxes[i]) == (box.left, box.top, box.right, box.bottom)
            if found.codes[i] > 32:
                turn = -round(math.degrees(pdfium.FPDFText_GetCharAngle(handle, i)) / 90) % 4 * 90
                assert found.turns[i] == turn
                x0, y0, x1, y1 = seen[i]
                assert 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height
        assert {0, 180, 270} <= {t for c, t in zip(found.codes, found.turns, strict=True) if c > 32}


def test_no_more_characters_than_asked_for(typeset: Callable[..., Path]):
    with pypdfium2.PdfDocument(typeset(MARKUP)) as pdf:
        textpage = pdf[0].get_textpage()
        found = read_characters(textpage.raw, 20)
        assert len(found.codes) == len(found.sizes) == len(found.turns) == len(found.boxes) == 20
        assert "".join(map(chr, found.codes)).startswith("Measured")


def test_a_page_without_text_has_no_characters():
    with pypdfium2.PdfDocument.new() as pdf:
        layer = textlayer.read(pdf.new_page(100, 100))
        assert (layer.lines, layer.characters, layer.bad, layer.hidden) == ([], 0, 0, 0)


def test_text_outside_the_visible_area_is_not_read(typeset: Callable[..., Path]):
    private = "".join(chr(0xE000 + k) for k in range(40))
    path = typeset(
        "#set page(width: 200pt, height: 200pt, margin: 20pt)\n"
        "#place(top + left, dx: 220pt, box(width: 150pt)[Printer's marks beside the page])\n"
        f"#place(top + left, dy: 230pt, box(width: 150pt)[{private}])\n"
        "The harbour master kept a ledger. #h(-14pt)#place(top + right, dx: 10pt, dy: 60pt)[At the margin]"
    )
    with pypdfium2.PdfDocument(path) as pdf:
        page = pdf[0]
        layer = textlayer.read(page)
        assert sorted(a.text for a in layer.lines) == ["At the margin", "The harbour master kept a ledger."]
        assert layer.bad == 0 and layer.characters == sum(len(a.text.replace(" ", "")) for a in layer.lines)
        page.set_cropbox(0, 0, 200, 150)
        assert [a.text for a in textlayer.read(page).lines] == ["At the margin"]


def test_text_from_right_to_left_is_read_as_it_is_written(read: Callable[..., Document]):
    first = "הוועדה נפגשה במרץ 2024 והחליטה שיש להעמיק את הנמל לפני סערות הסתיו. חברי המועצה"
    second = "שאלו את Harbour Commission of London אם אפשר לחלוק את העלות עם 1,250 הערים השכנות של המחוז"
    english = "The clerk wrote the words נפגשה במרץ into his ledger and closed it"
    text = read(
        f'#set page(width: 400pt)\n#set text(lang: "he", font: "Libertinus Serif")\n{first} {second}\n\n'
        f'#set text(lang: "en")\n{english}'
    ).text
    assert text.split() == f"{first} {second} {english}".split()
