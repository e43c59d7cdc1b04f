"""What the other pages need to know of a page's edges."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pdf2txt.drawings import Drawings
from pdf2txt.spans import Line

Row = tuple[str, tuple[int, ...]]  # (kind, indices into ``PageLines.lines``)
INNER = 99  # block of the rows that nothing parts from the text


@dataclass
class PageLines:
    """Lines of one page before the reading order is known."""

    width: float
    height: float
    lines: list[Line]
    furniture: list[tuple[str, Line]] = field(default_factory=list)  # (kind, line): taken out of ``lines``
    drawn: Drawings = field(default_factory=Drawings)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row near the page's upper or lower edge: all that the other pages need to know of it.

    Numbers, strings and tuples of them only, so that it can be written to disk as JSON.
    """

    text: str
    key: str  # the same for the same words beside other numbers
    top: bool
    rank: int  # 0: the outermost row
    away: float  # from the page's edge to the row's middle, points
    level: float  # rows of one text stand level if ``away`` differs by less, points
    gap: float  # free height between this row and the next one towards the page's middle, in its own heights
    alone: str  # what it is without any other page: "page-number", "header", "footer" or "" (no telling)
    number: int  # the page number at one of its ends, -1: none
    runs_on: bool  # a line of a paragraph that goes on towards the page's middle
    block: int  # rows of one block stand tight together; 0: the outermost block of the edge
    witnesses: tuple[str, ...]  # what speaks for the block being furniture, without any other page
    parts: tuple[int, ...]  # its lines, as indices into ``PageLines.lines``

    @classmethod
    def from_json(cls, values: list[Any]) -> Candidate:
        """From ``astuple`` gone through JSON."""
        return cls(*(tuple(v) if isinstance(v, list) else v for v in values))  # type: ignore[arg-type]


def key_of(text: str) -> str:
    """The letters of a row, every number in it being one zero."""
    return re.sub(r"[\W_]+", "", re.sub(r"\d+|\b[ivxlc]+\b", "#", text.casefold()).replace("#", "0"))
