"""Lines of a table to a grid of cells, where the grid is clear.

Columns are what cells of all rows leave free between them (x-intervals that overlap belong together, as in the
projection profiles of Kieninger's T-Recs, 1998). A cell that covers several columns is either two cells that stand
too close to be told apart on their own row, and is cut where the columns part, or spans them.
Rows are lines, except that a line may go on with the cells of the row above it: told by the free space between
lines where rows are set apart by more than lines are, and else by what could not have fitted on the line above.

A grid is clear if nearly every cell has one column to itself and nearly every column a cell on most rows. Where it
is not, the caller keeps the lines as they are; no rule here may drop or repeat a word.
"""

from __future__ import annotations

import functools
import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from pdf2txt.blocks import BREAK, RawBlock
from pdf2txt.spans import Line, bounding_box

Join = Callable[[str, str], str]

_NUMBER = re.compile(
    r"[(\[<>≤≥~≈±+−–-]*\s*[$€£¥]?\s*[(+−–-]?\d[\d.,:/'’±×^*()\[\]%‰°\s+−–-]*[$€£¥]?(?:[eE][+−–-]?\d+)?[KMBTkx]?[*†‡]*"
)
_BLANK = re.compile(r"[-–—.·*]{1,3}|n/?a|N/?A")  # stands for "nothing" in columns of any kind
_LEADERS = re.compile(r"(\.\s?){5,}|…{2,}")  # of a table of contents
_FORMULA = re.compile(r"[+·×÷−]$|.*[=∑∫∏√∂∀∃⇒→≈]|[|{}\sz]*[{}][|{}\sz]*$")
_MARK = re.compile(r"[^\w\s]|o|\(?(\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.)]|\[\d{1,3}\]")  # of a list's item
_CURRENCY = re.compile(r"[$€£¥]")
_CLOSING = re.compile(r"\)?\s*%|\)")
_OPEN_ENDS = (*"-\u00ad\x02,/&–(", " and", " or", " of", " the", " in", " for", " to", " with")
_MOST_COLUMNS, _MOST_LINES = 30, 2000
_SAMPLE = 60  # rows that columns are judged by, so that the time for a table grows with its lines only
_MOST_LETTERS = 160  # of a cell on average: more is prose in columns
_NARROW, _WIDE = "fijlrtI.,:;'|!()[] ", "mwMW@%—"


@dataclass(frozen=True)
class Grid:
    """A table of ``len(header)`` columns; every row has as many cells, "" where there is none."""

    header: tuple[str, ...]  # all "" if no row looks like one
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]  # columns that hold numbers


@dataclass
class _Row:
    """One line, its cells by column."""

    line: Line
    cells: dict[int, str]
    extents: dict[int, tuple[float, float]]


def is_number(text: str) -> bool:
    """A number with what may stand around it: signs, units of money, per cent, ranges, parentheses."""
    return bool(_NUMBER.fullmatch(text.strip()))


