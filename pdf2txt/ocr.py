"""Reading page images with RapidOCR (PP-OCRv6, its weights ship in the wheel): text lines with boxes.

The page's orientation is decided once for the whole page: tall text boxes mean that it lies on its side,
and a vote of the 0/180 classifier over its widest lines tells which way up. A slight skew of a scan is
taken out of the boxes (recognition works on straightened crops anyhow), so that the geometry code sees
level lines.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from statistics import median
from typing import Any

from pdf2txt.spans import Line

_SKEW_LIMIT = 8.0  # degrees: more is no skew of a scanner
_TALL = 1.5
_LONG = 3.0  # sides of a page in proportion: longer ones are read in pieces
_OVERLAP = 80  # pixels by which pieces overlap, more than a line's height
_TEXT_SCORE = 0.5  # below, RapidOCR's own default too, a line is a picture's texture more often than text
_DOT = re.compile(r"(?<=[a-zA-Z,.;])·(?=[a-zA-Z])")  # how the recogniser sometimes writes a space
_HEIGHT_TO_SIZE = 0.72  # detected boxes are drawn a little around the letters


@dataclass
class OcrPage:
    """What was read. Coordinates of ``lines`` are pixels of the turned image divided by ``scale``: points."""

    lines: list[Line]
    rotation: int  # degrees clockwise by which the image was turned to be upright
    confidence: float  # mean over letters, 0..1; 1 where nothing was found
    width: float = 0.0  # of the image as it was drawn, before any turn, points
    height: float = 0.0


@functools.cache
def _engine(backend: str, threads: int) -> Any:
    from rapidocr import EngineType, RapidOCR

    kind = EngineType.OPENVINO if backend == "openvino" else EngineType.ONNXRUNTIME
    params: dict[str, Any] = {
        "Global.log_level": "critical",
        "Global.text_score": _TEXT_SCORE,
        "Det.engine_type": kind,
        "Cls.engine_type": kind,
        "Rec.engine_type": kind,
    }
    if threads > 0:
        params["EngineConfig.openvino.inference_num_threads"] = threads
        params["EngineConfig.onnxruntime.intra_op_num_threads"] = threads
    return RapidOCR(params=params)


def read(image: Any, scale: float, backend: str, threads: int = 0) -> OcrPage:
    """Text of a page image (uint8, height x width x 3, BGR), drawn at ``scale`` pixels per point.

    A very tall image (a web page on one sheet) is read in pieces, whose lines are put together again.
    """
    import numpy as np

    height, width = image.shape[:2]
    if width > _LONG * height:  # the detector enlarges the short side: a strip would become enormous
        missing = int(width / _LONG) - height
        image = np.pad(image, ((0, missing), (0, 0), (0, 0)), constant_values=255)
    if height <= _LONG * width:
        return _read(image, scale, backend, threads)
    lines: list[Line] = []
    step = 2 * width
    for top in range(0, height, step):
        start = max(0, top - _OVERLAP)
        piece = np.ascontiguousarray(image[start : top + step + _OVERLAP])
        if piece.shape[0] < width // 2:
            short = width // 2 - piece.shape[0]
            piece = np.pad(piece, ((0, short), (0, 0), (0, 0)), constant_values=255)
        for line in _read(piece, scale, backend, threads, upright=True).lines:
            line.y0, line.y1 = line.y0 + start / scale, line.y1 + start / scale
            if top <= line.cy * scale < top + step:  # else it belongs to the piece above or below
                lines.append(line)
    return OcrPage(lines, 0, _confidence(lines))


def _read(image: Any, scale: float, backend: str, threads: int, upright: bool = False) -> OcrPage:
    import numpy as np

    engine = _engine(backend, threads)
    engine._load_cls_model()  # loaded lazily by RapidOCR, but we call its parts one by one
    engine._load_rec_model()
    rotation = 0
    boxes = _detect(engine, image)
    if len(boxes) and not upright and _lies_on_side(boxes):
        rotation = 90
        image = np.ascontiguousarray(np.rot90(image, -1))
        boxes = _detect(engine, image)
    if len(boxes) and not upright and _upside_down(engine, image, boxes):
        rotation = (rotation + 180) % 360
        image = np.ascontiguousarray(np.rot90(image, 2))
        boxes = _detect(engine, image)
    if not len(boxes):
        return OcrPage([], 0, 1.0)
    result = engine.recognize_txt(engine.crop_text_regions(image, boxes))
    found = [
        (quad, _DOT.sub(" ", text), float(score))
        for quad, text, score in zip(boxes, result.txts, result.scores, strict=True)
        if text.strip() and score >= _TEXT_SCORE
    ]
    lines = _level(found, image.shape[1] / 2, image.shape[0] / 2, scale)
    return OcrPage(lines, rotation, _confidence(lines))


def _confidence(lines: list[Line]) -> float:
    """Mean over letters."""
    letters = sum(len(a.text) for a in lines)
    return sum(a.confidence * len(a.text) for a in lines) / letters if letters else 1.0


def _detect(engine: Any, image: Any) -> Any:
    """Text boxes as an array (n, 4 corners from top left clockwise, xy) in pixels."""
    found = engine(image, use_det=True, use_cls=False, use_rec=False).boxes
    return [] if found is None else found


def _sides(quad: Any) -> tuple[float, float]:
    return math.dist(quad[0], quad[1]), math.dist(quad[1], quad[2])


def _lies_on_side(boxes: Any) -> bool:
    """Most of the text (by length) stands in tall boxes."""
    tall = flat = 0.0
    for w, h in map(_sides, boxes):
        if h > _TALL * w:
            tall += h
        elif w > _TALL * h:
            flat += w
    return tall > flat


def _upside_down(engine: Any, image: Any, boxes: Any) -> bool:
    widest = sorted(boxes, key=lambda q: -_sides(q)[0])[:15]
    votes = engine.cls_and_rotate(engine.crop_text_regions(image, widest))[1].cls_res or []
    down = sum(score for label, score in votes if label == "180")
    up = sum(score for label, score in votes if label == "0")
    if down <= up:
        return False
    # The classifier errs on some fonts; the recogniser's own confidence settles it.
    import numpy as np

    crops = engine.crop_text_regions(image, widest[:6])
    as_is = engine.recognize_txt(crops).scores
    turned = engine.recognize_txt([np.ascontiguousarray(np.rot90(c, 2)) for c in crops]).scores
    return sum(turned) > sum(as_is)


def _level(found: list[tuple[Any, str, float]], cx: float, cy: float, scale: float) -> list[Line]:
    """Lines with level boxes, turned about the page's middle by the median slope of the wide boxes."""
    slopes = [
        math.atan2(q[1][1] - q[0][1], q[1][0] - q[0][0]) for q, text, _ in found if _sides(q)[0] > 8 * _sides(q)[1]
    ]
    skew = median(slopes) if len(slopes) >= 3 else 0.0
    if abs(skew) > math.radians(_SKEW_LIMIT):
        skew = 0.0
    cos, sin = math.cos(-skew), math.sin(-skew)
    lines = []
    for quad, text, score in found:
        w, h = _sides(quad)
        mx = sum(float(p[0]) for p in quad) / 4 - cx
        my = sum(float(p[1]) for p in quad) / 4 - cy
        x, y = (cx + mx * cos - my * sin) / scale, (cy + mx * sin + my * cos) / scale
        tall = h > _TALL * w and len(text) > 2
        half_w, half_h = w / 2 / scale, h / 2 / scale
        size = _HEIGHT_TO_SIZE * (w if tall else h) / scale
        # Boxes are drawn around letters with a margin; without it neighbouring lines would overlap.
        trim = 0.0 if tall else 0.1 * half_h
        lines.append(
            Line(
                text, x - half_w, y - half_h + trim, x + half_w, y + half_h - trim, size,
                confidence=score, turn=90 if tall else 0,
            )
        )  # fmt: skip
    _even_sizes(lines)
    return lines


def _even_sizes(lines: list[Line]) -> None:
    """Sizes near the page's usual one become that one: a box's height depends on its letters."""
    sizes = sorted((a.size, len(a.text)) for a in lines)
    half, seen, usual = sum(n for _, n in sizes) / 2, 0, 0.0
    for size, n in sizes:
        seen += n
        if seen >= half:
            usual = size
            break
    for line in lines:
        if 0.7 < line.size / max(usual, 0.1) < 1.3:
            line.size = usual
