"""Numbers and dates: the sentence that gives one, and the one that a sentence gives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from random import Random

from datasets_build.reading import Reading
from datasets_build.recipes.base import Candidate, Found, Reject, recipe, shuffled
from datasets_build.sentences import can_stand_alone

OF_NUMBER = (
    "Quote the sentence that mentions {value}.",
    "Where does the text mention {value}? Quote the sentence.",
    "Find {value} in the text and repeat the sentence in which it stands.",
)
OF_GAP = (
    "Fill the gap as the text has it: “{gap}” Answer with the missing number or date only.",
    "Which number or date is missing in this sentence from the text? “{gap}”",
    "The text says “{gap}” What stands in place of the blank?",
)
BLANK = "____"
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_VALUE = re.compile(
    rf"(?<![\w.,/:^_#=+*-])(?:\d{{1,2}} {_MONTH} \d{{4}}|{_MONTH} \d{{1,2}}, \d{{4}}|{_MONTH} \d{{4}}|"
    r"(?:[$€£¥]\s?)?\d+(?:,\d{3})*(?:\.\d+)?(?:\s?%| percent\b| per cent\b| (?:million|billion|thousand)\b)?)"
    r"(?!\w|[.,:/]\d|[-–/^]\w)"
)
# Counters of the text itself (Figure 12, page 3, [14], et al. 2016) say nothing about its matter.
_LABEL_BEFORE = re.compile(
    r"(?:\b(?:fig(?:ure|s|ures)?|tab(?:le|les)?|sec(?:tion|tions|t)?|eq(?:uation|uations|s)?|chapters?|ch|appendix|"
    r"listing|algorithm|steps?|pages?|pp?|no|nos|vol|volume|issue|parts?|ref|version|v|al|items?|lines?|rows?|columns?|numbers?|license|licence|flat|room)"
    r"\.?\s*\(?|\[)$",
    re.IGNORECASE,
)
_CITATION_BEFORE = re.compile(r"\([^()]*[A-Z][^()]*,\s*(?:\d{4}[a-z]?,\s*)*$|[A-Z]\w+ \($|\bin \($")


@recipe("number", version=3)
def number(reading: Reading, rng: Random) -> Iterator[Found]:
    """One question per telling figure that the document states once.

    To be asked for by its value it must stand nowhere else either: "1998" also stands in "May 1998".
    """
    counts = Counter(m.group() for m in _VALUE.finditer(reading.flat))
    some = False
    for passage in shuffled(reading.body, rng):
        ask_gap = rng.random() < 0.5
        phrase = rng.choice(OF_GAP if ask_gap else OF_NUMBER)
        found = [
            (s.text, m)
            for s in reading.sentences(passage)
            if can_stand_alone(s.text)
            for m in _VALUE.finditer(s.text)
            if counts[m.group()] == 1 and _telling(m, s.text)
            if ask_gap or mentions(reading.flat, m.group()) == 1
        ]
        if not found:
            continue
        sentence, match = rng.choice(found)
        if not reading.unique(sentence):
            continue
        some = True
        value = match.group()
        gap = sentence[: match.start()] + BLANK + sentence[match.end() :]
        # Beside other documents the gap is told by the words around it.
        around = max(sentence[: match.start()], sentence[match.end() :], key=len).strip()
        yield Candidate(
            phrase.format(value=value, gap=gap),
            value if ask_gap else sentence,
            ((passage.index, sentence),),
            keys=(around if ask_gap else value,),
        )
    if not some:
        yield Reject("no-unique-number")


def mentions(text: str, value: str) -> int:
    """How often ``value`` stands in ``text`` as a token, be it part of a date, an amount or a label.

    Not counted: digits of a longer number or word (45 in 1,450, 45.2, 145, B45).
    """
    literal = re.escape(value)  # first in the pattern, which makes the search fast
    before = rf"(?<!\w{literal})(?<!\d[.,]{literal})" if value[0].isalnum() else ""
    after = r"(?!\w|[.,]\d)" if value[-1].isalnum() else ""
    return sum(1 for _ in re.finditer(literal + before + after, text))


def _telling(match: re.Match[str], sentence: str) -> bool:
    before = sentence[: match.start()]
    digits = sum(c.isdigit() for c in match.group())
    has_unit = not match.group()[-1].isdigit() or not match.group()[0].isdigit()
    if digits < 2 and not has_unit:
        return False
    return not (_LABEL_BEFORE.search(before) or _CITATION_BEFORE.search(before))
