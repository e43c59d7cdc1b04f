"""The steps that take furniture from pages, in one: `convert.py` does them page by page."""

from __future__ import annotations

from collections.abc import Callable

from pdf2txt.edges import PageLines
from pdf2txt.furniture import Labels, candidates, confirmed, doubtful, take
from pdf2txt.recurrence import decide


def remove_furniture(pages: list[PageLines], labels: Callable[[int], Labels] | None = None) -> None:
    """Move running heads, feet and page numbers of ``pages`` (in order) from ``lines`` to ``furniture``.

    The steps in one: ``candidates`` of every page, ``decide`` for all, ``take`` from every page.

    Args:
        labels: what a layout model says of the page with this index; asked only where it can make a difference.
    """
    rows = [candidates(page) for page in pages]
    decided = decide(rows)
    asked = doubtful(rows, decided)
    for n, page in enumerate(pages):
        more = confirmed(page, asked[n], labels(n)) if asked[n] and labels is not None else []
        take(page, decided[n] + more)
