"""Tables: the grid where it is clear, the lines where it is not, and never a word lost."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pdf2txt.blocks import RawBlock, _are_names
from pdf2txt.hyphens import Vocabulary
from pdf2txt.markup import Outline, render
from pdf2txt.order import rows as join_rows
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spans import Line, join_row
from pdf2txt.table_cells import is_number
from pdf2txt.table_pieces import gather_tables
from pdf2txt.tables import Grid, find_grid, to_markdown

GEOMETRY = Pdf2txtSettings(layout="geometry", ocr="off")
MARKDOWN = GEOMETRY.model_copy(update={"format": "markdown"})
PAGE = "#set page(width: 420pt, height: 595pt, margin: 50pt)\n#set text(size: 10pt, hyphenate: false)\n"


def table(*cells: str, columns: str, options: str = "stroke: none") -> str:
    return f"{PAGE}#table(columns: {columns}, {options}, {', '.join(f'[{c}]' for c in cells)})"


def html_rows(markdown: str) -> list[list[str]]:
    """Cells of the first table as a reader of Markdown sees them."""
    rows: list[list[str]] = []
    cell = False
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            cell = True
        elif token.type == "inline" and cell:
            rows[-1].append("".join(child.content for child in token.children or []))
            cell = False
    return rows


# ------------------------------------------------------------------------------------------- typeset tables


def test_columns_that_stand_close_are_kept_apart(read):
    cells = ("Item", "Budget", "Spent", "Note", "Salaries", "148,000", "149,300", "as planned",
             "Conservation work", "22,000", "21,850", "cheaper", "Travel", "5,000", "4,700", "")  # fmt: skip
    d = read(table(*cells, columns="(auto, auto, auto, auto)", options="stroke: none, inset: 4pt"))
    assert d.text == (
        "| Item | Budget | Spent | Note |\n| --- | ---: | ---: | --- |\n"
        "| Salaries | 148,000 | 149,300 | as planned |\n"
        "| Conservation work | 22,000 | 21,850 | cheaper |\n| Travel | 5,000 | 4,700 |  |"
    )
    assert [b.kind for b in d.blocks] == ["table"]


@pytest.mark.parametrize("align", ["top", "horizon"])
def test_cells_of_several_lines_belong_to_their_row(read, align: str):
    cells = (
        "Stage", "What is lost at most", "Seconds",
        "convert", "one page that was being read by recognition when the power went", "3",
        "train", "the steps since the newest checkpoint, which are at most a hundred of them", "600",
        "merge", "all of it", "90",
    )  # fmt: skip
    d = read(table(*cells, columns="(70pt, 120pt, 60pt)", options=f"stroke: none, align: {align}"))
    assert html_rows(d.text) == [list(cells[i : i + 3]) for i in range(0, 12, 3)]


def test_words_broken_within_a_cell_are_whole(read):
    cells = ("Case", "Text", "One", "a very long descrip- \\ tion of it all", "Two", "short", "Three", "short too")
    rows = html_rows(read(table(*cells, columns="(60pt, 160pt)")).text)
    assert rows[1] == ["One", "a very long description of it all"]


def test_a_head_of_years_is_a_head_and_money_keeps_its_sign(read):
    cells = ("", "2024", "2023", "Revenue", "\\$ 4,737", "\\$ 3,549", "Cost", "178", "141", "Margin", "4,559", "3,408")
    d = read(table(*cells, columns="(100pt, 80pt, 80pt)", options="stroke: none, align: right"))
    assert d.text.splitlines()[:3] == ["|  | 2024 | 2023 |", "| --- | ---: | ---: |", "| Revenue | $ 4,737 | $ 3,549 |"]


def test_prose_around_a_table_stays_outside(read):
    before = "The figures of the harbour are given below, as the master wrote them down in his ledger."
    after = "They were copied three times by hand, and one of the copies went to the governor of the town."
    cells = ("Port", "Ships", "Bergen", "12", "Riga", "7", "Turku", "9")
    d = read(table(*cells, columns="(90pt, 90pt)").replace("#table", f"{before}\n\n#table") + f"\n\n{after}")
    first, middle, last = d.text.split("\n\n")
    assert (first, last) == (before, after)
    assert html_rows(middle)[1] == ["Bergen", "12"]


def test_what_is_no_grid_stays_as_lines(read):
    contents = "\\\n".join(f"{n} Chapter #box(width: 1fr, repeat[.]) {n * 7}" for n in range(1, 6))
    assert "|" not in read(f"{PAGE}{contents}").text
    items = ", ".join(
        f"[({c})], [Result in the {w} of an application]" for c, w in zip("abc", ("loss", "delay", "end"), strict=True)
    )
    listed = read(f"{PAGE}#grid(columns: (30pt, 1fr), row-gutter: 6pt, {items})")
    assert "|" not in listed.text and "delay of an application" in listed.text


def test_markdown_format(read):
    d = read(
        f"{PAGE}#align(center)[#text(18pt)[*The Harbour*]]\n\n#text(14pt)[*1 Trade*]\n\n"
        "Every vessel was entered with its cargo.\n\n#text(11pt)[*1.1 Ships*]\n\n"
        "\\# of ships, and more than five words of text.\n\n- first thing\n- second thing\n\n"
        "#text(14pt)[*2 Law*]\n\nThe law was old, and nobody had read all of it.",
        MARKDOWN,
    )
    assert d.text == (
        "# The Harbour\n\n## 1 Trade\n\nEvery vessel was entered with its cargo.\n\n### 1.1 Ships\n\n"
        "\\# of ships, and more than five words of text.\n\n- first thing\n- second thing\n\n"
        "## 2 Law\n\nThe law was old, and nobody had read all of it."
    )


# ------------------------------------------------------------------------------------------- any lines


words = st.text("abcXYZ019.,|$%-", min_size=1, max_size=8)
cells = st.lists(words, min_size=1, max_size=4).map(" ".join)


@st.composite
def table_lines(draw) -> list[Line]:
    """Rows of cells near common columns, some missing, some far off, some lines close together."""
    stops = draw(st.lists(st.integers(0, 500), min_size=1, max_size=5, unique=True))
    y, out = 50.0, []
    for _ in range(draw(st.integers(1, 9))):
        parts = []
        for stop in stops:
            if draw(st.integers(0, 5)):
                x, text = stop + draw(st.sampled_from([0, 0, 0, 1, 8, 60])), draw(cells)
                parts.append(Line(text, x, y, x + 5.0 * len(text), y + 12, 10.0, bold=draw(st.booleans())))
        y += draw(st.sampled_from([12, 12, 12, 18, 6, 40]))
        out += parts
    return join_rows(out)


def bare(markdown: str) -> Counter[str]:
    """Words of a Markdown table, its own marks taken away."""
    lines = markdown.split("\n")
    del lines[1]
    cells = [cell for line in lines for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    return Counter(" ".join(cells).replace("\\|", "|").split())


@given(table_lines())
@settings(max_examples=120, deadline=None)
def test_no_word_is_lost_or_repeated(found: list[Line]):
    grid = find_grid(found)
    if grid is None:
        return
    n = len(grid.header)
    assert n >= 2 and len(grid.numeric) == n and all(len(row) == n for row in grid.rows)
    markdown = to_markdown(grid)
    assert bare(markdown) == Counter(word for line in found for word in line.text.split())
    as_read = html_rows(markdown)
    assert [len(row) for row in as_read] == [n] * (1 + len(grid.rows))


@given(st.lists(table_lines(), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_gathering_keeps_every_line(found: list[list[Line]]):
    kinds = ("text", "table", "heading")
    blocks = [RawBlock(1, lines, kinds[k % 3], 0) for k, lines in enumerate(found) if lines]
    before = sorted(line.text for block in blocks for line in block.lines)
    assert sorted(line.text for block in gather_tables(blocks) for line in block.lines) == before


def test_cells_know_where_they_stand():
    parts = [Line("Lab, 10 ships", 0, 0, 70, 10, 10, gaps=((1, 25, 33),)), Line("Sync", 80, 0, 100, 10, 10),
             Line("x", 200, 0, 205, 10, 10)]  # fmt: skip
    row = join_row(parts)
    assert row.text == "Lab, 10 ships Sync\tx"
    assert row.cells == [("Lab,", 0, 25), ("10 ships", 33, 70), ("Sync", 80, 100), ("x", 200, 205)]
    assert Line("no gaps at all", 5, 0, 50, 10, 10).cells == [("no gaps at all", 5, 50)]


def test_pipes_are_escaped():
    grid = Grid(("a|b", ""), (("x", "1"),), (False, True))
    assert to_markdown(grid) == "| a\\|b |  |\n| --- | ---: |\n| x | 1 |"
    assert html_rows(to_markdown(grid))[0][0] == "a|b"


@pytest.mark.parametrize("text", ["12", "-3.5", "−0.4", "1,234.56", "$ 178", "(12)", "95 %", "3.71T", "±0.2", "1.2e-5"])
def test_numbers(text: str):
    assert is_number(text)


@pytest.mark.parametrize("text", ["7a", "n/a", "Year 1", "", "-", "3 pages"])
def test_not_numbers(text: str):
    assert not is_number(text)


# ------------------------------------------------------------------------------------------- markup


def block(text: str, kind: str = "text", size: float = 10, bold: bool = False) -> RawBlock:
    return RawBlock(1, [Line(text, 50, 50, 50 + 5 * len(text), 60, size, bold)], kind)


def written(text: str, kind: str = "text") -> str:
    return "".join(p.text + p.after for p in render([block(text, kind)], Vocabulary(), "markdown"))


@pytest.mark.parametrize(
    "text",
    ["# no heading", "> no quotation", "- no item", "+ no item", "1. no item", "2024. It was", "---", "===", "***",
     "```no code", "<div> no markup", "[1]: https://example.org", "    indented"],
)  # fmt: skip
def test_a_paragraph_stays_a_paragraph(text: str):
    tokens = MarkdownIt("commonmark").enable("table").parse("Before.\n\n" + written(text) + "\n\nAfter.")
    assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"] * 3
    assert "".join(c.content for c in tokens[4].children) == text.strip()


@pytest.mark.parametrize(
    "text", ["#hashtag and *stars* and a_b_c", "1.5 metres", "a | b", "<3 and 5 > 4", "E = mc^2 # x"]
)
def test_what_needs_no_escape_has_none(text: str):
    assert written(text) == text


def test_equations_and_plain_text_are_left_alone():
    assert written("# = 5", "equation") == "# = 5"
    assert [p.text for p in render([block("# 5")], Vocabulary())] == ["# 5"]


def test_items_of_lists():
    assert [written(t, "list") for t in ("• one", "– two", "3) three", "(4) four", "(a) five", "[6] six")] == [
        "- one", "- two", "3. three", "4. four", "(a) five", "[6] six"]  # fmt: skip


def test_levels_follow_size_weight_and_numbers():
    title, part, section = (
        block("The Title", "title", 20),
        block("Part", "heading", 16),
        block("1 One", "heading", 13.5),
    )
    below = [block("2 Two", "heading", 13), block("2.1 Below", "heading", 13), block("Note", "heading", 10, bold=True)]
    outline = Outline([title, part, part, section, *below])
    assert [outline.level(b) for b in (title, part, section, *below)] == [1, 2, 3, 3, 4, 5]
    assert Outline([part, part, section]).level(section) == 2  # no title: levels begin at 1


def test_headings_that_occur_once_do_not_push_the_sections_down():
    title, authors, section = (
        block("A Title", "title", 20),
        block("A. Uthor", "heading", 15),
        block("1 One", "heading", 13),
    )
    second_line = block("of two lines", "heading", 20)
    outline = Outline([title, second_line, authors, section])
    assert [outline.level(b) for b in (title, second_line, authors, section)] == [1, 1, 2, 2]


@pytest.mark.parametrize("room", ["", "#pagebreak()"])
def test_equal_headings_have_one_level(read, room: str):
    prose = "The harbour was dredged in spring, and the clerk wrote down what it had cost the town. " * 3
    chapters = [f"= Chapter {n}\n{prose}\n== Part {n}\n{prose}\n{room}\n" for n in ("one", "two", "three", "four")]
    text = read("#set page(width: 300pt, height: 400pt)\n" + "".join(chapters), MARKDOWN).text
    marks = [line.split()[:2] for line in text.splitlines() if line.startswith("#")]
    assert marks == [["#", "Chapter"], ["##", "Part"]] * 4


# ------------------------------------------------------------------------------------------- ruled tables

RULED = (
    "Pier", "What the ledger says of it", "Kept by", "The Old North Pier",
    "Vessels moor here whose cargo is dry and whose masters have paid the fee in full before noon.",
    "The clerk and his two sons", "Mole", "Boats only.", "Nobody", "South Pier",
    "Vessels whose cargo is wet, and all of them at night when the lamps are lit along the northern quay.",
    "The warden of lamps",
)  # fmt: skip


@pytest.mark.parametrize("align", ["top", "horizon", "bottom"])
@pytest.mark.parametrize("columns", ["(60pt, 120pt, 70pt)", "(50pt, 200pt, 40pt)"])
def test_cells_between_strokes_are_whole_wherever_their_lines_stand(read, columns: str, align: str):
    d = read(table(*RULED, columns=columns, options=f"align: {align}, inset: 2pt"))
    assert html_rows(d.text) == [list(RULED[k : k + 3]) for k in range(0, 12, 3)]
    assert [b.kind for b in d.blocks] == ["table"]


def test_a_table_between_three_rules_ends_its_head_at_the_second(read):
    cells = ("File Name", "Description", "*01 Widget NGC5533 All Components.csv*",
             "Readings of the tide at the northern pier",
             "*02 Plotting SPARC Data.csv*", "Barrels landed there in every year of the war with their weights",
             "*03 Curves.csv*", "A key to both")  # fmt: skip
    lines = "table.hline(y: 0), table.hline(y: 1), table.hline(y: 4)"
    options = f"stroke: none, inset: (x: 3pt, y: 4pt), {lines}"
    d = read(
        "Before it.\n\n" + table(*cells, columns="(auto, 70pt)", options=options).replace(PAGE, "") + "\n\nBehind it."
    )
    assert html_rows(d.text) == [[c.strip("*") for c in cells[k : k + 2]] for k in range(0, 8, 2)]
    assert d.text.startswith("Before it.") and d.text.endswith("Behind it.")


def test_a_form_of_empty_boxes_is_no_table(read):
    cells = ("Name", "", "", "", "", "", "Address", "", "", "", "", "")
    assert "|" not in read(table(*cells, columns="(60pt, 60pt, 60pt)", options="rows: 20pt")).text


@pytest.mark.parametrize(
    "line",
    [
        "Ada Harbour#super[1], Berta van der Mole#super[2,3], and C. Quay-Smith#super[1]",
        "Ada B. Harbour",
        "Ada Harbour #super[1]",
    ],
)
def test_authors_under_the_title_are_no_heading(read, line: str):
    source = (
        f"{PAGE}#set super(typographic: false)\n#text(18pt)[Of Harbours and Ledgers]\n\n#v(8pt)*{line}*\n\n#v(8pt)"
        "Office of Tides, Port\n\n#v(8pt)#text(12pt)[*1 Opening Words*]\n\n"
        "The harbour master kept a ledger of ships.\n\n"
    )
    d = read(source, MARKDOWN)
    assert [b.kind for b in d.blocks] == ["title", "text", "text", "heading", "text"]
    assert "## 1 Opening Words" in d.text


@pytest.mark.parametrize(
    "text", ["Summary", "Example Usage", "Methods and Materials", "Statement of Need", "2 Results"]
)
def test_no_names(text: str):
    assert not _are_names(text)
