"""Measures of LongBench (Bai et al. 2023, arXiv 2308.14508, section 3 and appendix) beside F1 and ROUGE-L."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_INTEGER = re.compile(r"\d+")
_FENCE_OR_COMMENT = re.compile(r"\s*(?:```|#|//|$)")


def best(measure: Callable[[str, str], float], output: str, answers: Sequence[str]) -> float:
    """The best value against any of several true answers."""
    return max((measure(output, answer) for answer in answers), default=0.0)


def classification(output: str, expected: str, classes: Sequence[str]) -> float:
    """1 / (number of classes named) where the right one is among them, else 0.

    A class whose name is part of the right one's ("sport" in "winter sport") does not count as named.
    """
    named = [c for c in classes if c in output and not (c != expected and c in expected)]
    return 1 / len(named) if expected in named else 0.0


def share_of_numbers(output: str, expected: str) -> float:
    """What share of the whole numbers in ``output`` is that of ``expected`` (a paragraph, a count); 0 without any."""
    wanted, found = _INTEGER.findall(expected), _INTEGER.findall(output)
    return found.count(wanted[-1]) / len(found) if found and wanted else 0.0


def edit_similarity(output: str, expected: str) -> float:
    """How alike the next line of code is: 1 - insertions and deletions / length of both (as ``rapidfuzz.fuzz.ratio``).

    Of ``output`` the first line counts that is neither empty, a comment nor a Markdown fence.
    """
    from rapidfuzz import fuzz

    line = next((line for line in output.splitlines() if not _FENCE_OR_COMMENT.match(line)), "")
    return fuzz.ratio(line, expected) / 100
