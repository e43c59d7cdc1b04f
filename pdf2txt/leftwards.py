"""Text that runs from right to left (Hebrew, Arabic and their kin): boxes as if it ran to the right.

pdfium gives such text in the order in which it is read, so that its boxes step leftwards, but those of numbers and
Latin words within it step rightwards, and the words of a Latin phrase come last word first. Put in order and mirrored
within its own extent, every stretch keeps its place on the page, and what gathers characters into lines need not
know of directions.
"""

from __future__ import annotations

import itertools

Box = list[float]  # x0, y0, x1, y1

_LINE_ENDS = frozenset({0, 10, 13})
_GAP = 1.2  # in heights of a letter's box: what stands farther apart is mirrored by itself (columns of a table)


def is_leftward(code: int) -> bool:
    """A letter of a script written from right to left, its presentation forms included; digits run rightwards."""
    if 0x590 <= code < 0x900:
        return not (0x660 <= code < 0x66A or 0x6F0 <= code < 0x6FA)
    return 0xFB1D <= code < 0xFE00 or 0xFE70 <= code < 0xFEFF


def straightened(codes: list[int], boxes: list[Box]) -> tuple[list[int], list[Box]]:
    """The characters with their boxes, those of leftward text so that they step rightwards as they are read."""
    left = {n for n, c in enumerate(codes) if c >= 0x590 and is_leftward(c)}
    if not left:
        return codes, boxes
    codes, boxes = list(codes), list(boxes)
    begin = 0
    for end in [*(n for n, c in enumerate(codes) if c in _LINE_ENDS), len(codes)]:
        line = range(begin, end)
        begin = end + 1
        if left.isdisjoint(line):
            continue
        rightward = {n for n in line if n not in left and chr(codes[n]).isalnum()}
        letters = {n for n in rightward if chr(codes[n]).isalpha()}
        # In a line of another script, what stands between that script's letters.
        mainly = sum(n in left for n in line) > len(letters)
        for stretch in [line] if mainly else _stretches(line, left, letters):
            _straighten(codes, boxes, stretch, left, rightward)
    return codes, boxes


def _straighten(codes: list[int], boxes: list[Box], stretch: range, left: set[int], rightward: set[int]) -> None:
    steps = [boxes[b][0] < boxes[a][0] for a, b in itertools.pairwise(n for n in stretch if n in left)]
    if 2 * sum(steps) <= len(steps):
        return  # one letter, or drawn rightwards after all
    for inner in _stretches(stretch, rightward, left):
        # Spaces that pdfium adds may have no box; those that are missing are seen by the gaps.
        order = sorted(inner, key=lambda n: boxes[n][0] if boxes[n][2] > boxes[n][0] else float("inf"))
        codes[inner.start : inner.stop] = [codes[n] for n in order]
        boxes[inner.start : inner.stop] = [boxes[n] for n in order]
        _mirror(boxes, [n for n in inner if _is_solid(codes[n])])
    piece: list[int] = []
    for n in stretch:
        if _is_solid(codes[n]):
            if piece and boxes[piece[-1]][0] - boxes[n][2] > _GAP * (boxes[n][3] - boxes[n][1]):
                _mirror(boxes, piece)
                piece = []
            piece.append(n)
    _mirror(boxes, piece)


def _stretches(line: range, members: set[int], walls: set[int]) -> list[range]:
    """From the first to the last of ``members`` with none of ``walls`` between."""
    out: list[range] = []
    first = last = -1
    for n in line:
        if n in members:
            first, last = n if first < 0 else first, n
        elif n in walls and first >= 0:
            out.append(range(first, last + 1))
            first = -1
    return [*out, range(first, last + 1)] if first >= 0 else out


def _is_solid(code: int) -> bool:
    return code > 32 and code != 160


def _mirror(boxes: list[Box], members: list[int]) -> None:
    """Mirror ``members`` within the width that they take."""
    if members:
        both = min(boxes[n][0] for n in members) + max(boxes[n][2] for n in members)
        for n in members:
            x0, y0, x1, y1 = boxes[n]
            boxes[n] = [both - x1, y0, both - x0, y1]
