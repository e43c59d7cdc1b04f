"""Answers compared word by word, as SQuAD does it (Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1).

Case, punctuation and the articles a, an, the do not count. Han and kana, which are written without spaces, count sign
by sign. (LongBench, Bai et al. 2023, cuts Chinese into words with a dictionary; signs need none and give other values,
mostly higher.)
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_SIGN = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])")
_ARTICLES = frozenset(("a", "an", "the"))


def words(text: str) -> list[str]:
    """The words that count: ``"The U.S. fleet"`` has ``us`` and ``fleet``."""
    kept = (c for c in text.casefold() if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return [word for word in _SIGN.sub(r" \1 ", "".join(kept)).split() if word not in _ARTICLES]


def contains(output: str, expected: str) -> float:
    """1 where the words of ``expected`` stand in ``output`` side by side; 0 where it has none."""
    found, wanted = words(output), words(expected)
    starts = range(len(found) - len(wanted) + 1)
    return float(bool(wanted) and any(found[i : i + len(wanted)] == wanted for i in starts))


def f1(output: str, expected: str) -> float:
    """Harmonic mean of precision and recall of words, each as often as it occurs; 1 where neither has any."""
    return overlap(words(output), words(expected))


def overlap(found: Sequence[object], wanted: Sequence[object]) -> float:
    """F1 of two bags of anything."""
    if not found or not wanted:
        return float(len(found) == len(wanted))
    return 2 * (Counter(found) & Counter(wanted)).total() / (len(found) + len(wanted))


def first_line(text: str) -> str:
    """The first line that has more than spaces, without the spaces around it; empty where none has."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
