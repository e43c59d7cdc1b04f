"""Lines of a region become blocks (one paragraph, heading, table, ... of one column), each with a kind."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from statistics import median

from pdf2txt.order import Region
from pdf2txt.schema import Box
from pdf2txt.spans import Line, bounding_box

BULLET = re.compile(r"([•◦▪‣●○■□–—*·-]|\(?\d{1,2}[.)]|\(?[a-zA-Z][.)]|\[\d{1,3}\])\s+\S")
# "Table 1: ...", "Fig. 2 Curves of ...", but not a sentence: "Table 1 shows ..."
CAPTION = re.compile(
    r"(?i:figure|fig\.|table|tab\.|abbildung|abb\.|tabelle|listing|algorithm|scheme)\s*[A-Z]?\d+(\.\d+)*"
    r"(\s*[:.–—|]|\s+\W?[A-Z0-9]|\s*$)"
)
RULED = "ruled table"  # kind of a region whose lines are the rows of one, cells apart by tabs,
BREAK = "\n"  # and the lines of a cell by this
FIGURE = re.compile(r"(figure|fig\.|abbildung|abb\.)", re.I)
_REFERENCES = re.compile(r"(\d+\.?\s+)?(references|bibliography|literature cited|literatur(verzeichnis)?)\s*", re.I)
_SECTION = re.compile(r"(\d{1,2}(\.\d{1,2})*\.?|[IVX]{1,5}\.?|[A-Z]\.|chapter|part|appendix|kapitel|teil)\s", re.I)
_NOTE = re.compile(r"([*∗†‡§¶]|\d{1,2}(?!\d))\s*\S")
_TIGHT = re.compile(r"^(\d{1,2})(?=[^\W\d_]{2}|[A-ZÄÖÜ“\"‘])")
_MATH = set("=∑∫∏√∂∇≤≥≠≈∈∉∀∃→←↔⇒⇔±×÷∞∝∼⊂⊆∪∩⊗⊕∥⋅")
_INITIAL = re.compile(r"[A-Z]\.\s")
_INITIALS = re.compile(r"([A-Z]\.[\s,-]*){2,}|[A-Z]\.,? (\(\d{4}|&|and\b)")
_BEFORE_INITIAL = re.compile(r"(,|&|\band|\b[A-Z]\.)$")
_AFFILIATION = re.compile(r"(?<=[^\W\d_])[\s^]*[\d⁰¹²³⁴-⁹*†‡§¶∗](\s*,?\s*[\d⁰¹²³⁴-⁹*†‡§¶∗])*")
_BETWEEN_NAMES = re.compile(r"[,;&]|\s(?:and|und|et|y)\s")
_NAME_PART = re.compile(
    r"[^\W\d_a-zß-ÿ][^\W\d_]*([.'’-]+[^\W\d_]*)*|d[aeiou]s?|van|von|den?|der|del|la|le|al|bin|ter|zu"
)
_ENDS = tuple(".!?:;…。！？")


@dataclass
class RawBlock:
    """Consecutive lines of one column that belong together."""

    page: int
    lines: list[Line]
    kind: str = "text"
    region: int = 0  # number of its region on the page: blocks of one region follow each other downwards
    ruled: bool = False  # a table of known cells: a line is a row, its cells apart by tabs (`grids.py`)

    @property
    def box(self) -> Box:
        return bounding_box(self.lines)

    @property
    def confidence(self) -> float:
        letters = sum(len(a.text) for a in self.lines) or 1
        return sum(a.confidence * len(a.text) for a in self.lines) / letters

    def as_line(self) -> Line:
        """The block as one line, for where its place and words matter but not its lines."""
        return Line(" ".join(a.text for a in self.lines), *self.box, self.lines[0].size, confidence=self.confidence)


@dataclass(frozen=True)
class Style:
    """What is ordinary in a document: the font size most letters have, and the boldness of most."""

    size: float
    bold: bool


def cut_blocks(page: int, regions: list[Region], height: float, style: Style) -> list[RawBlock]:
    """Blocks of one page in reading order, kinds set except those that need the other pages."""
    out: list[RawBlock] = []
    for number, region in enumerate(regions):
        if region.kind == RULED:
            out.append(RawBlock(page, region.lines, "table", number, ruled=True))
            continue
        for lines in _cut(region.lines):
            block = RawBlock(page, lines, region.kind or "text", number)
            if block.kind == "text":
                block.kind = _kind(block, style)
            out.append(block)
    _mark_labels(out, style)
    for _, column in itertools.groupby(out, key=lambda b: b.region):
        _mark_notes(list(column), style, height)
    return out


def _mark_notes(column: list[RawBlock], style: Style, height: float) -> None:
    """Small blocks that end a column under larger text are footnotes if the first begins with a note's mark.

    Small lists that fill their column or follow a heading are none: references are set small, too.
    """
    k = len(column)
    while k and column[k - 1].kind in ("text", "list", "equation") and _small(column[k - 1], style):
        k -= 1
    first = k
    if first == len(column) or column[first].box[1] < 0.4 * height or not _NOTE.match(column[first].lines[0].text):
        return
    above = column[first - 1] if first else None
    if above is None:
        apart = column[first].box[1] > 0.7 * height  # a strip of its own under several columns
    else:
        apart = above.kind not in ("heading", "title") and not _small(above, style)
    if apart:
        for block in column[first:]:
            block.kind = "footnote"
            # A raised mark stands tight on its note: "1See the ledger."
            text = _TIGHT.sub(r"\1 ", block.lines[0].text)
            block.lines[0] = replace(block.lines[0], text=text)


def _small(block: RawBlock, style: Style) -> bool:
    return block.lines[0].size < 0.93 * style.size


def _mark_labels(blocks: list[RawBlock], style: Style) -> None:
    """Scattered labels right above a figure's caption are the figure's, those above a table the table's."""
    for k, block in enumerate(blocks):
        if block.kind == "caption" and FIGURE.match(block.lines[0].text):
            kind, limit = "figure", k
        elif block.kind == "table":
            kind, limit = "table", 3
        else:
            continue
        for j in range(k - 1, max(-1, k - 1 - limit), -1):
            if blocks[j].region != block.region or not _is_label(blocks[j], blocks[j + 1], block, style):
                break
            blocks[j].kind = kind


