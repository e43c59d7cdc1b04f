"""Word frequencies of a language, from the lists of ``wordfreq`` (Speer 2022, https://github.com/rspeer/wordfreq).

``wordfreq`` keeps a dict of strings, 72 MB for German. Here a list is two arrays, the hashes of the words in
order and their frequencies: 10 bytes a word, read as a stream. A word that is not in the list is taken for
one that is with a chance of 4e-14.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import IO, cast

import numpy as np

_log = logging.getLogger(__name__)

# Codes of the language identifier that wordfreq files under another one.
_ALIASES = {"no": "nb", "nn": "nb", "hr": "sh", "sr": "sh", "bs": "sh", "tl": "fil", "iw": "he"}
_COMMON = 550  # centibels: words that occur three times in a million or more often, some 15,000 a language
_LONGEST_PART = 8  # letters
_KNOWN = 1 << 20
_RARE_PART = 3  # a beginning or an ending of fewer common words is not worth keeping


class Lexicon:
    """The words of one language: how often they occur, and what they are made of."""

    def __init__(self, language: str, lists: Iterable[list[str]]) -> None:
        """``lists[n]`` are the words whose frequency is 10^(-n/100)."""
        self.language = language
        hashes, sizes = [], []
        common: set[str] = set()
        for centibels, words in enumerate(lists):
            hashes.append(np.fromiter(map(hash, words), dtype=np.int64, count=len(words)))
            sizes.append(len(words))
            if centibels <= _COMMON:
                common.update(word for word in words if word.isalpha())
        joined = np.concatenate(hashes) if hashes else np.zeros(0, np.int64)
        del hashes
        order = np.argsort(joined)
        self._hashes = joined[order]
        self._centibels = np.repeat(np.arange(len(sizes), dtype=np.uint16), sizes)[order]
        self._begin, self._end = _parts(common)

    def __len__(self) -> int:
        return len(self._hashes)

    def zipf(self, word: str) -> float:
        """log10 of how often the casefolded ``word`` occurs in 10^9 words; 0.0 if it is not in the list."""
        key = hash(word)
        at = int(np.searchsorted(self._hashes, key))
        if at == len(self._hashes) or self._hashes[at] != key:
            return 0.0
        return max(0.01, 9.0 - float(self._centibels[at]) / 100)

    def __contains__(self, word: str) -> bool:
        return self.zipf(word) > 0

    def begins(self, part: str) -> tuple[int, int]:
        """How many common words begin with ``part``, and in how many of them the rest is a common word."""
        known, total = divmod(self._begin.get(part, 0), _KNOWN)
        return total, known

    def ends(self, part: str) -> tuple[int, int]:
        """How many common words end with ``part``, and in how many of them the rest is a common word."""
        known, total = divmod(self._end.get(part, 0), _KNOWN)
        return total, known


def _parts(words: set[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Beginnings and endings of ``words``: how many words have it, and _KNOWN for each whose rest is a word."""
    begin: dict[str, int] = {}
    end: dict[str, int] = {}
    for word in words:
        for at in range(2, len(word) - 1):
            left, right = word[:at], word[at:]
            if at <= _LONGEST_PART:
                begin[left] = begin.get(left, 0) + 1 + (_KNOWN if len(right) > 2 and right in words else 0)
            if len(right) <= _LONGEST_PART:
                end[right] = end.get(right, 0) + 1 + (_KNOWN if at > 2 and left in words else 0)
    return (
        {part: n for part, n in begin.items() if n % _KNOWN >= _RARE_PART},
        {part: n for part, n in end.items() if n % _KNOWN >= _RARE_PART},
    )


@lru_cache(maxsize=2)  # the document's language and that of a page in another
def lexicon(language: str) -> Lexicon | None:
    """The largest list of an ISO 639-1 ``language``, None where wordfreq has none. Read once a process."""
    if not language:
        return None
    from wordfreq import available_languages

    code = _ALIASES.get(language, language)
    path = available_languages("best").get(code)
    if path is None:
        return None
    with gzip.open(path) as file:
        result = Lexicon(code, _lists(cast(IO[bytes], file)))
    _log.debug("%d words of %s", len(result), code)
    return result


def _lists(file: IO[bytes]) -> Iterator[list[str]]:
    """The lists of words in a file of wordfreq, one after the other: never all of them in memory."""
    import msgpack

    unpacker = msgpack.Unpacker(file, raw=False)
    left = unpacker.read_array_header() - 1
    header = unpacker.unpack()
    if header.get("format") != "cB" or header.get("version") != 1:
        raise ValueError(f"wordfreq has a format that is not known here: {header}")
    for _ in range(left):
        yield unpacker.unpack()
