"""The bibliography: the entry of a work that the text cites, its title or year, and the sentence that cites it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from datasets_build.reading import Reading, Sentence, key_name
from datasets_build.recipes.base import Candidate, Found, Reject, recipe, shuffled
from datasets_build.sentences import can_stand_alone

ENTRY = (
    "The text says: “{sentence}” Quote the entry of the reference list for {cite}.",
    "This sentence stands in the text: “{sentence}” How does the reference list give the work cited as {cite}?",
    "Which entry of the reference list belongs to {cite} in this sentence? “{sentence}”",
)
TITLE_OF = (
    "What is the title of the work that the text cites as {cite}?",
    "The text cites {cite}. Which title has this work in the reference list?",
    "Find the work cited as {cite} in the reference list and give its title.",
)
CITING = (
    "Quote the sentence in which the text cites the work “{title}”.",
    "Where does the text refer to the work titled “{title}”? Quote the sentence.",
    "The reference list has a work titled “{title}”. Which sentence of the text cites it?",
)
YEAR_OF = (
    "According to the reference list, in which year did “{title}” appear?",
    "Which year does the reference list give for the work “{title}”?",
    "When was “{title}” published, according to the reference list? Answer with the year.",
)
_LIST = re.compile(r"^(?:references?|bibliography|works cited|literature(?: cited)?)$", re.I)
_SURNAME = r"(?:(?:[dD]e|[vV]an|[vV]on|[dD]er|[dD]i|[lL]a|[lL]e) )*[^\W\d_][\w'’-]+"
# Author, A. B., & Other, C. (2020a). Title. Source.
_ENTRY = re.compile(
    rf"^(?:\[(?P<label>\d{{1,3}})\] )?(?P<surname>{_SURNAME}), (?:[^\W\d_]\.|[^\W\d_][\w’'-]+)"
    r"[^()]{0,400}?\((?P<year>(?:1[5-9]|20)\d\d)(?P<letter>[a-z]?)(?:, [A-Z]\w+(?: \d{1,2})?)?\)\. "
    r"(?P<title>[^.?!]+(?:\.\d[^.?!]*)*[?!]?)[.?!] (?P<rest>\S.*)$"
)
_MORE_TITLE = re.compile(r"^(?:[IVX]+\b|(?!https?:)[a-z])")  # the stop belonged to the title
_CITE = r"(?<!& )(?<!and )\b{surname}(?P<others>(?:,? (?:and|&) [A-Z][\w'’-]+| et al\.)?),? \(?{year}(?![\da-z])"


@dataclass(frozen=True)
class Entry:
    """An entry of an author-year bibliography that is one passage."""

    passage: int
    text: str
    surname: str
    year: str  # with its letter
    title: str


@recipe("reference", version=1)
def reference(reading: Reading, rng: Random) -> Iterator[Found]:
    """Questions from a citation to its entry and back; works whose author and year are told apart by both."""
    entries = entries_of(reading)
    if not entries:
        yield Reject("no-bibliography")
        return
    same = Counter((e.surname, e.year) for e in entries)
    titles = Counter(e.title.casefold() for e in entries)
    for e in shuffled(entries, rng):
        ways = shuffled([ENTRY, TITLE_OF, CITING, YEAR_OF], rng)
        if same[e.surname, e.year] > 1 or titles[e.title.casefold()] > 1:
            yield Reject("ambiguous-reference", f"{e.surname} {e.year}")
            continue
        cited = citations(reading, e)
        for way in ways[:2]:
            found = _ask(reading, e, cited, way, rng)
            if found:
                yield found


def _ask(
    reading: Reading, e: Entry, cited: list[tuple[Sentence, str]], way: tuple[str, ...], rng: Random
) -> Candidate | None:
    question = rng.choice(way)
    title_once = reading.folded.count(e.title.casefold()) == 1
    if way is YEAR_OF:
        year = e.year[:4]
        asked = question.format(title=e.title)
        return Candidate(asked, year, ((e.passage, ""),), keys=(e.title,)) if title_once else None
    if not cited:
        return None
    sentence, cite = rng.choice(cited)
    if way is CITING:
        if len(cited) > 1 or not title_once:
            return None
        evidence = ((sentence.passage, sentence.text), (e.passage, ""))
        return Candidate(question.format(title=e.title), sentence.text, evidence, keys=(e.title,))
    evidence = ((e.passage, ""), (sentence.passage, sentence.text))
    if way is TITLE_OF:
        return Candidate(question.format(cite=cite), e.title, evidence)
    asked = question.format(sentence=sentence.text, cite=cite)
    return Candidate(asked, e.text, evidence, keys=(sentence.text,))


def entries_of(reading: Reading) -> list[Entry]:
    """Entries that are whole: the passage reads like one, and the next begins another or ends the list."""
    found: list[Entry] = []
    for part in reading.all_sections:
        if not _LIST.match(key_name(part.name)):
            continue
        matches = [(p, _ENTRY.match(p.text)) for p in part.members]
        for i, (passage, match) in enumerate(matches):
            broken = i + 1 < len(matches) and not _begins(matches[i + 1][0].text)
            if not match or broken or not _clean(passage.text) or _MORE_TITLE.match(match["rest"]):
                continue
            title = match["title"].strip()
            if not 3 <= len(title.split()) <= 30 or set(title) & set("“”"):
                continue
            year = match["year"] + match["letter"]
            found.append(Entry(passage.index, passage.text, match["surname"], year, title))
    return found


def citations(reading: Reading, e: Entry) -> list[tuple[Sentence, str]]:
    """Good sentences that cite an entry, and the words with which they do."""
    pattern = re.compile(_CITE.format(surname=re.escape(e.surname), year=re.escape(e.year)))
    found = []
    for passage in reading.body:
        if e.surname not in passage.text:
            continue
        for sentence in reading.sentences(passage):
            match = pattern.search(sentence.text)
            if match and can_stand_alone(sentence.text) and reading.unique(sentence.text):
                found.append((sentence, f"{e.surname}{match['others'].rstrip(',')} ({e.year})"))
    return found


def _begins(text: str) -> bool:
    """True if a passage begins an entry: a name and its initials, or a body that is author, before the year."""
    return bool(re.match(r"^(?:\[\d+\] )?[^\W\d_][^()]{2,400}\((?:n\.d\.|(?:1[5-9]|20)\d\d)", text)) and not re.match(
        r"^[^\W\d_]\.", text
    )


def _clean(text: str) -> bool:
    """False for an address that is broken over lines or cut off."""
    if "http" not in text and "doi" not in text.casefold():
        return text.endswith((".", "?", "!", ")"))
    return bool(re.search(r"https?://\S{8,}[^\s./-]$", text))
