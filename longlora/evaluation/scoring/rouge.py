"""ROUGE (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"): F1 of shared word sequences.

Words are runs of letters and digits without case; Han and kana count sign by sign. No stemming, no stop words. ROUGE-L
takes the whole text as one sequence (section 3.1, sentence level), precision and recall weighing the same. With plain
English these are the values of Google's rouge-score without its stemmer.
"""

from __future__ import annotations

import re

from longlora.evaluation.scoring.words import overlap

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")


def rouge_n(output: str, expected: str, n: int) -> float:
    """F1 of runs of ``n`` words, each as often as it occurs; 0 where either has none."""
    found, wanted = (_runs(_words(text), n) for text in (output, expected))
    return overlap(found, wanted) if found and wanted else 0.0


def rouge_l(output: str, expected: str) -> float:
    """F1 of the longest common subsequence of words; 0 where either has none."""
    from rapidfuzz.distance import LCSseq

    found, wanted = _words(output), _words(expected)
    if not found or not wanted:
        return 0.0
    return 2 * LCSseq.similarity(found, wanted) / (len(found) + len(wanted))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _runs(sequence: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]
