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
_NO_NOUN = ("able", "ed", "ful", "ible", "ical", "ing", "onal", "ous")  # endings of what seldom names a thing
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_LAST_WORD = re.compile(r"(\w+) $")
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
# Verbs of texts about their work, and words of old books.
_MORE_EMPTY_WORDS = """
    afterwards allow allows applies apply available called compare compares describe describes develop develops
    enable enables hath herein implement implements implies imply introduce introduces involve involves learn
    mention mentions mine neither nobody none offer offers ours present presents promote promotes propose
    proposes require requires respectively sent shook somebody someone sometimes support supports teach tell
    thee thence thine thou thy unto wilt ye yours
"""
_EMPTY = frozenset([*_EMPTY_WORDS.split(), *_MORE_EMPTY_WORDS.split()])
# What stands before a noun, in the languages that do not write nouns large.
_BEFORE_NOUN_WORDS = """
    a an and any both by each every for four from her his in into its many most my no of on or our several some such
    that the their these this those three two with your
    au aux d de des du en et l la le les leur sa ses son un une
    con del dei della di e el gli i il las lo los nel por su sus un una uno y
    das dem den der des die ein eine einem einen einer im mit und von
"""
_BEFORE_NOUN = frozenset(_BEFORE_NOUN_WORDS.split())


@recipe("about", version=2)
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
            if here >= 2 and reading.folded.count(key) == here and _names_something(whole, passage.text):
                found[key] = phrase
    # Of phrases within one another the longest.
    return [p for key, p in sorted(found.items()) if not any(key != other and key in other for other in found)]


def _names_something(phrase: re.Pattern[str], text: str) -> bool:
    """Whether ``phrase`` is used as a name: always written large, or once after an article or its like.

    And not always with more of the name after it: of "practical computational chemistry" two words name nothing.
    """
    small = text.casefold()
    if len(small) != len(text):
        return False  # folding has moved the places
    uses = list(phrase.finditer(small))
    after = [_WORD.match(small, m.end() + 1) if small[m.end() : m.end() + 1] == " " else None for m in uses]
    if all(word and len(word.group()) > 2 and word.group() not in _EMPTY for word in after):
        return False
    if all(word.group()[0].isupper() for m in uses for word in _WORD.finditer(text, m.start(), m.end())):
        return True
    before = (_LAST_WORD.search(small[: m.start()]) for m in uses)
    return any(word is not None and word.group(1) in _BEFORE_NOUN for word in before)