def _is_label(block: RawBlock, below: RawBlock, caption: RawBlock, style: Style) -> bool:
    if block.kind in ("caption", "title", "footnote"):
        return False
    small = median(a.size for a in block.lines) < 0.96 * style.size
    short = max(a.x1 for a in block.lines) - min(a.x0 for a in block.lines) < 0.6 * (caption.box[2] - caption.box[0])
    scattered = any("\t" in a.text for a in block.lines)
    text = " ".join(a.text for a in block.lines)
    prose = longest_prose(text) >= 7 and text.rstrip().endswith(_ENDS)
    if caption.kind == "table":  # the head of its columns: right above, no wider, no sentence
        (x0, _, x1, y1), (left, _, right, _), size = block.box, caption.box, block.lines[0].size
        inside = x0 > left - 2 and x1 < right + 2 and below.box[1] - y1 < size
        return inside and len(block.lines) <= 2 and not text.rstrip().endswith(_ENDS)
    return (small or scattered or (short and block.kind != "heading")) and not (prose and not small)


class Sections:
    """Kinds that need the pages before: the document's title, and what stands under "References"."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.begun = self.listing = False

    def mark(self, blocks: list[RawBlock], more: bool = False) -> None:
        """Set kinds of the next page's blocks; ``more``: it has others than these."""
        if (blocks or more) and not self.begun:
            self.begun = True
            first = [b for b in blocks if b.kind == "heading"]
            biggest = max(first, key=lambda b: b.lines[0].size, default=None)
            if biggest is not None and biggest.lines[0].size > 1.15 * self.style.size and _is_alone(biggest, first):
                biggest.kind = "title"
                _unmark_authors(blocks[blocks.index(biggest) + 1 :], biggest.lines[0].size)
        for block in blocks:
            if len(block.lines) == 1 and _REFERENCES.fullmatch(block.lines[0].text):
                self.listing, block.kind = True, "heading"
            elif block.kind in ("heading", "title"):
                self.listing = False
            elif self.listing and block.kind in ("text", "list"):
                block.kind = "reference"


