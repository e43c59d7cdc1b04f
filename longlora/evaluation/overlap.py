"""How much of an expected answer a text gives, by the words that both have."""

from __future__ import annotations

import re
from collections import Counter

# Han and kana are written without spaces: each sign counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_ARTICLES = frozenset(("a", "an", "the"))


def words(text: str) -> list[str]:
    """The words that count, without case, marks and articles: as SQuAD does it (Rajpurkar et al. 2016, section 6.1)."""
    return [word for word in _WORD.findall(text.casefold()) if word not in _ARTICLES]


def f1(output: str, expected: str) -> float:
    """Harmonic mean of precision and recall of words, each as often as it occurs; 1 where neither has any."""
    found, wanted = words(output), words(expected)
    if not found or not wanted:
        return float(found == wanted)
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted))
