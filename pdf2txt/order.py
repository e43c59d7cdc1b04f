"""Reading order by geometry: columns found as gutters that full-width lines may cross.

A gutter is a strip of the page that lines stand beside but do not enter. Lines that do cross it (a title,
a wide figure's caption) cut the page into bands; within a band the left side is read before the right one,
each side by the same rule again. A strip inside a table is no gutter: there, short cells stand on the same
baselines on both sides, and rows are read across.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from pdf2txt.spans import Line, bounding_box, join_row, same_row

if TYPE_CHECKING:
    from pdf2txt.layout import Detection

_MIN_ROWS = 3  # fewer rows on a side are a heading with a date, a formula with its number: not columns
_DEPTH = 4  # columns in columns in columns: more is a table


@dataclass
class Region:
    """Lines of one column, top to bottom; cells of a row are joined by tabs."""

    lines: list[Line]
    kind: str = ""  # a layout model's opinion, "" if none was asked


@dataclass
class Reading:
    regions: list[Region]
    sure: bool  # False: a strip might be a gutter or a table's, a layout model should be asked
    detections: tuple[Detection, ...] = ()  # of the layout model, where one was asked


def read_order(lines: list[Line]) -> Reading:
    """Upright ``lines`` of a page as regions in the order in which a reader takes them."""
    sure = [True]
    groups = _split([line for line in lines if line.text.strip()], 0, sure)
    return Reading([Region(rows(group)) for group in groups if group], sure[0])


def rows(lines: list[Line]) -> list[Line]:
    """Lines of one column top to bottom, those on one baseline joined left to right."""
    return [join_row(parts) for parts in row_groups(lines)]


def row_groups(lines: list[Line]) -> list[list[Line]]:
    """The same, not yet joined."""
    out: list[list[Line]] = []
    for line in sorted(lines, key=lambda a: (a.cy, a.x0)):
        for row in out[-3:]:
            if all(same_row(line, other) and not _covers(line, other) for other in row):
                row.append(line)
                break
        else:
            out.append([line])
    return sorted(out, key=lambda row: min(a.y0 for a in row) + max(a.y1 for a in row))


def _covers(a: Line, b: Line) -> bool:
    """Horizontal overlap: two such lines cannot be neighbours on a row."""
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 0.3 * min(a.width, b.width)


@dataclass
class _Band:
    crossing: list[Line]  # lines above and outside the columns
    left: list[Line]
    right: list[Line]


def _split(lines: list[Line], depth: int, sure: list[bool]) -> list[list[Line]]:
    if depth >= _DEPTH or len(lines) < 2 * _MIN_ROWS:
        return [lines]
    best: tuple[float, list[list[Line]]] | None = None
    doubts = False
    for at in _strips(lines):
        mass = 0.0
        groups: list[list[Line]] = []
        plain: list[Line] = []
        for band in _bands(lines, at):
            plain += band.crossing
            verdict = _columns(band.left, band.right)
            if verdict is None:
                doubts = True
            if verdict:
                if plain:
                    groups.append(plain)
                    plain = []
                for left, right, table in _slabs(band.left, band.right):
                    if table:
                        groups.append(left + right)
                        continue
                    for a, b in _shelves(left, right):
                        groups += [a, b]
                mass += min(_letters(band.left), _letters(band.right))
            else:
                plain += band.left + band.right
        if plain:
            groups.append(plain)
        if mass and (best is None or mass > best[0]):
            best = (mass, groups)
    if best is None:
        if doubts:
            sure[0] = False
        return [lines]
    out: list[list[Line]] = []
    for group in best[1]:
        out += _split(group, depth + 1, sure) if len(group) < len(lines) else [group]
    return out


def _slabs(left: list[Line], right: list[Line]) -> list[tuple[list[Line], list[Line], bool]]:
    """Columns cut where a table reaches over both: (left, right, whether this slab is the table).

    Cells of a wide table need not enter the strip between the columns. A table is a slab between gaps that
    reach across, with cells on one row on both sides and no text in lines on either.
    """
    size = median(a.size for a in left + right)
    slabs: list[list[Line]] = []
    bottom = float("-inf")
    for line in sorted(left + right, key=lambda a: a.y0):
        if line.y0 - bottom > 0.8 * size:
            slabs.append([])
        slabs[-1].append(line)
        bottom = max(bottom, line.y1)
    on_left = {id(a) for a in left}
    out: list[tuple[list[Line], list[Line], bool]] = []
    for slab in slabs:
        a, b = [x for x in slab if id(x) in on_left], [x for x in slab if id(x) not in on_left]
        table = len(slabs) > 1 and _is_table(a, b)
        if out and out[-1][2] == table:
            out[-1] = (out[-1][0] + a, out[-1][1] + b, table)
        else:
            out.append((a, b, table))
    return out


def _is_table(left: list[Line], right: list[Line]) -> bool:
    a, b = rows(left), rows(right)
    if min(len(a), len(b)) < _MIN_ROWS or _texts(left, a) or _texts(right, b):
        return False
    level = sum(any(abs(x.cy - y.cy) < 0.2 * x.size for y in b) for x in a)
    cells = len(left) + len(right)
    short = sum(len(x.text.split()) <= 4 for x in left + right)
    return level >= 0.8 * max(len(a), len(b)) and cells >= 2.5 * max(len(a), len(b)) and short >= 0.8 * cells


def _shelves(left: list[Line], right: list[Line]) -> list[tuple[list[Line], list[Line]]]:
    """Two columns cut into rows of cards (a poster, a brochure), read row by row; usually one: plain columns.

    A row of cards begins, on both sides, at one height, with a heading, under a gap that reaches across.
    """
    a, b = rows(left), rows(right)
    cuts = []
    for above, first in itertools.pairwise(a):
        gap = first.y0 - above.y1
        beside = next((k for k, r in enumerate(b) if k and abs(r.cy - first.cy) < 0.3 * first.size), None)
        if beside is None or gap < 1.2 * first.size or b[beside].y0 - b[beside - 1].y1 < 1.2 * first.size:
            continue
        if _is_heading(first, a) and _is_heading(b[beside], b):
            cuts.append(min(first.y0, b[beside].y0) - 0.1 * first.size)
    edges = [float("-inf"), *cuts, float("inf")]
    return [
        ([x for x in left if low <= x.cy < high], [x for x in right if low <= x.cy < high])
        for low, high in itertools.pairwise(edges)
    ]


def _is_heading(line: Line, column: list[Line]) -> bool:
    """Bolder or larger than most of its column's text."""
    prose = [x for x in column if len(x.text) > 20] or column
    heavy = sum(x.bold for x in prose) > 0.5 * len(prose)
    return (line.bold and not heavy) or line.size > 1.12 * median(x.size for x in prose)