def _is_alone(title: RawBlock, headings: list[RawBlock]) -> bool:
    """Whether no other of the page's headings is as large, but for further lines of ``title``: else all are equals."""
    size, end = title.lines[0].size, title.box[3]
    for block in headings[headings.index(title) + 1 :]:
        if abs(block.lines[0].size - size) < 0.02 * size:
            if not goes_on(end, block):
                return False
            end = block.box[3]
    return True


def goes_on(end: float, block: RawBlock) -> bool:
    """Whether ``block`` begins so near under ``end`` as a further line of a heading would, or above it."""
    return block.box[1] - end < 1.5 * block.lines[0].size


def _unmark_authors(blocks: list[RawBlock], title: float) -> None:
    """Names that stand in bold or large print right under a title of this size are no headings."""
    for block in blocks:
        if block.kind == "heading" and _are_names(" ".join(a.text for a in block.lines)):
            block.kind = "text"
        elif block.kind != "heading" or abs(block.lines[0].size - title) > 0.02 * title:
            break


def _are_names(text: str) -> bool:
    """Several names, or one with an initial or with the mark of an affiliation."""
    marked = _AFFILIATION.sub(" ", text)
    names = [name.split() for name in _BETWEEN_NAMES.split(marked) if name.strip()]
    if not all(2 <= len(name) <= 6 and all(map(_NAME_PART.fullmatch, name)) for name in names):
        return False
    return len(names) > 1 or marked.strip() != text.strip() or any(_INITIAL.match(part + " ") for part in names[0])


def _cut(lines: list[Line]) -> list[list[Line]]:
    if not lines:
        return []
    # Cells beside each other need not stand level: what is less than a line is no step between lines.
    steps = [b.cy - a.cy for a, b in itertools.pairwise(lines) if 0.9 * a.size < b.cy - a.cy < 3 * a.size]
    step = median(steps) if steps else 1.2 * lines[0].size
    out: list[list[Line]] = [[lines[0]]]
    for before, line in itertools.pairwise(lines):
        if _breaks(out[-1], before, line, lines, step):
            out.append([line])
        else:
            out[-1].append(line)
    return out


def _breaks(block: list[Line], before: Line, line: Line, column: list[Line], step: float) -> bool:
    """Whether ``line`` begins a block of its own after ``before``, the last line of ``block``."""
    size = max(before.size, line.size)
    if _one_heading(before, line, column):
        return False
    table_before, table = "\t" in before.text, "\t" in line.text
    if table and table_before:
        return line.cy - before.cy > 2.5 * step
    apart = line.cy - before.cy
    if not before.text.rstrip().endswith(_ENDS) and longest_prose(before.text) > 2:
        # In mid-sentence: a tall symbol moves a line's middle, and its upper or lower side, but hardly all three.
        apart = min(apart, line.y0 - before.y0, line.y1 - before.y1)
    if apart > max(1.28 * step, 1.05 * size) and apart > 1.28 * _step(block, step):
        return True
    if line.cy - before.cy > 1.5 * size and before.width < 15 * size and not line.text[:1].islower():
        return True  # few short lines, all far apart: each is a paragraph of its own
    if abs(before.size - line.size) > 0.12 * size and min(len(before.text), len(line.text)) > 2:
        return True
    if before.bold != line.bold and not (table or table_before):
        return True
    if table != table_before:
        return not (len(block) == 1 and BULLET.match(before.text))
    if BULLET.match(line.text) and not _flows(before, line, column):
        return True
    left, right = min(a.x0 for a in block), max(a.x1 for a in column)
    width = max(1.0, right - min(a.x0 for a in column))
    ended = before.text.rstrip().endswith(_ENDS) or before.x1 < right - 0.12 * width
    if line.x0 > left + 0.8 * size and abs(before.x0 - left) < 0.5 * size:
        hanging = len(block) == 1 or _hangs(block, line)
        starts = not line.text[:1].islower()
        if not hanging:
            return starts or ended
        # The second line of a block decides between a hanging indent and a new paragraph.
        return ended and starts and not BULLET.match(block[0].text) and not _is_hanging(column)
    if line.x0 < before.x0 - 0.8 * size and len(block) > 1 and _hangs(block, before):
        return True  # back to the margin after hanging lines: the next entry
    return before.x1 < right - 0.2 * width and before.text.rstrip().endswith(_ENDS) and line.text[:1].isupper()


