"""Which samples share a row, and in which order rows are trained: numbers only, no tokens."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

import numpy as np

from longlora.train.data.samples import Row, Samples

T = TypeVar("T")
WORD = 1024  # bits of one word in `_Room`


class Packing(Sequence[np.ndarray]):
    """Rows as index arrays: ``members[ends[i - 1] : ends[i]]`` are the samples of row ``i`` (int64)."""

    def __init__(self, members: np.ndarray, ends: np.ndarray) -> None:
        self.members, self.ends = members, ends

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # negative ones too; IndexError ends iteration
        return self.members[int(self.ends[index - 1]) if index else 0 : int(self.ends[index])]


class _Room:
    """Rows by the tokens that still fit into them, and the fullest one that takes a given length.

    A bit per number of tokens, in words of `WORD` bits, with a bit per word above them: two steps to the next set
    bit, whatever the number of rows. Rows with equal room are taken last in, first out.
    """

    def __init__(self, capacity: int) -> None:
        self.rows: list[array[int] | None] = [None] * (capacity + 1)
        self.words = [0] * (capacity // WORD + 1)
        self.summary = 0

    def add(self, room: int, row: int) -> None:
        rows = self.rows[room]
        if rows is None:
            rows = self.rows[room] = array("q")
        if not rows:
            word = room // WORD
            self.words[word] |= 1 << room % WORD
            self.summary |= 1 << word
        rows.append(row)

    def take(self, length: int) -> tuple[int, int] | None:
        """(room, row) of the row with the least room of at least ``length``, taken out; None if there is none."""
        word = length // WORD
        bits = self.words[word] >> length % WORD
        if bits:
            room = length + (bits & -bits).bit_length() - 1
            word = room // WORD
        else:
            above = self.summary >> (word + 1)
            if not above:
                return None
            word += (above & -above).bit_length()
            bits = self.words[word]
            room = word * WORD + (bits & -bits).bit_length() - 1
        rows = self.rows[room]
        assert rows
        row = rows.pop()
        if not rows:
            self.words[word] ^= 1 << room % WORD
            if not self.words[word]:
                self.summary ^= 1 << word
        return room, row


def pack(lengths: Sequence[int] | np.ndarray, capacity: int) -> Packing:
    """Best-fit decreasing bin packing: at most ``capacity`` tokens a row. Deterministic; O(n log n) in the sort only.

    Longest first, each goes into the fullest row that still takes it (Johnson, 1973: at most 11/9 of the best
    possible number of rows, plus a constant).

    Raises:
        ValueError: a length above ``capacity``.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and int(sizes.max()) > capacity:
        raise ValueError(f"a length of {int(sizes.max())} does not fit into {capacity}")
    order = np.argsort(-sizes, kind="stable")
    row_of = np.empty(len(sizes), dtype=np.int64)
    room = _Room(capacity)
    count = 0
    for start in range(0, len(order), 1 << 16):  # Python's numbers are large: some at a time
        chosen = array("q")
        for length in sizes[order[start : start + (1 << 16)]].tolist():
            found = room.take(length)
            if found is None:
                left, row = capacity, count
                count += 1
            else:
                left, row = found
            chosen.append(row)
            if left > length:
                room.add(left - length, row)
        row_of[start : start + len(chosen)] = np.frombuffer(chosen, dtype=np.int64)
    members = order[np.argsort(row_of, kind="stable")]
    return Packing(members, np.cumsum(np.bincount(row_of, minlength=count)) if count else np.empty(0, np.int64))


class Rows(Sequence[Row]):
    """Packed rows; the tokens of one are read when it is asked for.

    Attributes:
        lengths: (rows,) int64, tokens of each.
        learned: (rows,) int64, how many of them carry a loss.
    """

    def __init__(self, samples: Samples, packing: Packing) -> None:
        self.samples, self.packing = samples, packing
        self.lengths, self.learned = (self._sums(per_sample) for per_sample in (samples.lengths, samples.learned))

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return np.diff(np.cumsum(values[self.packing.members])[self.packing.ends - 1], prepend=0)

    def __len__(self) -> int:
        return len(self.packing)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return [self.samples[int(i)] for i in self.packing[index]]

    def identity(self) -> Iterator[bytes]:
        """What the rows are, as bytes to hash."""
        yield from self.samples.identity()
        yield self.packing.members.tobytes()
        yield self.packing.ends.tobytes()


def make_rows(samples: Samples, row_tokens: int, packing: bool) -> Rows:
    """Samples as packed rows, or each as a row of its own."""
    if packing:
        return Rows(samples, pack(samples.lengths, row_tokens))
    return Rows(samples, Packing(np.arange(len(samples)), np.arange(1, len(samples) + 1)))


class Stream(Sequence[T]):
    """Rows in training order: ``order`` (n,) int64 are places in ``rows``."""

    def __init__(self, rows: Sequence[T], order: np.ndarray) -> None:
        self.rows, self.order = rows, order

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.rows[int(self.order[index])]


def stream(rows: Sequence[T], count: int, seed: int) -> Stream[T]:
    """``count`` rows in training order: every epoch a new permutation, drawn from ``(seed, epoch)``."""
    epochs = -(-count // len(rows))
    orders = [np.random.default_rng([seed, epoch]).permutation(len(rows)) for epoch in range(epochs)]
    return Stream(rows, np.concatenate([*orders, np.empty(0, np.int64)])[:count].astype(np.int64))


def stream_digest(stream: Stream[Row]) -> str:
    """sha256 of every token, label and name in training order, without reading them: of the cache's digest, and order.

    The stream is one of `Rows`.
    """
    assert isinstance(stream.rows, Rows)
    total = hashlib.sha256()
    for part in (*stream.rows.identity(), stream.order.tobytes()):
        total.update(part)
    return total.hexdigest()
