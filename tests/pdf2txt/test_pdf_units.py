"""Offsets, units and hyphens for any input."""

from __future__ import annotations

import re
import time
import unicodedata
from pathlib import Path

from furniture_steps import remove_furniture
from hypothesis import given, settings
from hypothesis import strategies as st

from pdf2txt.assemble import PageInfo, assemble
from pdf2txt.blocks import RawBlock, Style
from pdf2txt.edges import PageLines
from pdf2txt.hyphens import Vocabulary, join
from pdf2txt.layout import Detection
from pdf2txt.layout.regions import order_regions
from pdf2txt.order import read_order
from pdf2txt.repair import repair
from pdf2txt.schema import Document, Page, read_documents, write_documents
from pdf2txt.spans import Line
from pdf2txt.units import Units, digest

words = st.text("abcdeéAB-,. \x02", min_size=1, max_size=30)
lines = st.builds(
    lambda t, x, y, w, size: Line(t, x, y, x + w, y + size, size),
    words, st.floats(0, 500), st.floats(0, 800), st.floats(5, 400), st.sampled_from([8.0, 10.0, 14.0]),
)  # fmt: skip
kinds = st.sampled_from(["text", "text", "text", "list", "footnote", "table", "heading", "caption", "equation"])
raw_blocks = st.lists(st.tuples(st.integers(1, 4), kinds, st.lists(lines, min_size=1, max_size=3)), max_size=12)


@given(raw_blocks)
@settings(max_examples=200, deadline=None)
def test_spans_are_exact_for_any_blocks(checked, raw):
    blocks = [
        RawBlock(page, members, kind, n) for n, (page, kind, members) in enumerate(sorted(raw, key=lambda r: r[0]))
    ]
    vocabulary = Vocabulary()
    vocabulary.add(line.text for block in blocks for line in block.lines)
    infos = [PageInfo(n, 600, 800, 0, "text-layer", 1.0) for n in range(1, 5)]
    pages = ((info, [b for b in blocks if b.page == info.number]) for info in infos)
    document = Document.from_table(
        assemble(pages, vocabulary, Style(10.0, False)).table("0" * 64, "x.pdf", "ok", "", [])
    )
    checked(document)
    # No letter is lost and none is made up.
    letters = sorted(ch for _, _, members in raw for line in members for ch in line.text if ch.isalpha())
    assert sorted(ch for ch in document.text if ch.isalpha()) == letters


@given(st.lists(lines, max_size=40))
@settings(max_examples=100, deadline=None)
def test_every_line_is_read_once(page_lines):
    given_text = sorted("".join(a.text for a in page_lines).split())
    for reading in (read_order(page_lines), order_regions(page_lines, [Detection((0, 0, 300, 400), "table", 0.9)])):
        out = [a.text for r in reading.regions for a in r.lines]
        assert sorted("".join(out).replace("\t", "").replace(" ", "")) == sorted("".join(given_text))


@given(st.lists(st.lists(lines, max_size=8), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_furniture_is_moved_not_lost(pages):
    def letters(found):
        return sum(len(re.sub(r"\s", "", a.text)) for a in found)

    made = [PageLines(600, 842, list(page)) for page in pages]
    remove_furniture(made)
    for before, after in zip(pages, made, strict=True):
        assert letters(before) == letters(after.lines) + letters(a for _, a in after.furniture)


@given(st.text(max_size=60))
def test_repair_leaves_no_debris(text):
    out = repair(text)
    assert not set(out) & set("\ufb01\ufb02\ufeff\x00\x1f\x7f\u200b")
    assert unicodedata.is_normalized("NFC", out)
    assert repair("plain text, 100 % ASCII") == "plain text, 100 % ASCII"


def test_repair_mends_what_fonts_break():
    assert repair("ef\ufb01cient na¨ive cafÃ© “quoted” \x02") == "efficient naïve café “quoted” \x02"


def test_units_are_whole_or_absent(tmp_path: Path):
    units = Units(tmp_path, "document")
    key = digest("a", {"b": 1})
    assert units.get(key) is None and key == digest("a", {"b": 1}) and len(key) == 64
    units.put(key, b"first")
    units.put(key, b"second")
    assert units.get(key) == b"second" and [p.name for p in (tmp_path / "document").iterdir()] == [key]


def test_parquet_round_trip(tmp_path: Path):
    document = Document("ab" * 32, "x.pdf", "corrupt", warnings=("cannot be opened",))
    assert write_documents(tmp_path / "d.parquet", [document]) == 1
    assert list(read_documents(tmp_path / "d.parquet")) == [document]


def test_the_documents_own_words_decide_about_hyphens():
    known = Vocabulary()
    known.add(
        [
            "a re-creation of the recreation ground",
            "co-operate, co-operate",
            "and a photo-graph of a photograph",
            "photograph",
        ]
    )
    assert join("we co-", "operate", known) == ("we co-", "")
    assert join("a photo-", "graph", known) == ("a photo", "")
    assert join("exam\x02", "ple", known) == ("exam", "")
    assert join("the 2019-", "2020 season", known) == ("the 2019-", "")
    assert join("Navier-", "Stokes", known) == ("Navier-", "")
    assert join("short-", "and long-term", known) == ("short-", " ")
    assert join("see https://example.org/a/", "b.html", known) == ("see https://example.org/a/", "")


def test_running_heads_of_many_pages_are_found_in_little_time():
    def page(n: int) -> PageLines:
        texts = ["The Harbour Ledger", "Chapter the First", *(f"Words {n} of line {k}" for k in range(10)), "A Foot"]
        out = [Line(t, 50, 30 + 12 * k, 300, 40 + 12 * k, 10) for k, t in enumerate(texts[:-1])]
        return PageLines(420, 600, [*out, Line("A Foot", 50, 540, 99, 550, 10), Line(str(n), 50, 560, 60, 570, 10)])

    pages = [page(n) for n in range(3000)]
    began = time.process_time()
    remove_furniture(pages)
    assert time.process_time() - began < 20  # two on a quick machine; comparing all with all takes minutes
    assert all(
        {"The Harbour Ledger", "A Foot", str(n)} <= {a.text for _, a in p.furniture} for n, p in enumerate(pages)
    )


def test_hyphens_that_no_word_of_the_document_decides():
    nothing = Vocabulary("en")
    for left, right in (("well-", "known"), ("self-", "made"), ("rule-", "based"), ("long-", "lived")):
        assert join(f"a {left}", right, nothing) == (f"a {left}", "")
    broken = (("as-", "sume"), ("so-", "lution"), ("ten-", "sion"), ("pre-", "vious"), ("empha-", "sized"))
    for left, right in (*broken, ("thresh-", "old"), ("cor-", "related")):
        assert join(f"we {left}", right, nothing) == (f"we {left[:-1]}", "")


def test_small_documents_share_row_groups(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    page = Page(1, 0.0, 0.0, 0, "text-layer", 1.0, 0, 2)
    documents = [
        Document(f"{i:064}", "a.txt", "ok", f"{i} " * (200_000 if i == 50 else 1), "en", (page,)) for i in range(99)
    ]
    assert write_documents(tmp_path / "d.parquet", documents) == 99
    assert list(read_documents(tmp_path / "d.parquet")) == documents
    metadata = pq.read_metadata(tmp_path / "d.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [50, 1, 48]
