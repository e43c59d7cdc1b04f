"""Lines of a table to a grid of cells, where the grid is clear.

A grid is clear if nearly every cell has one column to itself (`table_columns.py`) and nearly every column a cell on
most rows (`table_rows.py`). Where it is not, the caller keeps the lines as they are; no rule here may drop or repeat a
word.
"""

from __future__ import annotations

import functools
import itertools
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pdf2txt.blocks import BREAK
from pdf2txt.spans import Line
from pdf2txt.table_cells import Row, is_number, is_solid
from pdf2txt.table_columns import columns_of, place, tidy_money
from pdf2txt.table_rows import Join, groups_of, merged

_LEADERS = re.compile(r"(\.\s?){5,}|…{2,}")  # of a table of contents
_FORMULA = re.compile(r"[+·×÷−]$|.*[=∑∫∏√∂∀∃⇒→≈]|[|{}\sz]*[{}][|{}\sz]*$")
_MARK = re.compile(r"[^\w\s]|o|\(?(\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.)]|\[\d{1,3}\]")  # of a list's item
_MOST_COLUMNS, _MOST_LINES = 30, 2000
_MOST_LETTERS = 160  # of a cell on average: more is prose in columns


@dataclass(frozen=True)
class Grid:
    """A table of ``len(header)`` columns; every row has as many cells, "" where there is none."""

    header: tuple[str, ...]  # all "" if no row looks like one
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]  # columns that hold numbers


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
    columns = columns_of(cells, size)
    if not 2 <= len(columns) <= _MOST_COLUMNS:
        return None
    rows, doubts = place(lines, columns)
    if doubts > 0.1 * sum(map(len, cells)) or _is_list(rows, len(columns)) or _is_prose(rows, len(columns)):
        return None
    rows, n = tidy_money(rows, len(columns))
    groups = groups_of(rows, n, size)
    if groups is None:
        return None
    if rules:
        by_rule = [itertools.groupby(group, key=lambda row: bisect_left(rules, row.line.cy)) for group in groups]
        groups = [list(rows) for parts in by_rule for _, rows in parts]
    table = [merged(group, n, join) for group in groups]
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


def _is_no_table(cells: list[list[tuple[str, float, float]]]) -> bool:
    """A table of contents, a formula taken apart, or columns of prose."""
    texts = [text.strip() for row in cells for text, _, _ in row]
    leaders = sum(any(_LEADERS.search(text) for text, _, _ in row) for row in cells)
    formulas = sum(bool(_FORMULA.match(text)) for text in texts)
    return (
        leaders >= 0.3 * len(cells) or formulas >= 0.3 * len(texts) or sum(map(len, texts)) > _MOST_LETTERS * len(texts)
    )


def _is_list(rows: list[Row], n: int) -> bool:
    """Marks of a list, and its items."""
    marks = [row.cells[0] for row in rows if 0 in row.cells]
    return n == 2 and all(_MARK.fullmatch(mark) for mark in marks)


def _is_prose(rows: list[Row], n: int) -> bool:
    """Columns of running text side by side: every one filled from side to side by most of its lines."""
    for k in range(n):
        mine = [(row.cells[k], row.extents[k]) for row in rows if k in row.cells]
        if not mine or median(len(text.split()) for text, _ in mine) < 4:
            return False
        width = max(b for _, (_, b) in mine) - min(a for _, (a, _) in mine)
        if sum(b - a > 0.8 * width for _, (a, b) in mine) < 0.6 * len(mine):
            return False
    return True


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
        solid = [text for text in mine if is_solid(text)]
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
