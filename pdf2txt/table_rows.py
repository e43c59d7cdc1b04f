"""Rows of a table: lines, except that a line may go on with the cells of the row above it.

Told by the free space between lines where rows are set apart by more than lines are, and else by what could not have
fitted on the line above.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from pdf2txt.table_cells import Row, estimated_width, is_solid

Join = Callable[[str, str], str]

_OPEN_ENDS = (*"-\u00ad\x02,/&–(", " and", " or", " of", " the", " in", " for", " to", " with")


def groups_of(rows: list[Row], n: int, size: float) -> list[list[Row]] | None:
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


def _parted(bunches: list[list[Row]], free: list[float], widths: list[float], size: float) -> list[list[Row]] | None:
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


def _is_one_row(group: list[list[Row]], widths: list[float]) -> bool:
    """Whether the lines of a group read as one row: no number below another cell's text, and texts run on."""
    good = bad = 0
    for k in range(len(widths)):
        mine = [
            (i, row.cells[k], row.extents[k], row.line.size) for i, b in enumerate(group) for row in b if k in row.cells
        ]
        for (i, text, extent, size), (j, after, _, _) in itertools.pairwise(mine):
            if i == j:
                continue
            if is_solid(after):
                return False
            runs_on = _runs_on(text, extent, after, widths[k], size)
            good, bad = good + runs_on, bad + (not runs_on)
    return bad <= 0.34 * (good + bad)


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


def _goes_on(group: list[Row], row: Row, widths: list[float], surely: bool) -> bool:
    """Whether a line goes on with the cells of the row above it, by its words and by what would have fitted.

    ``surely``: by its words alone.
    """
    have = {k for above in group for k in above.cells}
    if have == {0} and len(row.cells) > 1 and 0 in row.cells:  # the label's numbers stand on its last line
        return row.cells[0][0].islower() and not group[-1].cells[0].endswith((":", "."))
    if not set(row.cells) < have or any(map(is_solid, row.cells.values())):
        return False
    open_, runs_on = [], []
    for k, text in row.cells.items():
        above = next(r for r in reversed(group) if k in r.cells)
        before, solid = above.cells[k], is_solid(above.cells[k])
        open_.append(not solid and _is_open(before, text))
        runs_on.append(not solid and _runs_on(before, above.extents[k], text, widths[k], row.line.size))
    if all(open_):
        return True
    missing = [r.cells.get(k, "") for r in group for k in have - set(row.cells)]
    if len(row.cells) > 1 and any(open_) and any(map(is_solid, missing)):
        return True  # one cell goes on for sure, and the number that rows have is missing
    return not surely and all(runs_on) and (set(row.cells) != {0} or row.line.bold == group[-1].line.bold)


def merged(group: list[Row], n: int, join: Join) -> tuple[str, ...]:
    out = []
    for k in range(n):
        pieces = [row.cells[k] for row in group if k in row.cells]
        text = pieces[0] if pieces else ""
        for piece in pieces[1:]:
            text = join(text, piece)
        out.append(text)
    return tuple(out)
