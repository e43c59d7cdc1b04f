"""From the probabilities of a recogniser's characters to a line of text."""

from __future__ import annotations

import itertools
import unicodedata
from typing import Any

_SPACE = 0.05  # probability of a space between two letters from which there is one


class Alphabet:
    """The characters of a recogniser that is trained by connectionist temporal classification, and their order.

    Class 0 is the blank, the last one the space.
    """

    def __init__(self, characters: list[str]) -> None:
        import numpy as np

        self.letters = ["", *characters, " "]
        self._ideographs = np.array([_is_ideograph(letter) for letter in self.letters])
        self._narrow = np.array([n for n, letter in enumerate(self.letters) if not _is_wide(letter)])

    def decode(self, scores: Any) -> tuple[str, float]:
        """Best path (Graves et al. 2006, section 3.2), but kinder to spaces and to Western punctuation.

        In small or blurred print the blank outweighs a narrow space, so that words run together; yet between
        the letters of one word the space's probability is near nothing. So it is written where it exceeds
        ``_SPACE``. A line without Chinese or Japanese letters gets none of their full-width marks.

        Args:
            scores: probabilities (steps, letters).

        Returns:
            The text and the mean probability of its letters.
        """
        import numpy as np

        best = scores.argmax(axis=1)
        if not self._ideographs[best].any():
            best = self._narrow[scores[:, self._narrow].argmax(axis=1)]
        written = best != 0
        written[1:] &= best[1:] != best[:-1]
        steps = np.flatnonzero(written)
        if not len(steps):
            return "", 0.0
        maybe_space = scores[:, -1] > _SPACE
        space = len(self.letters) - 1
        text = self.letters[best[steps[0]]]
        for before, step in itertools.pairwise(steps):
            between = best[before] != space != best[step] and maybe_space[before + 1 : step].any()
            text += (" " if between else "") + self.letters[best[step]]
        return text, float(scores[steps, best[steps]].mean())


def _is_wide(letter: str) -> bool:
    """Made for Chinese and Japanese columns: ideographs, kana, full- and half-width forms, also emoji."""
    return any(unicodedata.east_asian_width(c) in "WFH" for c in letter)


def _is_ideograph(letter: str) -> bool:
    """A Chinese character or kana."""
    return any(unicodedata.east_asian_width(c) == "W" and unicodedata.category(c) == "Lo" for c in letter)
