"""Where notes at the foot of a page or column go."""

from __future__ import annotations

import itertools

from pdf2txt.blocks import RawBlock


def arrange_notes(blocks: list[RawBlock], where: str) -> tuple[list[RawBlock], list[RawBlock]]:
    """Blocks in output order, and the notes that are left out.

    Args:
        blocks: of one page or several, in reading order.
        where: "end" (after the other blocks of their page), "inline" (as read) or "drop".
    """
    if where == "inline":
        return blocks, []
    shown: list[RawBlock] = []
    dropped: list[RawBlock] = []
    for _, page in itertools.groupby(blocks, key=lambda b: b.page):
        members = list(page)
        notes = [b for b in members if b.kind == "footnote"]
        shown += [b for b in members if b.kind != "footnote"]
        if where == "drop":
            dropped += notes
        else:
            shown += notes
    return shown, dropped
