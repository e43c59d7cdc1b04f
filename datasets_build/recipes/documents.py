"""Several documents in one context: which of them says something, and a look-up in one that is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from datasets_build.reading import Reading
from datasets_build.recipes.acronym import acronym
from datasets_build.recipes.base import Candidate, Found, Reject, recipe, shuffled
from datasets_build.recipes.caption import caption
from datasets_build.recipes.number import number
from datasets_build.recipes.reference import reference
from datasets_build.recipes.section import section
from datasets_build.recipes.title import title, title_of
from datasets_build.sentences import can_stand_alone

BY_TITLE = (
    "Which of these documents says: “{sentence}”? Answer with its title.",
    "In which document does this sentence stand? “{sentence}” Give the document's title.",
    "One of the documents contains the sentence “{sentence}” What is its title?",
    "Name the title of the document that states the following: “{sentence}”",
)
BY_OPENING = (
    "In one of these documents stands the sentence “{sentence}” Quote the first sentence of that document.",
    "Find the document that says: “{sentence}” With which sentence does it begin?",
    "Which document contains this sentence? “{sentence}” Answer by quoting its opening sentence.",
)
LOOKUPS = (section, caption, acronym, number, reference, title)


@recipe("which_document", version=1, several=True)
def which_document(reading: Reading, rng: Random) -> Iterator[Found]:
    """The title, or else the opening sentence, of the one document in which a given sentence stands."""
    named = title_of(reading)
    if named:
        answer, at, text = named[1], named[0].index, ""
    else:
        opening = next((p for p in reading.body if can_stand_alone(reading.sentences(p)[0].text)), None)
        if opening is None or opening.index > 2:
            yield Reject("no-title-or-opening")
            return
        answer = text = reading.sentences(opening)[0].text
        at = opening.index
    some = False
    for passage in shuffled([p for p in reading.body if p.index != at], rng):
        phrase = rng.choice(BY_TITLE if named else BY_OPENING)
        sentences = reading.good_sentences(passage)
        if not sentences:
            continue
        some = True
        sentence = rng.choice(sentences).text
        evidence = ((passage.index, sentence), (at, text))
        yield Candidate(phrase.format(sentence=sentence), answer, evidence, keys=(sentence,), scopes=())
    if not some:
        yield Reject("no-unique-sentence")


@recipe("multi_document", version=1, several=True)
def multi_document(reading: Reading, rng: Random) -> Iterator[Found]:
    """Sections, captions, abbreviations, numbers, references, titles: of the one document that the question names."""
    finders = [find(reading, Random(rng.getrandbits(64))) for find in shuffled(list(LOOKUPS), rng)]
    some = False
    while finders:
        for finder in list(finders):
            found = next(finder, None)
            if found is None:
                finders.remove(finder)
            elif isinstance(found, Candidate):
                some = True
                yield replace(found, keys=())
    if not some:
        yield Reject("no-lookup")
