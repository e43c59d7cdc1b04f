"""Which other documents may stand beside a document in a context.

The documents of a split stand on a ring in an order drawn by seed. A document's company are those that
follow it there, as many as the longest context can hold. One more document therefore changes the company
of the few that stand before it and of no other; and as the ring holds one split only, no row ever shows
documents of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datasets_build.corpus import Known
from pdf2txt.units import digest

CHARS_PER_TOKEN = 6  # more than any language has: enough company to fill a context, and some to choose from
MIN_COMPANY = 4  # documents, however long they are
MIN_CHARS = 200  # less is no document to tell from others


class Rings:
    """The documents in their ring order, split by split."""

    def __init__(self, known: Sequence[Known], split_of: Mapping[str, str], leaders: Mapping[str, str], seed: int):
        """``known``: those to make rows of; ``split_of`` a leader, a document that is the first with its text."""
        self.known, self._leaders = known, leaders
        split = [split_of[leaders[k.doc_id]] for k in known]
        place = [digest(seed, "ring", k.content) for k in known]
        self.order = sorted(range(len(known)), key=lambda i: (split[i], place[i]))
        self._rings: dict[str, list[int]] = {}
        self._after: dict[int, tuple[str, int]] = {}  # index -> its ring, and where on it the next one stands
        for i in self.order:
            ring = self._rings.setdefault(split[i], [])
            # A copy is no company: beside its original a question would have two answers.
            if leaders[known[i].doc_id] == known[i].doc_id and known[i].chars >= MIN_CHARS:
                ring.append(i)
            self._after[i] = (split[i], len(ring))

    def company(self, index: int, tokens: int) -> list[Known]:
        """Those that may stand beside a document in contexts of ``tokens``, in ring order."""
        split, start = self._after[index]
        ring, leader = self._rings[split], self._leaders[self.known[index].doc_id]
        enough = tokens * CHARS_PER_TOKEN
        found: list[Known] = []
        chars = 0
        for step in range(len(ring)):
            other = self.known[ring[(start + step) % len(ring)]]
            if self._leaders[other.doc_id] == leader:
                continue
            if chars >= enough and len(found) >= MIN_COMPANY:
                break
            found.append(other)
            chars += other.chars
        return found
