"""The text layer of one PDF page: characters from pdfium, gathered into lines with boxes.

pdfium reports characters in the order in which the page draws them, with the spaces and line breaks that it
infers. We keep its spaces, and cut and join by geometry: a line of this module never reaches over a column
gutter, and a superscript or a changed font does not break it.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pdf2txt.characters import read_characters
from pdf2txt.leftwards import is_leftward, straightened
from pdf2txt.spans import WIDE_SPACE, Gap, Line, gaps_behind, same_row
from pdf2txt.superscripts import is_exponent, superscript

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_CHARACTERS = 200_000  # more on one page is a drawing made of letters; no page of text comes near
HYPHENS = {"\x02", "\ufffe", "\u00ad"}  # what pdfium makes of a hyphen at a line's end, by version
_HYPHEN_CODES = frozenset({0x02, 0xFFFE, 0xAD})
_LINE_ENDS = frozenset({0, 10, 13})
_SPACES = frozenset({9, 32, 160, 0x2002, 0x2003, 0x2009})
_INVISIBLE = 3  # PDF text render mode: neither fill nor stroke
_SPACE = 0.17  # in heights of the letters' boxes: a gap that separates words though no space was drawn
_RAISED, _LIFT = 0.85, 0.15  # superscripts: at most so high, and raised by so much, in heights of the line's letters
_WIDE_GAP = 1.5  # in font sizes: wider than any justified space, narrower than column gutters and table gaps


@dataclass(frozen=True)
class Frame:
    """The page's visible area and how it is turned to be read: maps user space to the seen page."""

    left: float
    bottom: float
    right: float
    top: float
    rotation: int  # degrees clockwise

    @property
    def size(self) -> tuple[float, float]:
        """(width, height) as seen, points."""
        w, h = self.right - self.left, self.top - self.bottom
        return (h, w) if self.rotation in (90, 270) else (w, h)

    def seen(self, x: float, y: float) -> tuple[float, float]:
        """A point of user space on the seen page."""
        if self.rotation == 0:
            return x - self.left, self.top - y
        if self.rotation == 90:
            return y - self.bottom, x - self.left
        if self.rotation == 180:
            return self.right - x, y - self.bottom
        return self.top - y, self.right - x

    def seen_boxes(self, boxes: NDArray[np.float64]) -> list[list[float]]:
        """``(x0, y0, x1, y1)`` on the seen page of each (left, top, right, bottom) in user space."""
        import numpy as np

        left, top, right, bottom = boxes.T
        if self.rotation == 0:
            ax, ay, bx, by = left - self.left, self.top - top, right - self.left, self.top - bottom
        elif self.rotation == 90:
            ax, ay, bx, by = top - self.bottom, left - self.left, bottom - self.bottom, right - self.left
        elif self.rotation == 180:
            ax, ay, bx, by = self.right - left, top - self.bottom, self.right - right, bottom - self.bottom
        else:
            ax, ay, bx, by = self.top - top, self.right - left, self.top - bottom, self.right - right
        across, down = ax > bx, ay > by
        seen = np.where(across, bx, ax), np.where(down, by, ay), np.where(across, ax, bx), np.where(down, ay, by)
        return np.stack(seen, axis=1).tolist()


@dataclass
class TextLayer:
    """What the text layer of one page holds, and how far it can be trusted."""

    frame: Frame
    lines: list[Line]
    bad: float  # share of characters without a usable Unicode value
    hidden: float  # share of characters drawn invisibly
    characters: int  # without spaces


def is_bad(code: int) -> bool:
    """A character that no reader meant: unmapped, private use, or a control character."""
    return (
        code == 0xFFFD
        or 0xE000 <= code <= 0xF8FF
        or code >= 0xF0000
        or (code < 32 and code not in (2, 9, 10, 13))
        or 0x7F <= code < 0xA0
    )


def read(page: Any) -> TextLayer:
    """The text layer of a ``pypdfium2.PdfPage``."""
    import pypdfium2.raw as pdfium

    textpage = page.get_textpage()
    try:
        handle = textpage.raw
        found = read_characters(handle, MAX_CHARACTERS)
        # Pairs of UTF-16 surrogates come as two characters; the second repeats the first's place.
        codes = found.codes
        frame = _frame(page, codes, found.turns)
        codes, boxes = straightened(codes, frame.seen_boxes(found.boxes))
        runs = _runs(codes, boxes, found.sizes, found.turns, frame)
        # What stands outside the visible area nobody reads: printer's marks, the rest of a cut page.
        width, height = frame.size
        inside = [r for r in runs if 0 <= (r.line.x0 + r.line.x1) / 2 <= width and 0 <= r.line.cy <= height]
        if len(inside) < len(runs):
            runs = inside
            codes = [c for r in runs for c in codes[r.first : r.end]]
        for run in runs:
            _looks(pdfium, handle, run)
    finally:
        textpage.close()

    counts = Counter(c for c in codes if c > 32)
    solid = counts.total()
    hidden = sum(len(r.line.text) for r in runs if r.line.hidden)
    total = sum(len(r.line.text) for r in runs)
    return TextLayer(
        frame,
        join_neighbours([r.line for r in runs]),
        bad=sum(n for c, n in counts.items() if is_bad(c)) / max(1, solid),
        hidden=hidden / max(1, total),
        characters=solid,
    )


