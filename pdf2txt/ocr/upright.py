"""Turns a page so that its text is upright and level.

Which of the four ways it lies: tall text boxes mean on its side; which side is up tells the recogniser, which
is sure of upright text only. Skew and a page upside down cost no second look for boxes, which are turned with the page,
and the lines read to find that out are not read again. Boxes of lines on their side are not good enough to read from:
such a page is turned and looked at again. As it is mostly wider than high, those have a quick look at a small image
first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pdf2txt.ocr import boxes as quads
from pdf2txt.ocr.engine import Engine

_SAMPLE = 5  # lines read to tell which side is up
_SURE = 0.9  # mean confidence of lines that need no second opinion from the turned image
_LEVEL = 0.4  # degrees of skew that do no harm: two pixels in the width of a word
_SMALL = 704  # pixels of an image's longer side that show which way its lines run
_SKEWED = 15.0  # more is no skew of a scanner
_WHITE = 255

Reading = tuple[str, float]


@dataclass
class Upright:
    """An upright image of the page and what is known of it."""

    image: Any
    boxes: Any
    rotation: int = 0  # degrees clockwise by which the page was turned, a multiple of 90
    skew: float = 0.0  # degrees clockwise by which its text ran off, taken out
    read: dict[int, Reading] = field(default_factory=dict)  # number of a box -> what was read in it

    offset: tuple[float, float] = (0.0, 0.0)  # of the page in the image, pixels


def make_upright(engine: Engine, image: Any) -> Upright:
    """The page upright, with its text boxes (maybe none)."""
    page = Upright(image, None)
    height, width = image.shape[:2]
    if width > height and quads.lie_on_side(engine.find(_small(image))):
        _turn_right(page)
    page.boxes = engine.find(page.image)
    if not page.rotation and quads.lie_on_side(page.boxes):
        _turn_right(page)
        page.boxes = engine.find(page.image)
    if not len(page.boxes):
        return Upright(image, page.boxes)
    skew = quads.slope(page.boxes)
    if _LEVEL < abs(skew) <= _SKEWED:
        page.skew = skew
        page.image, page.boxes, page.offset = level(page.image, page.boxes, skew)
    _turn_over(engine, page)
    return page


def _small(image: Any) -> Any:
    import cv2

    shrink = min(1.0, _SMALL / max(image.shape[:2]))
    return cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)


def _turn_right(page: Upright) -> None:
    import numpy as np

    page.rotation, page.image = 90, np.ascontiguousarray(np.rot90(page.image, -1))


def level(image: Any, boxes: Any, skew: float) -> tuple[Any, Any, tuple[float, float]]:
    """The image turned back by ``skew`` degrees about its middle, on a canvas that holds all of it.

    Returns:
        The image, the boxes in it, and the place of the original's top left corner in it (pixels), as if it had not
        been turned.
    """
    import cv2
    import numpy as np

    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), skew, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    wide, high = round(width * cos + height * sin), round(width * sin + height * cos)
    offset = ((wide - width) / 2, (high - height) / 2)
    matrix[:, 2] += offset
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    paper = [int(value) for value in np.median(edge, axis=0)] if edge.size else [_WHITE] * 3
    turned = cv2.warpAffine(
        image, matrix, (wide, high), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=paper
    )
    return turned, (boxes @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32), offset


def _turn_over(engine: Engine, page: Upright) -> None:
    """Turn the page by 180 degrees if its widest lines read better that way."""
    import numpy as np

    widths = [quads.sides(q)[0] for q in page.boxes]
    sample = sorted(range(len(widths)), key=lambda n: -widths[n])[:_SAMPLE]
    crops = [quads.crop(page.image, page.boxes[n]) for n in sample]
    as_is = engine.recognise(crops)
    if _mean(as_is) < _SURE:
        turned = engine.recognise([np.ascontiguousarray(c[::-1, ::-1]) for c in crops])
        if _mean(turned) > _mean(as_is):
            height, width = page.image.shape[:2]
            page.boxes = quads.upside_down(page.boxes, width, height)
            page.image = np.ascontiguousarray(page.image[::-1, ::-1])
            page.rotation = (page.rotation + 180) % 360
            as_is = turned
    page.read = dict(zip(sample, as_is, strict=True))


def _mean(readings: list[Reading]) -> float:
    """Mean confidence; lines without letters count as not read."""
    return sum(score for text, score in readings if text.strip()) / len(readings)