def to_markdown(grid: Grid) -> str:
    """GitHub-flavoured Markdown, numbers to the right; ``|`` within cells escaped."""
    rule = ["---:" if numeric else "---" for numeric in grid.numeric]
    rows = [grid.header, rule, *grid.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def find_grid(lines: list[Line], join: Join = lambda a, b: f"{a} {b}", rules: Sequence[float] = ()) -> Grid | None:
    """The grid of a table's ``lines`` (top to bottom), None where it is not clear.

    Args:
        join: puts the lines of one cell together.
        rules: y of lines drawn across the table; no row reaches over one.
    """
    lines = [line for line in lines if line.text.strip()]
    if not 2 <= len(lines) <= _MOST_LINES or any(line.turn for line in lines):
        return None
    cells = [line.cells for line in lines]
    several = [row for row in cells if len(row) > 1]
    if len(several) < 2 or _is_no_table(cells):
        return None
    size = median(line.size for line in lines)
    columns = _columns(cells, size)
    if not 2 <= len(columns) <= _MOST_COLUMNS:
        return None
    rows, doubts = _place(lines, columns)
    if doubts > 0.1 * sum(map(len, cells)) or _is_list(rows, len(columns)) or _is_prose(rows, len(columns)):
        return None
    rows, n = _tidy_money(rows, len(columns))
    groups = _groups(rows, n, size)
    if groups is None:
        return None
    if rules:
        by_rule = [itertools.groupby(group, key=lambda row: bisect_left(rules, row.line.cy)) for group in groups]
        groups = [list(rows) for parts in by_rule for _, rows in parts]
    table = [_merged(group, n, join) for group in groups]
    if not _is_clear(table, len(lines)):
        return None
    return _with_header(table, [all(r.line.bold for r in group) for group in groups], join)


def grid_of_rows(rows: list[Line], join: Join) -> Grid:
    """The grid of a ruled table, whose rows and cells are known (`grids.py`)."""
    table = []
    for row in rows:
        cells = [cell.split(BREAK) for cell in row.text.split("\t")]
        table.append(tuple(functools.reduce(join, cell) for cell in cells))
    return _with_header(table, [row.bold for row in rows], join)


def gather_tables(blocks: list[RawBlock]) -> list[RawBlock]:
    """Blocks of one page, with the pieces of each table as one block.

    Where a cell has several lines, some lines of the table hold one cell only and look like text, as does a row
    whose cells stand close. They belong to the table if they stand directly below or above a piece of it and
    fit into its columns.
    """
    out = list(blocks)
    k = 0
    while k < len(out):
        if out[k].ruled:
            k += 1
            continue
        row = out[k].kind == "text" and all("\t" in line.text for line in out[k].lines)
        if out[k].kind == "table" or row:
            first, last = _reach(out, k)
            whole = _one(out[first:last]) if last - first > 1 else out[k]
            if out[k].kind == "table" or (whole is not out[k] and find_grid(whole.lines)):
                out[first:last] = [whole]
                k = first
            else:
                k = last - 1
        k += 1
    return out


def _reach(blocks: list[RawBlock], k: int) -> tuple[int, int]:
    """(first, last + 1) of the blocks that make up the table of which block ``k`` is a piece."""
    first, last, table = k, k + 1, replace(blocks[k], kind="table")
    while last < len(blocks) and (n := _further(table, blocks[last : last + 2])):
        table, last = _one([table, *blocks[last : last + n]]), last + n
    while first and (n := _further(table, blocks[max(0, first - 2) : first][::-1])):
        table, first = _one([table, *blocks[first - n : first]]), first - n
    return first, last


def _one(pieces: list[RawBlock]) -> RawBlock:
    lines = sorted((line for piece in pieces for line in piece.lines), key=lambda a: a.cy)
    return RawBlock(pieces[0].page, lines, "table", pieces[0].region)


def _further(table: RawBlock, beside: list[RawBlock]) -> int:
    """How many of the (up to two) blocks next to a table, nearest first, are pieces of it."""
    if _belongs(table, beside[0]):
        return 1
    # A line across the columns, such as a section's title, with more of the table behind it.
    across = len(beside) > 1 and len(beside[0].lines) == 1 and beside[0].kind in ("text", "heading", "equation")
    if across and _is_near(table, beside[0], 1.0) and _is_near(beside[0], beside[1], 1.0):
        (x0, _, x1, _), (a, _, b, _) = table.box, beside[0].box
        size = beside[0].lines[0].size
        if x0 - size < a and b < x1 + size and len(beside[1].lines[0].cells) > 1 and _belongs(table, beside[1], True):
            return 2
    return 0


def _is_near(a: RawBlock, b: RawBlock, most: float) -> bool:
    """Of one region, and no more than ``most`` font sizes apart."""
    above, below = (a, b) if a.lines[0].cy <= b.lines[0].cy else (b, a)
    last, first = above.lines[-1], below.lines[0]
    size = max(last.size, first.size)
    free = (first.cy - first.size / 2) - (last.cy + last.size / 2)
    return (a.page, a.region) == (b.page, b.region) and free <= most * size


def _belongs(table: RawBlock, piece: RawBlock, anywhere: bool = False) -> bool:
    if piece.ruled:
        return False
    above = piece.lines[0].cy < table.lines[0].cy
    nearest = table.lines[:_SAMPLE] if above else table.lines[-_SAMPLE:]
    (a0, _, a1, _), (b0, _, b1, _) = bounding_box(nearest), piece.box
    if piece.kind == "table":
        return (anywhere or _is_near(table, piece, 1.5)) and min(a1, b1) - max(a0, b0) > 0.5 * min(a1 - a0, b1 - b0)
    if piece.kind not in ("text", "list", "heading", "equation") or not (anywhere or _is_near(table, piece, 0.9)):
        return False
    size = median(line.size for line in nearest)
    columns = _columns([line.cells for line in nearest], size)
    if len(columns) < 2 or not all(0.6 * size < line.size < 1.25 * size for line in piece.lines):
        return False
    rows = [len(line.cells) > 1 and _fits(line, columns, size) for line in piece.lines]
    if above and not any(rows):
        # What stands above a table is more often the text that speaks of it than one cell of its head.
        text = piece.lines[-1].text
        if len(piece.lines) > 2 or piece.kind != "text" or text.endswith((".", ":")) or not _is_near(table, piece, 0.5):
            return False
    widest = max(b - a for a, b in itertools.pairwise([*(c[0] for c in columns), columns[-1][1]]))
    return all(row or _is_in_one(line, columns, widest, size) for row, line in zip(rows, piece.lines, strict=True))


def _fits(line: Line, columns: list[tuple[float, float]], size: float) -> bool:
    """A row: each cell in one column, more than half of the columns taken."""
    taken = set()
    for _, x0, x1 in line.cells:
        inside = [k for k, (a, b) in enumerate(columns) if min(x1, b) - max(x0, a) > 0.2 * size]
        if len(inside) != 1:
            return False
        taken.add(inside[0])
    return len(taken) > 1 and len(taken) >= 0.5 * len(columns)


def _is_in_one(line: Line, columns: list[tuple[float, float]], widest: float, size: float) -> bool:
    """A line of a single cell. Columns' right sides are only known by what stands there: their width is the limit."""
    left, right = columns[0][0] - 0.5 * size, columns[-1][1] + 0.5 * size
    return (
        left <= line.x0
        and line.x1 <= right
        and line.width <= min(widest + size, 0.6 * (right - left))
        and not any(line.x0 + size < start < line.x1 - size for start, _ in columns)
    )


# ------------------------------------------------------------------------------------------- columns


def _is_no_table(cells: list[list[tuple[str, float, float]]]) -> bool:
    """A table of contents, a formula taken apart, or columns of prose."""
    texts = [text.strip() for row in cells for text, _, _ in row]
    leaders = sum(any(_LEADERS.search(text) for text, _, _ in row) for row in cells)
    formulas = sum(bool(_FORMULA.match(text)) for text in texts)
    return (
        leaders >= 0.3 * len(cells) or formulas >= 0.3 * len(texts) or sum(map(len, texts)) > _MOST_LETTERS * len(texts)
    )


def _columns(cells: list[list[tuple[str, float, float]]], size: float) -> list[tuple[float, float]]:
    """(x0, x1) of each column, left to right."""
    several = [row for row in cells if len(row) > 1]
    several = several[:: 1 + len(several) // _SAMPLE]
    x0, x1 = np.array([cell[1:] for row in cells for cell in row]).T
    one, two = np.zeros(len(x0)), np.zeros(len(x0))
    for row in several:
        a, b = np.array([cell[1:] for cell in row]).T
        covers = np.minimum(x1[:, None], b) - np.maximum(x0[:, None], a) > 0.5 * (b - a)
        inside = covers.sum(axis=1)
        one += inside == 1
        two += inside > 1
    own = (two == 0) | (two < 0.3 * (one + two))
    intervals = list(zip(x0[own].tolist(), x1[own].tolist(), strict=True))
    intervals.sort()
    out: list[tuple[float, float]] = []
    for x0, x1 in intervals:
        if out and x0 < out[-1][1] - 0.1 * size:
            out[-1] = (out[-1][0], max(out[-1][1], x1))
        else:
            out.append((x0, x1))
    return out


def _place(lines: list[Line], columns: list[tuple[float, float]]) -> tuple[list[_Row], int]:
    """Cells by column, and how many could not be given one of their own."""
    edges = _edges(lines, columns)
    rows, doubts = [], 0
    for line in lines:
        row = _Row(line, {}, {})
        cells = line.cells
        for text, x0, x1 in cells:
            inside = [
                k for k, (a, b) in enumerate(columns) if min(x1, b) - max(x0, a) > 0.3 * max(0.1, min(x1 - x0, b - a))
            ]
            if not inside:
                middle = (x0 + x1) / 2
                inside = [min(range(len(columns)), key=lambda k: abs(sum(columns[k]) / 2 - middle))]
            cut = len(inside) > 1 and len(cells) > 1
            pieces = _cut(text, x0, x1, inside, columns, edges, line.size) if cut else None
            if pieces is None:
                # Over several columns: a head's or a section's title, but hardly a body's cell.
                doubts += len(inside) > 1 and len(cells) > 1 and line is not lines[0]
                title = len(inside) > 1 and len(cells) == 1 and line is not lines[0]  # of a section, over all columns
                pieces = [(0 if title else inside[0], text, x0, x1)]
            for k, piece, a, b in pieces:
                if k in row.cells:
                    doubts += a - row.extents[k][1] > 1.5 * line.size
                    piece, a = f"{row.cells[k]} {piece}", row.extents[k][0]
                row.cells[k] = piece.strip()
                row.extents[k] = (a, b)
        rows.append(row)
    return rows, doubts


def _is_list(rows: list[_Row], n: int) -> bool:
    """Marks of a list, and its items."""
    marks = [row.cells[0] for row in rows if 0 in row.cells]
    return n == 2 and all(_MARK.fullmatch(mark) for mark in marks)


def _is_prose(rows: list[_Row], n: int) -> bool:
    """Columns of running text side by side: every one filled from side to side by most of its lines."""
    for k in range(n):
        mine = [(row.cells[k], row.extents[k]) for row in rows if k in row.cells]
        if not mine or median(len(text.split()) for text, _ in mine) < 4:
            return False
        width = max(b for _, (_, b) in mine) - min(a for _, (a, _) in mine)
        if sum(b - a > 0.8 * width for _, (a, b) in mine) < 0.6 * len(mine):
            return False
    return True


def _edges(lines: list[Line], columns: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(x0, x1) that most cells of each column begin and end at."""
    out = []
    for a, b in columns:
        mine = [(x0, x1) for line in lines for _, x0, x1 in line.cells if a - 1 <= x0 and x1 <= b + 1]
        out.append((median(x0 for x0, _ in mine), median(x1 for _, x1 in mine)) if mine else (a, b))
    return out


def _cut(
    text: str,
    x0: float,
    x1: float,
    inside: list[int],
    columns: list[tuple[float, float]],
    edges: list[tuple[float, float]],
    size: float,
) -> list[tuple[int, str, float, float]] | None:
    """A cell over several columns as (column, text, x0, x1) each, None if it is one that spans them.

    Where the words stand is estimated from the letters' usual widths.
    """
    if abs(x0 - edges[inside[0]][0]) > 0.5 * size and abs(x1 - edges[inside[-1]][1]) > 0.5 * size:
        return None
    scale = (x1 - x0) / max(0.1, estimated_width(text))
    out = []
    rest, at = text, x0
    for k, after in itertools.pairwise(inside):
        right, left = columns[k][1], columns[after][0]
        best: tuple[float, int] | None = None
        for space in re.finditer(r"\s+", rest):
            end, start = (
                at + scale * estimated_width(rest[: space.start()]),
                at + scale * estimated_width(rest[: space.end()]),
            )
            # The word after the space begins where its column does, or the one before it ends where its own does.
            off = min(abs(start - edges[after][0]), abs(end - edges[k][1]), abs(start - left), abs(end - right))
            if best is None or off < best[0]:
                best = (off, space.start())
        if best is None or best[0] > 0.9 * size:
            return None
        head, rest = rest[: best[1]], rest[best[1] :]
        end = at + scale * estimated_width(head)
        out.append((k, head.strip(), at, end))
        at, rest = end + scale * estimated_width(" "), rest.strip()
    out.append((inside[-1], rest, at, x1))
    return out if all(piece for _, piece, _, _ in out) else None


def estimated_width(text: str) -> float:
    """Estimated width of ``text`` in ordinary letters."""
    return sum(0.55 if ch in _NARROW else 1.5 if ch in _WIDE else 1.25 if ch.isupper() else 1.0 for ch in text)


def _tidy_money(rows: list[_Row], n: int) -> tuple[list[_Row], int]:
    """Signs that accounts set in columns of their own, beside their number: "$" before, "%" and ")" after it."""
    for row in rows:
        for k in range(n - 1):
            text = row.cells.get(k, "")
            if len(text) > 1 and _CURRENCY.fullmatch(text[-1]) and text[-2].isspace() and k + 1 in row.cells:
                row.cells[k], row.cells[k + 1] = text[:-1].rstrip(), f"{text[-1]} {row.cells[k + 1]}"
    target = list(range(n))
    for k in range(n):
        mine = [row.cells[k] for row in rows if k in row.cells]
        if mine and k + 1 < n and all(_CURRENCY.fullmatch(text) for text in mine):
            target[k] = k + 1
        elif mine and k and all(_CLOSING.fullmatch(text) for text in mine):
            target[k] = target[k - 1]
    kept = sorted({t for k, t in enumerate(target) if t == k})
    if len(kept) == n or any(t not in kept for t in target):
        return rows, n
    number = {t: i for i, t in enumerate(kept)}
    for row in rows:
        cells: dict[int, str] = {}
        extents: dict[int, tuple[float, float]] = {}
        for k in sorted(row.cells):
            new = number[target[k]]
            glue = "" if _CLOSING.fullmatch(row.cells[k]) else " "
            cells[new] = f"{cells[new]}{glue}{row.cells[k]}" if new in cells else row.cells[k]
            extents[new] = (extents.get(new, row.extents[k])[0], row.extents[k][1])
        row.cells, row.extents = cells, extents
    return rows, len(kept)


# ------------------------------------------------------------------------------------------- rows


def _groups(rows: list[_Row], n: int, size: float) -> list[list[_Row]] | None:
    """Lines that are one row together; None if that is not clear."""
    widths = [max((b - a for row in rows for a, b in [row.extents.get(k, (0.0, 0.0))]), default=0.0) for k in range(n)]
    # Lines that overlap in height are one row: a cell of several lines with another's middle beside it.
    bunches, free, reach = [[rows[0]]], [], rows[0].line.cy + rows[0].line.size / 2
    for row in rows[1:]:
        gap = row.line.cy - row.line.size / 2 - reach
        if gap < -0.15 * size:
            bunches[-1].append(row)
        else:
            bunches.append([row])
            free.append(gap)
        reach = max(reach, row.line.cy + row.line.size / 2)
    parted = _parted(bunches, free, widths, size)
    groups = [(parted or bunches)[0]]
    for bunch in (parted or bunches)[1:]:
        if len(bunch) == 1 and _goes_on(groups[-1], bunch[0], widths, surely=parted is not None):
            groups[-1] = groups[-1] + bunch
        else:
            groups.append(bunch)
    if len(bunches) < len(rows) and not parted:
        # Cells stand at the middle of their rows: a line alone may be a piece of the row below as well.
        thin = sum(len({k for row in group for k in row.cells}) <= n / 2 for group in groups)
        if thin > 0.1 * len(groups):
            return None
    return groups


def _parted(bunches: list[list[_Row]], free: list[float], widths: list[float], size: float) -> list[list[_Row]] | None:
    """Rows set apart by more free space than their lines are, if that is how this table is set."""
    steps = [(low, high) for low, high in itertools.pairwise(sorted(free)) if low <= 0.8 * size]
    for low, high in sorted(steps, key=lambda s: s[0] - s[1]):
        if high - low < 0.15 * size:
            break
        groups = [[bunches[0]]]
        for gap, bunch in zip(free, bunches[1:], strict=True):
            if gap > (low + high) / 2:
                groups.append([bunch])
            else:
                groups[-1].append(bunch)
        if len(groups) >= 2 and len(bunches) <= 5 * len(groups) and all(_is_one_row(g, widths) for g in groups):
            return [[row for bunch in group for row in bunch] for group in groups]
    return None


def _is_one_row(group: list[list[_Row]], widths: list[float]) -> bool:
    """Whether the lines of a group read as one row: no number below another cell's text, and texts run on."""
    good = bad = 0
    for k in range(len(widths)):
        mine = [
            (i, row.cells[k], row.extents[k], row.line.size) for i, b in enumerate(group) for row in b if k in row.cells
        ]
        for (i, text, extent, size), (j, after, _, _) in itertools.pairwise(mine):
            if i == j:
                continue
            if _solid(after):
                return False
            runs_on = _runs_on(text, extent, after, widths[k], size)
            good, bad = good + runs_on, bad + (not runs_on)
    return bad <= 0.34 * (good + bad)


def _solid(text: str) -> bool:
    """A number, or the sign for none: a cell that never has a second line."""
    return is_number(text) or bool(_BLANK.fullmatch(text))


def _is_open(text: str, after: str) -> bool:
    """Whether the words themselves say that ``after`` goes on with ``text``."""
    return after[0].islower() or after[0] in "(&/" or text.endswith(_OPEN_ENDS)


def _runs_on(text: str, extent: tuple[float, float], after: str, width: float, size: float) -> bool:
    """Whether ``after`` may be the next line of the cell ``text`` in a column of ``width`` points."""
    if _is_open(text, after):
        return True
    if width < 6 * size:
        return False  # in a narrow column every word is too long for the line above
    taken = extent[1] - extent[0]
    letter = taken / max(0.1, estimated_width(text))
    return taken + letter * estimated_width(" " + after.split()[0]) > 0.98 * width


def _goes_on(group: list[_Row], row: _Row, widths: list[float], surely: bool) -> bool:
    """Whether a line goes on with the cells of the row above it, by its words and by what would have fitted.

    ``surely``: by its words alone.
    """
    have = {k for above in group for k in above.cells}
    if have == {0} and len(row.cells) > 1 and 0 in row.cells:  # the label's numbers stand on its last line
        return row.cells[0][0].islower() and not group[-1].cells[0].endswith((":", "."))
    if not set(row.cells) < have or any(map(_solid, row.cells.values())):
        return False
    open_, runs_on = [], []
    for k, text in row.cells.items():
        above = next(r for r in reversed(group) if k in r.cells)
        before, solid = above.cells[k], _solid(above.cells[k])
        open_.append(not solid and _is_open(before, text))
        runs_on.append(not solid and _runs_on(before, above.extents[k], text, widths[k], row.line.size))
    if all(open_):
        return True
    missing = [r.cells.get(k, "") for r in group for k in have - set(row.cells)]
    if len(row.cells) > 1 and any(open_) and any(map(_solid, missing)):
        return True  # one cell goes on for sure, and the number that rows have is missing
    return not surely and all(runs_on) and (set(row.cells) != {0} or row.line.bold == group[-1].line.bold)


def _merged(group: list[_Row], n: int, join: Join) -> tuple[str, ...]:
    out = []
    for k in range(n):
        pieces = [row.cells[k] for row in group if k in row.cells]
        text = pieces[0] if pieces else ""
        for piece in pieces[1:]:
            text = join(text, piece)
        out.append(text)
    return tuple(out)


# ------------------------------------------------------------------------------------------- the whole


def _is_clear(table: list[tuple[str, ...]], lines: int) -> bool:
    """Enough rows and columns, and most cells of the grid filled."""
    n = len(table[0])
    filled = [sum(map(bool, row)) for row in table]
    full = sum(f > 1 for f in filled)
    if full < 2 or (len(table) < 3 and (n < 3 or min(filled) < n or lines > 2)):
        return False
    # Titles of sections stand alone on their row.
    cells = [f for f in filled if f > 1]
    if full < 0.5 * len(table) or sum(cells) < 0.55 * n * full:
        return False
    return all(sum(bool(row[k]) for row in table) >= max(1, 0.1 * full) for k in range(n))


def _with_header(table: list[tuple[str, ...]], bold: list[bool], join: Join) -> Grid:
    n = len(table[0])
    numeric = []
    for k in range(n):
        mine = [row[k] for row in table[1:] if row[k]]
        solid = [text for text in mine if _solid(text)]
        numeric.append(any(map(is_number, solid)) and len(solid) >= 0.6 * len(mine))
    numbers = [any(numeric[k] and is_number(row[k]) for k in range(n)) for row in table]
    first = next((i for i, has in enumerate(numbers) if has), 1) if any(numeric) else 1
    if first == 0:
        # Years and the like: a head of numbers has no label of its own, or is the one bold row.
        bare = (
            not table[0][0] and all(is_number(text) for text in table[0][1:] if text) and sum(map(bool, table[0])) > 1
        )
        first = int(bare or (bold[0] and not any(bold[1:])))
    head, at = list(table[0]) if first else [""] * n, min(first, 1)
    while 0 < at < min(first, 4) and not table[at][0] and any(table[at]):
        head = [join(a, b) if a and b else a or b for a, b in zip(head, table[at], strict=True)]
        at += 1
    if at >= len(table):
        head, at = [""] * n, 0
    return Grid(tuple(head), tuple(table[at:]), tuple(numeric))
