"""What recurs at the edges of a document's pages.

Lines recur if they stand level and read the same (digits compared as digits), or carry a number that counts with the
pages. A page that the file holds twice agrees with itself in everything and so tells nothing (`_Copies`); of what
recurs on one other page only, the numbers must agree too or count with the pages, and it must be parted from the
text.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import lru_cache
from statistics import median

from pdf2txt.edges import INNER, Candidate, Row
from pdf2txt.witnesses import PARTED_LINES, is_enough, outermost, value_of

_OUTER = 2  # up to this rank a row is at the outer end
_LOOKED_AT = 8  # so many of the pages that may agree
_RUN, _SHARED = 5, 0.6  # pages are copies if they share so much of their runs of so many letters
_PARTED = 0.35  # free height of a row apart
_SETS_OFF = {"small", "ruled", "number", "periodical"}
_Placed = tuple[int, Candidate]  # (index of the page, row)
_Found = tuple[str, _Placed, bool]  # (kind, row, whether more than one other page agrees)


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
        for c in outermost(page, taken[number], lambda c: is_enough(c.witnesses, False)):
            taken[number].setdefault(c.parts, "header" if c.top else "footer")
    return [[(kind, parts) for parts, kind in rows.items()] for rows in taken]


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


class _Copies:
    """Which pages are the same one, read twice: alike in the rows, too, that no gap parts from the text.

    They are compared by runs of letters, of which an error of OCR changes a few, in rows of the same numbers
    (forms may differ in nothing else). Only some of what was compared is remembered, so that memory does not
    grow with the pages.
    """

    def __init__(self, pages: list[list[Candidate]]) -> None:
        self.pages = pages
        self.runs = lru_cache(64)(self._runs)  # 25 kB a page
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
            if c.block == INNER:
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
    deeper in the page that look alike (the same line in two forms) are left in place. No paragraph is cut in
    two: a form's or a contract's pages may all begin with the same one. As pages of text begin level but end
    anywhere, at the top all of it stays.
    """
    edges: dict[tuple[int, bool], list[_Found]] = defaultdict(list)
    for one in found:
        number, c = one[1]
        edges[number, c.top].append(one)
    out = []
    for group in edges.values():
        group.sort(key=lambda f: f[1][1].rank)
        prose = [c.runs_on and not _SETS_OFF & set(c.witnesses) for _, (_, c), _ in group]
        if group[0][1][1].top and any(prose):
            group = group[: prose.index(True)]
        sure = [several or bool(_SETS_OFF & set(placed[1].witnesses)) for _, placed, several in group]
        last = 0 if sure and sure[0] and not prose[0] else -1
        for (_, (number, c), _), enough, goes_on in zip(group, sure, prose, strict=False):
            if not goes_on and c.gap > _PARTED and (enough or _loose(c, pages[number])):
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
        if c.rank - 1 in known and all(rank in known for rank in range(c.rank)):
            known.add(c.rank)
            out.append(one)
    return out


def _loose(c: Candidate, page: list[Candidate]) -> bool:
    """Whether a row stands farther from the next one than the rows beyond from each other."""
    inner = [o.gap for o in page if o.top == c.top and o.rank > c.rank]
    return len(inner) < 2 or c.gap + 1 > PARTED_LINES * (median(inner) + 1)


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
        if (value := value_of(c.text)) is not None:
            ahead[value - number].append((number, c))
    out = []
    for members in ahead.values():
        same = _Levels(members)
        out += [placed for placed in members if same.on_other_pages(placed, 1)]
    return out
