"""The author's own abstract as a summary: it is taken out of the text, and the model has to write it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from datasets_build.reading import Passage, Reading, key_name
from datasets_build.recipes.base import Candidate, Found, Reject, recipe

QUESTIONS = (
    "Write an abstract for this document.",
    "Summarise this document in one or two paragraphs.",
    "The abstract of this document is missing. Write it.",
    "What is this document about? Give a summary of its aim, its approach and its results.",
)
_HEADING = re.compile(r"^(?:abstract|summary|executive summary|synopsis)$")
_RUN_IN = re.compile(r"^(?:Abstract|ABSTRACT|Summary|SUMMARY)\s*[.:—–-]+\s*(?=\S)")
MIN_WORDS, MAX_WORDS = 40, 450


@recipe("abstract", version=1)
def abstract(reading: Reading, rng: Random) -> Iterator[Found]:
    """One row where an abstract can be told from the rest. Needs the whole document in the window."""
    found = _under_heading(reading) or _run_in(reading)
    if found is None:
        yield Reject("no-abstract")
        return
    heading, members, text = found
    words = len(text.split())
    if not MIN_WORDS <= words <= MAX_WORDS:
        yield Reject("abstract-length", f"{words} words")
        return
    hidden = {p.index for p in members} | ({heading.index} if heading else set())
    rest = sum(len(p.text.split()) for p in reading.body if p.index not in hidden)
    if rest < 3 * words:  # nothing left that could be summarised
        yield Reject("abstract-without-text", f"{words} words of {words + rest}")
        return
    evidence = tuple((p.index, "") for p in members)
    yield Candidate(
        rng.choice(QUESTIONS), text, evidence, hides=frozenset(hidden), whole=True, scopes=("title", "author", "number")
    )


def _under_heading(reading: Reading) -> tuple[Passage | None, list[Passage], str] | None:
    for section in reading.sections:
        if _HEADING.match(key_name(section.name)):
            members = [p for p in section.members if p.kind == "text"]
            if members:
                return section.heading, members, "\n\n".join(p.text for p in members)
    return None


def _run_in(reading: Reading) -> tuple[Passage | None, list[Passage], str] | None:
    for passage in reading.passages[:40]:
        match = _RUN_IN.match(passage.text)
        if match and passage.kind == "text":
            return None, [passage], passage.text[match.end() :]
    return None
