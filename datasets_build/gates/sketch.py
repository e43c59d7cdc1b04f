"""How much text two texts have in common, however long each is: FracMinHash (Irber et al. 2022, of sourmash).

Of all runs of eight words those stay whose hash is in the lowest ``1 / SCALE``: about one for every ``SCALE`` words,
the same ones wherever the words stand. Unlike MinHash (`near`), which tells how alike two texts are as wholes, it
finds a chapter in a book and a paper in a question about it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from datasets_build.gates.runs import run_hashes, words

SKETCH_VERSION = 1  # raised when the same text gives another sketch
RUN = 8  # words
SCALE = 16
# Of the smaller text in common: a sentence of a licence or of thanks is less, an excerpt of a document is more.
MIN_HASHES, MIN_SHARE = 4, 0.1
_LOWEST = np.uint64(2**64 // SCALE)


def sketch(text: str) -> bytes:
    """The hashes of a text that stay, ordered, eight bytes each."""
    found = words(text)
    if len(found) < RUN:
        return b""
    numbers = {word: zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in set(found)}
    total = run_hashes(np.fromiter((numbers[w] for w in found), np.uint64, len(found)), RUN)
    return np.unique(total[total < _LOWEST]).astype("<u8").tobytes()


class Sketches:
    """Texts that others are compared with, each under a name; several texts may share one."""

    def __init__(self, named: Iterable[tuple[str, bytes]]) -> None:
        self._named = [(name, np.frombuffer(data, "<u8")) for name, data in named if data]

    def __bool__(self) -> bool:
        return bool(self._named)

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """All hashes in order, and the number of the text that each is of."""
        hashes = np.concatenate([data for _, data in self._named])
        owners = np.repeat(np.arange(len(self._named)), [len(data) for _, data in self._named])
        order = np.argsort(hashes, kind="stable")
        return hashes[order], owners[order]

    def sharing(self, data: bytes) -> Iterator[str]:
        """The names of the texts that hold a good part of the text with sketch ``data``, or stand in it."""
        if not data or not self._named:
            return
        asked = np.frombuffer(data, "<u8")
        hashes, owners = self._index
        first, last = (np.searchsorted(hashes, asked, side) for side in ("left", "right"))
        hits = [owners[a:b] for a, b in zip(first, last, strict=True) if b > a]
        if not hits:
            return
        found, times = np.unique(np.concatenate(hits), return_counts=True)
        for owner, n in zip(found.tolist(), times.tolist(), strict=True):
            name, own = self._named[owner]
            if n >= max(MIN_HASHES, MIN_SHARE * min(len(own), len(asked))):
                yield name
