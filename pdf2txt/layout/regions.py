"""Lines of a page as the regions that a layout model saw, ordered by recursive cuts."""

from __future__ import annotations

from collections.abc import Iterable

from pdf2txt.layout import Detection
from pdf2txt.order import Reading, Region, rows
from pdf2txt.schema import Box
from pdf2txt.spans import Line, bounding_box

# Kinds that say nothing about a region's place in the text. "text" leaves the judgement to the lines' looks
# (see blocks); that something is a running head is no verdict either: one page proves nothing (see furniture).
_NO_OPINION = frozenset({"text", "header", "footer", "page-number"})
EDGE = frozenset({"header", "footer", "page-number", "footnote"})


def order_regions(lines: list[Line], found: Iterable[Detection]) -> Reading:
    """Give every line to the most trusted detection that holds its middle, and order the regions.

    Lines in no detection stand alone. All detections, those of running heads and feet included, are kept in
    the result's ``detections``; ``at_edges`` says which lines those hold.
    """
    ranked, members, alone = _assign(lines, found)
    clusters = [Region([line]) for line in alone]
    for detection, mine in zip(ranked, members, strict=True):
        if mine:
            clusters.append(Region(rows(mine), "" if detection.kind in _NO_OPINION else detection.kind))
    return Reading(_cut(clusters), True, tuple(ranked))


def at_edges(lines: list[Line], found: Iterable[Detection]) -> list[tuple[str, float, Line]]:
    """(kind, score, line) of the lines that a model takes for running heads, feet, page numbers or footnotes.

    One witness among others: models take titles for heads and last lines for feet, on single pages.
    """
    ranked, members, _ = _assign(lines, found)
    return [
        (detection.kind, detection.score, line)
        for detection, mine in zip(ranked, members, strict=True)
        if detection.kind in EDGE
        for line in mine
    ]


def _assign(lines: list[Line], found: Iterable[Detection]) -> tuple[list[Detection], list[list[Line]], list[Line]]:
    """(detections by falling score, the lines of each, lines in none)."""
    ranked = sorted(found, key=lambda d: -d.score)
    members: list[list[Line]] = [[] for _ in ranked]
    alone = []
    for line in lines:
        cx, cy = (line.x0 + line.x1) / 2, line.cy
        for k, detection in enumerate(ranked):
            x0, y0, x1, y1 = detection.box
            if x0 <= cx <= x1 and y0 <= cy <= y1:
                members[k].append(line)
                break
        else:
            alone.append(line)
    return ranked, members, alone


def _cut(clusters: list[Region]) -> list[Region]:
    """Left of a free vertical strip first; where there is none, above a free horizontal strip first."""
    if len(clusters) < 2:
        return clusters
    boxes = [bounding_box(c.lines) for c in clusters]
    for axis in (0, 1):
        at = _free(boxes, axis)
        if at is not None:
            first = [c for c, b in zip(clusters, boxes, strict=True) if (b[axis] + b[axis + 2]) / 2 < at]
            rest = [c for c, b in zip(clusters, boxes, strict=True) if (b[axis] + b[axis + 2]) / 2 >= at]
            if first and rest:
                return _cut(first) + _cut(rest)
    return [c for _, c in sorted(zip(boxes, clusters, strict=True), key=lambda bc: (bc[0][1], bc[0][0]))]


def _free(boxes: list[Box], axis: int) -> float | None:
    """Where along the axis (0: x, 1: y) the widest strip without any box lies."""
    spans = sorted((b[axis], b[axis + 2]) for b in boxes)
    best, at, reach = 0.0, None, spans[0][1]
    for low, high in spans[1:]:
        if low - reach > best:
            best, at = low - reach, (low + reach) / 2
        reach = max(reach, high)
    return at
