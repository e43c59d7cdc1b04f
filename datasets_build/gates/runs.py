"""Words of a text, and hashes of the runs that they stand in: what decontamination and sketches compare texts by."""

from __future__ import annotations

import re

import numpy as np

_WORD = re.compile(r"\w+")
_SPREAD, _FACTOR = np.uint64(0xD6E8FEB86659FD93), np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
    """The words of a text, whatever their case and punctuation."""
    return _WORD.findall(text.casefold())


def run_hashes(numbers: np.ndarray, n: int, starts: np.ndarray | None = None) -> np.ndarray:
    """A hash of each run of ``n`` words.

    Args:
        numbers: of the words, (words,), equal for equal words.
        starts: where the runs start; without, at each word that has ``n - 1`` behind it.

    Returns:
        uint64, (starts,).
    """
    if starts is None:
        starts = np.arange(max(0, len(numbers) - n + 1))
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * _SPREAD
    mixed ^= mixed >> np.uint64(32)
    total = np.zeros(len(starts), np.uint64)
    for i in range(n):
        total = (total ^ mixed[starts + i]) * _FACTOR
        total ^= total >> np.uint64(29)
    return total