def _letters(lines: list[Line]) -> int:
    return sum(len(line.text) for line in lines)


def _strips(lines: list[Line]) -> list[float]:
    """Middles of the vertical strips that fewest lines enter, points."""
    x0, _, x1, _ = bounding_box(lines)
    n = max(1, int(x1 - x0) + 1)
    cover = [0] * (n + 1)
    for line in lines:
        a, b = max(0, int(line.x0 - x0)), min(n - 1, int(line.x1 - x0))
        cover[a] += 1
        cover[b + 1 if b + 1 <= n else n] -= 1
    total = 0
    for i in range(n + 1):
        total += cover[i]
        cover[i] = total
    least = 0.6 * len(lines)
    narrow = 0.5 * median(line.size for line in lines)
    out: list[tuple[int, float]] = []
    i = 0
    while i < n:
        j = i
        while j < n and cover[j] == cover[i]:
            j += 1
        lower_than_sides = i > 0 and j < n and cover[i - 1] > cover[i] and cover[j] > cover[i]
        if lower_than_sides and j - i >= narrow and cover[i] <= least:
            out.append((cover[i], x0 + (i + j) / 2))
        i = j
    out.sort()
    found = [at for _, at in out[:8]]
    # Cells of a table above or below two columns may end all over their gutter. The left edge of the right column
    # shows where it is all the same.
    begins = Counter(int(line.x0 - x0) for line in lines)
    for left, times in begins.most_common(3):
        at = x0 + left - narrow
        if (
            left
            and times >= max(2 * _MIN_ROWS, 0.2 * len(lines))
            and all(abs(at - other) > 3 * narrow for other in found)
        ):
            found.append(at)
    return found


