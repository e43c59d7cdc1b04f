"""What becomes of a hyphen at a line's end: ``exam-|ple`` is one word, ``long-|term`` keeps its hyphen.

The document itself is the best witness: a word seen whole, or seen hyphenated in the middle of a line.
Where it says nothing, we judge by the parts: typesetters break words between syllables, so a part that is
no word of its own means a broken word, while two parts that are both words of this document mean a compound.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d_]+(?:[-‐‑'’][^\W\d_]+)*")
_LEFT = re.compile(r"([^\W\d_]+(?:[-‐‑][^\W\d_]+)*)$")
# An address that the line's end may have cut.
_ADDRESS = re.compile(r"(https?:/?/?|www\.|doi\.org/|\b10\.\d{4,})\S*$")
_RIGHT = re.compile(r"([^\W\d_]+)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MARKS = "-\u2010\u2011\u00ad\x02"

# First parts that make compounds freely and hardly ever begin a broken word (so not "pre", "multi", "in").
_COMPOUND_FIRST = _words("""
    self well non ill long short high low full half open real large small near cross fine hard deep
    single double many post semi quasi one two three four five six seven eight nine first second
    third best better left right early
""")
# Second parts that make compounds freely and hardly ever end a broken word (so not "sized": "empha-sized").
_COMPOUND_SECOND = _words("""
    based driven like free specific oriented aware friendly speaking independent making level shaped
    minded centred centered
""")
# Endings that a typesetter splits off although they are words; "with-out" is never a compound.
_ENDINGS = _words("""
    able ably ability age al ally ance ant ate ated ation ations ed en ence ent er ers est ful ible
    ic ical ing ings ion ions ism ist ists ities ity ive ize ized izes izing ise ised less ly ment
    ments ness or ors ous ship sion sions some tion tions tional tive ture tures ty ward wards wise
    out ever self selves thing things times body one where how what stand standing standable over
    under form forms formed forming formation formations port ports ported porting late lated lates
    tain tained tains mation duce duced put puts side come comes set ten ter ters ting ling man men
    mental dent dents rate rated press pressed sent sents sure pose posed poses act teen teenth part
    parts mit mits ages tor tors der ders per pers ber bers ner ners ger gers son sons lish ular
    ularly lar tice tices tend tends ish tory try graph graphs gram grams line lines lined ary ware
""")


class Vocabulary:
    """Words that a document shows unbroken, with counts."""

    def __init__(self) -> None:
        self.words: Counter[str] = Counter()

    def add(self, lines: Iterable[str]) -> None:
        """Count the words of ``lines``, but not those that a line's end breaks."""
        broken = False
        for line in lines:
            found = _WORD.findall(line.casefold())
            if broken and found:
                found = found[1:]
            broken = line.rstrip().endswith(tuple(MARKS))
            if broken and found:
                found = found[:-1]
            for word in found:
                word = word.replace("‐", "-").replace("‑", "-").replace("’", "'")
                self.words[word] += 1
                if "-" in word:
                    self.words.update(word.split("-"))

    def joined(self, left: str, right: str) -> bool:
        """Whether ``left-|right`` (casefolded letters) is one word without the hyphen."""
        whole, hyphened = self.words[left + right], self.words[f"{left}-{right}"]
        if whole != hyphened:
            return whole > hyphened
        last = left.rsplit("-", 1)[-1]
        if "-" in left:  # "cross-browser-|compatible", but "self-consis-|tent"
            return bool(self.words[last + right]) or not (
                right in _COMPOUND_SECOND or (self.words[last] and len(last) > 3)
            )
        if last in _COMPOUND_FIRST and len(right) > 2 and right not in _ENDINGS:
            return False
        if right in _COMPOUND_SECOND and (len(last) > 2 or self.words[last]):
            return False
        if len(last) < 3 or len(right) < 3 or right in _ENDINGS:
            return True
        return not (self.words[last] and self.words[right])


def join(left: str, right: str, vocabulary: Vocabulary) -> tuple[str, str]:
    """Two consecutive lines of a paragraph: ``left`` without its hyphen where due, and what stands between.

    Returns (left, separator), the separator being a space or nothing; ``right`` follows unchanged.
    """
    left = left.rstrip()
    soft = left.endswith(("\x02", "\u00ad"))
    if _ADDRESS.search(left) and (left[-1] in "/:_=&?" or (left[-1] == "-" and not right[:1].isspace())):
        return left, ""
    if not left or left[-1] not in MARKS:
        return left, "" if left.endswith("—") else " "
    stem = left[:-1]
    a, b = _LEFT.search(stem), _RIGHT.match(right)
    if not a or not b:
        # "2019-|2020", "-|5": a hyphen between figures stays.
        tight = stem[-1:].isalnum() or stem[-1:] in "/._"
        return stem + "-", "" if tight and right[:1].isalnum() else " "
    first, second = a.group(1), b.group(1)
    if second in ("and", "or", "und", "oder", "to", "bis") and not soft:
        return stem + "-", " "  # "short- and long-term"
    if second[0].isupper() and not first.isupper():
        return stem + "-", ""  # "Navier-|Stokes"
    key = first.casefold().replace("‐", "-").replace("‑", "-")
    if vocabulary.joined(key, second.casefold()):
        return stem, ""
    return stem + "-", ""
