"""Running heads, feet and page numbers: what a page carries for the book, not for the reader of the text.

A line is furniture if it stands at the edge of the page *and* recurs at that place on other pages (digits
compared as digits). One page alone proves nothing, so a single page loses only what cannot be body text: a
bare page number apart from the text, a foot that holds one, an archive's stamp.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median

from pdf2txt.drawings import Drawings
from pdf2txt.order import row_groups
from pdf2txt.spans import Line, join_row

_ROWS = 5  # so many rows at each end of a page are looked at
_LEVEL = 0.012  # rows stand level on two pages if they differ by less than this share of the page height
_OUTER = 2  # up to this rank a row is at the outer end
_LARGER = 1.15  # a row larger than the page's usual line by more than this factor is a title
_ZONE = 0.17  # and only within this share of the page height from its edge,
_ZONE_POINTS = 60.0  # or within these points on small pages
# What archives stamp on the edge of every page they hand out, one page or many.
_STAMP = re.compile(
    r"(download(ed)? (date|from|by|on|at)\b|this content downloaded|authorized licensed use"
    r"|printed (from|by|on)\b|digiti[sz]ed by\b)",
    re.I,
)
_NUMBER = re.compile(r"(page\s+)?[-–—|\s\[(]*(\d{1,4}|[ivxlc]{1,7})[-–—|\s\])]*(\s*(of|/|\|)\s*\d{1,4})?", re.I)


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

    Numbers and strings only, so that it can be written to disk as JSON (``Candidate(*astuple(c))`` reads it back).
    """

    text: str
    top: bool
    rank: int  # 0: the outermost row
    away: float  # from the page's edge to the row's middle, points
    level: float  # rows of one text stand level if ``away`` differs by less, points
    gap: float  # free height between this row and the next one towards the page's middle, in its own heights
    alone: str  # what it is without any other page: "page-number", "header", "footer" or "" (no telling)
    parts: tuple[int, ...]  # its lines, as indices into ``PageLines.lines``

    @property
    def key(self) -> str:
        return re.sub(r"[\W_]+", "", re.sub(r"\d+|\b[ivxlc]+\b", "#", self.text.casefold()).replace("#", "0"))


Row = tuple[str, tuple[int, ...]]  # (kind, indices into ``PageLines.lines``)


def remove_furniture(pages: list[PageLines]) -> None:
    """Move running heads, feet and page numbers of ``pages`` (in order) from ``lines`` to ``furniture``.

    The three steps in one: ``candidates`` of every page, ``decide`` for all, ``take`` from every page.
    """
    for page, found in zip(pages, decide([candidates(page) for page in pages]), strict=True):
        take(page, found)


def candidates(page: PageLines) -> list[Candidate]:
    """Rows of one page that may be furniture: a few at either edge."""
    flat = [(n, line) for n, line in enumerate(page.lines) if not line.turn]
    index = {id(line): n for n, line in flat}
    zone = max(_ZONE * page.height, min(_ZONE_POINTS, 0.3 * page.height))
    out = []
    for top in (True, False):
        near = [a for _, a in flat if (a.y1 < zone if top else a.y0 > page.height - zone)]
        ordered = row_groups(near)
        if not top:
            ordered.reverse()
        for rank, parts in enumerate(ordered[:_ROWS]):
            row = join_row(parts)
            if top:
                gap = min((a.y0 for _, a in flat if a.cy > row.y1), default=page.height) - row.y1
            else:
                gap = row.y0 - max((a.y1 for _, a in flat if a.cy < row.y0), default=0.0)
            away = row.cy if top else page.height - row.cy
            out.append(
                Candidate(
                    row.text, top, rank, away, _LEVEL * page.height, gap / max(0.1, row.height),
                    _alone(row, parts, top, rank, page), tuple(index[id(a)] for a in parts),
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
    found: list[tuple[str, _Placed]] = []
    for (top, key), group in groups.items():
        if set(key) == {"0"}:
            found += [("page-number", placed) for placed in _counting(group)]
            continue
        same = _Levels(group)
        for placed in group:
            if same.on_other_pages(placed, _needed(len(pages))) and same.edge(placed):
                found.append(("header" if top else "footer", placed))
    taken: list[dict[tuple[int, ...], str]] = [{} for _ in pages]
    for kind, (number, c) in _apart(found):
        taken[number].setdefault(c.parts, kind)
    for number, page in enumerate(pages):
        for c in page:
            if c.alone:
                taken[number].setdefault(c.parts, c.alone)
    return [[(kind, parts) for parts, kind in rows.items()] for rows in taken]


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


def _apart(found: list[tuple[str, _Placed]]) -> list[tuple[str, _Placed]]:
    """Of the rows found at one edge of a page, those up to the last that a gap parts from the text.

    Where a head stands tight on the text no gap tells them apart: then only the outermost row goes. Rows
    deeper in the page that look alike (the same line in two forms) are left in place.
    """
    edges: dict[tuple[int, bool], list[tuple[str, _Placed]]] = defaultdict(list)
    for kind, (number, c) in found:
        edges[number, c.top].append((kind, (number, c)))
    out = []
    for group in edges.values():
        group.sort(key=lambda f: f[1][1].rank)
        last = max((c.rank for _, (_, c) in group if c.gap > 0.35), default=0)
        out += [f for f in group if f[1][1].rank <= last]
    return out


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

    def on_other_pages(self, placed: _Placed, needed: int) -> bool:
        """Level with ``placed`` on ``needed`` other pages or more."""
        number, c = placed
        _, _, first, last = self._window(c)
        seen: set[int] = set()
        for k in range(first, last):
            if self.sorted[k][0] != number:
                seen.add(self.sorted[k][0])
                if len(seen) >= needed:
                    return True
        return False

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


def _alone(row: Line, parts: list[Line], top: bool, rank: int, page: PageLines) -> str:
    """What a row at the very edge is without any other page: "page-number", "header" or "" (keep it)."""
    text = row.text.strip()
    if rank < 2 and _STAMP.match(text):
        return "header" if top else "footer"
    if rank:
        return ""
    rest = [a for a in page.lines if a not in parts and not a.turn]
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
        return "page-number"
    # A short foot beside the page number, far from everything else. No such rule for heads: alone on its
    # page, "ANNUAL REPORT    2023" is a title.
    if not top and gap > 3 * row.height and len(parts) > 1 and len(text) <= 60:
        ends = (min(parts, key=lambda a: a.x0), max(parts, key=lambda a: a.x0))
        if any((m := _NUMBER.fullmatch(a.text.strip())) and m.group(2).isdigit() for a in ends):
            return "footer"
    return ""
