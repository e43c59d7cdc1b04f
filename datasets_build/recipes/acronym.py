"""What an abbreviation stands for, where the text spells it out: "position interpolation (PI)"."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from random import Random

from datasets_build.reading import Passage, Reading
from datasets_build.recipes.base import Candidate, Found, Reject, recipe, shuffled

QUESTIONS = (
    "What does {short} stand for in this text?",
    "Spell out the abbreviation {short} as this text does.",
    "How is {short} written out in full here?",
    "Which words does the text abbreviate as {short}?",
)
_SHORT = re.compile(r"\(([A-Z][A-Za-z0-9&/-]{1,9})\)")
_ROMAN = re.compile(r"^[IVXLC]+$")
_SMALL = {"of", "and", "the", "for", "in", "to", "on", "a", "an", "with", "by", "as", "at", "from", "&"}
_KINDS = ("text", "list", "footnote", "caption")


def long_form(short: str, before: str) -> str | None:
    """The words at the end of ``before`` whose initials spell ``short``, or None.

    Strict on purpose (every letter an initial, only small words skipped): a wrong expansion is worse than a
    missing one.
    """
    # "LLMs" is the plural of LLM; a lower-case letter elsewhere (DoD) belongs to the abbreviation.
    stem = short[:-1] if short.endswith("s") and short[:-1].isupper() else short
    letters = [c.casefold() for c in stem if c.isalpha()]
    if len(letters) < 2:
        return None
    clause = re.split(r"[.;:!?()\[\]]\s", before)[-1]
    pieces = list(re.finditer(r"[^\s\-–/]+", clause))
    start = None
    for piece in reversed(pieces):
        word = piece.group().strip("“”\"'‘’,").casefold()
        if letters and word[:1] == letters[-1]:
            letters.pop()
            start = piece.start()
            if not letters:
                break
        elif word not in _SMALL or start is None:
            return None
    if letters or start is None:
        return None
    phrase = clause[start:].strip("“”\"'‘’ ")
    return phrase if len(phrase.split()) >= 2 or "-" in phrase else None


@recipe("acronym", version=1)
def acronym(reading: Reading, rng: Random) -> Iterator[Found]:
    """One question per abbreviation that the document spells out, and spells out in one way only."""
    meanings: dict[str, dict[str, tuple[Passage, str]]] = defaultdict(dict)
    for passage in reading.passages:
        if passage.kind not in _KINDS:
            continue
        for match in _SHORT.finditer(passage.text):
            short = match.group(1)
            if sum(c.isupper() for c in short) < 2 or _ROMAN.match(short):
                continue
            phrase = long_form(short, passage.text[: match.start()].rstrip())
            if phrase and short not in phrase:
                meanings[short].setdefault(_compared(phrase), (passage, phrase))
    if not meanings:
        yield Reject("no-acronym")
    for short in shuffled(sorted(meanings), rng):
        question = rng.choice(QUESTIONS).format(short=short)
        if len(meanings[short]) > 1:
            yield Reject("ambiguous-acronym", f"{short}: {' | '.join(sorted(meanings[short]))}")
            continue
        passage, phrase = next(iter(meanings[short].values()))
        yield Candidate(question, phrase, ((passage.index, phrase),), distinct=True, keys=(short,))


def _compared(phrase: str) -> str:
    return re.sub(r"[\s\-–]+", " ", phrase.casefold()).rstrip("s")
