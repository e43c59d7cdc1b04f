"""Whether a page's text layer can be trusted, and where on the page it cannot.

A text layer may be missing, invisible (what a scanner's software read), garbled (characters mapped to the wrong
letters, or to none), or cover a part of the page only: a scan pasted between paragraphs, a stamp on a scan. The
judgement costs nothing on an ordinary page: images are looked at only where there are large ones, words only
where the commonest ones are missing.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import Any

from pdf2txt.drawings import Drawings
from pdf2txt.language import is_gibberish
from pdf2txt.schema import Box
from pdf2txt.spans import Line, bounding_box
from pdf2txt.textlayer import TextLayer, is_bad

_FEW = 10  # fewer characters than this is no text layer
_STAMP = 250  # up to so many characters may be a stamp or a running head on a scan
_BAD_PAGE = 0.05  # share of characters without a usable Unicode value
_BAD_LINE = 0.3
_ORDINARY = 0.05  # share of the commonest words that no gibberish reaches; in prose it is a third
_RUN = 5  # lines of one column: fewer words than they hold tell no language
_PICTURE = 0.04  # share of the page: smaller images are logos and drawings
_LETTERS_PER_AREA = 1.5e-3  # per square point, a third of a loosely set page: an image with more has its text
_LOOK_DPI = 72  # at which an image is looked at: a line of print is about 10 pixels high
_BAND = 45.0  # points: no strip of four lines of print is lower
_MARGIN = 3.0  # points around what is read

# The commonest words of the languages that PDFs are mostly written in, a few of each.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """the of and to in is that for with der die und das ist nicht mit von que la de les et des est une le el
        los en por una di il che per del da do com uma het een van niet och att som det na nie się""",
    )
)


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a text layer: nothing, or all of it, or (``regions``) parts of the page."""

    why: str = ""  # "" for a good one
    regions: tuple[Box, ...] = field(default=())  # to be read by OCR; points, origin top left, as seen
    hidden: bool = False  # drawn invisibly: what somebody else's OCR read


def judge(page: Any, layer: TextLayer, drawn: Drawings) -> Verdict:
    """The verdict on the text layer of a ``pypdfium2.PdfPage``."""
    if layer.bad > _BAD_PAGE or _foreign([a.text for a in layer.lines]):
        return Verdict("garbled text layer")
    if layer.hidden > 0.5:
        return Verdict("invisible text", hidden=True)
    if layer.characters < _STAMP:
        covered, others = _covered(page)
        if layer.characters < _FEW:
            return Verdict("no text layer" if covered > 0.01 or others > 20 else "")
        if covered > 0.6:
            return Verdict("hardly any text over an image")
    garbled = _garbled(layer.lines, layer.bad > 0)
    if garbled:
        return Verdict("garbled text in a part of the page", garbled)
    pasted = tuple(r for p in drawn.pictures + drawn.backgrounds for r in _unread(page, layer, p))
    return Verdict("text in an image", pasted) if pasted else Verdict()


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _covered(page: Any) -> tuple[float, int]:
    """(share of the page covered by images, number of other drawn objects, at most 1,000 looked at)."""
    import pypdfium2.raw as pdfium

    left, bottom, right, top = page.get_bbox()
    area = max(1.0, (right - left) * (top - bottom))
    covered, others = 0.0, 0
    for n, item in enumerate(page.get_objects(max_depth=3)):
        if n > 1000:
            break
        if item.type == pdfium.FPDF_PAGEOBJ_IMAGE:
            x0, y0, x1, y1 = item.get_bounds()
            w, h = min(x1, right) - max(x0, left), min(y1, top) - max(y0, bottom)
            covered += max(0.0, w) * max(0.0, h) / area
        elif item.type != pdfium.FPDF_PAGEOBJ_TEXT:
            others += 1
    return covered, others


def _foreign(texts: list[str]) -> bool:
    """Gibberish; quick to say no of a text with some of the commonest words."""
    words = re.findall(r"[^\W\d_]+", " ".join(texts).casefold())
    return sum(word in _COMMON for word in words) < _ORDINARY * len(words) and is_gibberish(" ".join(texts))


def _garbled(lines: list[Line], unmapped: bool) -> tuple[Box, ...]:
    """Runs of lines that no reader meant, each as a box; ``unmapped``: some characters have no value."""
    suspicious = _suspicious if unmapped else _foreign_line
    columns: dict[int, list[Line]] = {}
    for line in lines:
        if not line.turn and len(line.text) >= 20:
            columns.setdefault(round(line.x0 / 30), []).append(line)
    out = []
    for column in columns.values():
        for doubtful, group in itertools.groupby(sorted(column, key=lambda a: a.y0), suspicious):
            run = list(group)
            if doubtful and _is_damage(run):
                x0, y0, x1, y1 = bounding_box(run)
                out.append((x0 - _MARGIN, y0 - _MARGIN, x1 + _MARGIN, y1 + _MARGIN))
    return tuple(out)