def _one_heading(before: Line, line: Line, column: list[Line]) -> bool:
    """Two lines of one title or heading: of the same looks, larger than the column's text, and tight.

    Under a line aligned left a further one belongs to it only if its first word found no room up there, since
    headings of two levels may look alike. A section's number begins a heading of its own.
    """
    size = before.size
    if abs(line.size - size) > 0.04 * size or before.bold != line.bold or "\t" in before.text + line.text:
        return False
    if size < 1.1 * median(a.size for a in column) or not 0 < line.cy - before.cy < 1.5 * size:
        return False
    if _SECTION.match(line.text) or BULLET.match(line.text):
        return False
    if abs((before.x0 + before.x1) - (line.x0 + line.x1)) < size and abs(before.x0 - line.x0) > 0.3 * size:
        return True  # centred
    hanging = bool(_SECTION.match(before.text)) and 0 < line.x0 - before.x0 < 4 * size
    if abs(before.x0 - line.x0) > 0.3 * size and not hanging:
        return False
    word = line.text.split()[0]
    room = max(a.x1 for a in column) - before.x1
    return line.text[:1].islower() or room < 0.45 * size * (len(word) + 1) + 0.3 * size


def _step(block: list[Line], step: float) -> float:
    """Line distance within the block, once it has one."""
    return block[-1].cy - block[-2].cy if len(block) > 1 else step


def _hangs(block: list[Line], line: Line) -> bool:
    """``line`` starts where the block's second and further lines start, right of its first."""
    return (
        len(block) > 1 and block[1].x0 > block[0].x0 + 0.5 * line.size and abs(line.x0 - block[1].x0) < 0.5 * line.size
    )


def _is_hanging(column: list[Line]) -> bool:
    """Whether the column's paragraphs begin at its margin and go on indented, as lists of references do.

    Told by lines that surely go on, since they begin with a small letter: where most of those are indented, and
    some stand under a line at the margin.
    """
    left = min(a.x0 for a in column)
    inner = [a.x0 > left + 0.8 * a.size for a in column]
    sure = [k for k in range(1, len(column)) if column[k].text[:1].islower()]
    under = sum(inner[k] and not inner[k - 1] for k in sure)
    return under > 1 and sum(inner[k] for k in sure) > 0.8 * len(sure)


def _flows(before: Line, line: Line, column: list[Line]) -> bool:
    """A line that only looks like a list item: "... in section\\n2. It" or "a dash -\\n- within"."""
    right = max(a.x1 for a in column)
    full = before.x1 > right - 2 * before.size
    initials = _INITIALS.match(line.text) or (full and _INITIAL.match(line.text))
    if initials and _BEFORE_INITIAL.search(before.text.rstrip()):
        return True  # a name: "Stouffer, R. J., & Taylor,\nK. E. (2016)"
    return full and abs(line.x0 - before.x0) < 0.3 * line.size and not before.text.rstrip().endswith(_ENDS)


def _kind(block: RawBlock, style: Style) -> str:
    lines = block.lines
    text = " ".join(a.text for a in lines)
    if sum("\t" in a.text for a in lines) >= max(2, 0.6 * len(lines)):
        return "table"
    if CAPTION.match(text) and (len(text) < 400 or lines[0].size < style.size):
        return "caption"
    larger = lines[0].size > 1.08 * style.size
    heavy = all(a.bold for a in lines) and not style.bold
    words = len(text.split())
    if (larger or heavy) and len(lines) <= 4 and words <= 30 and not text.rstrip().endswith((".", ",", ";")):
        letters = sum(ch.isalpha() for ch in text)
        if letters >= 0.5 * len(text.replace(" ", "")):
            return "heading"
    if BULLET.match(text):
        return "list"
    symbols = sum(ch in _MATH for ch in text)
    if symbols and len(lines) <= 4 and words <= 40 and longest_prose(text) < 4:
        return "equation"
    return "text"


def longest_prose(text: str) -> int:
    """Length of the longest run of ordinary words."""
    best = run = 0
    for word in text.split():
        run = run + 1 if len(word) > 2 and word.strip(".,;:()").isalpha() else 0
        best = max(best, run)
    return best
