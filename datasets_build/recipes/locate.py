"""The section in which a given sentence stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

from datasets_build.reading import Reading, key_name
from datasets_build.recipes.base import Candidate, Found, Reject, recipe, shuffled

QUESTIONS = (
    "In which section does this sentence stand? “{sentence}” Answer with the heading.",
    "Under which heading does the text say: “{sentence}”?",
    "Name the heading of the section that contains the sentence “{sentence}”",
    "Which section says the following? “{sentence}” Give its heading as it stands in the text.",
)


@recipe("locate", version=1)
def locate(reading: Reading, rng: Random) -> Iterator[Found]:
    """One question per section, on a sentence drawn from it; needs two sections, or the answer is a given."""
    names = Counter(key_name(p.text) for p in reading.passages if p.kind == "heading")
    sections = [s for s in reading.sections if names[key_name(s.name)] == 1]
    if len(sections) < 2:
        yield Reject("few-headings", str(len(sections)))
        return
    neighbours = {p.index for p in reading.passages if p.kind == "heading"}
    for part in shuffled(sections, rng):
        phrase = rng.choice(QUESTIONS)
        body = [p for p in part.members if p.kind == "text"]
        sentences = [s for p in shuffled(body, rng)[:3] for s in reading.good_sentences(p)]
        if not sentences:
            yield Reject("no-unique-sentence", part.name)
            continue
        sentence = rng.choice(sentences)
        # The window shows another heading as well, so that the answer is a choice.
        others = sorted(neighbours - {part.heading.index}, key=lambda i: abs(i - part.heading.index))
        yield Candidate(
            phrase.format(sentence=sentence.text),
            part.name,
            ((sentence.passage, sentence.text), (part.heading.index, "")),
            needs=tuple(others[:1]),
            keys=(sentence.text,),
        )
