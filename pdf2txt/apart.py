"""Text on a page that is no part of what its author tells: labels inside figures, and the box of publication
data in the margin of a first page.

Both are taken out before the reading order is sought, where scattered words would be taken for columns. What
is taken is kept as blocks of kinds of their own; settings say whether their text is shown.
"""

from __future__ import annotations

import re
from collections import Counter
from statistics import median

from pdf2txt.blocks import CAPTION, FIGURE, RULED, longest_prose
from pdf2txt.edges import PageLines
from pdf2txt.grids import ruled_areas, ruled_tables
from pdf2txt.order import Region, rows
from pdf2txt.schema import Box
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spans import Line, bounding_box, same_row
from pdf2txt.tables import find_grid

_PLACED = ("figure", RULED)  # kinds of regions that have their place between others
_AROUND = 5.0  # points around a drawing in which its outer labels stand
_ALONE_SIDE = 72.0  # a drawing without a caption is a figure only if its sides are at least so long, points,
_ALONE_LABELS = 6  # with so many labels
_PROSE = 7  # ordinary words in a row: a sentence, no label
_NARROW = 0.4  # a margin box is at most so wide, as a share of the main text
_BLURB = 25  # words without any sign of publication data: a paragraph that somebody should read

# Words of the publication data of a journal's or a preprint's first page.
_DATA = re.compile(
    r"\b(doi|issn|isbn|arxiv|orcid|received|revised|accepted|submitted|published|publication|available online"
    r"|citation|cite|copyright|licen[sc]ed?|licen[sc]ee|creative commons|open access|correspondence"
    r"|corresponding author|editor|edited by|reviewe[dr]s?( by)?|eingereicht|angenommen|veröffentlicht|lizenz)\b|©",
    re.I,
)


def sort_out(page: PageLines, number: int, settings: Pdf2txtSettings) -> list[Region]:
    """Take figures' labels and, on page ``number`` 1, publication data out of ``page.lines``.

    What the settings drop goes to ``page.furniture``; the rest comes back as regions, to be put in their
    places by ``put_back`` once the order of the others is known.
    """
    if not page.lines:
        return []
    out: list[Region] = []
    size = _main_size(page.lines)
    for box, captioned in _figure_areas(page, size):
        if labels := _labels(box, captioned, page.lines, size):
            _move(page, labels, "figure", None if settings.figures == "drop" else out)
    upright = [a for a in page.lines if not a.turn]
    for table in ruled_tables(upright, page.drawn):
        gone = {id(a) for a in table.lines}
        page.lines = [a for a in page.lines if id(a) not in gone]
        out.append(Region(table.rows, RULED))
    for area in ruled_areas([a for a in page.lines if not a.turn], page.drawn):
        here = {id(a) for a in page.lines}
        if any(CAPTION.match(a.text) for a in area.lines) or not all(id(a) in here for a in area.lines):
            continue  # two tables, or a piece of the one that was found
        if grid := find_grid(rows(area.lines), "{}\n{}".format, area.rules):
            gone = {id(a) for a in area.lines}
            page.lines = [a for a in page.lines if id(a) not in gone]
            head = [grid.header] if any(grid.header) else []
            out.append(Region(area.as_rows([*head, *grid.rows]), RULED))
    if number == 1 and (data := publication_data(page.lines)):
        _move(page, data, "margin", None if settings.margin_boxes == "drop" else out)
    return out


def _move(page: PageLines, lines: list[Line], kind: str, shown: list[Region] | None) -> None:
    gone = {id(a) for a in lines}
    page.lines = [a for a in page.lines if id(a) not in gone]
    upright = rows([a for a in lines if not a.turn]) + sorted((a for a in lines if a.turn), key=lambda a: a.x0)
    if shown is not None:
        shown.append(Region(upright, kind))
        return
    x0, y0, x1, y1 = bounding_box(lines)
    text = " ".join(a.text for a in upright)
    page.furniture.append((kind, Line(text, x0, y0, x1, y1, upright[0].size)))


def put_back(regions: list[Region], apart: list[Region]) -> list[Region]:
    """Figures and ruled tables in front of what stands below them, margin boxes at the page's end."""
    out = list(regions)
    for figure in (r for r in apart if r.kind in _PLACED):
        x0, y0, x1, y1 = bounding_box(figure.lines)
        alone = not any(y0 < a.cy < y1 for r in out for a in r.lines)  # then all that is below comes after it
        for k, region in enumerate(out):
            below = (n for n, a in enumerate(region.lines) if a.cy > y1 and (alone or (a.x0 < x1 and a.x1 > x0)))
            n = next(below, None)
            if n is not None:
                parts = [Region(region.lines[:n], region.kind), figure, Region(region.lines[n:], region.kind)]
                out[k : k + 1] = [r for r in parts if r.lines]
                break
        else:
            out.append(figure)
    return out + [r for r in apart if r.kind not in _PLACED]


