"""Put shuffled sentences of the window back in order."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from datasets_build.reading import Reading
from datasets_build.recipes.base import Candidate, Found, FromWindow, Reject, recipe, shuffled

QUESTIONS = (
    "Put these sentences in the order in which they appear in the text, one per line:\n{items}",
    "These sentences from the text have been shuffled:\n{items}\nWrite them in their order, one per line.",
    "In which order does the text bring these sentences? Repeat them in that order, one per line.\n{items}",
)
MAX_WORDS = 30  # of one sentence: they stand in the question and in the answer


@recipe("order", version=1)
def order(reading: Reading, rng: Random) -> Iterator[Found]:
    """Three or four sentences from different paragraphs of the window."""
    body = reading.body
    if len(body) < 3:
        yield Reject("few-paragraphs", str(len(body)))
        return
    for anchor in shuffled(body, rng):
        key, question = rng.getrandbits(64), rng.choice(QUESTIONS)

        def make(first: int, last: int, key: int = key, question: str = question) -> Candidate | None:
            draw = Random(key)  # the same draw however often the window shrinks
            n = draw.choice((3, 4))
            picked = []
            for passage in shuffled([p for p in body if first <= p.index <= last], draw):
                good = [s for s in reading.good_sentences(passage) if len(s.text.split()) <= MAX_WORDS]
                if good:
                    picked.append(draw.choice(good))
                if len(picked) == n:
                    break
            right = sorted(picked, key=lambda s: s.passage)
            if len(picked) < 3:
                return None
            given = shuffled(right, draw)
            if given == right:
                given = given[1:] + given[:1]
            items = "\n".join(f"- {s.text}" for s in given)
            answer = "\n".join(s.text for s in right)
            evidence = tuple((s.passage, s.text) for s in right)
            keys = tuple(s.text for s in right)
            return Candidate(question.format(items=items), answer, evidence, keys=keys)

        yield FromWindow(anchor.index, make)
