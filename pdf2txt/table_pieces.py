"""Blocks of a page that are pieces of one table."""

from __future__ import annotations

import itertools
from dataclasses import replace
from statistics import median

from pdf2txt.blocks import RawBlock
from pdf2txt.spans import Line, bounding_box
from pdf2txt.table_columns import SAMPLE, columns_of
from pdf2txt.tables import find_grid


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
    nearest = table.lines[:SAMPLE] if above else table.lines[-SAMPLE:]
    (a0, _, a1, _), (b0, _, b1, _) = bounding_box(nearest), piece.box
    if piece.kind == "table":
        return (anywhere or _is_near(table, piece, 1.5)) and min(a1, b1) - max(a0, b0) > 0.5 * min(a1 - a0, b1 - b0)
    if piece.kind not in ("text", "list", "heading", "equation") or not (anywhere or _is_near(table, piece, 0.9)):
        return False
    size = median(line.size for line in nearest)
    columns = columns_of([line.cells for line in nearest], size)
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