def _main_size(lines: list[Line]) -> float:
    """Font size of most letters, points."""
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[round(line.size * 2) / 2] += len(line.text)
    return sizes.most_common(1)[0][0]


def _figure_areas(page: PageLines, size: float) -> list[tuple[Box, bool]]:
    """Drawings that may be figures, largest first, and whether a figure's caption stands at them.

    Text over a raster image may be anything (a slide's words over its background), so that an image counts
    only with a caption; a drawing with a table's caption is a table's frame.
    """
    captions = [a for a in page.lines if not a.turn and CAPTION.match(a.text)]
    found = []
    for box in page.drawn.charts + page.drawn.pictures:
        near = [a for a in captions if _at(a, box, size)]
        captioned = any(FIGURE.match(a.text) for a in near)
        if near and not captioned:
            continue
        if captioned or box in page.drawn.charts:
            found.append((box, captioned))
    return sorted(found, key=lambda f: (f[0][0] - f[0][2]) * (f[0][3] - f[0][1]))


def _at(caption: Line, box: Box, size: float) -> bool:
    """Right above or below the box, or beside it."""
    x0, y0, x1, y1 = box
    if min(caption.x1, x1) > max(caption.x0, x0):
        return -2 * size < caption.y0 - y1 < 4 * size or -2 * size < y0 - caption.y1 < 4 * size
    gap = max(caption.x0 - x1, x0 - caption.x1)
    return gap < 4 * size and y0 - size < caption.cy < y1 + size


def _labels(box: Box, captioned: bool, lines: list[Line], size: float) -> list[Line]:
    """The lines inside the drawing if they are labels, none if they are text in a frame."""
    x0, y0, x1, y1 = box[0] - _AROUND, box[1] - _AROUND, box[2] + _AROUND, box[3] + _AROUND
    inside = [
        a
        for a in lines
        if x0 <= (a.x0 + a.x1) / 2 <= x1 and y0 <= a.cy <= y1 and not CAPTION.match(a.text)
        and (a.turn or (a.x0 > x0 - size and a.x1 < x1 + size))
    ]  # fmt: skip
    if not inside:
        return []
    letters = sum(len(a.text) for a in inside)
    if sum(len(a.text) for a in inside if longest_prose(a.text) >= _PROSE) > 0.25 * letters:
        return []
    if captioned:
        return inside
    short = sum(len(a.text.split()) <= 3 for a in inside) >= 0.8 * len(inside)
    small = median(a.size for a in inside) < 0.95 * size and max(a.size for a in inside) < 1.3 * size
    large = min(box[2] - box[0], box[3] - box[1]) >= _ALONE_SIDE
    return inside if short and small and large and len(inside) >= _ALONE_LABELS else []


def publication_data(lines: list[Line]) -> list[Line]:
    """The lines of a first page's margin box: DOI, dates, licence, editors.

    Several witnesses must agree: the box stands beside the main text and outside of its width, with at least
    a third of it above or beside that text's upper half; it is narrow and set smaller; it names publication
    data more than once; and it holds no paragraph without them (a sidebar is to be read).
    """
    upright = [a for a in lines if not a.turn]
    if len(upright) < 8:
        return []
    size = _main_size(upright)
    body = [a for a in upright if abs(a.size - size) < 0.06 * size and len(a.text) > 30]
    if len(body) < 5:
        return []
    left, right = min(a.x0 for a in body), max(a.x1 for a in body)
    out: list[Line] = []
    for side in (
        [a for a in upright if a.x1 < left - 0.5 * size],
        [a for a in upright if a.x0 > right + 0.5 * size],
    ):
        top, bottom = min(a.y0 for a in body), max(a.y1 for a in body)
        box = [a for a in side if a.size < 0.95 * size and a.y1 < bottom + size]
        if len(box) < 3 or len(box) < 0.9 * len(side):
            continue
        x0, _, x1, y1 = bounding_box(box)
        if x1 - x0 > _NARROW * (right - left) or y1 < top:
            continue
        text = "\n".join(a.text for a in sorted(box, key=lambda a: (a.cy, a.x0)))
        names = {m.group().casefold() for m in _DATA.finditer(text)}
        if len(names) >= 2 and not _holds_blurb(box):
            out += box
    return out


def _holds_blurb(box: list[Line]) -> bool:
    """Whether a paragraph of the box is for readers: long, and without any word of publication data."""
    paragraph: list[Line] = []
    for line in [*sorted(box, key=lambda a: a.cy), None]:
        if line is not None and paragraph:
            before = paragraph[-1]
            if same_row(before, line) or line.cy - before.cy < 1.6 * max(line.size, before.size):
                paragraph.append(line)
                continue
        text = " ".join(a.text for a in paragraph)
        if len(text.split()) >= _BLURB and not _DATA.search(text):
            return True
        paragraph = [line] if line is not None else []
    return False
