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


@dataclass
class _Candidate:
    page: int
    row: Line
    parts: list[Line]
    top: bool
    rank: int  # 0: the outermost row
    gap: float  # free height between this row and the next one towards the page's middle, points

    @property
    def key(self) -> str:
        return re.sub(r"[\W_]+", "", re.sub(r"\d+|\b[ivxlc]+\b", "#", self.row.text.casefold()).replace("#", "0"))


def remove_furniture(pages: list[PageLines]) -> None:
    """Move running heads, feet and page numbers of ``pages`` (in order) from ``lines`` to ``furniture``."""
    candidates = [c for number, page in enumerate(pages) for c in _candidates(number, page)]
    groups: dict[tuple[bool, str], list[_Candidate]] = defaultdict(list)
    for c in candidates:
        if c.key:
            groups[c.top, c.key].append(c)
    found: list[tuple[str, _Candidate]] = []
    for (top, key), group in groups.items():
        if set(key) == {"0"}:
            found += [("page-number", c) for c in _counting(group, pages)]
            continue
        same = _Levels(group, pages)
        for c in group:
            if same.on_other_pages(c, _needed(len(pages))) and same.edge(c):
                found.append(("header" if top else "footer", c))
    found = _apart(found)
    taken = {(c.page, id(c.row)) for _, c in found}
    for c in candidates:
        if (c.page, id(c.row)) not in taken and (kind := _alone(c, pages[c.page])):
            found.append((kind, c))
    _take(pages, found)


def _candidates(number: int, page: PageLines) -> list[_Candidate]:
    flat = [line for line in page.lines if not line.turn]
    zone = max(_ZONE * page.height, min(_ZONE_POINTS, 0.3 * page.height))
    out = []
    for top in (True, False):
        near = [a for a in flat if (a.y1 < zone if top else a.y0 > page.height - zone)]
        ordered = row_groups(near)
        if not top:
            ordered.reverse()
        for rank, parts in enumerate(ordered[:_ROWS]):
            row = join_row(parts)
            if top:
                gap = min((a.y0 for a in flat if a.cy > row.y1), default=page.height) - row.y1
            else:
                gap = row.y0 - max((a.y1 for a in flat if a.cy < row.y0), default=0.0)
            out.append(_Candidate(number, row, parts, top, rank, gap))
    return out


def _apart(found: list[tuple[str, _Candidate]]) -> list[tuple[str, _Candidate]]:
    """Of the rows found at one edge of a page, those up to the last that a gap parts from the text.

    Where a head stands tight on the text no gap tells them apart: then only the outermost row goes. Rows
    deeper in the page that look alike (the same line in two forms) are left in place.
    """
    edges: dict[tuple[int, bool], list[tuple[str, _Candidate]]] = defaultdict(list)
    for kind, c in found:
        edges[c.page, c.top].append((kind, c))
    out = []
    for group in edges.values():
        group.sort(key=lambda kc: kc[1].rank)
        last = max((c.rank for _, c in group if c.gap > 0.35 * c.row.height), default=0)
        out += [(kind, c) for kind, c in group if c.rank <= last]
    return out


def _needed(pages: int) -> int:
    """Other pages on which a line must recur."""
    return 1 if pages <= 6 else 2