def _bands(lines: list[Line], at: float) -> list[_Band]:
    crossing = [line for line in lines if line.x0 < at - 1 and line.x1 > at + 1]
    bands = [_Band([], [], [])]
    ordered = sorted(lines, key=lambda a: a.cy)
    for n, line in enumerate(ordered):
        across = line.x0 < at - 1 and line.x1 > at + 1
        level = any(same_row(line, c) and abs(c.cy - line.cy) < 0.3 * c.height for c in crossing)
        if across or level or _ends_crossing(ordered, n, bands[-1]):
            if bands[-1].left or bands[-1].right:
                bands.append(_Band([], [], []))
            bands[-1].crossing.append(line)
        elif line.x1 <= at + 1:
            bands[-1].left.append(line)
        else:
            bands[-1].right.append(line)
    return bands


def _ends_crossing(ordered: list[Line], n: int, band: _Band) -> bool:
    """Whether line ``n`` is the short last line of a paragraph that crosses: tight under it, alone on its row."""
    if not band.crossing or band.left or band.right:
        return False
    line, before = ordered[n], band.crossing[-1]
    if abs(line.size - before.size) > 0.06 * line.size or not 0 < line.cy - before.cy < 1.6 * line.size:
        return False
    return not any(same_row(line, other) for other in ordered[max(0, n - 8) : n + 8] if other is not line)


def _columns(left: list[Line], right: list[Line]) -> bool | None:
    """Whether two sides of a strip are columns (True), something read across (False), or unclear (None)."""
    a, b = rows(left), rows(right)
    if len(a) < _MIN_ROWS or len(b) < _MIN_ROWS:
        return False
    top, bottom = max(a[0].y0, b[0].y0), min(a[-1].y1, b[-1].y1)
    size = median(line.size for line in a + b)
    if bottom - top < 2 * size:
        return True  # one under the other, beside the strip: any order of reading is the same
    few, many = (a, b) if len(a) <= len(b) else (b, a)
    if len(few) <= 2 * _MIN_ROWS and not any(same_row(x, y) for x in few for y in many):
        return False  # nothing stands beside anything: a centred title between lines at the margin
    beside = [line for line in few if line.y1 > many[0].y0 and line.y0 < many[-1].y1]
    level = sum(any(abs(line.cy - other.cy) < 0.2 * size for other in many) for line in beside)
    aligned = level >= 0.7 * max(1, len(beside))
    text_a, text_b = _texts(left, a), _texts(right, b)
    if text_a and text_b:
        return True
    if not aligned:
        # A margin box beside text, or figures' labels: baselines of their own.
        return True if text_a or text_b else None if min(len(a), len(b)) >= 6 else False
    return None if (text_a or text_b) and len(few) >= 8 else False


def _texts(lines: list[Line], joined: list[Line]) -> bool:
    """Whether a side is a column of text, or several whose lines stand level; ``joined``: its rows."""
    if _like_text(joined):
        return True
    if sum("\t" in row.text for row in joined) < 0.5 * len(joined):
        return False
    columns: list[list[Line]] = []
    for line in sorted(lines, key=lambda a: a.x0):
        if columns and line.x0 - columns[-1][-1].x0 < 1.5 * line.size:
            columns[-1].append(line)
        else:
            columns.append([line])
    text = sum(_letters(c) for c in columns if len(c) >= _MIN_ROWS and _like_text(c))
    return text >= 0.85 * _letters(lines)


def _like_text(column: list[Line]) -> bool:
    """Lines that mostly fill their column and hold several words each."""
    x0, _, x1, _ = bounding_box(column)
    width = max(1.0, x1 - x0)
    full = sum(len(line.text) for line in column if line.width > 0.6 * width and "\t" not in line.text)
    words = median(len(line.text.split()) for line in column)
    return full >= 0.55 * _letters(column) and words >= 3.5 and width >= 8 * median(a.size for a in column)
