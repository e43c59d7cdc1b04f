"""What is no text of its author (publication data, labels, line numbers) goes; what looks like it stays."""

from __future__ import annotations

import random

import pytest

from pdf2txt.settings import Pdf2txtSettings

TEXT = "harbour ledger vessel cargo master evening trade column school office copy governor bank box stair hand"
WORDS = TEXT.split()
PAGE = (
    "#set page(width: 595pt, height: 842pt, margin: (left: {}pt, rest: 60pt))\n"
    "#set text(size: 10pt, hyphenate: false)\n"
)


def settings(**chosen: str) -> Pdf2txtSettings:
    return Pdf2txtSettings(layout="geometry", ocr="off", **chosen)


def prose(sentences: int, seed: int = 1) -> str:
    rng = random.Random(seed)
    return " ".join(f"The {' '.join(rng.choice(WORDS) for _ in range(13))} stays." for _ in range(sentences))


def beside(box: str, body: str, side: str = "left") -> str:
    """A box of small print in the margin of the first page."""
    shift = "-125pt" if side == "left" else "130pt"
    place = f"#place({side} + top, dx: {shift}, dy: 60pt)[#box(width: 105pt)[#text(7.5pt)[{box}]]]\n"
    left = 160 if side == "left" else 60
    page = PAGE.format(left) if side == "left" else PAGE.format(60).replace("rest: 60pt", "right: 180pt, rest: 60pt")
    return f"{page}#text(16pt)[Ledgers of the North]\n\n{place}{body}"


DATA = (
    "*Key dates*\n\nReceived: 3 May 2019\n\nAccepted: 7 June 2020\n\n*Editor:* A. Keeper\n\n*Licence*\n\n"
    "The authors hold the copyright of this article."
)


@pytest.mark.parametrize("side", ["left", "right"])
def test_publication_data_in_the_margin(read, side: str):
    body = prose(20)
    source = beside(DATA, body, side)
    d = read(source)
    assert d.text == f"Ledgers of the North\n\n{body}"
    assert [b.kind for b in d.blocks if b.start == b.end] == ["margin"]
    kept = read(source, settings(margin_boxes="end")).text
    assert kept.startswith(d.text) and "Received: 3 May 2019" in kept and "copyright of this article." in kept


@pytest.mark.parametrize(
    "box",
    [
        "*On keeping ledgers*\n\n" + prose(5, 2),  # a sidebar to be read
        "*Further words*\n\nThe first edition was published in spring.\n\n" + prose(4, 3),
        "Rope\n\nTar\n\nNails\n\nTimber",
    ],
)
def test_other_boxes_in_the_margin_stay(read, box: str):
    d = read(beside(box, prose(20)))
    assert all(word in d.text for word in box.replace("*", "").split())


CHART = "".join(
    f"#place(dx: {30 * k}pt, dy: {100 - k * k}pt, circle(radius: 12pt))"
    f"#place(dx: {30 * k}pt, dy: 115pt, text(7pt)[{5 * k}.{k}])"
    for k in range(8)
)


def figure(inside: str, caption: str) -> str:
    picture = f"#box(width: 260pt, height: 130pt)[{inside}]\n\n#text(9pt)[{caption}]"
    return f"{PAGE.format(60)}{prose(6)}\n\n{picture}\n\n{prose(6, 2)}"


def test_labels_inside_a_chart(read):
    source = figure(CHART, "Figure 1: What the ships carried, by year.")
    d = read(source)
    assert "10.2" not in d.text and "Figure 1: What the ships carried, by year." in d.text
    assert d.text.split("\n\n") == [prose(6), "Figure 1: What the ships carried, by year.", prose(6, 2)]
    assert any(b.kind == "figure" and b.start == b.end for b in d.blocks)
    kept = read(source, settings(figures="keep")).text
    assert kept.index("10.2") < kept.index("Figure 1:")


def test_text_in_a_frame_and_a_table_with_its_caption_stay(read):
    shapes = "".join(f"#place(dx: {240 - k}pt, dy: {8 * k}pt, circle(radius: 3pt))" for k in range(6))
    told = "Keep the ledger dry and read it aloud every evening to all of the people in the office."
    framed = figure(f"{shapes}#box(width: 220pt)[{told}]", "Figure 2: A rule of the house.")
    assert told in read(framed).text
    table = f"{shapes}#table(columns: 3, [Port], [Ships], [Tons], [Riga], [7], [2100], [Turku], [9], [1800])"
    assert "| Riga | 7 | 2100 |" in read(figure(table, "Table 1: Ships by port.")).text


LINES = prose(60, 5)


