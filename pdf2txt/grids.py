"""Tables whose cells are ruled: rows and columns are where the page draws their lines.

Strokes that touch make one frame. Its columns lie between its vertical strokes, its rows between the horizontal ones
that cross most of it; what stands in a cell, at whatever height, belongs to that cell. Where texts reach over the
strokes, or most cells are empty, the frame is a form or an ornament and its lines are read like all others.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, replace

from pdf2txt.blocks import BREAK
from pdf2txt.drawings import Drawings
from pdf2txt.order import rows
from pdf2txt.schema import Box
from pdf2txt.spans import Line, bounding_box
from pdf2txt.table_cells import estimated_width

_TOUCH = 3.0  # points: strokes nearer than this meet
_MOST_STROKES, _MOST_COLUMNS = 3000, 30
_MOST_RULES, _HEAD = 60, 80.0  # of a page on which tables between rules are sought; points that a table's head is high
_ACROSS = 0.4  # of the frame's width: shorter strokes part no rows
_FILLED, _OVER = 0.5, 0.15  # at least so many cells hold text, and at most so many lines reach over a stroke
_MOST_LETTERS = 250  # of a cell on average: more is text in boxes


@dataclass
class _Stroke:
    at: float  # y of a horizontal one, x of a vertical one
    low: float
    high: float


@dataclass(frozen=True)
class RuledTable:
    lines: list[Line]  # taken from the page
    rows: list[Line]  # one a row of the table


def ruled_tables(lines: list[Line], drawn: Drawings) -> list[RuledTable]:
    """The ruled tables of a page that hold some of its upright ``lines``."""
    if len(drawn.rules) < 2 or not drawn.verticals or len(drawn.rules) + len(drawn.verticals) > _MOST_STROKES:
        return []
    across = _merged([_Stroke((y0 + y1) / 2, x0, x1) for x0, y0, x1, y1 in drawn.rules])
    down = _merged([_Stroke((x0 + x1) / 2, y0, y1) for x0, y0, x1, y1 in drawn.verticals])
    found = []
    for horizontal, vertical in _frames(across, down):
        if (table := _table(lines, horizontal, vertical, _joints(drawn.rules, horizontal))) is not None:
            found.append(table)
            gone = {id(a) for a in table.lines}
            lines = [a for a in lines if id(a) not in gone]
    return found


@dataclass(frozen=True)
class RuledArea:
    """What stands between a rule on top, one under a head and one at the foot: perhaps a table."""

    lines: list[Line]
    rules: list[float]  # their y

    def as_rows(self, cells: list[tuple[str, ...]]) -> list[Line]:
        """The cells found in it as lines, like those of a `RuledTable`."""
        x0, y0, x1, y1 = bounding_box(self.lines)
        main = max(self.lines, key=lambda a: len(a.text))
        step = (y1 - y0) / len(cells)
        return [
            Line("\t".join(row), x0, y0 + k * step, x1, y0 + (k + 1) * step, main.size) for k, row in enumerate(cells)
        ]


def ruled_areas(lines: list[Line], drawn: Drawings) -> list[RuledArea]:
    """Areas between rules of one length, largest first; none where other rules stand beside them."""
    if not 3 <= len(drawn.rules) <= _MOST_RULES:
        return []
    across = sorted(_merged([_Stroke((y0 + y1) / 2, x0, x1) for x0, y0, x1, y1 in drawn.rules]), key=lambda h: h.at)
    found = []
    for k, top in enumerate(across):
        level = [h for h in across[k + 1 :] if abs(h.low - top.low) < _TOUCH and abs(h.high - top.high) < _TOUCH]
        beside = any(h is not top and abs(h.at - top.at) < _TOUCH for h in across)
        if len(level) < 2 or level[0].at - top.at > _HEAD or beside:
            continue
        for n in range(len(level), 1, -1):
            inside = [a for a in lines if _within(a, (top.low, top.at, top.high, level[n - 1].at))]
            if inside:
                found.append(RuledArea(inside, [h.at for h in level[: n - 1]]))
    return sorted(found, key=lambda area: len(area.lines), reverse=True)


def _merged(strokes: list[_Stroke]) -> list[_Stroke]:
    """Pieces of one line put together."""
    out: list[_Stroke] = []
    for stroke in sorted(strokes, key=lambda s: (round(s.at), s.low)):
        for other in reversed(out[-12:]):
            if (
                abs(other.at - stroke.at) <= 1.5
                and stroke.low <= other.high + _TOUCH
                and other.low <= stroke.high + _TOUCH
            ):
                other.low, other.high = min(other.low, stroke.low), max(other.high, stroke.high)
                break
        else:
            out.append(stroke)
    return out


def _frames(across: list[_Stroke], down: list[_Stroke]) -> list[tuple[list[_Stroke], list[_Stroke]]]:
    """Strokes that touch, directly or through others."""
    out = []
    left = list(down)
    while left:
        vertical, horizontal = [left.pop()], []
        for v in vertical:  # grows while it is gone through
            for h in across:
                if h not in horizontal and _meet(h, v):
                    horizontal.append(h)
                    more = [w for w in left if _meet(h, w)]
                    left = [w for w in left if not _meet(h, w)]
                    vertical += more
        out.append((horizontal, vertical))
    return out


def _meet(h: _Stroke, v: _Stroke) -> bool:
    return h.low - _TOUCH <= v.at <= h.high + _TOUCH and v.low - _TOUCH <= h.at <= v.high + _TOUCH


def _joints(rules: list[Box], horizontal: list[_Stroke]) -> list[float]:
    """Where most of the horizontal strokes are put together of two pieces: columns ruled without vertical strokes."""
    begins: dict[int, set[int]] = defaultdict(set)
    ends: dict[int, set[int]] = defaultdict(set)
    levels = {round(h.at) for h in horizontal}
    for x0, y0, x1, y1 in rules:
        level = round((y0 + y1) / 2)
        begins[round(x0)].add(level)
        ends[round(x1)].add(level)
    return [
        float(x)
        for x, at in begins.items()
        if len(levels & at & (ends[x] | ends[x - 1] | ends[x + 1])) > 0.5 * len(levels)
    ]


def _table(
    lines: list[Line], horizontal: list[_Stroke], vertical: list[_Stroke], joints: list[float]
) -> RuledTable | None:
    if len(horizontal) < 2:
        return None
    left, right = min(h.low for h in horizontal), max(h.high for h in horizontal)
    xs = _edges([left, right, *(v.at for v in vertical), *(x for x in joints if left < x < right)])
    wide = [h.at for h in horizontal if h.high - h.low >= _ACROSS * (right - left)]
    ys = _edges([*wide, *(y for v in vertical for y in (v.low, v.high))])
    if not 3 <= len(xs) <= _MOST_COLUMNS + 1 or len(ys) < 3:
        return None
    box = (xs[0], ys[0], xs[-1], ys[-1])
    inside = [a for a in lines if _within(a, box)]
    n = len(xs) - 1
    grid: list[list[list[Line]]] = [[[] for _ in range(n)] for _ in range(len(ys) - 1)]
    over = 0
    for line in inside:
        row = min(max(bisect_right(ys, line.cy) - 1, 0), len(ys) - 2)
        strokes = [v.at for v in vertical if v.low < line.cy < v.high]
        for piece in _cut(line, strokes):
            columns = _columns_of(piece, xs)
            over += len(columns) > 1 and any(piece.x0 + 2 < x < piece.x1 - 2 for x in strokes)
            grid[row][columns[0]].append(piece)
    grid = [row for row in grid if any(row)]
    filled = sum(bool(cell) for row in grid for cell in row)
    used = sum(any(row[k] for row in grid) for k in range(n))
    letters = sum(len(a.text) for a in inside)
    if len(grid) < 2 or used < 2 or sum(sum(map(bool, row)) > 1 for row in grid) < 2:
        return None
    if filled < _FILLED * len(grid) * used or over > _OVER * len(inside) or letters > _MOST_LETTERS * filled:
        return None
    return RuledTable(inside, [_row([row[k] for k in range(n) if any(r[k] for r in grid)]) for row in grid])


def _cut(line: Line, strokes: list[float]) -> list[Line]:
    """A line in its cells: texts that stand close are one line until a stroke between them tells them apart."""
    for x in sorted(strokes):
        if not line.x0 + 0.5 * line.size < x < line.x1 - 0.5 * line.size:
            continue
        scale = line.width / max(0.1, estimated_width(line.text))
        spaces = [m.span() for m in re.finditer(r"\s+", line.text)]
        at = [
            line.x0 + scale * (estimated_width(line.text[:a]) + estimated_width(line.text[:b])) / 2 for a, b in spaces
        ]
        best = min(range(len(at)), key=lambda k: abs(at[k] - x), default=None)
        if best is None or abs(at[best] - x) > line.size:
            continue
        begin, end = spaces[best]
        left = replace(line, text=line.text[:begin], x1=x, gaps=())
        return [left, *_cut(replace(line, text=line.text[end:], x0=x, gaps=()), strokes)]
    return [line]


def _edges(values: list[float]) -> list[float]:
    out: list[float] = []
    for value in sorted(values):
        if not out or value - out[-1] > _TOUCH:
            out.append(value)
    return out


def _within(line: Line, box: Box) -> bool:
    return box[0] - _TOUCH < (line.x0 + line.x1) / 2 < box[2] + _TOUCH and box[1] < line.cy < box[3]


def _columns_of(line: Line, xs: list[float]) -> list[int]:
    """Columns that a line stands in; of one that only touches the next one, its own."""
    reach = [min(line.x1, b) - max(line.x0, a) for a, b in itertools.pairwise(xs)]
    inside = [k for k, width in enumerate(reach) if width > max(2.0, 0.1 * line.width)]
    return inside or [max(range(len(reach)), key=reach.__getitem__)]


def _row(cells: list[list[Line]]) -> Line:
    parts = [a for cell in cells for a in cell]
    texts = [BREAK.join(" ".join(a.text.split()) for a in rows(cell)) for cell in cells]
    main = max(parts, key=lambda a: len(a.text))
    letters = sum(len(a.text) for a in parts) or 1
    trust = sum(a.confidence * len(a.text) for a in parts) / letters
    return Line("\t".join(texts), *bounding_box(parts), main.size, bold=all(a.bold for a in parts), confidence=trust)
