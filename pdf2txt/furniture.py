"""Running heads, feet and page numbers: what a page carries for the book, not for the reader of the text.

A line is furniture if it stands at the edge of the page *and* recurs at that place on other pages
(`recurrence.py`), or, where no other page can tell, if enough speaks for it on its own (`witnesses.py`).
"""

from __future__ import annotations

from pdf2txt.edges import INNER, Candidate, PageLines, Row, key_of
from pdf2txt.order import row_groups
from pdf2txt.schema import Box
from pdf2txt.spans import Line, join_row
from pdf2txt.witnesses import SMALLER, alone_is, blocks_of, is_enough, outermost, page_number, runs_on

_ROWS = 5  # so many rows at each end of a page are looked at,
_SMALL_ROWS = 12  # and more while they are set smaller than the page's text: a foot of legal notes
_LEVEL = 0.012  # rows stand level on two pages if they differ by less than this share of the page height
_ZONE = 0.17  # and only within this share of the page height from its edge,
_ZONE_POINTS = 60.0  # or within these points on small pages
_SHORT = 2  # a document of so many pages or fewer is too short for recurrence: there a layout model may be asked

Labels = list[tuple[Box, str, float]]  # a layout model's opinion of a page: (box in points, label, score 0..1)


def candidates(page: PageLines) -> list[Candidate]:
    """Rows of one page that may be furniture: a few at either edge."""
    flat = [(n, line) for n, line in enumerate(page.lines) if not line.turn]
    if not flat:
        return []
    index = {id(line): n for n, line in flat}
    zone = max(_ZONE * page.height, min(_ZONE_POINTS, 0.3 * page.height))
    flat_lines = [a for _, a in flat]
    size = sorted(a.size for a in flat_lines)[len(flat) // 2]
    out = []
    for top in (True, False):
        near = [a for _, a in flat if (a.y1 < zone if top else a.y0 > page.height - zone)]
        inner = not near
        if inner and not top:
            # The page ends early (a cut-out, a last page): its last row may still be its number.
            near = [max((a for _, a in flat), key=lambda a: a.y1)]
            near = [a for _, a in flat if a.cy > near[0].y0]
        ordered = row_groups(near)
        if not top:
            ordered.reverse()
        rows: list[tuple[Line, list[Line], float]] = []
        for rank, parts in enumerate(ordered[:_SMALL_ROWS]):
            if rank >= _ROWS and parts[0].size > SMALLER * size:
                break
            row = join_row(parts)
            if top:
                gap = min((a.y0 for _, a in flat if a.cy > row.y1), default=page.height) - row.y1
            else:
                gap = row.y0 - max((a.y1 for _, a in flat if a.cy < row.y0), default=0.0)
            rows.append((row, parts, gap / max(0.1, row.height)))
        alone = [alone_is(row, parts, top, rank, page, inner) for rank, (row, parts, _) in enumerate(rows)]
        blocks = blocks_of(rows, alone, top, page) if not inner else {}
        for rank, (row, parts, gap) in enumerate(rows):
            block, witnesses = blocks.get(rank, (INNER, ()))
            out.append(
                Candidate(
                    row.text, key_of(row.text), top, rank, row.cy if top else page.height - row.cy,
                    _LEVEL * page.height, gap, alone[rank], page_number(parts),
                    runs_on(parts, top, flat_lines), block, witnesses, tuple(index[id(a)] for a in parts),
                )
            )  # fmt: skip
    return out


def doubtful(pages: list[list[Candidate]], decided: list[list[Row]]) -> list[list[Row]]:
    """For every page the rows that a layout model's label would prove furniture; none in longer documents."""
    if len(pages) > _SHORT:
        return [[] for _ in pages]
    out = []
    for page, rows in zip(pages, decided, strict=True):
        taken = {parts: kind for kind, parts in rows}
        found = outermost(page, taken, lambda c: is_enough(c.witnesses, True))
        out.append([("header" if c.top else "footer", c.parts) for c in found if c.parts not in taken])
    return out


def confirmed(page: PageLines, rows: list[Row], labels: Labels) -> list[Row]:
    """Those of ``rows`` that the label of their kind covers by half of their width or more."""
    out = []
    for kind, parts in rows:
        row = join_row([page.lines[n] for n in parts])
        spans = sorted(
            (max(box[0], row.x0), min(box[2], row.x1))
            for box, name, score in labels
            if name == kind and score >= 0.5 and box[1] - 2 <= row.cy <= box[3] + 2
        )
        covered, at = 0.0, row.x0
        for low, high in spans:
            covered += max(0.0, high - max(low, at))
            at = max(at, high)
        whole = covered >= 0.5 * min(row.width, sum(page.lines[n].width for n in parts))
        # Of a name and a page number far apart, the model may have seen the number only.
        ends = (row.x0, row.x1)
        if whole or any(
            high - low < 30 and min(abs(low - e) + abs(high - e) for e in ends) < 40 for low, high in spans
        ):
            out.append((kind, parts))
    return out


def take(page: PageLines, rows: list[Row]) -> None:
    """Move ``rows`` of ``page``, and text that runs up its margin, from ``lines`` to ``furniture``."""
    gone: set[int] = set()
    for kind, parts in rows:
        if not gone & set(parts):  # taken already: on a very low page a row may be near both edges
            gone |= set(parts)
            page.furniture.append((kind, join_row([page.lines[n] for n in parts])))
    for n, line in enumerate(page.lines):
        # Text that runs up the margin of an upright page (an archive's stamp) belongs to no paragraph.
        if line.turn and n not in gone and (line.x1 < 0.09 * page.width or line.x0 > 0.91 * page.width):
            gone.add(n)
            page.furniture.append(("header", line))
    page.lines = [a for n, a in enumerate(page.lines) if n not in gone]