@pytest.mark.parametrize(
    "numbering",
    [
        "#set par.line(numbering: \"1\")",
        "#set par.line(numbering: \"1\", number-align: left, number-clearance: 6pt)",
        "#set par.line(numbering: \"1\", number-margin: right)",
        "#set par.line(numbering: \"1\", numbering-scope: \"page\")",
        "#set par.line(numbering: n => if calc.rem(n, 5) == 0 [#n])",
    ],
)  # fmt: skip
def test_line_numbers_go(read, numbering: str):
    page = "#set page(width: 420pt, height: 400pt, margin: 60pt)\n#set text(size: 10pt, hyphenate: false)\n"
    source = f"{page}{numbering}\n{LINES}"
    d = read(source)
    assert d.n_pages > 3 and d.text == LINES
    assert len(d.paragraphs) == 1
    assert read(source, settings(line_numbers="keep")).text != LINES


@pytest.mark.parametrize(
    "body",
    [
        "\n\n".join(f"{n} The {w} of the harbour is kept in the office" for n, w in enumerate(WORDS, 1)),
        "#table(columns: (30pt, 1fr), stroke: none, "
        + ", ".join(f"[{n}], [the {w} of the harbour and of its master]" for n, w in enumerate(WORDS, 1)) + ")",
        " ".join(f"#super[{n}]{s}." for n, s in enumerate(prose(12).split("."), 1)),
        "#table(columns: 2, [Age], [Ships], [5], [12], [10], [14], [15], [16], [20], [17])",
    ],
    ids=["list", "table", "verses", "numbers"],
)  # fmt: skip
def test_other_numbers_stay(read, body: str):
    source = PAGE.format(60) + prose(3) + "\n\n" + body
    d = read(source)
    assert d.text == read(source, settings(line_numbers="keep")).text
    assert not any(b.kind == "line-number" for b in d.blocks)


@pytest.mark.parametrize(("align", "size"), [("left", 18), ("center", 17), ("left", 14)])
def test_lines_of_one_title_are_one(read, align: str, size: int):
    title = "A Long Study of Ledgers and of the Many Careful People of the North who Kept Them Dry"
    d = read(f"{PAGE.format(60)}#align({align})[#text({size}pt)[{title}]]\n\nA. Keeper\n\n{prose(12)}")
    assert d.text.split("\n\n")[:2] == [title, "A. Keeper"]
    assert [b.kind for b in d.blocks].count("title") == 1


def test_two_headings_are_two(read):
    d = read(f"{PAGE.format(60)}#text(14pt)[*3 Results*]\n\n#text(14pt)[*3.1 Of Ships*]\n\n{prose(12)}")
    assert d.text.split("\n\n")[:2] == ["3 Results", "3.1 Of Ships"]


def test_superscripts_are_told_from_the_word_before_them(read):
    d = read(
        PAGE.format(60) + "#set super(typographic: false)\n"
        "The pier covers 40 m#super[2] and the mole 10#super[−3] of that.#super[12] On the 21#super[st] of May "
        "the town#super[1] paid, as ledgers#super[[3]] say, for the Grand Pier#super[TM] and H#sub[2]O."
    )
    assert d.text == (
        "The pier covers 40 m² and the mole 10⁻³ of that.¹² On the 21st of May "
        "the town¹ paid, as ledgers[3] say, for the Grand PierTM and H2O."
    )


def test_bold_words_break_no_paragraph(read):
    plain = "the harbour master kept a ledger of every vessel in port and of its cargo while"
    bold = "every vessel in port *paid its fee and had a mooring before noon* on the long pier and"
    d = read(PAGE.format(60) + " \\\n".join([plain, bold, plain, bold, plain]))
    assert len(d.paragraphs) == 1


def test_references_with_hanging_lines_are_one_paragraph_each(read):
    entries = (
        "Harbourmaster, A. B., Lightkeeper, C. D., Dockwright, E. F., Pilot, G. H., Stevedore, I., & Tallyman,\\ "
        "K. E. (2016). On the ledgers of the northern harbour and their readers",
        "Ropemaker, Q., Sailwright, R., Cooper, S., Chandler, T., Lighterman, U., & Mate, V. M. (2019).\\ "
        "Learning to count barrels and the cargoes of small vessels by example in ports of the north",
        "Netmaker, W. (2020). A history of nets, of their makers and of their uses in the fisheries of the coast,\\ "
        "with drawings by the author. https:\\/\\/doi.org/10.1111/j.\\ 1365-2966.2008.13422.x",
        "Oarsman, X. (2021). A history of oars, of their makers and of all their uses in the harbours of the coast\\ "
        "and of the northern islands, with drawings by the author and two maps.",
    )
    d = read(
        "#set page(width: 500pt, height: 595pt, margin: 40pt)\n#set text(size: 9pt, hyphenate: false)\n"
        "#set par(hanging-indent: 18pt, leading: 5pt, spacing: 8pt)\n= References\n" + "\n\n".join(entries)
    )
    references = [d.text[p.start : p.end] for p in d.paragraphs][1:]
    assert [text.split(",")[0] for text in references] == ["Harbourmaster", "Ropemaker", "Netmaker", "Oarsman"]
    assert "Tallyman, K. E. (2016)" in references[0]
    assert "(2019). Learning" in references[1]
    assert references[2].endswith("https://doi.org/10.1111/j.1365-2966.2008.13422.x")
