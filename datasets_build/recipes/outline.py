"""The headings that the window shows, in order."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from datasets_build.reading import Reading, plain_name
from datasets_build.recipes.base import Candidate, Found, FromWindow, Reject, recipe, shuffled

QUESTIONS = (
    "List the section headings of this text in the order in which they appear, one per line.",
    "Give the outline of this text: every heading, one per line, in order.",
    "Which headings does this text have? Write one per line, from first to last.",
    "Write down the headings that structure this text, in order, each on a line of its own.",
)
MIN_HEADINGS = 3


@recipe("outline", version=1)
def outline(reading: Reading, rng: Random) -> Iterator[Found]:
    """A question per window that shows three headings or more."""
    # The question says "every heading", so back matter counts, and no window reaches over a doubtful heading.
    headings = [s.heading for s in reading.all_sections if s.heading.index not in reading.doubtful]
    if len(headings) < MIN_HEADINGS:
        yield Reject("few-headings", str(len(headings)))
        return
    for anchor in shuffled(headings, rng):
        question = rng.choice(QUESTIONS)

        def make(first: int, last: int, question: str = question) -> Candidate | None:
            shown = [p for p in headings if first <= p.index <= last]
            if len(shown) < MIN_HEADINGS:
                return None
            answer = "\n".join(plain_name(p.text) for p in shown)
            return Candidate(question, answer, tuple((p.index, "") for p in shown), distinct=True)

        yield FromWindow(anchor.index, make, frozenset(reading.doubtful))
