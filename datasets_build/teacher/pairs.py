"""Which two documents are compared: disjoint pairs that hardly change when a document is added."""

from __future__ import annotations

from collections.abc import Sequence

from pdf2txt.units import digest

BITS = 64


def pair_up(doc_ids: Sequence[str], seed: int) -> list[tuple[str, str]]:
    """All documents in pairs (one is left over where their number is odd), ordered.

    Each has a place in a binary tree by the bits of a hash; what a branch has left over is paired where it meets
    its neighbour. The pairs are those of the set of documents, whatever came first, and one document more
    changes only pairs on its way to the root: about half of log2(n).
    """
    places = sorted((int(digest(seed, "pair", doc_id)[: BITS // 4], 16), doc_id) for doc_id in set(doc_ids))
    pairs: list[tuple[str, str]] = []
    _left_over(places, BITS - 1, pairs)
    return sorted(pairs)


def _left_over(places: list[tuple[int, str]], bit: int, pairs: list[tuple[str, str]]) -> str | None:
    """Pair the documents of a branch; returns the one that has no partner."""
    if len(places) < 2:
        return places[0][1] if places else None
    ones = [p for p in places if p[0] >> bit & 1]
    zeros = [p for p in places if not p[0] >> bit & 1]
    first, second = _left_over(zeros, bit - 1, pairs), _left_over(ones, bit - 1, pairs)
    if first and second:
        pairs.append((min(first, second), max(first, second)))
        return None
    return first or second
