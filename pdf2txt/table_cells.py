"""Rows of a table with their cells, and what a cell's text says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pdf2txt.spans import Line

_NUMBER = re.compile(
    r"[(\[<>≤≥~≈±+−–-]*\s*[$€£¥]?\s*[(+−–-]?\d[\d.,:/'’±×^*()\[\]%‰°\s+−–-]*[$€£¥]?(?:[eE][+−–-]?\d+)?[KMBTkx]?[*†‡]*"
)
_BLANK = re.compile(r"[-–—.·*]{1,3}|n/?a|N/?A")  # stands for "nothing" in columns of any kind
_NARROW, _WIDE = "fijlrtI.,:;'|!()[] ", "mwMW@%—"


@dataclass
class Row:
    """One line, its cells by column."""

    line: Line
    cells: dict[int, str]
    extents: dict[int, tuple[float, float]]


def is_number(text: str) -> bool:
    """A number with what may stand around it: signs, units of money, per cent, ranges, parentheses."""
    return bool(_NUMBER.fullmatch(text.strip()))


def is_solid(text: str) -> bool:
    """A number, or the sign for none: a cell that never has a second line."""
    return is_number(text) or bool(_BLANK.fullmatch(text))


def estimated_width(text: str) -> float:
    """Estimated width of ``text`` in ordinary letters."""
    return sum(0.55 if ch in _NARROW else 1.5 if ch in _WIDE else 1.25 if ch.isupper() else 1.0 for ch in text)