class _Levels:
    """Candidates of one text and edge by their distance from the page's edge: who stands level with whom.

    A page has at most ``_ROWS`` of them, so that looking past those of one's own page takes constant time.
    """

    def __init__(self, group: list[_Candidate], pages: list[PageLines]) -> None:
        self.pages = pages
        self.sorted = sorted(group, key=self._distance)
        self.distances = [self._distance(c) for c in self.sorted]
        self.outer = [0, *itertools.accumulate(int(c.rank <= _OUTER) for c in self.sorted)]
        self.by_page: dict[int, list[_Candidate]] = defaultdict(list)
        for c in group:
            self.by_page[c.page].append(c)

    def _distance(self, c: _Candidate) -> float:
        return c.row.cy if c.top else self.pages[c.page].height - c.row.cy

    def _window(self, c: _Candidate) -> tuple[float, float, int, int]:
        """Distances level with ``c``, and the slice of ``self.sorted`` that stands there."""
        at, slack = self._distance(c), _LEVEL * self.pages[c.page].height
        low, high = at - slack, at + slack
        return low, high, bisect_right(self.distances, low), bisect_left(self.distances, high)

    def on_other_pages(self, c: _Candidate, needed: int) -> bool:
        """Level with ``c`` on ``needed`` other pages or more."""
        _, _, first, last = self._window(c)
        seen: set[int] = set()
        for k in range(first, last):
            if self.sorted[k].page != c.page:
                seen.add(self.sorted[k].page)
                if len(seen) >= needed:
                    return True
        return False

    def edge(self, c: _Candidate) -> bool:
        """At the outer end on most pages where it recurs (body lines may recur, but not as the outermost)."""
        low, high, first, last = self._window(c)
        own = [o for o in self.by_page[c.page] if o is not c and low < self._distance(o) < high]
        outer = self.outer[last] - self.outer[first] - sum(o.rank <= _OUTER for o in own)
        return outer > (last - first - len(own)) // 2


def _counting(group: list[_Candidate], pages: list[PageLines]) -> list[_Candidate]:
    """Those that are page numbers: another page's number at the same place is as much higher as that page is."""
    ahead: dict[int, list[_Candidate]] = defaultdict(list)  # number less page
    for c in group:
        if (value := _value(c.row.text)) is not None:
            ahead[value - c.page].append(c)
    out = []
    for members in ahead.values():
        same = _Levels(members, pages)
        out += [c for c in members if same.on_other_pages(c, 1)]
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


def _alone(c: _Candidate, page: PageLines) -> str:
    """What a row at the very edge is without any other page: "page-number", "header" or "" (keep it)."""
    text = c.row.text.strip()
    if c.rank < 2 and _STAMP.match(text):
        return "header" if c.top else "footer"
    if c.rank:
        return ""
    rest = [a for a in page.lines if a not in c.parts and not a.turn]
    if not rest:
        return ""
    if c.top:
        gap = min((a.y0 for a in rest if a.cy > c.row.cy), default=page.height) - c.row.y1
    else:
        gap = c.row.y0 - max((a.y1 for a in rest if a.cy < c.row.cy), default=0)
    if c.row.size > _LARGER * median(a.size for a in rest):
        return ""  # a title, even one that is a number
    number = _NUMBER.fullmatch(text)
    if number and number.group(2).isdigit() and gap > 0.4 * c.row.height:
        return "page-number"
    # A short foot beside the page number, far from everything else. No such rule for heads: alone on its
    # page, "ANNUAL REPORT    2023" is a title.
    if not c.top and gap > 3 * c.row.height and len(c.parts) > 1 and len(text) <= 60:
        ends = (min(c.parts, key=lambda a: a.x0), max(c.parts, key=lambda a: a.x0))
        if any((m := _NUMBER.fullmatch(a.text.strip())) and m.group(2).isdigit() for a in ends):
            return "footer"
    return ""


def _take(pages: list[PageLines], found: list[tuple[str, _Candidate]]) -> None:
    for kind, c in found:
        page = pages[c.page]
        gone = {id(a) for a in c.parts}
        if not gone <= {id(a) for a in page.lines}:
            continue  # taken already: on a very low page a row may be near both edges
        page.lines = [a for a in page.lines if id(a) not in gone]
        page.furniture.append((kind, c.row))
    for page in pages:
        # Text that runs up the margin of an upright page (an archive's stamp) belongs to no paragraph.
        for line in [a for a in page.lines if a.turn]:
            if line.x1 < 0.09 * page.width or line.x0 > 0.91 * page.width:
                page.lines.remove(line)
                page.furniture.append(("header", line))
