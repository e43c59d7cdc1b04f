"""English words that are written with a hyphen, and how readily their parts make such words.

``wordfreq`` splits words at their hyphens, so it cannot tell. The list is that of ``benchmarks/compounds.py``, some
17,000 words of Brill's lexicon and of WordNet; ``data/NOTICE`` has their licences.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

_ENDINGS = ("s", "es", "ed", "d", "ing", "ly")
_LISTED = ("en",)


class Compounds:
    """Hyphenated words, kept as hashes of their neighbouring parts."""

    def __init__(self, words: Iterable[str]) -> None:
        self._pairs: set[int] = set()
        self._first: Counter[str] = Counter()
        self._last: Counter[str] = Counter()
        for word in words:
            parts = word.split("-")
            self._first[parts[0]] += 1
            self._last[parts[-1]] += 1
            self._pairs.update(hash(f"{a}-{b}") for a, b in pairwise(parts))

    def has(self, first: str, second: str) -> bool:
        """Whether ``first-second`` is in the list, alone, in a longer chain or without an ending of ``second``."""
        stems = [second.removesuffix(end) for end in _ENDINGS if second.endswith(end) and len(second) > len(end) + 2]
        return any(hash(f"{first}-{form}") in self._pairs for form in (second, *stems))

    def begins(self, part: str) -> int:
        """How many words have ``part`` before their first hyphen."""
        return self._first[part]

    def ends(self, part: str) -> int:
        """How many words have ``part`` behind their last hyphen."""
        return self._last[part]


@lru_cache(maxsize=2)
def compounds(language: str) -> Compounds | None:
    """The list of an ISO 639-1 ``language``, None where there is none. Read once a process."""
    if language not in _LISTED:
        return None
    data = files("pdf2txt").joinpath("data", f"compounds-{language}.txt.gz").read_bytes()
    return Compounds(gzip.decompress(data).decode("utf-8").split("\n"))
