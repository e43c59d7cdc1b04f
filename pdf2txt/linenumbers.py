"""Line numbers in the margin of manuscripts, legal drafts and poems: found by counting along with them.

They are a run of whole numbers that stand in one column beside the text, rise by one from line to line (or by
five every fifth line) and have the text's own line distance. What else is numbered differs in one of these:
the items of a list and the rows of a table begin something new, while the lines of a numbered text break off
in mid-sentence; verse numbers stand where a verse begins; a table's index has cells beside it that do not
fill the line.

Three steps, as for running heads: ``candidates`` of each page, ``decide`` for all pages, ``take`` from each.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

from pdf2txt.edges import PageLines
from pdf2txt.spans import Line, same_row

_ENOUGH = 8  # numbers of a page that prove line numbering by themselves; fewer need another page that has it
_SPARSE = 3  # the same for every fifth line
_STEPS = (1, 5, 10)
_NUMBER = re.compile(r"\d{1,4}")
_LEADING = re.compile(r"(\d{1,4})\s+(?=\S)")
_TRAILING = re.compile(r"(?<=\S)\s+(\d{1,4})$")


@dataclass(frozen=True, slots=True)
class Numbered:
    """A number that may be a line's; numbers and strings only, so that it can be written to disk."""

    side: str  # "left" | "right" of its text
    value: int
    start: float  # its left and right end, points from the page's left; one is aligned with the others'
    end: float
    y: float  # of its middle, points from the page's top
    height: float
    index: int  # in ``PageLines.lines``
    joined: bool  # the line holds the text as well
    letters: int  # of the text beside it
    inside: bool  # that text begins in mid-sentence
    full: bool  # and reaches the right edge of the page's text, or nearly


def candidates(page: PageLines) -> list[Numbered]:
    """Whole numbers at the left or right end of the rows of a page."""
    lines = [(n, a) for n, a in enumerate(page.lines) if not a.turn]
    bare = [(n, a) for n, a in lines if _NUMBER.fullmatch(a.text.strip())]
    text = [a for _, a in lines if not _NUMBER.fullmatch(a.text.strip())]
    if not text:
        return []
    x0, x1 = min(a.x0 for a in text), max(a.x1 for a in text)
    edge = x1 - 0.15 * (x1 - x0)
    out = []
    for n, a in bare:
        beside = [b for b in text if same_row(a, b)]
        words = " ".join(b.text for b in sorted(beside, key=lambda b: b.x0))
        left = all(b.x0 >= a.x1 - 1 for b in beside) and a.x0 < page.width / 2
        right = all(b.x1 <= a.x0 + 1 for b in beside) and a.x0 > page.width / 2
        if left or right:
            full = max((b.x1 for b in beside), default=0.0) > edge
            out.append(_found("left" if left else "right", a, n, int(a.text), words, False, (a.x0, a.x1), full))
    for n, a in lines:
        if match := _LEADING.match(a.text):
            words = a.text[match.end() :]
            out.append(
                _found("left", a, n, int(match.group(1)), words, True, (a.x0, _digits(a, match.end(1))), a.x1 > edge)
            )
        if match := _TRAILING.search(a.text):
            words = a.text[: match.start()]
            out.append(
                _found(
                    "right",
                    a,
                    n,
                    int(match.group(1)),
                    words,
                    True,
                    (a.x1 - 0.5 * a.size * len(match.group(1)), a.x1),
                    a.x1 > edge,
                )
            )
    return sorted(out, key=lambda c: c.y)


def _found(
    side: str, a: Line, index: int, value: int, words: str, joined: bool, span: tuple[float, float], full: bool
) -> Numbered:
    inside = words.lstrip("\"'“‘(")[:1].islower()
    return Numbered(side, value, *span, a.cy, a.height, index, joined, sum(ch.isalpha() for ch in words), inside, full)


def _digits(a: Line, characters: int) -> float:
    """About where the first ``characters`` (digits, half a font size wide) of a line end."""
    return a.x0 + 0.5 * a.size * characters


def decide(pages: list[list[Numbered]]) -> list[list[Numbered]]:
    """For every page (in order) the numbers that are line numbers."""
    sure = [_run(page) for page in pages]
    proved = [run for run in sure if run]
    if not proved:
        return sure
    # A page with few lines (a title page, the last one) is believed if others have numbers at that place.
    sides: dict[str, list[Numbered]] = defaultdict(list)
    for run in proved:
        sides[run[0].side].extend(run)
    side, known = max(sides.items(), key=lambda s: len(s[1]))
    step = _step(max(proved, key=len))
    start, end = median(c.start for c in known), median(c.end for c in known)
    pitch = _pitch(max(proved, key=len))
    out = []
    for page, run in zip(pages, sure, strict=True):
        if not run and len(proved) * 2 >= len([p for p in pages if p]):
            at = [c for c in page if c.side == side and min(abs(c.start - start), abs(c.end - end)) < 0.8 * c.height]
            run = max(_runs(at, step), key=len, default=[])
            if len(run) > 1 and abs(_pitch(run) - pitch) > 0.2 * pitch:
                run = []
        out.append(run)
    return out