def _suspicious(line: Line) -> bool:
    return _unmapped(line.text) or _foreign_line(line)


def _foreign_line(line: Line) -> bool:
    """Many words and none of the commonest among them."""
    words = re.findall(r"[^\W\d_]+", line.text.casefold())
    return len(words) >= 5 and not any(word in _COMMON for word in words)


def _unmapped(text: str) -> bool:
    return sum(is_bad(ord(ch)) for ch in text) > _BAD_LINE * len(text)


def _is_damage(run: list[Line]) -> bool:
    if sum(_unmapped(a.text) for a in run) > 0.5 * len(run):
        return True
    return len(run) >= _RUN and is_gibberish(" ".join(a.text for a in run))


def _unread(page: Any, layer: TextLayer, box: Box) -> list[Box]:
    """The parts of an image that show printed lines which the text layer does not have."""
    width, height = layer.frame.size
    if _area(box) < _PICTURE * width * height or min(box[2] - box[0], box[3] - box[1]) < 40:
        return []
    x0, y0, x1, y1 = box
    inside = [a for a in layer.lines if x0 <= (a.x0 + a.x1) / 2 <= x1 and y0 <= a.cy <= y1]
    parts = [box]
    if sum(len(a.text) for a in inside) > _LETTERS_PER_AREA * _area(box):
        parts = _bands(box, inside)  # much text: over one part of the image, or over all of it
    if not parts:
        return []
    image = _look(page, layer)
    return [b for b in parts if printed_lines(_free(image, b, inside)) >= 4]


def _bands(box: Box, lines: list[Line]) -> list[Box]:
    """Strips of a box, as wide as it is, that no line reaches into, of those high enough for a paragraph."""
    x0, y0, x1, y1 = box
    out = []
    for line in [*sorted(lines, key=lambda a: a.y0), Line("", x0, y1, x1, y1, 0.0)]:
        if line.y0 - y0 >= _BAND:
            out.append((x0, y0, x1, line.y0))
        y0 = max(y0, line.y1)
    return out


def _look(page: Any, layer: TextLayer) -> Any:
    """The page as it is read, grey, uint8 (height, width)."""
    import numpy as np

    turned = (layer.frame.rotation - page.get_rotation()) % 360
    return np.rot90(page.render(scale=_LOOK_DPI / 72, grayscale=True).to_numpy().squeeze(), -(turned // 90))


def _free(image: Any, box: Box, lines: list[Line]) -> Any:
    """The part of a page's ``image`` in ``box``, with paper where the text layer has ``lines``."""
    import numpy as np

    scale = _LOOK_DPI / 72
    x0, y0, x1, y1 = (max(0, round(v * scale)) for v in box)
    part = image[y0:y1, x0:x1].copy()
    if part.size:
        paper = np.percentile(part, 80)
        for a in lines:
            left, top, right, bottom = (
                max(0, round(v * scale) - o)
                for v, o in zip((a.x0 - 1, a.y0 - 1, a.x1 + 1, a.y1 + 1), (x0, y0) * 2, strict=True)
            )
            part[top:bottom, left:right] = paper
    return part


def printed_lines(image: Any) -> int:
    """How many lines of running print a grey image (uint8, 72 dpi) seems to hold, by its ink alone.

    Print is bands of rows with ink, 4 to 20 points high, each full of strokes over much of the width, and taking
    up most of the height from the first to the last. Photographs have no rows without ink; the labels of a
    drawing, or the numbers of a chart, leave more free than they take.
    """
    import numpy as np

    height, width = image.shape
    if height < 20 or width < 40:
        return 0
    paper = float(np.percentile(image, 80))
    ink = image < paper - 60
    if not 0.01 < ink.mean() < 0.35:  # a photograph, or nearly nothing
        return 0
    filled = ink.mean(axis=1) > 0.02
    edges = np.flatnonzero(np.diff(np.concatenate(([0], filled.view(np.int8), [0])))).reshape(-1, 2)
    lines = []
    for top, bottom in edges:
        columns = ink[top:bottom].any(axis=0)
        reach = np.flatnonzero(columns)
        extent = int(reach[-1] - reach[0] + 1)
        strokes = np.count_nonzero(np.diff(columns.view(np.int8))) / 2  # letters and parts of them
        full = columns.sum() > 0.55 * extent
        if 4 <= bottom - top <= 20 and extent > 0.4 * width and full and strokes > 0.04 * extent:
            lines.append((int(top), int(bottom)))
    if len(lines) < 4 or sum(b - t for t, b in lines) < 0.45 * (lines[-1][1] - lines[0][0]):
        return 0
    return len(lines)
