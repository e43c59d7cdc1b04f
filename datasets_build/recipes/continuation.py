"""The sentence that follows, or comes before, a given one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random

from datasets_build.reading import Reading
from datasets_build.recipes.base import Candidate, Found, Reject, recipe, shuffled
from datasets_build.sentences import can_stand_alone

AFTER = (
    "Which sentence comes directly after this one? “{sentence}”",
    "The text says: “{sentence}” What is the next sentence?",
    "Quote the sentence that follows this one: “{sentence}”",
    "How does the text go on after this sentence? “{sentence}” Quote the next one.",
)
BEFORE = (
    "Which sentence comes directly before this one? “{sentence}”",
    "The text says: “{sentence}” What is the sentence just before it?",
    "Quote the sentence that precedes this one: “{sentence}”",
)


@recipe("continuation", version=1)
def continuation(reading: Reading, rng: Random) -> Iterator[Found]:
    """One question per paragraph with two good neighbouring sentences, the given one unique."""
    some = False
    for passage in shuffled(reading.body, rng):
        before = rng.random() < 0.3
        phrase = rng.choice(BEFORE if before else AFTER)
        sentences = reading.sentences(passage)
        pairs = [
            (a.text, b.text)
            for a, b in pairwise(sentences)
            if can_stand_alone(a.text, 6) and can_stand_alone(b.text, 6)
        ]
        if not pairs:
            continue
        first, second = rng.choice(pairs)
        given, answer = (second, first) if before else (first, second)
        if not reading.unique(given):
            continue
        some = True
        evidence = ((passage.index, f"{first} {second}"),)
        yield Candidate(phrase.format(sentence=given), answer, evidence, keys=(given,))
    if not some:
        yield Reject("no-sentence-pair")