def take(page: PageLines, found: list[Numbered]) -> None:
    """Remove the numbers from the lines of ``page``; bare ones become ``furniture``."""
    gone = set()
    for c in found:
        line = page.lines[c.index]
        if not c.joined:
            gone.add(c.index)
            page.furniture.append(("line-number", line))
        elif c.side == "left" and (match := _LEADING.match(line.text)):
            share = line.width * match.end() / max(1, len(line.text))
            page.lines[c.index] = replace(line, text=line.text[match.end() :], x0=min(line.x1, line.x0 + share))
        elif match := _TRAILING.search(line.text):
            share = line.width * (len(line.text) - match.start()) / max(1, len(line.text))
            page.lines[c.index] = replace(line, text=line.text[: match.start()], x1=max(line.x0, line.x1 - share))
    page.lines = [a for n, a in enumerate(page.lines) if n not in gone]
    if found and found[0].joined:
        _flush(page, found)


def _flush(page: PageLines, found: list[Numbered]) -> None:
    """Where a number was cut off a line, its text begins where that of most of its neighbours does."""
    if found[0].side != "left":
        return
    starts = sorted(a.x0 for a in page.lines if not a.turn)
    usual = starts[len(starts) // 2]
    for n, a in enumerate(page.lines):
        if not a.turn and abs(a.x0 - usual) < 1.2 * a.size and usual < a.x1:
            page.lines[n] = replace(a, x0=usual)


def remove_line_numbers(pages: list[PageLines]) -> None:
    """The three steps in one."""
    for page, found in zip(pages, decide([candidates(page) for page in pages]), strict=True):
        take(page, found)


def _run(page: list[Numbered]) -> list[Numbered]:
    """The line numbers of a page that proves by itself to have them, top to bottom; else none."""
    best: list[Numbered] = []
    for side in ("left", "right"):
        numbers = [c for c in page if c.side == side]
        columns = _columns(numbers, lambda c: c.end) + _columns(numbers, lambda c: c.start)
        for column in columns:
            for step in _STEPS:
                if any(c.value % step for c in column):
                    continue  # the lines between are numbered as well
                runs = [r for r in _runs(column, step) if len(r) >= 3]
                whole = list(itertools.chain.from_iterable(runs))
                if (
                    len(whole) > len(best)
                    and len(whole) >= (_ENOUGH if step == 1 else _SPARSE)
                    and _proved(whole, step)
                ):
                    best = whole
    return best


def _columns(numbers: list[Numbered], edge: Callable[[Numbered], float]) -> list[list[Numbered]]:
    """Numbers whose ends are aligned."""
    out: list[list[Numbered]] = []
    for c in sorted(numbers, key=edge):
        if out and edge(c) - edge(out[-1][-1]) < 0.25 * c.height:
            out[-1].append(c)
        else:
            out.append([c])
    return [sorted(column, key=lambda c: c.y) for column in out]


def _runs(column: list[Numbered], step: int) -> list[list[Numbered]]:
    """Downward runs of numbers that rise by ``step``; all runs of one page have one origin or begin anew."""
    out: list[list[Numbered]] = []
    for c in column:
        if step > 1 and c.value % step:
            continue
        if out and c.value - out[-1][-1].value == step:
            out[-1].append(c)
        elif out and c.y - out[-1][-1].y < 0.5 * c.height:
            continue
        else:
            out.append([c])
    return out


def _step(run: list[Numbered]) -> int:
    return max(1, round(median(b.value - a.value for a, b in itertools.pairwise(run)))) if len(run) > 1 else 1


def _pitch(run: list[Numbered]) -> float:
    """Height of one line, points."""
    steps = [(b.y - a.y) / (b.value - a.value) for a, b in itertools.pairwise(run) if b.value > a.value]
    return median(steps) if steps else 0.0


def _proved(run: list[Numbered], step: int) -> bool:
    """At the text's line distance, beside text whose lines break off in mid-sentence."""
    steps = [(b.y - a.y) / step for a, b in itertools.pairwise(run) if b.value - a.value == step]
    pitch = median(steps)
    even = sum(abs(s - pitch) < 0.15 * pitch for s in steps) >= 0.75 * len(steps)
    if not even or not 0.6 * run[0].height < pitch < 4 * run[0].height:
        return False
    beside = [c for c in run if c.letters]
    if step > 1:
        # Sparse numbers stand beside the text, never in it, and count its lines.
        return all(not c.joined for c in run) and len(beside) >= 0.6 * len(run)
    prose = sum(c.letters >= 20 and c.full for c in beside) >= 0.6 * len(beside)
    inside = sum(c.inside for c in beside) >= 0.3 * len(beside)
    return len(beside) >= 0.5 * len(run) and prose and inside