def _frame(page: Any, codes: list[int], turns: list[int]) -> Frame:
    votes = Counter(t for c, t in zip(codes, turns, strict=True) if c > 32)
    own = page.get_rotation()
    rotation = votes.most_common(1)[0][0] if sum(votes.values()) >= 20 else own
    left, bottom, right, top = page.get_bbox()
    return Frame(left, bottom, right, top, rotation)


@dataclass(slots=True)
class _Run:
    line: Line
    first: int  # index of its first character,
    end: int  # and behind its last one: three of them are asked for font and render mode


def _runs(codes: list[int], boxes: list[list[float]], sizes: list[float], turns: list[int], frame: Frame) -> list[_Run]:
    """Characters in drawing order, cut where a line ends, a wide gap opens or the text turns."""
    runs: list[_Run] = []
    text: list[str] = []
    gaps: list[int] = []  # where in ``text`` a space seems to be missing
    wide: list[tuple[int, float, float]] = []  # where in ``text`` a wide space ends, and its x0 and x1
    raised: list[int] = []  # which of ``text`` are small and above the line: superscripts
    start = 0
    x0 = y0 = x1 = y1 = 0.0
    biggest = 0.0
    turn_now = 0
    high = 0

    def finish(end: int) -> None:
        nonlocal text, gaps, wide, raised
        # Letters spaced out for looks have a gap after every letter: those are not words.
        if len(gaps) >= 0.3 * len(text):
            gaps = []
        if raised:
            _mark_raised(text, raised)
        between = _wide_spaces(text, gaps, wide) if wide and not any(map(_is_leftward, text)) else ()
        for at in reversed(gaps):
            text.insert(at, " ")
        joined = "".join(text).rstrip()
        if joined.strip():
            size = sorted(sizes[start:end])[(end - start) // 2]
            turn = (turn_now - frame.rotation) % 360
            size = _scaled(size, x0, y0, x1, y1, turn)
            runs.append(_Run(Line(joined, x0, y0, x1, y1, size, turn=turn, gaps=between), start, end))
        text, gaps, wide, raised = [], [], [], []

    rotation = frame.rotation
    for i, (c, (ax, ay, bx, by), turn_i) in enumerate(zip(codes, boxes, turns, strict=True)):
        letter = ""
        if not 32 < c < 127:
            if c in _LINE_ENDS:
                if text:
                    finish(i)
                continue
            if 0xD800 <= c < 0xDC00:
                high = c
                continue
            if 0xDC00 <= c < 0xE000:
                c = 0x10000 + ((high - 0xD800) << 10) + (c - 0xDC00) if high else 0xFFFD
                high = 0
            if c in _SPACES:
                if text and text[-1] != " ":
                    text.append(" ")
                continue
            letter = "\x02" if c in _HYPHEN_CODES else ""
        # Comparisons instead of min and max: this is done for every character of every page.
        height = by - ay
        tallest = biggest if biggest > height else height
        if text:
            if turn_i != turn_now:
                finish(i)
            elif turn_i == rotation:
                em = tallest * 0.8
                if ax - x1 > _WIDE_GAP * em or ax < x1 - 2 * em - 2:
                    finish(i)
                elif ay != y0 or by != y1:
                    if min(y1, by) - max(y0, ay) < 0.35 * min(y1 - y0, height):
                        finish(i)
                    # The glyphs of another font may be low as well. Some files set all fonts at size 1.
                    elif (
                        height < _RAISED * tallest
                        and y1 - by > _LIFT * tallest
                        and (sizes[i] < _RAISED * sizes[start] or (48 <= c < 58 and sizes[i] == sizes[start] == 1))
                    ):
                        raised.append(len(text))
        if not text:
            start, turn_now = i, turn_i
            x0, y0, x1, y1 = ax, ay, bx, by
            biggest = height
        else:
            if ax - x1 > _SPACE * tallest and turn_now == rotation:
                if text[-1] != " ":
                    gaps.append(len(text))
                    if raised and raised[-1] == len(text):
                        raised.pop()  # told from the word before it by a space
                if ax - x1 > WIDE_SPACE * 0.8 * tallest:
                    wide.append((len(text), x1, ax))
            if ax < x0:
                x0 = ax
            if ay < y0:
                y0 = ay
            if bx > x1:
                x1 = bx
            if by > y1:
                y1 = by
            biggest = tallest
        text.append(letter or chr(c))
    if text:
        finish(len(codes))
    return runs


def _is_leftward(letter: str) -> bool:
    return letter >= "\u0590" and is_leftward(ord(letter))


def _mark_raised(text: list[str], raised: list[int]) -> None:
    """Write each run of superscripts in ``text`` as such if it could be taken for a part of the word before it."""
    begin = 0
    for n, at in enumerate(raised):
        if n + 1 < len(raised) and raised[n + 1] == at + 1:
            continue
        first = raised[begin]
        begin = n + 1
        if first == 1 and text[0].isupper() and text[1].islower():
            continue  # a large initial
        if first and is_exponent(text[first - 1], "".join(text[first : at + 1]).split(" ")[0]):
            text[first : at + 1] = superscript(text[first : at + 1])


def _wide_spaces(text: list[str], missing: list[int], wide: list[tuple[int, float, float]]) -> tuple[Gap, ...]:
    """``wide`` with words counted in place of characters, ``missing`` being where spaces will be put in."""
    out = []
    for at, x0, x1 in wide:
        if text[at - 1] == " " or at in missing:
            before = "".join(" " + ch if k in missing else ch for k, ch in enumerate(text[:at]))
            out.append((len(before.split()), x0, x1))
    return tuple(out)


def _scaled(size: float, x0: float, y0: float, x1: float, y1: float, turn: int) -> float:
    """pdfium gives the size before the text matrix in some files (1 for every font): trust the box then."""
    height = (x1 - x0) if turn in (90, 270) else (y1 - y0)
    return size if height <= 0 or 0.5 <= size / height <= 1.6 else height * 0.8


def _looks(pdfium: Any, handle: Any, run: _Run) -> None:
    """Render mode and weight of a run, from the text object of its middle character.

    A line with some words in bold is no bold line: of one that seems to be, both ends must be bold as well.
    """
    item = pdfium.FPDFText_GetTextObject(handle, (run.first + run.end) // 2)
    if not item:
        return
    run.line.hidden = pdfium.FPDFTextObj_GetTextRenderMode(item) == _INVISIBLE
    run.line.bold = _has_bold_font(pdfium, item)
    for at in (run.first, run.end - 1) if run.line.bold else ():
        end = pdfium.FPDFText_GetTextObject(handle, at)
        if end and ctypes.addressof(end.contents) != ctypes.addressof(item.contents):
            run.line.bold = run.line.bold and _has_bold_font(pdfium, end)


def _has_bold_font(pdfium: Any, item: Any) -> bool:
    font = pdfium.FPDFTextObj_GetFont(item)
    return bool(font) and _is_bold(pdfium, font)


def _is_bold(pdfium: Any, font: Any) -> bool:
    buffer = ctypes.create_string_buffer(128)
    length = pdfium.FPDFFont_GetBaseFontName(font, buffer, 128)
    name = buffer.value.decode("latin-1", "replace").lower() if 0 < length <= 128 else ""
    return (
        any(w in name for w in ("bold", "black", "heavy", "semibold", "-bd", "cmbx", "medi"))
        or pdfium.FPDFFont_GetWeight(font) >= 600
    )


def join_neighbours(lines: list[Line]) -> list[Line]:
    """Join runs side by side on one row: pieces cut off by a superscript or a raised letter."""
    done: list[Line] = []
    for line in lines:
        if done and _adjoin(done[-1], line):
            done[-1] = _joined(done[-1], line)
        else:
            done.append(line)
    # Pieces drawn out of order (a number drawn after its line): look for any neighbour, by rows.
    done.sort(key=lambda a: (a.turn, a.y0, a.x0))
    out: list[Line] = []
    for line in done:
        for k in range(len(out) - 1, max(-1, len(out) - 12), -1):
            if _adjoin(out[k], line):
                out[k] = _joined(out[k], line)
                break
            if _adjoin(line, out[k]):
                out[k] = _joined(line, out[k])
                break
        else:
            out.append(line)
    return out


def _adjoin(a: Line, b: Line) -> bool:
    if a.turn or b.turn:
        return False
    gap = b.x0 - a.x1
    size = max(a.size, b.size)
    return -0.4 * size <= gap <= 0.75 * size and same_row(a, b)


def _joined(a: Line, b: Line) -> Line:
    gap = b.x0 - a.x1
    space = " " if gap > 0.12 * max(a.size, b.size) else ""
    if not space and b.size < _RAISED * a.size and b.height < _RAISED * a.height and a.y1 - b.y1 > _LIFT * a.height:
        initial = len(a.text) == 1 and a.text.isupper() and b.text[:1].islower()  # a large one
        word = b.text.split()[0]
        if not initial and is_exponent(a.text[-1], word):
            b = replace(b, text=b.text.replace(word, "".join(superscript(list(word))), 1))
    main = a if len(a.text) >= len(b.text) else b
    # A superscript must not make the line taller: the row tests compare heights.
    tall = [main] if min(a.size, b.size) < 0.85 * main.size else [a, b]
    text = a.text + space
    return Line(
        text + b.text, min(a.x0, b.x0), min(t.y0 for t in tall), max(a.x1, b.x1), max(t.y1 for t
        in tall), main.size, bold=a.bold and b.bold, hidden=main.hidden, turn=main.turn,
        gaps=(*a.gaps, *gaps_behind(text, a, b)),
    )  # fmt: skip
