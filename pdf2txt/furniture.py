"""Running heads, feet and page numbers: what a page carries for the book, not for the reader of the text.

A line is furniture if it stands at the edge of the page *and* recurs at that place on other pages (digits
compared as digits). One page alone proves nothing, so a single page loses only what cannot be body text: a
bare page number apart from the text, a running head or foot that holds one, an archive's stamp.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from pdf2txt.order import row_groups
from pdf2txt.spans import Line, join_row

_ROWS = 5  # so many rows at each end of a page are looked at
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
    for (_, key), group in groups.items():
        bare = set(key) == {"0"}
        for c in group:
            same = [o for o in group if o.page != c.page and _level(c, o, pages)]
            if bare:
                if _counts_on(c, same):
                    found.append(("page-number", c))
            elif len({o.page for o in same}) >= _needed(len(pages)) and _edge(c, same):
                found.append(("header" if c.top else "footer", c))
    found = _apart(found)
    taken = {(c.page, id(c.row)) for _, c in found}
    for number, page in enumerate(pages):
        mine = [c for c in candidates if c.page == number and (number, id(c.row)) not in taken]
        found += [(kind, c) for c in mine if (kind := _alone(c, page))]
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


def _level(a: _Candidate, b: _Candidate, pages: list[PageLines]) -> bool:
    """Both stand as far from their page's edge."""
    if a.top:
        return abs(a.row.cy - b.row.cy) < 0.012 * pages[a.page].height
    above = pages[a.page].height - a.row.cy, pages[b.page].height - b.row.cy
    return abs(above[0] - above[1]) < 0.012 * pages[a.page].height


def _edge(c: _Candidate, same: list[_Candidate]) -> bool:
    """At the outer end on most pages where it recurs (body lines may recur, but not as the outermost)."""
    ranks = sorted([c.rank, *(o.rank for o in same)])
    return ranks[len(ranks) // 2] <= 2


def _counts_on(c: _Candidate, same: list[_Candidate]) -> bool:
    """A page number grows with the pages."""
    mine = _value(c.row.text)
    return mine is not None and any((v := _value(o.row.text)) is not None and v - mine == o.page - c.page for o in same)


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
    number = _NUMBER.fullmatch(text)
    if number and number.group(2).isdigit() and gap > 0.4 * c.row.height:
        return "page-number"
    # A short foot beside the number: "NETS 2015 [gap] 1", far from everything else.
    if gap > 3 * c.row.height and len(c.parts) > 1 and len(text) <= 60:
        ends = (min(c.parts, key=lambda a: a.x0), max(c.parts, key=lambda a: a.x0))
        if any((m := _NUMBER.fullmatch(a.text.strip())) and m.group(2).isdigit() for a in ends):
            return "header" if c.top else "footer"
    # "400 BRITISH HUSBANDRY. [Ch. XIX.": a number too high for a section's, and capitals.
    folio = re.match(r"(\d{2,4})\s+\D", text) or re.search(r"\D\s+(\d{2,4})$", text)
    letters = [ch for ch in text if ch.isalpha()]
    capitals = sum(ch.isupper() for ch in letters) >= 0.7 * len(letters)
    if c.top and folio and int(folio.group(1)) > 40 and capitals and 4 <= len(letters) <= 60:
        return "header"
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
