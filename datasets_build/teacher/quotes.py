"""Where a quotation stands in the text that was shown, however its white space, hyphens and quotes are written."""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from datasets_build.reading import Passage

MIN_CHARS = 12  # of a folded quotation: shorter ones stand everywhere and prove nothing
_ELLIPSIS = re.compile(r"\s*(?:\[\s*(?:\.\.\.|…)\s*\]|\(\s*(?:\.\.\.|…)\s*\)|\.\.\.|…)\s*")
_LEFT_OUT = re.compile(r"[\s\-‐‑‒–—−\u00ad\u200b\"“”„«»'‘’‚`´*_]")


@dataclass(frozen=True)
class Found:
    """A part of a passage, as the passage has it."""

    passage: int  # Passage.index
    text: str


def folded(text: str) -> str:
    """``text`` without white space, hyphens, dashes, quotation marks and Markdown emphasis, in lower case."""
    return "".join(_fold(c) for c in text)


class Shown:
    """The passages of a window, searchable."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self.passages = list(passages)
        self.flat = ""
        self.starts: list[int] = []  # of each passage in ``flat``
        self.offsets: list[list[int]] = []  # of each folded character in its passage's text
        pieces, at = [], 0
        for passage in self.passages:
            chars = [(piece, i) for i, c in enumerate(passage.text) for piece in _fold(c)]
            self.starts.append(at)
            self.offsets.append([i for _, i in chars])
            pieces.append("".join(piece for piece, _ in chars))
            at += len(chars)
        self.flat = "".join(pieces)

    def find(self, quotation: str) -> list[Found] | None:
        """Where it stands, in reading order; one with an ellipsis is found part by part. None: it does not."""
        found: list[Found] = []
        at = 0
        parts = [part for part in map(folded, _ELLIPSIS.split(quotation)) if part.strip(".,;:!?")]
        if sum(map(len, parts)) < MIN_CHARS:
            return None
        for part in parts:
            start = self.flat.find(part, at)
            if start < 0:
                # A full stop that the text does not have ends many a quotation.
                part = part.rstrip(".,;:")
                start = self.flat.find(part, at)
            if start < 0 or not part:
                return None
            at = start + len(part)
            found += self._passages(start, at)
        return found

    def _passages(self, start: int, end: int) -> list[Found]:
        found = []
        k = bisect.bisect_right(self.starts, start) - 1
        while k < len(self.passages) and self.starts[k] < end:
            offsets = self.offsets[k]
            first, last = max(0, start - self.starts[k]), min(len(offsets), end - self.starts[k]) - 1
            if first <= last:
                passage = self.passages[k]
                found.append(Found(passage.index, passage.text[offsets[first] : offsets[last] + 1]))
            k += 1
        return found


def _fold(character: str) -> str:
    """What is left of a character; ligatures and wide forms become plain letters."""
    if character.isascii() and character.isalnum():
        return character.lower()
    return _LEFT_OUT.sub("", unicodedata.normalize("NFKC", character)).casefold()
