"""Quote the passage about something: a phrase that the document has in one paragraph only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from datasets_build.reading import Passage, Reading
from datasets_build.recipes.base import Candidate, Found, Reject, recipe, shuffled
from datasets_build.sentences import can_stand_alone

QUESTIONS = (
    "Quote the passage about {topic}.",
    "Which paragraph deals with {topic}? Quote it in full.",
    "Find the paragraph that mentions {topic} and repeat it word for word.",
    "What does the text say about {topic}? Answer with the whole paragraph.",
)
MIN_WORDS, MAX_WORDS = 25, 170
_NO_NOUN = ("able", "ed", "ful", "ible", "ing", "ous")  # endings of what seldom names a thing
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
# Words that make a phrase no name of a topic.
_EMPTY_WORDS = """
    a about above after again against all almost along already also although always am among an and another any
    are around as asked at away back be became because become been before began being below between beyond both
    but by came can cannot come could course day days did different do does doing done down during each either
    else end enough especially even ever every example far few find first follow following for form found from
    full further gave general get give given go good great had half hand has have having he held help her here
    herself high him himself his how however i if important in include included includes including indeed
    instead into is it its itself just keep kept kind knew know known large last later least left less let like
    little long look made make makes making man many may me means might more most much must my near need needs
    never new next no nor not nothing now number of off often old on once one only or other others our out over
    own part particular people place possible provide provided provides put quite rather said same saw say
    second see seem seemed seen several shall she should show shown shows since small so some something soon
    still such take taken than that the their them themselves then there therefore these they thing things think
    this those though thought three through thus time times to together told too took toward towards two under
    until up upon us use used useful uses using very want wanted was way we well went were what when where
    whether which while who whole whom whose why will with within without work would year years yet you your
"""
_EMPTY = frozenset(_EMPTY_WORDS.split())


@recipe("about", version=1)
def about(reading: Reading, rng: Random) -> Iterator[Found]:
    """One question per paragraph that names something twice which no other passage names."""
    some = False
    for passage in shuffled(reading.body, rng):
        phrase = rng.choice(QUESTIONS)
        words = len(passage.text.split())
        if not MIN_WORDS <= words <= MAX_WORDS:
            continue
        if not all(can_stand_alone(s.text, min_words=2) for s in reading.sentences(passage)):
            continue
        topics = topics_of(passage, reading)
        if not topics:
            continue
        some = True
        topic = rng.choice(topics)
        yield Candidate(
            phrase.format(topic=f"“{topic}”"), passage.text, ((passage.index, ""),), keys=(topic,), distinct=True
        )
    if not some:
        yield Reject("no-topic")


def topics_of(passage: Passage, reading: Reading) -> list[str]:
    """Phrases of two or three words that the passage has twice or more and the rest of the document nowhere."""
    found: dict[str, str] = {}
    matches = list(_WORD.finditer(passage.text))
    folded = passage.text.casefold()
    for n in (3, 2):
        for i in range(len(matches) - n + 1):
            first, last = matches[i], matches[i + n - 1]
            phrase = passage.text[first.start() : last.end()]
            words = [m.group() for m in matches[i : i + n]]
            # One phrase, not two with a comma or a stop between them.
            if phrase.split() != words or any(w.casefold() in _EMPTY or len(w) < 3 for w in words):
                continue
            if words[-1].endswith(_NO_NOUN) or any(w.endswith("ly") for w in words):
                continue
            key = phrase.casefold()
            if key in found or folded.count(key) < 2:
                continue
            whole = re.compile(rf"(?<!\w){re.escape(key)}(?!\w)")
            here = sum(1 for _ in whole.finditer(folded))
            if here >= 2 and reading.folded.count(key) == here:
                found[key] = phrase
    # Of phrases within one another the longest.
    return [p for key, p in sorted(found.items()) if not any(key != other and key in other for other in found)]
