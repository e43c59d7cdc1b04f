"""The smallest thing the layout code handles: a run of text with its box and its looks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from pdf2txt.schema import Box


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
    stops: tuple[tuple[float, float], ...] = ()  # (x0, x1) of each cell that a tab sets apart; () where there is one

    @property
    def cells(self) -> list[tuple[str, float, float]]:
        """(text, x0, x1) of what tabs set apart; the whole line where its cells' places are not known."""
        texts = self.text.split("\t")
        if len(texts) != len(self.stops):
            return [(self.text, self.x0, self.x1)]
        return [(text, x0, x1) for text, (x0, x1) in zip(texts, self.stops, strict=True)]

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


def join_row(parts: list[Line], separator: str | None = None) -> Line:
    """One line from neighbours on a row, left to right; a tab marks a gap wider than 1.5 font sizes."""
    parts = sorted(parts, key=lambda p: p.x0)
    if len(parts) == 1:
        return parts[0]
    text = parts[0].text
    stops = list(parts[0].stops or [(parts[0].x0, parts[0].x1)])
    for left, right in itertools.pairwise(parts):
        gap = right.x0 - left.x1
        size = max(left.size, right.size)
        if separator is not None:
            text += separator
        elif gap > 1.5 * size:
            text += "\t"
        elif gap > 0.12 * size and not text.endswith(" ") and not right.text.startswith(" "):
            text += " "
        cells = right.stops or ((right.x0, right.x1),)
        if text.endswith("\t"):
            stops += cells
        else:
            stops[-1:] = [(stops[-1][0], cells[0][1]), *cells[1:]]
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
        stops=tuple(stops) if len(stops) > 1 else (),
    )  # fmt: skip
