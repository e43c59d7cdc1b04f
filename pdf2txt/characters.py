"""The characters of a page as pdfium has them: code, box, size and turn of each.

A page has thousands, and a call into pdfium costs more than its work. So codes are fetched in one call, sizes and turns
once for each text object (what one operator draws has one font and one matrix), and the calls that are left use
plain addresses, which spares the conversion of their arguments.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NO_HYPHEN_YET = 0xFFFE  # what pdfium's text holds for a hyphen at a line's end; the character tells its version's code


@dataclass(frozen=True)
class Characters:
    """Lists of one item a character, in drawing order."""

    codes: list[int]  # UTF-16 code units
    boxes: NDArray[np.float64]  # (n, 4): left, top, right, bottom in PDF user space (points, origin bottom left)
    sizes: list[float]  # font sizes as the page sets them, before its matrices
    turns: list[int]  # degrees clockwise that make each upright in user space; of spaces they mean nothing


def read_characters(handle: Any, limit: int) -> Characters:
    """Up to ``limit`` characters of a text page (``PdfTextPage.raw``), which must stay open while they are used."""
    import numpy as np
    import pypdfium2.raw as pdfium

    n = max(0, min(pdfium.FPDFText_CountChars(handle), limit))
    page = ctypes.cast(handle, ctypes.c_void_p).value
    all_boxes = (pdfium.FS_RECTF * n)()
    first = ctypes.addressof(all_boxes)
    step = ctypes.sizeof(pdfium.FS_RECTF)
    box = _plain("FPDFText_GetLooseCharBox", ctypes.c_int, ctypes.c_void_p)
    for _ in map(box, repeat(page), range(n), range(first, first + step * n, step)):
        pass
    boxes = np.frombuffer(all_boxes, np.float32).reshape(n, 4).astype(np.float64)
    objects = list(map(_plain("FPDFText_GetTextObject", ctypes.c_void_p), repeat(page), range(n)))

    codes = _codes(handle, n)
    size_of = _plain("FPDFText_GetFontSize", ctypes.c_double)
    angle_of = _plain("FPDFText_GetCharAngle", ctypes.c_float)
    one_of_each = dict(zip(objects, range(n), strict=True))
    size = {item: size_of(page, i) for item, i in one_of_each.items()}
    turn = {item: _turn(angle_of(page, i)) for item, i in one_of_each.items()}
    sizes, turns = list(map(size.__getitem__, objects)), list(map(turn.__getitem__, objects))
    for i, item in enumerate(objects) if None in size else ():
        if item is None and codes[i] > 32:  # no text object, and not one of the spaces and line ends that pdfium adds
            sizes[i], turns[i] = size_of(page, i), _turn(angle_of(page, i))
    return Characters(codes, boxes, sizes, turns)


def _codes(handle: Any, n: int) -> list[int]:
    import pypdfium2.raw as pdfium

    unit = pdfium.FPDFText_GetUnicode
    text = (ctypes.c_ushort * (n + 1))()
    # The text leaves out characters that mean nothing; only where it has as many is it theirs one by one.
    if pdfium.FPDFText_GetText(handle, 0, n, text) != n + 1:
        return [unit(handle, i) for i in range(n)]
    return [unit(handle, i) if c == _NO_HYPHEN_YET else c for i, c in enumerate(text[:n])]


@functools.cache
def _plain(name: str, result: Any, *more: Any) -> Callable[..., Any]:
    """The function ``name(page, index, ...)`` of pdfium with the page as an address."""
    import pypdfium2.raw as pdfium

    address = ctypes.cast(getattr(pdfium, name), ctypes.c_void_p).value
    assert address is not None
    return ctypes.CFUNCTYPE(result, ctypes.c_void_p, ctypes.c_int, *more)(address)


def _turn(angle: float) -> int:
    """Clockwise turn, in degrees, that makes text at ``angle`` (radians, clockwise too) upright."""
    return 0 if angle < 0.1 else -round(math.degrees(angle) / 90) % 4 * 90
