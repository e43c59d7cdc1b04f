"""Running heads, feet and page numbers: what a page carries for the book, not for the reader of the text.

A line is furniture if it stands at the edge of the page *and* recurs at that place on other pages (digits
compared as digits), or carries a number that counts with the pages. A page that the file holds twice agrees
with itself in everything and so tells nothing (``_Copies``); of what recurs on one other page only, the numbers
must agree too or count with the pages, and it must be parted from the text.

Where no other page can tell, several independent witnesses must agree (``_witnesses``): the row stands at the
very edge, is no larger than the text, and at least four of these hold, or two or three of them and a layout
model's label: it is parted from the text by a gap; by a rule as wide as the text; it is set smaller; a page
number stands at its end; it names a periodical's data (volume, ISSN, address of a site); the text beside it
begins or ends in mid-sentence, so that it cannot be that text's title; it stands in a corner. Titles,
section headings and the first line of a letter have one or two of them.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import median
from typing import Any

from pdf2txt.drawings import Drawings
from pdf2txt.order import row_groups
from pdf2txt.schema import Box
from pdf2txt.spans import Line, bounding_box, join_row

_ROWS = 5  # so many rows at each end of a page are looked at,
_SMALL_ROWS = 12  # and more while they are set smaller than the page's text: a foot of legal notes
_LEVEL = 0.012  # rows stand level on two pages if they differ by less than this share of the page height
_OUTER = 2  # up to this rank a row is at the outer end
_LOOKED_AT = 8  # so many of the pages that may agree
_RUN, _SHARED = 5, 0.6  # pages are copies if they share so much of their runs of so many letters
_PARTED, _PARTED_LINES = 0.35, 1.35  # free height, and step in those of the lines beside it, of a row apart
_SMALLER = 0.94  # small print is set in less than this share of the text's size
_LARGER = 1.15  # a row larger than the page's usual line by more than this factor is a title
_ZONE = 0.17  # and only within this share of the page height from its edge,
_ZONE_POINTS = 60.0  # or within these points on small pages
# What archives stamp on the edge of every page they hand out, one page or many.
_STAMP = re.compile(
    r"(download(ed)? (date|from|by|on|at)\b|this content downloaded|authorized licensed use"
    r"|printed (from|by|on)\b|digiti[sz]ed by\b)",
    re.I,
)
_SHORT = 2  # a document of so many pages or fewer is too short for recurrence: there a layout model may be asked
_BLOCK_ROWS = 3  # a head of more rows is text
_INNER = 99  # block of the rows that nothing parts from the text
_SETS_OFF = {"small", "ruled", "number", "periodical"}
# What heads and feet of periodicals name besides their title.
_PERIODICAL = re.compile(
    r"\b(e-?|p-?)?issn\b|\bdoi\b|https?:|\bwww\.|©|\(c\) ?\d{4}|\bvol(ume)?\b\.?\s*\d|\bno\.\s*\d|\bet al\b"
    r"|\bpage \d+ of \d+|\b(19|20)\d\d,? \d+\s*[:(,]|\d+\s*\(\d+\)|\d{2,}\s*[–-]\s*\d{2,}", re.I,
)  # fmt: skip
_PAGE = re.compile(r"\b(?:page|seite|p\.)\s*(\d{1,4})(?=\b|\s?of\b)", re.I)
_YEAR = re.compile(r"(1[6-9]|20)\d\d")
_NOTE = re.compile(r"[*∗†‡§¶]|\[?\d{1,3}[\])]?[\s\x02]*[A-Za-z]")
_NUMBER = re.compile(r"(page\s*)?[-–—|\s\[(]*(\d{1,4}|[ivxlc]{1,7})[-–—|\s\])]*(\s*(of|/|\|)\s*\d{1,4})?", re.I)


@dataclass
class PageLines:
    """Lines of one page before the reading order is known."""

    width: float
    height: float
    lines: list[Line]
    furniture: list[tuple[str, Line]] = field(default_factory=list)  # (kind, line): taken out of ``lines``
    drawn: Drawings = field(default_factory=Drawings)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row near the page's upper or lower edge: all that the other pages need to know of it.

    Numbers, strings and tuples of them only, so that it can be written to disk as JSON.
    """

    text: str
    top: bool
    rank: int  # 0: the outermost row
    away: float  # from the page's edge to the row's middle, points
    level: float  # rows of one text stand level if ``away`` differs by less, points
    gap: float  # free height between this row and the next one towards the page's middle, in its own heights
    alone: str  # what it is without any other page: "page-number", "header", "footer" or "" (no telling)
    number: int  # the page number at one of its ends, -1: none
    block: int  # rows of one block stand tight together; 0: the outermost block of the edge
    witnesses: tuple[str, ...]  # what speaks for the block being furniture, without any other page
    parts: tuple[int, ...]  # its lines, as indices into ``PageLines.lines``

    @classmethod
    def from_json(cls, values: list[Any]) -> Candidate:
        """From ``astuple`` gone through JSON."""
        return cls(*(tuple(v) if isinstance(v, list) else v for v in values))  # type: ignore[arg-type]

    @property
    def key(self) -> str:
        return re.sub(r"[\W_]+", "", re.sub(r"\d+|\b[ivxlc]+\b", "#", self.text.casefold()).replace("#", "0"))


