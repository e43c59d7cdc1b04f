"""Sentences of a paragraph, and which of them can stand alone as an answer."""

from __future__ import annotations

import re

_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[“\"])(?:[A-Za-z]|e\.g|i\.e|et al|cf|vs|etc|resp|approx|ca|Fig|Figs|Tab|Eq|Eqs|Sec|Sect|"
    r"Ch|Chap|No|Nos|Nr|Vol|pp|Ref|Refs|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Ltd|Co|Corp|Dept|Univ|Ph\.D|"
    r"M\.Sc|B\.Sc|U\.S|U\.K|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)\.$"
)
_OPENERS = "“\"‘'(["
_BOILERPLATE = re.compile(
    r"https?://|www\.|\bdoi\b|@|©|\bcopyright\b|all rights reserved|\blicen[cs]ed under\b|"
    r"\bcreative commons\b|\bISSN\b|\bISBN\b|\borcid\b|�",
    re.IGNORECASE,
)


_TWO = re.compile(r"[)\]]\. [a-z]")  # the second begins with a name in small letters, so it was not split off


def split_sentences(text: str) -> list[str]:
    """Sentences of one paragraph (white space folded), in order, nothing lost between them but a space."""
    sentences: list[str] = []
    start = 0
    for match in _END.finditer(text):
        following = text[match.end() + 1 : match.end() + 3].lstrip(_OPENERS)[:1]
        # A lower-case letter after the stop means that it belonged to an abbreviation or an ellipsis.
        if not following or following.islower() or following in ",;:)":
            continue
        if match.group()[0] == "." and _ABBREVIATION.search(text[start : match.start() + 1]):
            continue
        sentences.append(text[start : match.end()].strip())
        start = match.end()
    if text[start:].strip():
        sentences.append(text[start:].strip())
    return sentences


def can_stand_alone(sentence: str, min_words: int = 8, max_words: int = 60) -> bool:
    """True for a whole, clean sentence: no boilerplate, no debris of tables or formulas, brackets closed."""
    words = sentence.split()
    if not min_words <= len(words) <= max_words:
        return False
    first = sentence.lstrip(_OPENERS)[:1]
    if not first.isupper() or not re.search(r"[.!?][\"'”’)\]]*$", sentence):
        return False
    if sentence.count("(") != sentence.count(")") or sentence.count("[") != sentence.count("]"):
        return False
    if sentence.count("“") != sentence.count("”") or sentence.count('"') % 2:
        return False
    # Speech that runs over several sentences leaves a lone quotation mark on the first and the last.
    opens = bool(re.search(r"(?:^|[\s(])['‘](?=\w)", sentence))
    closes = bool(re.search(r"[.!?,;…]['’](?:\s|$)", sentence))
    if opens != closes:
        return False
    if _TWO.search(sentence):
        return False
    letters = sum(c.isalpha() for c in sentence)
    short = sum(len(w) == 1 and w not in "aAI" for w in words)
    return (
        letters >= 0.7 * len(sentence.replace(" ", ""))
        and short <= len(words) // 6
        and not _BOILERPLATE.search(sentence)
    )
