"""Running heads on pages that stand alone: what goes, and what must stay."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pypdfium2
import pytest
from furniture_steps import remove_furniture

from pdf2txt import drawings, textlayer
from pdf2txt.convert import convert
from pdf2txt.edges import Candidate, PageLines
from pdf2txt.furniture import Labels, candidates
from pdf2txt.recurrence import decide
from pdf2txt.settings import Pdf2txtSettings

TEXT = (
    "the harbour master kept a ledger in which every vessel was entered with its cargo and its draught. On quiet "
    "evenings he read it aloud to the apprentices, who learned more about trade from those columns than from any "
    "school. When the new customs office opened, the ledger was copied three times by hand. "
)
FRESH = TEXT[0].upper() + TEXT[1:]
PAGE = "#set page(width: 420pt, height: 595pt, margin: 60pt, {})\n#set text(size: 10pt, hyphenate: false)\n"
RULE = "#line(length: 100%, stroke: 0.5pt)"


def page(body: str, options: str = "") -> str:
    return PAGE.format(options) + body


def mixed(seed: int) -> str:
    words = TEXT.lower().replace(".", "").split() * 3
    random.Random(seed).shuffle(words)
    return " ".join(words) + "."


def ends(left: str, right: str, size: str = "10pt") -> str:
    return f"[#text({size})[{left} #h(1fr) {right}]]"


@pytest.fixture
def lines(typeset: Callable[..., Path]) -> Callable[[str], list[PageLines]]:
    def make(source: str) -> list[PageLines]:
        out = []
        with pypdfium2.PdfDocument(typeset(source)) as pdf:
            for one in pdf:
                layer = textlayer.read(one)
                out.append(PageLines(*layer.frame.size, layer.lines, drawn=drawings.read(one, layer.frame)))
        return out

    return make


def labelled(kind: str) -> Callable[[int], Labels]:
    """A model that sees the outer strip of every page as ``kind``."""
    strip = (0.0, 0.0, 420.0, 70.0) if kind == "header" else (0.0, 520.0, 420.0, 595.0)
    return lambda n: [(strip, kind, 0.9)]


def removed(pages: list[PageLines], labels: Callable[[int], Labels] | None = None) -> str:
    remove_furniture(pages, labels)
    return " ".join(a.text for _, a in pages[0].furniture)


GONE_BY_ITSELF = {
    "a book's head over a sentence that goes on": page(TEXT * 3, f"header: {ends('214', 'The Harbour Ledger')}"),
    "the same in capitals": page(TEXT * 3, f"header: {ends('THE HARBOUR LEDGER', '215')}"),
    "a journal's foot under a rule": page(
        FRESH * 3,
        f"footer: [{RULE}#v(-6pt)#text(7pt)[Journal of Harbours, 12(3), 45. https:\\/\\/example.org/45 #h(1fr) 7]]",
    ),
    "a slide's foot": page(
        f"#text(24pt)[Harbours of the North]\n\n#text(20pt)[{FRESH}]",
        "footer: [#align(right)[#text(8pt)[Harbour Days]]#v(4pt)#align(right)[#text(8pt)[3]]]",
    ),
    "an archive's stamp": page(FRESH * 3, "footer: [Download date: 3. Jan. 2021]"),
    "a bare page number under a page that ends early": page(f"{FRESH}\n#v(30pt)#align(center)[62]"),
}  # fmt: skip


@pytest.mark.parametrize("source", GONE_BY_ITSELF.values(), ids=GONE_BY_ITSELF)
def test_a_page_alone_loses_what_many_witnesses_prove(lines, source: str):
    pages = lines(source)
    before = [a.text for a in pages[0].lines]
    assert removed(pages)
    left = " ".join(a.text for a in pages[0].lines)
    assert "harbour master" in left and "by hand." in left
    gone = {"214", "215", "The Harbour Ledger", "THE HARBOUR LEDGER", "Harbour Days", "62"}
    assert not gone & {a.text for a in pages[0].lines} and "Download" not in left and "Journal" not in left
    assert len(before) > len(pages[0].lines)


GONE_BY_LABEL = {
    "small print over fresh text": page(FRESH * 3, "header: [#text(8pt)[Annals of the Harbour Office]]"),
    "name and number over fresh text": page(FRESH * 4, f"header: {ends('Harbours and Ledgers', '31')}"),
    "volume and pages": page(FRESH * 3, "header: [Harbour Review, Vol. 3, 2015, 113:45–58]"),
}


@pytest.mark.parametrize("source", GONE_BY_LABEL.values(), ids=GONE_BY_LABEL)
def test_a_label_counts_only_beside_other_witnesses(lines, source: str):
    assert not removed(lines(source))
    assert not removed(lines(source), labelled("footer"))
    pages = lines(source)
    assert removed(pages, labelled("header"))
    assert pages[0].lines[0].text.startswith("The harbour master")


KEPT = {
    "a title": page(f"#align(center)[#text(18pt)[Harbours and their Ledgers]]\n\n{FRESH * 3}"),
    "a title with a year": page(f"ANNUAL REPORT #h(1fr) 2023\n\n#v(10pt){FRESH * 2}"),
    "a section heading": page(f"*2 Methods*\n\n{FRESH * 3}"),
    "a heading without number": page(f"*Methods and Materials*\n\n#v(8pt){FRESH * 3}"),
    "a letter's first line": page(f"Dear Madam,\n\n{FRESH * 2}\n\nYours sincerely,\n\nA. Writer"),
    "a letter's date": page(f"#align(right)[12 March 2020]\n\n#v(10pt)Dear Sir,\n\n{FRESH * 2}"),
    "an invoice": page("INVOICE #h(1fr) 1042\n\n#v(20pt)Rope\n\nTar\n\nNails\n\nTotal 62"),
    "text that goes on": page(TEXT * 3),
    "a footnote": page(f"{FRESH}#footnote[See https:\\/\\/example.org/ledger, Vol. 3.] {FRESH * 2}"),
    "a table's last row": page(f"{FRESH}\n\n#table(columns: 2, [Ships], [Tons], [12], [340], [Total], [352])"),
    "a sum": page(f"{FRESH}\n#v(30pt)#h(20pt)62"),
}


@pytest.mark.parametrize("source", KEPT.values(), ids=KEPT)
def test_a_page_alone_keeps_what_may_be_text(lines, source: str):
    for labels in (None, labelled("header"), labelled("footer")):
        assert not removed(lines(source), labels)


def test_heads_that_differ_from_page_to_page_are_found_by_their_numbers(lines):
    heads = ("Of Ships", "Of Crews", "Of Cargo", "Of Tides")
    pages = lines("".join(
        f"#set page(width: 420pt, height: 595pt, margin: 60pt, header: {ends(head, str(40 + n))})\n"
        f"#set text(10pt)\nThe {mixed(n)}" for n, head in enumerate(heads)
    ))  # fmt: skip
    pages = [p for p in pages if p.lines]
    remove_furniture(pages)
    assert ["".join(c for c in p.furniture[0][1].text if c.isalpha()) for p in pages] == [
        h.replace(" ", "") for h in heads
    ]
    assert all(p.lines[0].text.startswith("The ") for p in pages)


def test_candidates_go_through_json(lines):
    pages = lines(page(FRESH * 14, f"header: {ends('The Harbour Ledger', '7')}"))
    assert len(pages) > 1
    rows = [candidates(p) for p in pages]
    back = [
        [Candidate(*a[:-2], tuple(a[-2]), tuple(a[-1])) for a in json.loads(json.dumps([astuple(c) for c in r]))]
        for r in rows
    ]
    assert decide(back) == decide(rows) != [[] for _ in pages]


def test_the_model_itself_is_asked_about_a_single_page(typeset):
    pytest.importorskip("rapid_layout")
    source = page(
        f"*Of Ships*\n\n{FRESH * 3}\n\n*Of Crews*\n\n{FRESH * 3}",
        "header: [#text(8pt)[Annals of the Harbour Office #h(1fr) Volume 12]#v(-4pt)], "
        "footer: [#align(center)[#text(8pt)[Harbour Office Press]]]",
    )
    path = typeset(source)
    alone = convert(path, Pdf2txtSettings(layout="geometry", ocr="off")).text
    asked = convert(path, Pdf2txtSettings(ocr="off")).text
    assert "Harbour Office Press" in alone and "Harbour Office Press" not in asked
    assert asked.startswith("Of Ships")


def left(pages: list[PageLines]) -> list[list[str]]:
    remove_furniture(pages)
    return [[a.text for a in p.lines] for p in pages]


HEADED = "header: [#text(8pt)[The Harbour Ledger]], footer: [#text(8pt)[Office Press]]"
# Read twice, as by OCR: some letters differ.
TWICE = [f"*Of ships and crews*\n\nThe {mixed(1)}", f"*Of ships and crews*\n\nThe {mixed(1).replace('v', 'u')}"]


def book(bodies: list[str], options: str = "") -> str:
    return page("\n#pagebreak()\n".join(bodies), options)


@pytest.mark.parametrize("bodies", [TWICE, [f"The {mixed(2)}", *TWICE], [*TWICE, TWICE[0]]])
def test_a_page_that_is_there_twice_agrees_with_itself_only(lines, bodies: list[str]):
    pages = lines(book(bodies))
    before = [[a.text for a in p.lines] for p in pages]
    assert len(pages) == len(bodies) and left(pages) == before


def test_beside_a_page_that_is_there_twice_others_still_tell(lines):
    pages = lines(book([f"The {mixed(2)}", *TWICE, f"The {mixed(3)}"], HEADED))
    kept = left(pages)
    assert not any(text in ("The Harbour Ledger", "Office Press") for rows in kept for text in rows)
    assert kept[1][0] == kept[2][0] == "Of ships and crews"


def test_of_pages_all_alike_nothing_tells_the_head_from_the_text(lines):
    pages = lines(book([TWICE[0]] * 12, HEADED))
    assert all("Of ships and crews" in rows for rows in left(pages))


def test_pages_with_the_same_long_foot_are_no_copies(lines):
    foot = f"footer-descent: 4pt, footer: [#text(6pt)[{FRESH} {TEXT}]]"
    pages = lines(book([f"The {mixed(n)} {mixed(n + 3)}" for n in range(3)], foot))
    before = [len(p.lines) for p in pages]
    body = [[a.text for a in p.lines if a.size > 8] for p in pages]
    kept = left(pages)
    assert all(len(rows) < count for rows, count in zip(kept, before, strict=True))
    assert [[a.text for a in p.lines if a.size > 8] for p in pages] == body


ENTRY = "Harbour, A., & Ledger, B. ({}). Cargo. Tides: Vol. {}. Harbour Press."


@pytest.mark.parametrize("count", [2, 6])
def test_a_line_tight_on_the_text_needs_more_than_one_other_page(lines, count: int):
    bodies = [f"{ENTRY.format(1998, 3)} \\\nThe {mixed(n)}" if n < 2 else f"The {mixed(n)}" for n in range(count)]
    pages = lines(book(bodies))
    assert [rows[0] for rows in left(pages)[:2]] == [ENTRY.format(1998, 3)] * 2


def test_numbers_tell_lines_apart_where_only_one_other_page_agrees(lines):
    entries = [ENTRY.format(1998, 3), ENTRY.format(2004, 12)]
    pages = lines(book([f"{entry}\n\n#v(20pt)\nThe {mixed(n)}" for n, entry in enumerate(entries)]))
    assert [rows[0] for rows in left(pages)] == entries
    heads = ["Ledger of 1998, sheet 4 of 9", "Ledger of 1998, sheet 5 of 9"]
    pages = lines(book([f"{head}\n\n#v(20pt)\nThe {mixed(n)}" for n, head in enumerate(heads)]))
    assert all(rows[0].startswith("The ") for rows in left(pages))


def test_a_foot_of_many_small_lines_goes_as_a_whole(lines):
    """Legal notes of more rows than a running foot has: they recur, and nothing but furniture stands below them."""
    notes = " \\ ".join(f"Clause {letter} of the terms of sale binds the buyer" for letter in "ABCDEF")
    foot = f"footer-descent: 4pt, footer: text(5pt)[#align(center)[Page#context counter(page).display()of 3]\n{notes}]"
    pages = lines(page("#pagebreak()".join(mixed(n) for n in range(3)), foot))
    remove_furniture(pages)
    for one in pages:
        assert not [a.text for a in one.lines if "Clause" in a.text or "of 3" in a.text]
        assert len(one.furniture) == 7


CLAUSE = (
    "The tenant shall keep the premises clean and in good repair at all times, and shall tell the landlord of any "
    "damage that he sees without delay. This holds for all rooms, for the cellar and for the roof"
)
SENTENCES = {
    "ends below the edge": f"{CLAUSE}, for the yard and for the fence, for the gate and for the wall. " + CLAUSE + ".",
    "ends within it": CLAUSE + ".",
    "in sentences, a line each": f"The tenant shall keep the house clean and in good repair for ever. \\\n{CLAUSE}.",
}


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("clause", SENTENCES.values(), ids=SENTENCES)
def test_a_paragraph_at_the_top_of_all_pages_is_no_head(lines, clause: str, count: int):
    bodies = [f"{clause}\n\nThe {mixed(n)}" for n in range(count)]
    pages = lines(book(bodies))
    before = [[a.text for a in p.lines] for p in pages]
    assert len(pages) == count and left(pages) == before
    pages = lines(book(bodies, f"header: {ends('The Harbour Ledger', 'Sheet')}"))
    assert [rows[0] for rows in left(pages)] == [row[0] for row in before]


HEADS = {
    "tight": ("The ledger of the harbour and of its masters", "header-ascent: 4pt"),
    "as wide as the text": ("The ledger of the harbour office and of all of its masters in", "header-ascent: 10pt"),
    "in capitals": ("THE LEDGER OF THE HARBOUR OFFICE AND OF ITS MASTERS", "header-ascent: 4pt"),
}


@pytest.mark.parametrize(("head", "options"), HEADS.values(), ids=HEADS)
def test_a_head_over_pages_that_begin_in_mid_sentence_goes(lines, head: str, options: str):
    pages = lines(book([mixed(n) for n in range(4)], f"header: [{head}], {options}"))
    assert not any(text == head for rows in left(pages) for text in rows)
