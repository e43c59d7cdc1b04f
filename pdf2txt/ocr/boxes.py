"""Geometry of text boxes: arrays (n, 4 corners from top left clockwise, xy) in pixels, y downwards."""

from __future__ import annotations

import math
from typing import Any

TALL = 1.5  # sides in proportion from which a box stands or lies
_LONG = 5.0  # from which its slope is the text's
_MIN_LONG = 3  # so many such boxes make a median


def sides(quad: Any) -> tuple[float, float]:
    """Width and height."""
    return math.dist(quad[0], quad[1]), math.dist(quad[1], quad[2])


def lie_on_side(boxes: Any) -> bool:
    """Most of the text (by length) stands in tall boxes."""
    tall = flat = 0.0
    for w, h in map(sides, boxes):
        if h > TALL * w:
            tall += h
        elif w > TALL * h:
            flat += w
    return tall > flat


def slope(boxes: Any) -> float:
    """Degrees by which the text runs downwards, the median of the long boxes weighed by length; 0 for a few."""
    slopes = []
    for quad in boxes:
        w, h = sides(quad)
        if w > _LONG * h:
            (x0, y0), (x1, y1) = quad[0], quad[1]
            slopes.append((math.degrees(math.atan2(y1 - y0, x1 - x0)), w))
    if len(slopes) < _MIN_LONG:
        return 0.0
    slopes.sort()
    half, seen = sum(w for _, w in slopes) / 2, 0.0
    for angle, w in slopes:
        seen += w
        if seen >= half:
            return angle
    return 0.0


def upside_down(boxes: Any, width: int, height: int) -> Any:
    """``boxes`` after a turn of their image (``width`` x ``height``) by 180 degrees."""
    import numpy as np

    return np.roll(np.asarray((width, height), np.float32) - boxes, 2, axis=1)


def crop(image: Any, quad: Any) -> Any:
    """What is in the box, made level; turned counterclockwise where the box is tall (how such labels are read)."""
    import cv2
    import numpy as np

    w, h = (max(1, round(side)) for side in sides(quad))
    target = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    matrix = cv2.getPerspectiveTransform(np.asarray(quad, np.float32), target)
    cut = cv2.warpPerspective(image, matrix, (w, h), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(np.rot90(cut)) if h > TALL * w else cut
