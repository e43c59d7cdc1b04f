"""Which part of a document a row shows: a contiguous run of whole passages, with the evidence in it.

Works on token counts per passage only, so that a document is tokenized once, not once per row. The counts
are an estimate (tokens can merge across a joint); ``build`` checks each row exactly and calls ``shrink``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Passages ``first`` to ``last``, both shown."""

    first: int
    last: int


def fit(counts: Sequence[int], first: int, last: int, budget: int, left_share: float) -> Window | None:
    """The longest run of passages around ``first..last`` whose counts sum to ``budget`` at most, or None.

    Args:
        counts: tokens of each passage, its separator included; 0 for a hidden one.
        first, last: passages that have to be shown.
        budget: tokens the run may have.
        left_share: 0 puts ``first`` at the start of the run, 1 puts ``last`` at its end, as far as the
            document allows; drawn by seed, so that the evidence is not always at one place.
    """
    used = sum(counts[first : last + 1])
    if used > budget:
        return None
    a, b = first, last
    left = used + int((budget - used) * left_share)
    while a > 0 and used + counts[a - 1] <= left:
        a -= 1
        used += counts[a]
    while b + 1 < len(counts) and used + counts[b + 1] <= budget:
        b += 1
        used += counts[b]
    while a > 0 and used + counts[a - 1] <= budget:
        a -= 1
        used += counts[a]
    return Window(a, b)


def shrink(window: Window, counts: Sequence[int], first: int, last: int, excess: int) -> Window | None:
    """``window`` less outer passages worth ``excess`` tokens; None if only ``first..last`` is left.

    Passages go from the side that has more to spare, so that the evidence keeps its place roughly.
    """
    a, b = window.first, window.last
    while excess > 0:
        left, right = sum(counts[a:first]), sum(counts[last + 1 : b + 1])
        if a == first and b == last:
            return None
        if b > last and (right >= left or a == first):
            excess -= counts[b]
            b -= 1
        else:
            excess -= counts[a]
            a += 1
    return Window(a, b)