Row = tuple[str, tuple[int, ...]]  # (kind, indices into ``PageLines.lines``)


Labels = list[tuple[Box, str, float]]  # a layout model's opinion of a page: (box in points, label, score 0..1)


def remove_furniture(pages: list[PageLines], labels: Callable[[int], Labels] | None = None) -> None:
    """Move running heads, feet and page numbers of ``pages`` (in order) from ``lines`` to ``furniture``.

    The steps in one: ``candidates`` of every page, ``decide`` for all, ``take`` from every page.

    Args:
        labels: what a layout model says of the page with this index; asked only where it can make a difference.
    """
    rows = [candidates(page) for page in pages]
    decided = decide(rows)
    asked = doubtful(rows, decided)
    for n, page in enumerate(pages):
        more = confirmed(page, asked[n], labels(n)) if asked[n] and labels is not None else []
        take(page, decided[n] + more)


def candidates(page: PageLines) -> list[Candidate]:
    """Rows of one page that may be furniture: a few at either edge."""
    flat = [(n, line) for n, line in enumerate(page.lines) if not line.turn]
    if not flat:
        return []
    index = {id(line): n for n, line in flat}
    zone = max(_ZONE * page.height, min(_ZONE_POINTS, 0.3 * page.height))
    size = _main_size([a for _, a in flat])
    out = []
    for top in (True, False):
        near = [a for _, a in flat if (a.y1 < zone if top else a.y0 > page.height - zone)]
        inner = not near
        if inner and not top:
            # The page ends early (a cut-out, a last page): its last row may still be its number.
            near = [max((a for _, a in flat), key=lambda a: a.y1)]
            near = [a for _, a in flat if a.cy > near[0].y0]
        ordered = row_groups(near)
        if not top:
            ordered.reverse()
        rows: list[tuple[Line, list[Line], float]] = []
        for rank, parts in enumerate(ordered[:_SMALL_ROWS]):
            row = join_row(parts)
            if rank >= _ROWS and row.size > _SMALLER * size:
                break
            if top:
                gap = min((a.y0 for _, a in flat if a.cy > row.y1), default=page.height) - row.y1
            else:
                gap = row.y0 - max((a.y1 for _, a in flat if a.cy < row.y0), default=0.0)
            rows.append((row, parts, gap / max(0.1, row.height)))
        alone = [_alone(row, parts, top, rank, page, inner) for rank, (row, parts, _) in enumerate(rows)]
        blocks = _blocks(rows, alone, top, page) if not inner else {}
        for rank, (row, parts, gap) in enumerate(rows):
            block, witnesses = blocks.get(rank, (_INNER, ()))
            out.append(
                Candidate(
                    row.text, top, rank, row.cy if top else page.height - row.cy, _LEVEL * page.height, gap,
                    alone[rank], _number(parts), block, witnesses, tuple(index[id(a)] for a in parts),
                )
            )  # fmt: skip
    return out


