"""Joins boxes around words to boxes around lines, for a detector that finds words."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

_GAP = 1.0  # between words of a line at most, line heights
_DRIFT = 0.6  # between the middles of neighbouring words, line heights: a skew of some degrees
_ALIKE = 1.8  # heights of neighbouring words in proportion, at most
_LONG = 5.0  # line heights of a line that tells the direction of all
_LEVEL = 0.3  # degrees that words of different heights make by chance


def join_words(words: Any, margin: float = 0.0) -> Any:
    """Boxes (n, 4 corners from top left clockwise, xy) of lines, all of one direction, from boxes of words.

    Args:
        margin: to add on all sides, in line heights.
    """
    import numpy as np

    x0, y0 = words[:, :, 0].min(axis=1), words[:, :, 1].min(axis=1)
    x1, y1 = words[:, :, 0].max(axis=1), words[:, :, 1].max(axis=1)
    chains = _chains(x0, y0, x1, y1)
    slopes = []
    for chain in chains:
        cx, cy = (x0 + x1)[chain] / 2, (y0 + y1)[chain] / 2
        if len(chain) > 2 and cx[-1] - cx[0] > _LONG * median(y1[chain] - y0[chain]):
            slopes.append(float(np.polyfit(cx, cy, 1)[0]))
    angle = math.atan(median(slopes)) if slopes else 0.0
    if abs(angle) < math.radians(_LEVEL):
        angle = 0.0
    along, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    lines = []
    for chain in chains:
        points = words[chain].reshape(-1, 2)
        u, v = points @ along, points @ across
        more = margin * (v.max() - v.min())
        left, right, top, bottom = u.min() - more, u.max() + more, v.min() - more, v.max() + more
        lines.append([a * along + b * across for a, b in ((left, top), (right, top), (right, bottom), (left, bottom))])
    return np.asarray(lines, np.float32).reshape(-1, 4, 2)


def _chains(x0: Any, y0: Any, x1: Any, y1: Any) -> list[list[int]]:
    """Numbers of the words of each line, from left to right."""
    import numpy as np

    height, middle = y1 - y0, (y0 + y1) / 2
    links = []  # (how far apart, word, the next one)
    for n in range(len(x0)):
        tall = np.minimum(height, height[n])
        gap, drift = x0 - x1[n], np.abs(middle - middle[n])
        alike = np.maximum(height, height[n]) < _ALIKE * tall
        near = (gap > -0.5 * tall) & (gap < _GAP * tall) & (drift < _DRIFT * tall) & (x0 > x0[n]) & alike
        links += [(float(abs(gap[m]) + 2 * drift[m]), n, int(m)) for m in np.flatnonzero(near)]
    following: dict[int, int] = {}
    preceded: set[int] = set()
    for _, n, m in sorted(links):
        if n not in following and m not in preceded:
            following[n] = m
            preceded.add(m)
    chains = []
    for first in range(len(x0)):
        if first not in preceded:
            chain = [first]
            while chain[-1] in following:
                chain.append(following[chain[-1]])
            chains.append(chain)
    return chains
