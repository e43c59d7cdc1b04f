"""A page image, or a region of one, to lines of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pdf2txt.ocr import boxes as quads
from pdf2txt.ocr.engine import Engine, load
from pdf2txt.ocr.lines import confidence, make_lines
from pdf2txt.ocr.upright import Upright, make_upright
from pdf2txt.schema import Box
from pdf2txt.spans import Line

_LONG = 3.0  # sides of a page in proportion: longer ones are read in pieces
_OVERLAP = 80  # pixels by which pieces overlap, more than a line's height
_TEXT_SCORE = 0.5  # below, a line is a picture's texture more often than text
_MIN_REGION = 32  # pixels; smaller regions hold no word
_MARGIN = 8  # pixels around a region: detectors miss letters that touch an image's edge


@dataclass
class OcrPage:
    """What was read. Coordinates of ``lines`` are pixels of the upright image divided by ``scale``: points."""

    lines: list[Line]
    rotation: int  # degrees clockwise by which the image was turned to be upright
    confidence: float  # mean over letters, 0..1; 0 where nothing was found
    width: float = 0.0  # of the image as it was drawn, before any turn, points
    height: float = 0.0


def read(image: Any, scale: float, backend: str, threads: int = 0, region: Box | None = None) -> OcrPage:
    """Text of a page image (uint8, height x width x 3, BGR), drawn at ``scale`` pixels per point.

    A very tall image (a web page on one sheet) is read in pieces, whose lines are put together again.

    Args:
        backend: what ``engines.resolve`` names: it tells the engine, too. threads: 0: the engine's own choice.
        region: only this box of the page (points, from the top left) is read; it is taken to be upright, and
            its lines are in the page's coordinates.

    Raises:
        UserError: the engine's weights are missing.
    """
    engine = load(backend, threads)
    if region is not None:
        return _read_region(engine, image, scale, region)
    return _read_pieces(engine, image, scale)


def _read_region(engine: Engine, image: Any, scale: float, region: Box) -> OcrPage:
    import numpy as np

    height, width = image.shape[:2]
    x0, y0 = (max(0, round(v * scale)) for v in region[:2])
    x1, y1 = (min(side, round(v * scale)) for v, side in zip(region[2:], (width, height), strict=True))
    if min(x1 - x0, y1 - y0) < _MIN_REGION:
        return OcrPage([], 0, 0.0)
    cut = image[y0:y1, x0:x1]
    paper = 255 if np.median(cut) > 127 else 0
    cut = np.pad(cut, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), constant_values=paper)
    read = _read_pieces(engine, cut, scale, upright=True)
    dx, dy = (x0 - _MARGIN) / scale, (y0 - _MARGIN) / scale
    for line in read.lines:
        line.x0, line.x1, line.y0, line.y1 = line.x0 + dx, line.x1 + dx, line.y0 + dy, line.y1 + dy
    return read


def _read_pieces(engine: Engine, image: Any, scale: float, upright: bool = False) -> OcrPage:
    import numpy as np

    height, width = image.shape[:2]
    if width > _LONG * height:  # a detector enlarges the short side: a strip would become enormous
        missing = int(width / _LONG) - height
        image = np.pad(image, ((0, missing), (0, 0), (0, 0)), constant_values=255)
    if height <= _LONG * width:
        return _read(engine, image, scale, upright)
    lines: list[Line] = []
    step = 2 * width
    for top in range(0, height, step):
        start = max(0, top - _OVERLAP)
        piece = np.ascontiguousarray(image[start : top + step + _OVERLAP])
        if piece.shape[0] < width // 2:
            short = width // 2 - piece.shape[0]
            piece = np.pad(piece, ((0, short), (0, 0), (0, 0)), constant_values=255)
        for line in _read(engine, piece, scale, upright=True).lines:
            line.y0, line.y1 = line.y0 + start / scale, line.y1 + start / scale
            if top <= line.cy * scale < top + step:  # else it belongs to the piece above or below
                lines.append(line)
    return OcrPage(lines, 0, confidence(lines))


def _read(engine: Engine, image: Any, scale: float, upright: bool = False) -> OcrPage:
    page = Upright(image, engine.find(image)) if upright else make_upright(engine, image)
    rest = [n for n in range(len(page.boxes)) if n not in page.read]
    readings = engine.recognise([quads.crop(page.image, page.boxes[n]) for n in rest])
    read = page.read | dict(zip(rest, readings, strict=True))
    found = [(quad, *read[n]) for n, quad in enumerate(page.boxes) if read[n][0].strip() and read[n][1] >= _TEXT_SCORE]
    middle = (page.image.shape[1] / 2, page.image.shape[0] / 2)
    lines = make_lines(found, middle, page.offset, scale, engine.letter_share)
    return OcrPage(lines, page.rotation if lines else 0, confidence(lines))
