"""How a question says which of several documents it is about."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from datasets_build.layout import Layout
from datasets_build.reading import Reading, fold
from datasets_build.recipes.base import Candidate
from datasets_build.recipes.title import title_of

LEADS = (
    "This is about {document}. {question}",
    "The question is about {document}. {question}",
    "Of these documents, take {document}. {question}",
)
OPENING_WORDS = 8
_NAME = re.compile(r"^((?:[A-Z][\w.'’-]*\.? ){1,4}(?:[a-z]{2,3} )?[A-Z][\w'’-]+)(?=\s?[\d¹²³⁴⁵⁶⁷⁸⁹*†‡§¶,]| and |$)")


def scoped(question: str, candidate: Candidate, layout: Layout, rng: Random) -> str | None:
    """``question`` with what tells its document from the others, or None if nothing does."""
    for scope in sorted(candidate.scopes, key=lambda _: rng.random()):
        document = _DOCUMENT[scope](candidate, layout, rng)
        if document:
            lead = rng.choice(LEADS).format(document=document, question=question)
            return re.sub(r"([.!?]”)\. ", r"\1 ", lead)  # a quoted sentence has its own stop
    return None


def author_of(reading: Reading) -> tuple[int, str] | None:
    """(passage, name) of the first author, where a line of names follows the title."""
    title = title_of(reading)
    at = title[0].index + 1 if title else len(reading.passages)
    if at >= len(reading.passages) or reading.passages[at].kind not in ("text", "heading"):
        return None
    match = _NAME.match(reading.passages[at].text)
    return (at, match.group(1).rstrip("¹²³⁴⁵⁶⁷⁸⁹")) if match and len(reading.passages[at].text.split()) <= 80 else None


def _title(_: Candidate, layout: Layout, __: Random) -> str | None:
    title = title_of(layout.main.reading)
    if not title or not _shown(layout, title[0].index) or not _only_here(layout, title[1]):
        return None
    return f"the document titled “{title[1]}”"


def _author(_: Candidate, layout: Layout, __: Random) -> str | None:
    author = author_of(layout.main.reading)
    if not author or not _shown(layout, author[0]) or not _only_here(layout, author[1]):
        return None
    return f"the document whose first author is {author[1]}"


def _opening(_: Candidate, layout: Layout, __: Random) -> str | None:
    first = layout.main.shown[0]
    if first.index in layout.main.reading.back_matter:
        return None  # "References Abbott, A." names no document
    words = fold(first.text).split()[:OPENING_WORDS]
    text = " ".join(words).rstrip(",;:—–-")
    if len(words) < OPENING_WORDS or set(text) & set("“”") or not _only_here(layout, text):
        return None
    return f"the document that begins with the words “{text}”"


def _sentence(candidate: Candidate, layout: Layout, rng: Random) -> str | None:
    reading, window = layout.main.reading, layout.main.window
    taken = {i for i, _ in candidate.evidence} | layout.main.hides
    free = [p for p in reading.body if window.first <= p.index <= window.last and p.index not in taken]
    for passage in rng.sample(free, min(4, len(free))):
        sentences = [s.text for s in reading.good_sentences(passage) if len(s.text.split()) <= 30]
        if sentences and _only_here(layout, text := rng.choice(sentences)):
            return f"the document in which this sentence stands: “{text}”"
    return None


def _number(_: Candidate, layout: Layout, __: Random) -> str | None:
    return f"document {layout.at + 1}"


def _shown(layout: Layout, passage: int) -> bool:
    return layout.main.window.first <= passage <= layout.main.window.last and passage not in layout.main.hides


def _only_here(layout: Layout, text: str) -> bool:
    return not any(text.casefold() in part.reading.folded for part in layout.others)


_DOCUMENT: dict[str, Callable[[Candidate, Layout, Random], str | None]] = {
    "title": _title, "author": _author, "opening": _opening, "sentence": _sentence, "number": _number,
}  # fmt: skip
