"""The order in which a page is read, on typeset pages whose order is known.

Every sentence of the made text carries a mark (q1, q2, ...) that counts in reading order.
"""

from __future__ import annotations

import random
import re
from itertools import count

import pytest

from pdf2txt.order import read_order
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spans import Line

TEXT = (
    "harbour ledger vessel cargo master evening trade column school office copy governor bank box stair hand "
    "quiet apprentice draught new open small keep read write carry enter learn hold pass turn stand answer"
)
WORDS = TEXT.split()


class Marked:
    """Makes prose with running marks."""

    def __init__(self) -> None:
        self.mark, self.rng = count(1), random.Random(3)

    def sentence(self, words: int = 14) -> str:
        middle = " ".join(self.rng.choice(WORDS) for _ in range(words))
        return f"The {middle} q{next(self.mark)} of the day."

    def prose(self, sentences: int) -> str:
        return " ".join(self.sentence() for _ in range(sentences))

    def paragraphs(self, n: int, sentences: int = 3) -> str:
        return "\n\n".join(self.prose(sentences) for _ in range(n))


def marks(text: str) -> list[int]:
    return [int(m) for m in re.findall(r"\bq(\d+)\b", text)]


def page(columns: int) -> str:
    return (
        f"#set page(width: 595pt, height: 842pt, margin: 50pt, columns: {columns})\n"
        "#set text(size: 9.5pt, hyphenate: false)\n#set par(justify: true, spacing: 1.1em)\n"
        "#show heading: set block(above: 1.2em, below: 0.8em)\n#set columns(gutter: 16pt)\n"
    )


def wide(content: str, where: str = "top") -> str:
    """Over all columns."""
    return f'#place({where} + center, scope: "parent", float: true)[{content}]\n'


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_title_and_abstract_over_columns(read, columns: int):
    m = Marked()
    head = f"#text(17pt)[*A Study of Ledgers and of the People who Kept Them*]\n\n{m.prose(4)}"
    d = read(page(columns) + wide(head) + "= Ships\n" + m.paragraphs(9) + "\n= Crews\n" + m.paragraphs(9))
    assert marks(d.text) == list(range(1, len(marks(d.text)) + 1)) and len(marks(d.text)) == 58
    assert d.text.startswith("A Study of Ledgers and of the People who Kept Them\n\n")


@pytest.mark.parametrize("columns", [2, 3])
def test_wide_figure_and_table_in_the_middle_of_the_page(read, columns: int):
    """What stands above them is read to its end, over all columns, before what stands below."""
    m = Marked()
    bars = "".join(f"#place(dx: {40 * k}pt, dy: {60 - 8 * k}pt, circle(radius: {4 + 2 * k}pt))" for k in range(7))
    legend = "Figure 1: What ships carried in spring, as the ledger of the harbour master has it for one year."
    picture = f"#box(width: 300pt, height: 90pt)[{bars}]\n\n{legend}"
    rows = ["[Port], [Ships], [Tons], [Crew]", *(f"[Bergen], [{k}2], [3{k}00], [{k}7]" for k in range(1, 6))]
    caption = "Table 1: Ships by port in summer, as the ledger of the harbour master has them for all years."
    table = f"#table(columns: (1fr,) * 4, stroke: none, {', '.join(rows)})\n\n{caption}"

    def text() -> str:
        cells = ", ".join(f"[{m.paragraphs(2, 2)}]" for _ in range(columns))
        return f"#grid(columns: (1fr,) * {columns}, gutter: 16pt, {cells})\n"

    d = read(f"{page(1)}{text()}#align(center)[{picture}]\n\n#align(center)[{table}]\n\n{text()}")
    assert marks(d.text) == list(range(1, 8 * columns + 1))
    assert d.text.index("q" + str(4 * columns)) < d.text.index("Table 1") < d.text.index("q" + str(4 * columns + 1))
    assert d.text.count(legend) == 1 and "| Bergen | 32 | 3300 | 37 |" in d.text
    kinds = {b.kind for b in d.blocks}
    assert {"caption", "table"} <= kinds


@pytest.mark.parametrize("where", ["end", "inline", "drop"])
def test_footnotes_of_columns(read, where: str):
    """Notes stand at each column's foot; the sentence that runs over the columns is whole in every form."""
    m = Marked()
    body = m.paragraphs(5) + "#footnote[First note, about the harbour master.] " + m.paragraphs(8)
    body += "#footnote[Second note, about the bank.] " + m.paragraphs(4)
    d = read(page(2) + body, Pdf2txtSettings(layout="geometry", ocr="off", footnotes=where))
    assert d.n_pages == 1
    assert marks(d.text) == sorted(marks(d.text))
    notes = [b for b in d.blocks if b.kind == "footnote"]
    assert len(notes) == 2
    if where == "drop":
        assert "about the bank" not in d.text and all(b.start == b.end for b in notes)
        return
    assert "about the harbour master." in d.text and "about the bank." in d.text
    if where == "end":
        assert d.text.endswith("1 First note, about the harbour master.\n\n2 Second note, about the bank.")


def test_a_sidebar_stays_in_one_piece(read):
    m = Marked()
    side = m.paragraphs(4, 2)
    rest = m.paragraphs(9)
    d = read(page(1) + f"#grid(columns: (130pt, 1fr), gutter: 20pt, text(8pt)[{side}], [{rest}])")
    assert marks(d.text) == sorted(marks(d.text))


def test_a_table_whose_cells_stand_in_the_gutter_parts_no_columns():
    def row(y: float, *cells: tuple[float, float]) -> list[Line]:
        return [Line("barrels of salt " * max(1, int((b - a) / 70)), a, y, b, y + 9, 9) for a, b in cells]

    table = [row(60 + 12 * n, (55, 68), (135, 224), (263 + n, 277 + n), (300, 310)) for n in range(5)]
    text = [row(150 + 12 * n, (55, 261), (275, 481)) for n in range(20)]
    reading = read_order([line for lines in table + text for line in lines])
    assert [len(region.lines) for region in reading.regions] == [5, 20, 20]


def test_a_centred_title_between_lines_at_the_margin_stays_between_them(read):
    d = read(
        "#set page(width: 420pt, height: 300pt, margin: 40pt)\n#set text(size: 9pt)\n"
        "Contents\n\n#align(center)[The Harbours and their Subsidiaries\\ Notes to the Ledgers of the Year\\ "
        "(Continued)]\n\n"
        "#v(8pt)\nRecently issued ledgers\n\nRecently closed ledgers"
    )
    names = ("Contents", "The Harbours", "(Continued)", "Recently issued", "Recently closed")
    assert [d.text.index(name) for name in names] == sorted(d.text.index(name) for name in names)


def test_a_table_above_narrow_lines_stands_before_them(read):
    """None of them need be below the table itself; what stands beside it tells nothing."""
    d = read(
        "#set page(width: 420pt, height: 595pt, margin: 60pt)\n#set text(size: 10pt)\n"
        "#table(columns: 3, [Barges], [12], [300], [Yachts], [14], [310], [Skiffs], [16], [320])\n\n"
        "#align(right)[_The ledger of barges_]\n\n= Results\n"
        "The harbour master kept a ledger in which every vessel was entered with its cargo and its draught."
    )
    at = [d.text.find(words) for words in ("Barges", "Skiffs", "ledger of barges", "Results", "harbour master")]
    assert at[0] > -1 and at == sorted(at)
