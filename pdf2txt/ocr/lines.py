"""From boxes with text to lines in points: level, with font sizes."""

from __future__ import annotations

import math
import re
from typing import Any

from pdf2txt.ocr import boxes as quads
from pdf2txt.spans import Line

_DOT = re.compile(r"(?<=[a-zA-Z,.;])·(?=[a-zA-Z])")  # how a recogniser sometimes writes a space

Found = tuple[Any, str, float]  # box, text, confidence


def make_lines(
    found: list[Found], middle: tuple[float, float], offset: tuple[float, float], scale: float, letter_share: float
) -> list[Line]:
    """Lines with level boxes, turned about ``middle`` by what is left of their common slope.

    ``middle`` and ``offset`` (of the page in the image) are in pixels, ``scale`` is pixels per point.
    """
    skew = math.radians(quads.slope([q for q, _, _ in found]))
    cos, sin = math.cos(-skew), math.sin(-skew)
    lines = []
    for quad, text, score in found:
        w, h = quads.sides(quad)
        mx = sum(float(p[0]) for p in quad) / 4 - middle[0]
        my = sum(float(p[1]) for p in quad) / 4 - middle[1]
        x = (middle[0] + mx * cos - my * sin - offset[0]) / scale
        y = (middle[1] + mx * sin + my * cos - offset[1]) / scale
        tall = h > quads.TALL * w and len(text) > 2
        half_w, half_h = w / 2 / scale, h / 2 / scale
        size = letter_share * (w if tall else h) / scale
        # Boxes are drawn around letters with a margin; without it neighbouring lines would overlap.
        trim = 0.0 if tall else 0.1 * half_h
        lines.append(
            Line(
                _DOT.sub(" ", text), x - half_w, y - half_h + trim, x + half_w, y + half_h - trim, size,
                confidence=score, turn=90 if tall else 0,
            )
        )  # fmt: skip
    _even_sizes(lines)
    return lines


def confidence(lines: list[Line]) -> float:
    """Mean over letters, 0 where there are none."""
    letters = sum(len(a.text) for a in lines)
    return sum(a.confidence * len(a.text) for a in lines) / letters if letters else 0.0


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
