"""Whether a row at a page's edge is furniture by itself, without any other page.

Several independent witnesses must agree: the row stands at the very edge, is no larger than the text, and at least
four of these hold, or two or three of them and a layout model's label: it is parted from the text by a gap; by a rule
as wide as the text; it is set smaller; a page number stands at its end; it names a periodical's data (volume, ISSN,
address of a site); the text beside it begins or ends in mid-sentence, so that it cannot be that text's title; it
stands in a corner. Titles, section headings and the first line of a letter have one or two of them.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable
from statistics import median

from pdf2txt.edges import Candidate, PageLines
from pdf2txt.spans import Line, bounding_box

_LARGER = 1.15  # a row larger than the page's usual line by more than this factor is a title
SMALLER = 0.94  # small print is set in less than this share of the text's size
# What archives stamp on the edge of every page they hand out, one page or many.
_STAMP = re.compile(
    r"(download(ed)? (date|from|by|on|at)\b|this content downloaded|authorized licensed use"
    r"|printed (from|by|on)\b|digiti[sz]ed by\b)",
    re.I,
)
PARTED_LINES = 1.35  # step from a row apart to the next, in those of the lines beside it
_SENTENCE = 6  # a line of fewer words may be any name
_SENTENCE_END = re.compile(r"[.!?:;…][\"'”’»)\]]*\s*$")
_BLOCK_ROWS = 3  # a head of more rows is text
# What heads and feet of periodicals name besides their title.
_PERIODICAL = re.compile(
    r"\b(e-?|p-?)?issn\b|\bdoi\b|https?:|\bwww\.|©|\(c\) ?\d{4}|\bvol(ume)?\b\.?\s*\d|\bno\.\s*\d|\bet al\b"
    r"|\bpage \d+ of \d+|\b(19|20)\d\d,? \d+\s*[:(,]|\d+\s*\(\d+\)|\d{2,}\s*[–-]\s*\d{2,}", re.I,
)  # fmt: skip
_PAGE = re.compile(r"\b(?:page|seite|p\.)\s*(\d{1,4})(?=\b|\s?of\b)", re.I)
_YEAR = re.compile(r"(1[6-9]|20)\d\d")
_NOTE = re.compile(r"[*∗†‡§¶]|\[?\d{1,3}[\])]?[\s\x02]*[A-Za-z]")
_NUMBER = re.compile(r"(page\s*)?[-–—|\s\[(]*(\d{1,4}|[ivxlc]{1,7})[-–—|\s\])]*(\s*(of|/|\|)\s*\d{1,4})?", re.I)


def outermost(
    page: list[Candidate], taken: dict[tuple[int, ...], str], proved: Callable[[Candidate], bool]
) -> list[Candidate]:
    """Rows of the outer blocks that are ``proved``; an inner block only where all outside of it is furniture."""
    out = []
    for top in (True, False):
        for block in (0, 1):
            rows = [c for c in page if c.top == top and c.block == block]
            if not all(c.parts in taken or proved(c) for c in rows):
                break
            out += rows
    return out


def is_enough(witnesses: tuple[str, ...], label: bool) -> bool:
    """Whether so many agree; ``label``: a layout model's label is (or would be) one of them.

    Looks alone never do (a gap, small print, a corner): the words must speak for it as well.
    """
    seen = set(witnesses) - {"prose"}
    if not seen or "larger" in seen:
        return False
    words = seen & {"number", "periodical", "continued"}
    if label:
        numbered = "number" in seen and "prose" in witnesses  # on a form or an invoice a number may be any
        return len(seen) >= 3 or (len(seen) == 2 and (numbered or bool(seen & {"small", "periodical", "continued"})))
    return (len(seen) >= 4 and bool(words)) or {"number", "continued", "apart"} <= seen


def blocks_of(
    rows: list[tuple[Line, list[Line], float]], alone: list[str], top: bool, page: PageLines
) -> dict[int, tuple[int, tuple[str, ...]]]:
    """Rank of a row -> (its block counted from the edge, that block's witnesses), of one edge."""
    out: dict[int, tuple[int, tuple[str, ...]]] = {}
    begin = number = 0
    beside = False
    steps = [abs(b[0].cy - a[0].cy) for a, b in itertools.pairwise(rows)]
    for rank, (row, _, gap) in enumerate(rows):
        ruled = _rule(row, rows, rank, top, page)
        # Printed books part their heads by half a line only: wider than the lines of the text beside it.
        usual = median(steps[rank + 1 :]) if len(steps) - rank > 2 else 0.0
        loose = 0 < usual < steps[rank] / PARTED_LINES and row.height < 1.2 * rows[rank + 1][0].height
        if not (gap > 0.8 or loose or ruled or alone[rank]):
            continue
        if number > 2 or rank + 1 - begin > _BLOCK_ROWS:
            break
        block = rows[begin : rank + 1]
        beside = beside or any(a == "page-number" for a in alone[begin : rank + 1])
        seen = _witnesses(block, gap > 1 or loose, ruled, beside, top, page)
        for k in range(begin, rank + 1):
            out[k] = (number, seen)
        if not all(alone[k] == "page-number" for k in range(begin, rank + 1)) or gap > 0.8:
            number += 1
        begin = rank + 1
    return out


def _rule(row: Line, rows: list[tuple[Line, list[Line], float]], rank: int, top: bool, page: PageLines) -> bool:
    """A horizontal rule, as wide as the text, between the row and the next one inwards (a footnote's is shorter)."""
    x0, _, x1, _ = bounding_box(page.lines)
    if top:
        low, high = row.cy, row.y1 + 1.2 * row.height
        if rank + 1 < len(rows):
            high = min(high, rows[rank + 1][0].cy)
    else:
        low, high = row.y0 - 1.2 * row.height, row.cy
        if rank + 1 < len(rows):
            low = max(low, rows[rank + 1][0].cy)
    return any(
        right - left >= 0.6 * (x1 - x0) and low < (y0 + y1) / 2 < high for left, y0, right, y1 in page.drawn.rules
    )


def _witnesses(
    block: list[tuple[Line, list[Line], float]], apart: bool, ruled: bool, beside: bool, top: bool, page: PageLines
) -> tuple[str, ...]:
    """What speaks for a block of rows at the edge being furniture (see the module)."""
    lines = [a for _, parts, _ in block for a in parts]
    ids = {id(a) for a in lines}
    x0, y0, _, y1 = bounding_box(lines)
    rest = [a for a in page.lines if id(a) not in ids and not a.turn and (a.cy > y1 if top else a.cy < y0)]
    if not rest:
        return ()
    size = main_size(rest)
    if max(a.size for a in lines) > _LARGER * size:
        return ("larger",)
    first = block[0][0].text.strip()
    if not top and _NOTE.match(block[-1][0].text.strip()) and page_number(block[-1][1]) < 0:
        return ()  # a footnote
    seen = []
    if apart:
        seen.append("apart")
    if ruled:
        seen.append("ruled")
    if max(a.size for a in lines) < SMALLER * size:
        seen.append("small")
    if beside or any(_is_paged(row, parts) for row, parts, _ in block):
        seen.append("number")
    if any(_PERIODICAL.search(row.text) for row, _, _ in block):
        seen.append("periodical")
    if _continued(rest, size, top):
        seen.append("continued")
    if sum(len(a.text) for a in rest if len(a.text) > 45) > 0.7 * sum(len(a.text) for a in rest):
        seen.append("prose")
    left, right = min(a.x0 for a in rest), max(a.x1 for a in rest)
    if len(first) <= 40 and len(block) == 1 and x0 > left + 0.6 * (right - left):
        seen.append("corner")
    return tuple(seen)


def _continued(rest: list[Line], size: float, top: bool) -> bool:
    """The page's text begins (``top``) or ends in mid-sentence: it has no title, and no last line."""
    body = [a for a in rest if abs(a.size - size) < 0.1 * size and len(a.text) > 25]
    if not body:
        return False
    if top:
        edge = min(a.y0 for a in rest)
        near = [a for a in body if a.y0 < edge + 1.5 * size]
        return bool(near) and min(near, key=lambda a: a.x0).text.lstrip()[:1].islower()
    edge = max(a.y1 for a in rest)
    near = [a for a in body if a.y1 > edge - 1.5 * size]
    if not near:
        return False
    last = max(near, key=lambda a: a.x1).text.rstrip()
    return last[-1:].islower() or last[-1:] in ",-\x02"


def runs_on(parts: list[Line], top: bool, lines: list[Line]) -> bool:
    """Whether a row at the edge and the line next to it (of ``lines``) are lines of one paragraph.

    A head over a page that begins in mid-sentence may seem so, too: the upper line must be written like a sentence
    and reach the right margin, and both be set alike, no farther apart than the lines beyond.
    """
    if len(parts) > 1 or page_number(parts) >= 0:
        return False
    row = parts[0]
    column = [a for a in lines if a.x0 < row.x1 and a.x1 > row.x0]
    inwards = sorted((a for a in column if (a.cy > row.cy if top else a.cy < row.cy)), key=lambda a: abs(a.cy - row.cy))
    if len(inwards) < 2:
        return False
    upper, lower = (row, inwards[0]) if top else (inwards[0], row)
    words = upper.text.split()
    ordinary = sum(w[0].islower() for w in words)
    if len(words) < _SENTENCE or ordinary < 0.5 * len(words):
        return False
    if not (_SENTENCE_END.search(upper.text) or lower.text[:1].islower() or words[-1][0].islower()):
        return False
    left, right = min(a.x0 for a in inwards[:4]), max(a.x1 for a in inwards[:4])
    if upper.x1 < right - 0.15 * (right - left) or not _alike(upper, lower):
        return False
    steps = [abs(b.cy - a.cy) for a, b in itertools.pairwise([row, *inwards[:3]])]
    return steps[0] < PARTED_LINES * min(steps[1:])


def _alike(one: Line, other: Line) -> bool:
    return abs(one.size - other.size) < 0.06 * other.size and one.bold == other.bold


def main_size(lines: list[Line]) -> float:
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[round(line.size * 2) / 2] += len(line.text)
    return sizes.most_common(1)[0][0]


def page_number(parts: list[Line]) -> int:
    """The page number at one end of a row, -1 without one; a year is none."""
    ends = (min(parts, key=lambda a: a.x0), max(parts, key=lambda a: a.x1))
    words = [a.text.split() for a in ends]
    for text in (words[0][0], words[1][-1]) if words[0] and words[1] else ():
        match = _NUMBER.fullmatch(text)
        if match and match.group(2).isdigit() and not _YEAR.fullmatch(match.group(2)):
            return int(match.group(2))
    page = _PAGE.search(" ".join(a.text for a in parts))
    return int(page.group(1)) if page else -1


def _is_paged(row: Line, parts: list[Line]) -> bool:
    """A page number apart from the name beside it; one of a section is low, and its title follows at once."""
    number = page_number(parts)
    return number >= 0 and (len(parts) > 1 or number >= 100 or bool(_PAGE.search(row.text)))


def alone_is(row: Line, parts: list[Line], top: bool, rank: int, page: PageLines, inner: bool) -> str:
    """What a row at the very edge is without any other page: "page-number", "header" or "" (keep it).

    Args:
        inner: the row stands far from the page's edge, as its last one.
    """
    text = row.text.strip()
    if rank < 2 and not inner and _STAMP.match(text):
        return "header" if top else "footer"
    if rank:
        return ""
    gone = {id(a) for a in parts}
    rest = [a for a in page.lines if id(a) not in gone and not a.turn]
    if not rest:
        return ""
    if top:
        gap = min((a.y0 for a in rest if a.cy > row.cy), default=page.height) - row.y1
    else:
        gap = row.y0 - max((a.y1 for a in rest if a.cy < row.cy), default=0)
    if row.size > _LARGER * median(a.size for a in rest):
        return ""  # a title, even one that is a number
    number = _NUMBER.fullmatch(text)
    if number and number.group(2).isdigit() and gap > 0.4 * row.height:
        x0, _, x1, _ = bounding_box(rest)
        centred = abs((row.x0 + row.x1) - (x0 + x1)) < 0.04 * (x1 - x0)
        return "page-number" if not inner or (centred and gap > 1.2 * row.height) else ""
    if inner:
        return ""
    # A short foot beside the page number, far from everything else. No such rule for heads: alone on its
    # page, "ANNUAL REPORT    2023" is a title.
    if not top and gap > 3 * row.height and len(parts) > 1 and len(text) <= 60:
        ends = (min(parts, key=lambda a: a.x0), max(parts, key=lambda a: a.x0))
        if any((m := _NUMBER.fullmatch(a.text.strip())) and m.group(2).isdigit() for a in ends):
            return "footer"
    return ""


def value_of(text: str) -> int | None:
    match = _NUMBER.fullmatch(text.strip())
    if not match:
        return None
    number = match.group(2).lower()
    if number.isdigit():
        return int(number)
    values = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
    digits = [values[d] for d in number]
    return sum(-d if any(e > d for e in digits[k + 1 : k + 2]) else d for k, d in enumerate(digits))