def decide(pages: list[list[Candidate]]) -> list[list[Row]]:
    """For every page (in order) the rows to take, from the candidates of all."""
    groups: dict[tuple[bool, str], list[_Placed]] = defaultdict(list)
    for number, page in enumerate(pages):
        for c in page:
            if c.key:
                groups[c.top, c.key].append((number, c))
    found: list[_Found] = []
    deeper: list[_Found] = []
    needed = _needed(len(pages))
    copies = _Copies(pages)
    for (top, key), group in groups.items():
        if set(key) == {"0"}:
            found += [("page-number", placed, True) for placed in _counting(group)]
            continue
        same = _Levels(group)
        for placed in group:
            number, c = placed
            others: list[_Placed] = []
            for n, o in same.others(placed, _LOOKED_AT).items():
                if not copies.both(number, n):
                    others.append((n, o))
                if len(others) > 1:
                    break
            if len(others) == 1 and not _in_step(c, others[0][1], others[0][0] - number):
                continue
            if len(others) >= needed:
                outer = same.edge(placed)
                (found if outer else deeper).append(("header" if top else "footer", placed, len(others) > 1))
    found += [(kind, placed, True) for kind, placed in _numbered(pages)]
    found += _behind(found, deeper, pages)
    taken: list[dict[tuple[int, ...], str]] = [{} for _ in pages]
    for kind, (number, c) in _apart(found, pages):
        taken[number].setdefault(c.parts, kind)
    for number, page in enumerate(pages):
        for c in page:
            if c.alone:
                taken[number].setdefault(c.parts, c.alone)
        for c in _outermost(page, taken[number], lambda c: _enough(c.witnesses, False)):
            taken[number].setdefault(c.parts, "header" if c.top else "footer")
    return [[(kind, parts) for parts, kind in rows.items()] for rows in taken]


def doubtful(pages: list[list[Candidate]], decided: list[list[Row]]) -> list[list[Row]]:
    """For every page the rows that a layout model's label would prove furniture; none in longer documents."""
    if len(pages) > _SHORT:
        return [[] for _ in pages]
    out = []
    for page, rows in zip(pages, decided, strict=True):
        taken = {parts: kind for kind, parts in rows}
        found = _outermost(page, taken, lambda c: _enough(c.witnesses, True))
        out.append([("header" if c.top else "footer", c.parts) for c in found if c.parts not in taken])
    return out


def confirmed(page: PageLines, rows: list[Row], labels: Labels) -> list[Row]:
    """Those of ``rows`` that the label of their kind covers by half of their width or more."""
    out = []
    for kind, parts in rows:
        row = join_row([page.lines[n] for n in parts])
        spans = sorted(
            (max(box[0], row.x0), min(box[2], row.x1))
            for box, name, score in labels
            if name == kind and score >= 0.5 and box[1] - 2 <= row.cy <= box[3] + 2
        )
        covered, at = 0.0, row.x0
        for low, high in spans:
            covered += max(0.0, high - max(low, at))
            at = max(at, high)
        whole = covered >= 0.5 * min(row.width, sum(page.lines[n].width for n in parts))
        # Of a name and a page number far apart, the model may have seen the number only.
        ends = (row.x0, row.x1)
        if whole or any(
            high - low < 30 and min(abs(low - e) + abs(high - e) for e in ends) < 40 for low, high in spans
        ):
            out.append((kind, parts))
    return out


