"""What attends to itself alone: a dataset row, or a piece of a document, read from the cache when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from longlora.train.data.cache import TokenCache

IGNORE = -100


@dataclass(frozen=True)
class Sample:
    """``labels[0]`` is always -100: nothing predicts a sample's first token."""

    id: str
    input_ids: np.ndarray  # (n,) int32
    labels: np.ndarray  # (n,) int32, the token itself or -100

    def __len__(self) -> int:
        return len(self.input_ids)


Row = list[Sample]


class Samples(Sequence[Sample]):
    """Samples as places in a cache: three numbers each, whatever their length.

    Args:
        cache: the tokens.
        entry, start, stop: (n,) int64, which tokens of which entry each sample is.
        bos: a token to begin each sample with, or None.
        whole: samples are whole entries and are named like them; else the name tells where they start.

    Attributes:
        lengths: (n,) int64, tokens of each sample, BOS counted.
        learned: (n,) int64, how many of them carry a loss.
    """

    def __init__(
        self, cache: TokenCache, entry: np.ndarray, start: np.ndarray, stop: np.ndarray, bos: int | None, whole: bool
    ) -> None:
        self.cache, self.entry, self.start, self.stop, self.bos, self.whole = cache, entry, start, stop, bos, whole
        self.lengths = stop - start + (bos is not None)
        self.learned = np.diff(cache.learned, prepend=0) if whole else self.lengths - 1

    @classmethod
    def whole_entries(cls, cache: TokenCache) -> Samples:
        """One sample per entry, as it is."""
        stop = np.diff(cache.ends, prepend=0)
        return cls(cache, np.arange(len(cache)), np.zeros_like(stop), stop, None, True)

    @classmethod
    def pieces(cls, cache: TokenCache, row_tokens: int, bos: int | None) -> Samples:
        """Entries cut into samples of at most ``row_tokens``, each begun with ``bos``.

        The last piece is what remains; a remainder of one token without BOS predicts nothing and is left out.
        """
        length = np.diff(cache.ends, prepend=0)
        step = row_tokens - (bos is not None)
        count = -(-length // step)
        if bos is None:
            count -= length % step == 1
        entry = np.repeat(np.arange(len(cache)), count)
        first = np.cumsum(count) - count  # of each entry's pieces
        start = (np.arange(len(entry)) - first[entry]) * step
        return cls(cache, entry, start, np.minimum(start + step, length[entry]), bos, False)

    def __len__(self) -> int:
        return len(self.entry)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        entry, start, stop = int(self.entry[index]), int(self.start[index]), int(self.stop[index])
        tokens, name = self.cache.tokens(entry, start, stop), self.cache.name(entry)
        if self.bos is not None:
            tokens = np.r_[np.int32(self.bos), tokens]
        labels = np.where(tokens >= 0, tokens, np.int32(IGNORE))
        labels[0] = IGNORE
        return Sample(name if self.whole else f"{name}:{start}", np.where(tokens >= 0, tokens, ~tokens), labels)

    def identity(self) -> Iterator[bytes]:
        """What the samples are, as bytes to hash."""
        yield f"{self.cache.digest} {self.bos} {self.whole}".encode()
        yield from (array.astype(np.int64).tobytes() for array in (self.entry, self.start, self.stop))
