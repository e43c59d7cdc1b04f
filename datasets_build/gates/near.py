"""Near duplicates: MinHash signatures (rensa), found by locality-sensitive hashing of their bands.

A signature is ``PERMUTATIONS`` numbers; two texts agree in as many of them as their sets of word runs overlap
(Jaccard), give or take 0.04.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from datasets_build.gates.runs import words
from datasets_build.rows import Row

NEAR_VERSION = 1  # raised when the same text gets another signature
PERMUTATIONS = 128
ROW_RUN, DOCUMENT_RUN = 3, 5  # words of a shingle
SHORT_ANSWER = 15  # words; shorter says too little to be compared between different contexts
LONG_INSTRUCTION = 2000  # characters of an imported instruction; a longer one holds a text
ASKING_WORDS = 40  # of the line that asks
CONTEXT = 200  # characters of an instruction beside its question that are a text
_SURE = 0.98  # chance that a pair at the threshold is looked at
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_CROWD = 200  # of those that share a band, at most so many are compared


def question_of(row: Row) -> str:
    """What a row asks, without its context: as its recipe noted it.

    Of an imported row with a long instruction, its first and its last line, where questions about a text stand.
    """
    question = row.get("question")
    if question:
        return str(question)
    if len(row["instruction"]) <= LONG_INSTRUCTION:
        return str(row["instruction"])
    lines = [line for line in row["instruction"].splitlines() if line.strip()]
    first, last = lines[0].split(), lines[-1].split() if len(lines) > 1 else []
    return " ".join([*first[:ASKING_WORDS], *last[-ASKING_WORDS:]])


def row_signature(row: Row) -> bytes:
    """Of question and answer. Rows that share a context differ; equal questions on two contexts need not be alike.

    The answer to a question of a recipe ("Methods", "42") is often that of another document too: rows with a
    context and a short answer are only like rows of their own split group.
    """
    question = question_of(row)
    found = words(f"{question}\n{row['output']}")
    shingles = _runs(found, ROW_RUN)
    has_context = len(row["instruction"]) - len(question) > CONTEXT
    if has_context and len(row["output"].split()) < SHORT_ANSWER:
        shingles = [f"{row['split_group']} {s}" for s in shingles]
    return _signature(shingles)


def text_signature(text: str) -> bytes:
    """Of a document's text."""
    return _signature(_runs(words(text), DOCUMENT_RUN))


def _runs(found: list[str], n: int) -> list[str]:
    if len(found) <= n:
        return [" ".join(found)]
    return list(map(" ".join, zip(*(found[i:] for i in range(n)), strict=False)))


def _signature(shingles: list[str]) -> bytes:
    from rensa import RMinHash

    sketch = RMinHash(PERMUTATIONS, 1)
    sketch.update(shingles)
    return np.array(sketch.digest(), dtype="<u4").tobytes()


@cache
def bands(threshold: float) -> tuple[int, int]:
    """(bands, numbers per band): the longest bands with which a pair at the threshold is still found."""
    for size in range(PERMUTATIONS, 0, -1):
        count = PERMUTATIONS // size
        if 1 - (1 - threshold**size) ** count >= _SURE:
            return count, size
    return PERMUTATIONS, 1


def near_pairs(signatures: Sequence[bytes], threshold: float, *, leave_out: bool) -> Iterator[tuple[int, int, float]]:
    """(earlier, later, similarity) for each text that is similar to an earlier one, with the most similar of them.

    Args:
        leave_out: what was found similar is not compared with what comes after it, as it will be dropped.
    """
    if not signatures:
        return
    table = np.frombuffer(b"".join(signatures), dtype="<u4").reshape(len(signatures), PERMUTATIONS)
    hashes, shared = _bands(table, threshold)
    buckets: dict[int, list[int]] = defaultdict(list)
    for i in np.flatnonzero(shared.any(axis=1)).tolist():
        signature, keys = table[i], hashes[i, shared[i]].tolist()
        candidates = sorted({j for key in keys if key in buckets for j in buckets[key][:_CROWD]})
        found = None
        if candidates:
            similar = (table[candidates] == signature).mean(axis=1)
            best = int(similar.argmax())
            if similar[best] >= threshold:
                found = candidates[best], i, float(similar[best])
        if found:
            yield found
        if not (found and leave_out):
            for key in keys:
                buckets[key].append(i)


def _bands(table: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each band of each signature, and whether another signature has it too: (texts, bands) both."""
    count, size = bands(threshold)
    hashes = np.empty((len(table), count), np.uint64)
    shared = np.empty((len(table), count), bool)
    for b in range(count):
        total = np.full(len(table), b + 1, np.uint64)
        for column in table[:, b * size : (b + 1) * size].T:
            total = (total ^ column) * _FACTOR
            total ^= total >> np.uint64(29)
        _, at, times = np.unique(total, return_inverse=True, return_counts=True)
        hashes[:, b], shared[:, b] = total, times[at] > 1
    return hashes, shared


class Clusters:
    """Groups that were found to belong together (union-find); the smallest name stands for all."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def leader(self, name: str) -> str:
        root = name
        while (up := self._parent.get(root, root)) != root:
            root = up
        while (up := self._parent.get(name, name)) != root:
            self._parent[name], name = root, up
        return root

    def join(self, a: str, b: str) -> None:
        first, second = sorted((self.leader(a), self.leader(b)))
        self._parent[second] = first
