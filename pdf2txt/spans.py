"""The smallest thing the layout code handles: a run of text with its box and its looks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from pdf2txt.schema import Box

Gap = tuple[int, float, float]  # how many words of the line stand before it, x where it begins and ends
WIDE_SPACE = 0.6  # font sizes: wider than most justified spaces, narrower than what sets columns of a table apart


@dataclass(slots=True)
class Line:
    """Text that stands on one baseline without a wide gap: a line of a column, or one cell of a table row.

    Coordinates are PDF points, origin top left of the page as a reader sees it.
    """

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    size: float  # font size in points (OCR: estimated from the box height)
    bold: bool = False
    confidence: float = 1.0
    hidden: bool = False  # drawn in the invisible render mode (an OCR layer under a scan)
    turn: int = 0  # degrees clockwise by which this line would have to be turned to be upright on the seen page
    gaps: tuple[Gap, ...] = ()  # spaces wider than WIDE_SPACE, left to right

    @property
    def cells(self) -> list[tuple[str, float, float]]:
        """(text, x0, x1) of what the gaps set apart: the cells of a row, if this is one."""
        words, out = self.text.split(), []
        at, x0 = 0, self.x0
        for before, x1, after in self.gaps:
            if at < before < len(words):
                out.append((" ".join(words[at:before]), x0, x1))
                at, x0 = before, after
        return [*out, (" ".join(words[at:]), x0, self.x1)]

    @property
    def box(self) -> Box:
        return (self.x0, self.y0, self.x1, self.y1)

    @property
    def cy(self) -> float:
        return (self.y0 + self.y1) / 2

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def width(self) -> float:
        return self.x1 - self.x0


def bounding_box(items: Iterable[Line]) -> Box:
    """Smallest box around ``items`` (at least one)."""
    items = list(items)
    return (
        min(i.x0 for i in items),
        min(i.y0 for i in items),
        max(i.x1 for i in items),
        max(i.y1 for i in items),
    )


def same_row(a: Line, b: Line) -> bool:
    """Whether the two overlap vertically by half of the lower one's height or more."""
    overlap = min(a.y1, b.y1) - max(a.y0, b.y0)
    return overlap >= 0.5 * max(0.1, min(a.height, b.height))


def gaps_behind(text: str, left: Line, right: Line) -> list[Gap]:
    """The gaps of ``right``, and the one before it, once it is joined to a ``text`` that ends with ``left``."""
    apart = text.endswith((" ", "\t")) or right.text.startswith(" ")
    words = len(text.split())
    own = [(words, left.x1, right.x0)] if apart and right.x0 - left.x1 > WIDE_SPACE * max(left.size, right.size) else []
    shift = words if apart else words - 1
    return own + [(shift + before, x0, x1) for before, x0, x1 in right.gaps]


def join_row(parts: list[Line], separator: str | None = None) -> Line:
    """One line from neighbours on a row, left to right; a tab marks a gap wider than 1.5 font sizes."""
    parts = sorted(parts, key=lambda p: p.x0)
    if len(parts) == 1:
        return parts[0]
    text = parts[0].text
    gaps = list(parts[0].gaps)
    for left, right in itertools.pairwise(parts):
        gap = right.x0 - left.x1
        size = max(left.size, right.size)
        if separator is not None:
            text += separator
        elif gap > 1.5 * size:
            text += "\t"
        elif gap > 0.12 * size and not text.endswith(" ") and not right.text.startswith(" "):
            text += " "
        gaps += gaps_behind(text, left, right)
        text += right.text
    x0, y0, x1, y1 = bounding_box(parts)
    main = max(parts, key=lambda p: len(p.text))
    letters = sum(len(p.text) for p in parts) or 1
    return Line(
        text, x0, y0, x1, y1, main.size,
        bold=all(p.bold for p in parts),
        confidence=sum(p.confidence * len(p.text) for p in parts) / letters,
        hidden=main.hidden,
        turn=main.turn,
        gaps=tuple(gaps),
    )  # fmt: skip
