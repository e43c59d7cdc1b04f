"""Columns of a table, and its cells by column.

Columns are what cells of all rows leave free between them (x-intervals that overlap belong together, as in the
projection profiles of Kieninger's T-Recs, 1998). A cell that covers several columns is either two cells that stand
too close to be told apart on their own row, and is cut where the columns part, or spans them.
"""

from __future__ import annotations

import itertools
import re
from statistics import median

import numpy as np

from pdf2txt.spans import Line
from pdf2txt.table_cells import Row, estimated_width

_CURRENCY = re.compile(r"[$€£¥]")
_CLOSING = re.compile(r"\)?\s*%|\)")
SAMPLE = 60  # rows that columns are judged by, so that the time for a table grows with its lines only


def columns_of(cells: list[list[tuple[str, float, float]]], size: float) -> list[tuple[float, float]]:
    """(x0, x1) of each column, left to right."""
    several = [row for row in cells if len(row) > 1]
    several = several[:: 1 + len(several) // SAMPLE]
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


def place(lines: list[Line], columns: list[tuple[float, float]]) -> tuple[list[Row], int]:
    """Cells by column, and how many could not be given one of their own."""
    edges = _edges(lines, columns)
    rows, doubts = [], 0
    for line in lines:
        row = Row(line, {}, {})
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


def tidy_money(rows: list[Row], n: int) -> tuple[list[Row], int]:
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
