"""How one paragraph of blocks is written: plain, or as Markdown.

Both forms write a table whose grid is clear as a Markdown table: nothing shorter keeps apart which column a value
stands in where cells are empty, and models know the form. Every other difference is Markdown's: marks before
headings and list items, and a backslash where a line's first characters would be taken for markup. Within a line
nothing is escaped: the text is for training, and a stray ``*`` or ``_`` reads better as it is.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pdf2txt.blocks import RawBlock, goes_on
from pdf2txt.hyphens import Vocabulary, join
from pdf2txt.tables import Grid, find_grid, grid_of_rows, to_markdown

Format = Literal["plain", "markdown"]

BY_LINES = ("table", "equation", "figure")  # their line breaks mean something
_HEADINGS = ("title", "heading")
_DEEPEST = 6
_ALIKE = 0.93  # font sizes nearer than this are one (OCR estimates them)
_NUMBERING = re.compile(r"(?:(?:chapter|section|appendix|kapitel|abschnitt)\s+)?(\d{1,2}(?:\.\d{1,2})*)\.?\s+\S", re.I)
_CUT_OFF = re.compile(r"[\x02\u00ad](?= \|)")  # a cell's last hyphen, its other half not found
_BULLET = re.compile(r"[•◦▪‣●○■□–—*·-]\s+")
_ORDERED = re.compile(r"\(?(\d{1,3})[.)]\s+")
# What Markdown would take for more than text at a line's start (CommonMark 0.31, sections 4 and 5).
_MARKUP = re.compile(
    r"#{1,6}(?=\s|$)|>|[-+*](?=\s|$)|(?:[-_*]\s*){3,}$|=+\s*$|`{3}|~{3}|<(?=[A-Za-z/!?])|\[[^\]]+\]:|\|"
)
_ORDINAL = re.compile(r"(\d{1,9})([.)])(?=\s|$)")


@dataclass(frozen=True)
class Piece:
    """Text of one of the paragraph's blocks, and what stands between it and the next piece."""

    block: int  # which of the paragraph's blocks
    text: str
    after: str = ""  # belongs to no block


class Outline:
    """Levels of a document's headings: 1 for its title, below that by size, weight and depth of numbering.

    Looks that occur once and bear no number (authors' names, a dedication) take part in no ranking: they get the
    level of the next smaller look that does.
    """

    def __init__(self, blocks: Iterable[RawBlock] = ()) -> None:
        self.looks: Counter[_Look] = Counter()
        self.title: RawBlock | None = None
        self.end = 0.0  # of its last line, which may be another block
        self.levels: dict[_Look, int] | None = None
        for block in blocks:
            self.add(block)

    def add(self, block: RawBlock) -> None:
        """Count a block; all are added before the first level is asked for."""
        if block.kind == "title":
            self.title, self.end = block, block.box[3]
        elif block.kind == "heading" and self._is_title(block):
            self.end = max(self.end, block.box[3])
        elif block.kind == "heading":
            self.looks[_look(block)] += 1
            self.levels = None

    def level(self, block: RawBlock) -> int:
        """1 to 6."""
        if block.kind == "title" or self._is_title(block):
            return 1
        if self.levels is None:
            self.levels = self._ranked()
        return self.levels.get(_look(block), _DEEPEST)

    def _is_title(self, block: RawBlock) -> bool:
        """A further line of the title."""
        if self.title is None or block.page != self.title.page:
            return False
        size = self.title.lines[0].size
        near = self.title.box[1] <= block.box[1] and goes_on(self.end, block)
        return near and abs(block.lines[0].size - size) < 0.02 * size

    def _ranked(self) -> dict[_Look, int]:
        biggest: list[float] = []  # of each group of sizes that count as one
        group = {}
        for size in sorted({look.size for look in self.looks}, reverse=True):
            if not biggest or size < _ALIKE * biggest[-1]:
                biggest.append(size)
            group[size] = len(biggest)
        # Where numbers of several depths look the same, depth decides; those without a number are of the first.
        least: dict[tuple[int, bool], int] = {}
        for look in self.looks:
            key = (group[look.size], not look.bold)
            if look.depth:
                least[key] = min(least.get(key, look.depth), look.depth)
        ranks = {}
        for look in self.looks:
            key = (group[look.size], not look.bold)
            ranks[look] = (*key, look.depth or least.get(key, 1))
        times: Counter[tuple[int, bool, int]] = Counter()
        for look, n in self.looks.items():
            times[ranks[look]] += n + bool(look.depth)
        order = sorted(rank for rank, n in times.items() if n > 1) or sorted(times)
        # What looks like other headings is one of them, though it stands first and was taken for the title.
        alike = self.title is not None and any(look[:2] == _look(self.title)[:2] for look in self.looks)
        top = 1 + (self.title is not None and not alike)
        return {look: min(_DEEPEST, top + bisect_left(order, rank)) for look, rank in ranks.items()}