def _outermost(
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


def _enough(witnesses: tuple[str, ...], label: bool) -> bool:
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


def _blocks(
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
        loose = 0 < usual < steps[rank] / 1.35 and row.height < 1.2 * rows[rank + 1][0].height
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
    size = _main_size(rest)
    if max(a.size for a in lines) > _LARGER * size:
        return ("larger",)
    first = block[0][0].text.strip()
    if not top and _NOTE.match(block[-1][0].text.strip()) and _number(block[-1][1]) < 0:
        return ()  # a footnote
    seen = []
    if apart:
        seen.append("apart")
    if ruled:
        seen.append("ruled")
    if max(a.size for a in lines) < _SMALLER * size:
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


def _main_size(lines: list[Line]) -> float:
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[round(line.size * 2) / 2] += len(line.text)
    return sizes.most_common(1)[0][0]


def _number(parts: list[Line]) -> int:
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
    number = _number(parts)
    return number >= 0 and (len(parts) > 1 or number >= 100 or bool(_PAGE.search(row.text)))


def _numbered(pages: list[list[Candidate]]) -> list[tuple[str, _Placed]]:
    """Heads and feet whose words differ from page to page, but whose page number counts on.

    On two other pages at least a row level with it must carry the number that belongs there.
    """
    ahead: dict[tuple[bool, int], list[_Placed]] = defaultdict(list)
    for number, page in enumerate(pages):
        for c in page:
            if c.number >= 0 and c.rank <= _OUTER:
                ahead[c.top, c.number - number].append((number, c))
    out = []
    for (top, _), group in ahead.items():
        same = _Levels(group)
        for placed in group:
            if set(placed[1].key) != {"0"} and same.on_other_pages(placed, 2):
                out.append(("header" if top else "footer", placed))
    return out


def take(page: PageLines, rows: list[Row]) -> None:
    """Move ``rows`` of ``page``, and text that runs up its margin, from ``lines`` to ``furniture``."""
    gone: set[int] = set()
    for kind, parts in rows:
        if not gone & set(parts):  # taken already: on a very low page a row may be near both edges
            gone |= set(parts)
            page.furniture.append((kind, join_row([page.lines[n] for n in parts])))
    for n, line in enumerate(page.lines):
        # Text that runs up the margin of an upright page (an archive's stamp) belongs to no paragraph.
        if line.turn and n not in gone and (line.x1 < 0.09 * page.width or line.x0 > 0.91 * page.width):
            gone.add(n)
            page.furniture.append(("header", line))
    page.lines = [a for n, a in enumerate(page.lines) if n not in gone]


_Placed = tuple[int, Candidate]  # (index of the page, row)
_Found = tuple[str, _Placed, bool]  # (kind, row, whether more than one other page agrees)


class _Copies:
    """Which pages are the same one, read twice: alike in the rows, too, that no gap parts from the text.

    They are compared by runs of letters, of which an error of OCR changes a few, in rows of the same numbers
    (forms may differ in nothing else). Only some of what was compared is remembered, so that memory does not
    grow with the pages.
    """

    def __init__(self, pages: list[list[Candidate]]) -> None:
        self.pages = pages
        self.runs = lru_cache(512)(self._runs)
        self.same = lru_cache(8192)(self._same)

    def both(self, one: int, other: int) -> bool:
        """Whether the pages with these indices are copies."""
        return self.same(min(one, other), max(one, other))

    def _same(self, one: int, other: int) -> bool:
        # At either edge: a foot of many lines of small print is the same on all pages, but then their tops differ.
        edges = [(a, b) for a, b in zip(self.runs(one), self.runs(other), strict=True) if a or b]
        return bool(edges) and all(len(a & b) >= _SHARED * max(len(a), len(b)) for a, b in edges)

    def _runs(self, number: int) -> tuple[frozenset[str], frozenset[str]]:
        """Runs of letters, each with the numbers of its row, at the upper and at the lower edge."""
        out: tuple[set[str], set[str]] = set(), set()
        for c in self.pages[number]:
            if c.block == _INNER:
                key, digits = c.key, re.sub(r"\D", "", c.text)
                out[not c.top].update(f"{key[k : k + _RUN]} {digits}" for k in range(len(key) - _RUN + 1))
        return frozenset(out[0]), frozenset(out[1])


def _in_step(one: Candidate, other: Candidate, ahead: int) -> bool:
    """Whether all numbers in two rows are the same or differ by the pages between them (``ahead``)."""
    numbers = [[int(n) for n in re.findall(r"\d+", c.text)] for c in (one, other)]
    return len(numbers[0]) == len(numbers[1]) and all(b - a in (0, ahead) for a, b in zip(*numbers, strict=True))


def _apart(found: list[_Found], pages: list[list[Candidate]]) -> list[tuple[str, _Placed]]:
    """Of the rows found at one edge of a page, those up to the last that a gap parts from the text.

    Where a head stands tight on the text no gap tells them apart: then only the outermost row goes, and only
    if several pages agree in it or its looks or words set it off. For a row that one other page has, the gap
    must be wider than between the lines of the text. Rows
    deeper in the page that look alike (the same line in two forms) are left in place.
    """
    edges: dict[tuple[int, bool], list[_Found]] = defaultdict(list)
    for one in found:
        number, c = one[1]
        edges[number, c.top].append(one)
    out = []
    for group in edges.values():
        group.sort(key=lambda f: f[1][1].rank)
        sure = [several or bool(_SETS_OFF & set(placed[1].witnesses)) for _, placed, several in group]
        last = 0 if sure[0] else -1
        for (_, (number, c), _), enough in zip(group, sure, strict=True):
            if c.gap > _PARTED and (enough or _loose(c, pages[number])):
                last = max(last, c.rank)
        out += [(kind, placed) for kind, placed, _ in group if placed[1].rank <= last]
    return out


def _behind(found: list[_Found], deeper: list[_Found], pages: list[list[Candidate]]) -> list[_Found]:
    """Of rows that recur ``deeper`` in the page, those with nothing but furniture between them and the edge."""
    ranks: dict[tuple[int, bool], set[int]] = defaultdict(set)
    for _, (number, c), _ in found:
        ranks[number, c.top].add(c.rank)
    for number in {number for _, (number, _), _ in deeper}:
        for c in pages[number]:
            if c.alone:
                ranks[number, c.top].add(c.rank)
    out = []
    for one in sorted(deeper, key=lambda f: f[1][1].rank):
        number, c = one[1]
        known = ranks[number, c.top]
        if all(rank in known for rank in range(c.rank)):
            known.add(c.rank)
            out.append(one)
    return out


def _loose(c: Candidate, page: list[Candidate]) -> bool:
    """Whether a row stands farther from the next one than the rows beyond from each other."""
    inner = [o.gap for o in page if o.top == c.top and o.rank > c.rank]
    return len(inner) < 2 or c.gap + 1 > _PARTED_LINES * (median(inner) + 1)


def _needed(pages: int) -> int:
    """Other pages on which a line must recur."""
    return 1 if pages <= 6 else 2


class _Levels:
    """Candidates of one text and edge by their distance from the page's edge: who stands level with whom.

    A page has at most ``_ROWS`` of them, so that looking past those of one's own page takes constant time.
    """

    def __init__(self, group: list[_Placed]) -> None:
        self.sorted = sorted(group, key=lambda placed: placed[1].away)
        self.distances = [c.away for _, c in self.sorted]
        self.outer = [0, *itertools.accumulate(int(c.rank <= _OUTER) for _, c in self.sorted)]
        self.by_page: dict[int, list[Candidate]] = defaultdict(list)
        for number, c in group:
            self.by_page[number].append(c)

    def _window(self, c: Candidate) -> tuple[float, float, int, int]:
        """Distances level with ``c``, and the slice of ``self.sorted`` that stands there."""
        low, high = c.away - c.level, c.away + c.level
        return low, high, bisect_right(self.distances, low), bisect_left(self.distances, high)

    def others(self, placed: _Placed, limit: int) -> dict[int, Candidate]:
        """Other pages with a row level with ``placed``, and that row; ``limit`` of them at most."""
        number, c = placed
        _, _, first, last = self._window(c)
        seen: dict[int, Candidate] = {}
        for k in range(first, last):
            other, row = self.sorted[k]
            if other != number:
                seen.setdefault(other, row)
                if len(seen) >= limit:
                    break
        return seen

    def on_other_pages(self, placed: _Placed, needed: int) -> bool:
        """Level with ``placed`` on ``needed`` other pages or more."""
        return len(self.others(placed, needed)) >= needed

    def edge(self, placed: _Placed) -> bool:
        """At the outer end on most pages where it recurs (body lines may recur, but not as the outermost)."""
        number, c = placed
        low, high, first, last = self._window(c)
        own = [o for o in self.by_page[number] if o is not c and low < o.away < high]
        outer = self.outer[last] - self.outer[first] - sum(o.rank <= _OUTER for o in own)
        return outer > (last - first - len(own)) // 2


def _counting(group: list[_Placed]) -> list[_Placed]:
    """Those that are page numbers: another page's number at the same place is as much higher as that page is."""
    ahead: dict[int, list[_Placed]] = defaultdict(list)  # number less page
    for number, c in group:
        if (value := _value(c.text)) is not None:
            ahead[value - number].append((number, c))
    out = []
    for members in ahead.values():
        same = _Levels(members)
        out += [placed for placed in members if same.on_other_pages(placed, 1)]
    return out


def _value(text: str) -> int | None:
    match = _NUMBER.fullmatch(text.strip())
    if not match:
        return None
    number = match.group(2).lower()
    if number.isdigit():
        return int(number)
    values = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
    digits = [values[d] for d in number]
    return sum(-d if any(e > d for e in digits[k + 1 : k + 2]) else d for k, d in enumerate(digits))


def _alone(row: Line, parts: list[Line], top: bool, rank: int, page: PageLines, inner: bool) -> str:
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
