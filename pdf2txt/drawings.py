"""What a page draws besides text: areas of pictures and charts, and rules.

Text inside such an area labels a drawing (ticks of an axis, a box of a diagram). Only the page's own objects
are looked at, not the content of its forms, so that a page costs about a tenth of a millisecond.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

from pdf2txt.schema import Box

_MOST = 4000  # objects of one page that are looked at; a page with more is a map
_PAGE = 0.7  # an area that covers more of the page is its background, or wraps all of its content
_SMALL = 12.0  # points: no side of a drawing that holds labels is shorter
_NEAR = 9.0  # points: strokes of one chart are no farther apart
_LINE = 6.0  # points: no row of a table is lower
_SHAPES = 4  # so many curved or slanted strokes make a chart; tables and boxes have none,
_SHARE = 0.05  # or hardly any beside their rules (a logo over the table)


@dataclass
class Drawings:
    """Boxes as seen, points."""

    charts: list[Box] = field(default_factory=list)  # embedded vector graphics, or many strokes close together
    pictures: list[Box] = field(default_factory=list)  # raster images
    rules: list[Box] = field(default_factory=list)  # horizontal lines at least 40 points long
    verticals: list[Box] = field(default_factory=list)  # vertical ones, at least as long as a line of text is high
    backgrounds: list[Box] = field(default_factory=list)  # raster images of nearly all the page: scans, slides

    @property
    def areas(self) -> list[Box]:
        return self.charts + self.pictures


def read(page: Any, frame: Any) -> Drawings:
    """The drawings of a ``pypdfium2.PdfPage``; ``frame`` (``textlayer.Frame``) maps them to the seen page."""
    import pypdfium2.raw as pdfium

    found = Drawings()
    width, height = frame.size
    strokes: list[Box] = []
    shapes: list[bool] = []
    sides = [ctypes.c_float() for _ in range(4)]
    for n in range(min(_MOST, pdfium.FPDFPage_CountObjects(page.raw))):
        item = pdfium.FPDFPage_GetObject(page.raw, n)
        kind = pdfium.FPDFPageObj_GetType(item)
        if kind not in (pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_FORM):
            continue
        if not pdfium.FPDFPageObj_GetBounds(item, *sides):
            continue
        left, bottom, right, top = (s.value for s in sides)
        ax, ay = frame.seen(left, top)
        bx, by = frame.seen(right, bottom)
        box = (max(0.0, min(ax, bx)), max(0.0, min(ay, by)), min(width, max(ax, bx)), min(height, max(ay, by)))
        w, h = box[2] - box[0], box[3] - box[1]
        if w < 0 or h < 0 or w * h > _PAGE * width * height:
            if kind == pdfium.FPDF_PAGEOBJ_IMAGE and w > 0 and h > 0:
                found.backgrounds.append(box)
            continue
        if kind == pdfium.FPDF_PAGEOBJ_PATH:
            if w >= 40 and h <= 3:
                found.rules.append(box)
            elif w <= 3 and h >= _LINE:
                found.verticals.append(box)
            if w < 0.8 * width:
                strokes.append(box)
                shapes.append(min(w, h) > 2 and _is_shape(pdfium, item))
                if w >= 40 and h >= _LINE and not shapes[-1] and _is_stroked(pdfium, item):
                    x0, y0, x1, y1 = box  # a box around a cell
                    found.rules += [(x0, y0, x1, y0), (x0, y1, x1, y1)]
                    found.verticals += [(x0, y0, x0, y1), (x1, y0, x1, y1)]
        elif min(w, h) >= _SMALL:
            (found.pictures if kind == pdfium.FPDF_PAGEOBJ_IMAGE else found.charts).append(box)
    if sum(shapes) >= _SHAPES:
        found.charts += _clusters(strokes, shapes)
    return found


def _is_stroked(pdfium: Any, item: Any) -> bool:
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    return bool(pdfium.FPDFPath_GetDrawMode(item, fill, stroke)) and bool(stroke.value)


def _is_shape(pdfium: Any, item: Any) -> bool:
    """Neither a straight line nor a rectangle: a curve, a polygon, a slanted stroke."""
    n = pdfium.FPDFPath_CountSegments(item)
    if n not in (4, 5):
        return bool(n > 1)
    x, y = ctypes.c_float(), ctypes.c_float()
    points = []
    for k in range(n):
        segment = pdfium.FPDFPath_GetPathSegment(item, k)
        if pdfium.FPDFPathSegment_GetType(segment) == pdfium.FPDF_SEGMENT_BEZIERTO:
            return True
        pdfium.FPDFPathSegment_GetPoint(segment, x, y)
        points.append((x.value, y.value))
    return len({round(x, 1) for x, _ in points}) > 2 or len({round(y, 1) for _, y in points}) > 2


def _clusters(boxes: list[Box], shapes: list[bool]) -> list[Box]:
    """Boxes around strokes close together, of those groups that hold shapes enough."""
    groups: list[tuple[Box, int, int]] = []  # (box, shapes, strokes)
    for box, shape in sorted(zip(boxes, shapes, strict=True), key=lambda s: s[0][1]):
        grown, curved, all_ = box, int(shape), 1
        while near := [g for g in groups if _touch(g[0], grown)]:
            groups = [g for g in groups if g not in near]
            for b, n, m in near:
                grown = (min(grown[0], b[0]), min(grown[1], b[1]), max(grown[2], b[2]), max(grown[3], b[3]))
                curved, all_ = curved + n, all_ + m
        groups.append((grown, curved, all_))
    return [
        b
        for b, curved, all_ in groups
        if curved >= max(_SHAPES, _SHARE * all_) and min(b[2] - b[0], b[3] - b[1]) >= 3 * _SMALL
    ]


def _touch(a: Box, b: Box) -> bool:
    return (
        a[0] - _NEAR <= b[2] and b[0] - _NEAR <= a[2] and a[1] - _NEAR <= b[3] and b[1] - _NEAR <= a[3]
    )  # fmt: skip
