"""The title of the document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from datasets_build.reading import Passage, Reading, plain_name
from datasets_build.recipes.base import Candidate, Found, Reject, recipe

QUESTIONS = (
    "What is the title of this document?",
    "Give the title under which this text was published.",
    "State the title of the document, word for word.",
    "Which title does this text carry?",
)


@recipe("title", version=1)
def title(reading: Reading, rng: Random) -> Iterator[Found]:
    """One question where exactly one title stands on the first page that has one."""
    found = _title(reading)
    if isinstance(found, Reject):
        yield found
    else:
        passage, name = found
        scopes = ("author", "sentence", "number")
        yield Candidate(rng.choice(QUESTIONS), name, ((passage.index, ""),), scopes=scopes)


def title_of(reading: Reading) -> tuple[Passage, str] | None:
    """The title's passage and text, where there is one and no more."""
    found = _title(reading)
    return None if isinstance(found, Reject) else found


def _title(reading: Reading) -> tuple[Passage, str] | Reject:
    titles = [p for p in reading.passages if p.kind == "title"]
    if not titles:
        return Reject("no-title")
    pages = [reading.evidence(p.index)[0]["page"] for p in titles]
    first = [p for p, page in zip(titles, pages, strict=True) if page == pages[0]]
    # The label that forms, cover sheets and plain-text headers put before a title is no part of it.
    name = re.sub(r"^Title:\s+", "", plain_name(first[0].text))
    if len(first) > 1:
        return Reject("ambiguous-title", " | ".join(p.text[:60] for p in first))
    if _is_broken(reading, first[0]):
        return Reject("broken-title", f"{name[:80]} ...")
    if not (2 <= len(name.split()) <= 40 and sum(c.isalpha() for c in name) >= 6):
        return Reject("no-title", name[:80])
    return first[0], name


def _is_broken(reading: Reading, title: Passage) -> bool:
    """True if the next passage, though taken for a heading, looks like the title's second line."""
    after = title.index + 1
    if after >= len(reading.passages) or reading.passages[after].kind != "heading":
        return False
    (first, second) = (reading.evidence(i)[0] for i in (title.index, after))
    if first["page"] != second["page"] or not first["box"] or not second["box"]:
        return False
    (_, top, _, bottom), (_, next_top, _, next_bottom) = first["box"], second["box"]
    line = min(bottom - top, next_bottom - next_top)
    same_size = line > 0.9 * max(bottom - top, next_bottom - next_top)
    return same_size and next_top - bottom < 0.7 * line  # no more than leading
