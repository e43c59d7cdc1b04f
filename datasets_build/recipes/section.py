"""Section lookup: how the section with a given heading begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

from datasets_build.reading import Reading, key_name
from datasets_build.recipes.base import Candidate, Found, Reject, recipe, shuffled
from datasets_build.sentences import can_stand_alone

SENTENCE = (
    "What is the first sentence of the section “{name}”?",
    "Quote the sentence with which the section “{name}” opens.",
    "How does the section headed “{name}” begin? Quote its first sentence.",
    "Find the heading “{name}” and repeat the first sentence below it.",
)
PARAGRAPH = (
    "Quote the first paragraph of the section “{name}”.",
    "Repeat the opening paragraph of the section headed “{name}”, word for word.",
    "What does the first paragraph below the heading “{name}” say? Quote it in full.",
)
MAX_PARAGRAPH_WORDS = 120


@recipe("section", version=1)
def section(reading: Reading, rng: Random) -> Iterator[Found]:
    """One question per section whose heading is unique and whose first passage is running text."""
    names = Counter(key_name(p.text) for p in reading.passages if p.kind == "heading")
    if not reading.sections:
        yield Reject("no-section")
    for part in shuffled(reading.sections, rng):
        opening = part.members[0]
        whole = rng.random() < 0.3 and len(opening.text.split()) <= MAX_PARAGRAPH_WORDS
        question = rng.choice(PARAGRAPH if whole else SENTENCE).format(name=part.name)
        if names[key_name(part.name)] > 1:
            yield Reject("ambiguous-heading", part.name)
            continue
        sentences = reading.sentences(opening)
        if opening.kind != "text" or not can_stand_alone(sentences[0].text, min_words=5):
            yield Reject("section-without-text", part.name)
            continue
        if whole and not all(can_stand_alone(s.text, min_words=2) for s in sentences):
            whole, question = False, rng.choice(SENTENCE).format(name=part.name)
        answer = opening.text if whole else sentences[0].text
        yield Candidate(
            question,
            answer,
            ((opening.index, "" if whole else answer),),
            needs=(part.heading.index,),
            distinct=True,
        )