class _Look(NamedTuple):
    size: float  # to half a point
    bold: bool
    depth: int  # of its number: 2 for "3.1", 0 for none


def _look(block: RawBlock) -> _Look:
    number = _NUMBERING.match(block.lines[0].text)
    depth = number.group(1).count(".") + 1 if number else 0
    return _Look(round(block.lines[0].size * 2) / 2, all(a.bold for a in block.lines), depth)


def render(
    blocks: list[RawBlock], vocabulary: Vocabulary, form: Format = "plain", outline: Outline | None = None
) -> list[Piece]:
    """The pieces of a paragraph in order; none if its blocks hold no text.

    Args:
        blocks: of one paragraph, in reading order; more than one only where it runs over columns or pages.
        outline: with all headings of the document; None: of these blocks alone.
    """
    kind = blocks[0].kind
    if kind == "table" and (table := _table(blocks, vocabulary)):
        return table
    pieces = _joined(blocks, vocabulary)
    if form == "markdown" and pieces:
        return _markdown(pieces, blocks, outline or Outline(blocks))
    return pieces


def between(before: str, after: str, form: Format = "plain") -> str:
    """What stands between two paragraphs of these kinds: an empty line, but not between items of a list."""
    return "\n" if form == "markdown" and before == after == "list" else "\n\n"


def _table(blocks: list[RawBlock], vocabulary: Vocabulary) -> list[Piece]:
    if len(blocks) > 1:
        return []

    def together(left: str, right: str) -> str:
        left, separator = join(left, right, vocabulary)
        return left + separator + right

    if blocks[0].ruled:
        grid: Grid | None = grid_of_rows(blocks[0].lines, together)
    else:
        grid = find_grid([line for line in blocks[0].lines if _bare(line.text)], together)
    if grid is None:
        return []
    return [Piece(0, _without_soft_hyphens(_CUT_OFF.sub("-", to_markdown(grid))))]


def _joined(blocks: list[RawBlock], vocabulary: Vocabulary) -> list[Piece]:
    """Lines put together, hyphens at their ends undone; tables, formulas and figures keep their lines."""
    lines: list[tuple[int, str]] = []
    for k, block in enumerate(blocks):
        lines += [(k, text) for line in block.lines if (text := _bare(line.text))]
    by_lines = blocks[0].kind in BY_LINES
    out = []
    for n, (k, text) in enumerate(lines):
        separator = ""
        if n + 1 < len(lines):
            after, right = lines[n + 1]
            text, separator = (text, "\n") if by_lines else join(text, right, vocabulary)
            if not separator and after != k and blocks[after].page != blocks[k].page:
                # A broken word is not cut again between two pages: the first page gets all of it.
                head, _, tail = right.partition(" ")
                text, separator, lines[n + 1] = text + head, " " if tail else "", (after, tail)
        if text.endswith(("\x02", "\u00ad")):
            text = text[:-1] + "-"
        text = _without_soft_hyphens(text)
        out.append(Piece(k, text if by_lines else text.replace("\t", " "), separator))
    return out


def _bare(text: str) -> str:
    return text.strip().lstrip("\x02\u00ad \t")


def _without_soft_hyphens(text: str) -> str:
    return text.replace("\x02", "").replace("\u00ad", "")


def _markdown(pieces: list[Piece], blocks: list[RawBlock], outline: Outline) -> list[Piece]:
    kind, first = blocks[0].kind, pieces[0]
    if kind in _HEADINGS:
        marked = "#" * outline.level(blocks[0]) + " " + first.text
        return [Piece(first.block, marked, first.after), *pieces[1:]]
    if kind == "equation":
        return pieces
    if kind == "list":
        return [Piece(first.block, _item(first.text), first.after), *pieces[1:]]
    if kind in BY_LINES:
        return [Piece(p.block, _escaped(p.text), p.after) for p in pieces]
    return [Piece(first.block, _escaped(first.text), first.after), *pieces[1:]]


def _item(text: str) -> str:
    if mark := _BULLET.match(text):
        return "- " + text[mark.end() :]
    if mark := _ORDERED.match(text):
        return f"{mark.group(1)}. {text[mark.end() :]}"
    return _escaped(text)  # "(a)", "[1]": Markdown has no such lists


def _escaped(line: str) -> str:
    """``line`` so that Markdown takes its start for text."""
    if _MARKUP.match(line):
        return "\\" + line
    return _ORDINAL.sub(r"\1\\\2", line, count=1) if _ORDINAL.match(line) else line
