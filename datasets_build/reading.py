"""A document as a reader sees it: passages, sections and sentences, and where on the page each stands."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from datasets_build.fingerprint import content_digest
from datasets_build.sentences import can_stand_alone, split_sentences
from pdf2txt.schema import Document, as_table

_NOT_TEXT = ("header", "footer", "page-number")  # furniture of the page, never shown to the model
MIN_LIST_WORDS = 8
_KEEP_LINES = ("table", "list", "equation")
_MARKS = re.compile(r"^[#*_\s]+|[*_\s]+$")
_NUMBERING = re.compile(r"^(?:(?:chapter|section|appendix|part)\s+)?(?:\d+(?:\.\d+)*|[IVXLC]+|[A-Z])[.):]?\s+", re.I)
_BACK_MATTER = re.compile(
    r"^(?:references?|bibliography|works cited|literature(?: cited)?|acknowledge?ments?|authors?\b.*|funding|"
    r"(?:competing|conflicts? of) interests?|licen[cs]e|copyright|(?:table of )?contents|index|"
    r"glossary|notes|colophon|about the authors?|author contributions|data availability)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Passage:
    """A paragraph, heading, caption, table, ... with its text, white space folded (lines kept in tables)."""

    index: int
    kind: str
    text: str
    start: int  # into Document.text
    end: int


@dataclass(frozen=True)
class Section:
    """A heading and the passages up to the next heading (``members`` without the heading)."""

    heading: Passage
    name: str  # the heading without Markdown marks
    members: tuple[Passage, ...]


@dataclass(frozen=True)
class Sentence:
    passage: int  # Passage.index
    position: int  # within its passage
    text: str


def fold(text: str) -> str:
    """``text`` with every run of white space as one space."""
    return " ".join(text.split())


def plain_name(heading: str) -> str:
    """A heading without Markdown marks, as it is quoted in questions and answers."""
    return _MARKS.sub("", heading)


def key_name(heading: str) -> str:
    """A heading without numbering and case, for comparing."""
    return _NUMBERING.sub("", plain_name(heading)).strip(" .:").casefold()


class Reading:
    """What recipes work on. Derived from the document alone, not from a model or a window."""

    def __init__(self, document: Document, content_digest: str = "") -> None:
        self.document = document
        self._content_digest = content_digest
        self.passages: list[Passage] = []
        for start, end, kind in _spans(document):
            raw = document.text[start:end]
            lines = raw.splitlines() if kind in _KEEP_LINES else [raw]
            text = "\n".join(folded for line in lines if (folded := fold(line)))
            if text:
                self.passages.append(Passage(len(self.passages), kind, text, start, end))

    @cached_property
    def flat(self) -> str:
        """The whole text with white space folded: what "stands in the document" is checked against."""
        return fold(" ".join(p.text for p in self.passages))

    @cached_property
    def folded(self) -> str:
        """``flat`` without case: what a phrase of another document is looked for in."""
        return self.flat.casefold()

    @cached_property
    def content_digest(self) -> str:
        """Identifies text and layout (not the file name)."""
        return self._content_digest or content_digest(as_table(self.document))

    @cached_property
    def all_sections(self) -> list[Section]:
        """Everything that layout took for a heading, with what follows it, in reading order."""
        heads = [p for p in self.passages if p.kind == "heading"]
        ends = [h.index for h in heads][1:] + [len(self.passages)] * bool(heads)
        return [
            Section(head, plain_name(head.text), tuple(self.passages[head.index + 1 : end]))
            for head, end in zip(heads, ends, strict=True)
        ]

    @cached_property
    def doubtful(self) -> set[int]:
        """Passage indices of headings that may be none: an author's name, a broken title, a line of text.

        A heading is believed if it looks like one and matter follows it, or another heading that is believed.
        """
        doubtful: set[int] = set()
        believed = False
        for section in reversed(self.all_sections):
            matter = any(_is_matter(p) for p in section.members) or (not section.members and believed)
            believed = _is_name(section.name) and matter
            if not believed:
                doubtful.add(section.heading.index)
        return doubtful

    @cached_property
    def sections(self) -> list[Section]:
        """Sections to ask about: heading believed, at least one member, no back matter."""
        return [
            s
            for s in self.all_sections
            if s.members and s.heading.index not in self.doubtful and not _BACK_MATTER.match(key_name(s.name))
        ]

    @cached_property
    def back_matter(self) -> set[int]:
        """Passage indices of references, thanks, contents and the like, with their headings."""
        parts = [s for s in self.all_sections if _BACK_MATTER.match(key_name(s.name))]
        return {p.index for s in parts for p in (s.heading, *s.members)}

    @cached_property
    def body(self) -> list[Passage]:
        """Running text outside back matter."""
        return [p for p in self.passages if p.kind == "text" and p.index not in self.back_matter]

    def sentences(self, passage: Passage) -> list[Sentence]:
        """Every sentence of a passage."""
        return [Sentence(passage.index, i, s) for i, s in enumerate(split_sentences(passage.text))]

    def good_sentences(self, passage: Passage) -> list[Sentence]:
        """Sentences of a passage that can stand alone and occur once in the document."""
        return [s for s in self.sentences(passage) if can_stand_alone(s.text) and self.unique(s.text)]

    def unique(self, text: str) -> bool:
        """True if ``text`` (folded) occurs exactly once in the document."""
        first = self.flat.find(text)
        return first >= 0 and self.flat.find(text, first + 1) < 0

    def evidence(self, passage: int, text: str = "") -> list[dict[str, Any]]:
        """Where a passage, or the part ``text`` of it, stands: ``{doc_id, page, box}``.

        ``box`` is None for documents without layout.
        """
        p = self.passages[passage]
        start, end = p.start, p.end
        if text:
            pattern = r"\s+".join(map(re.escape, text.split()))
            match = re.compile(pattern).search(self.document.text, p.start, p.end)
            if match:
                start, end = match.span()
        places = [(b.page, b.box) for b in self._blocks(start, end)]
        if not places:
            places = [
                (q.page, q.box)
                for paragraph in self.document.paragraphs
                if paragraph.start < end and start < paragraph.end
                for q in paragraph.places
            ]
        if not places:
            places = [(self._page(start), (0.0, 0.0, 0.0, 0.0))]
        unique = dict.fromkeys((page, tuple(_rounded(box))) for page, box in places)
        return [
            {"doc_id": self.document.doc_id, "page": page, "box": list(box) if _has_area(box) else None}
            for page, box in unique
        ]

    def _blocks(self, start: int, end: int) -> list[Any]:
        return [b for b in self.document.blocks if b.start < b.end and b.start < end and start < b.end]

    def _page(self, offset: int) -> int:
        for page in self.document.pages:
            if page.start <= offset < page.end:
                return page.number
        return 1


def _rounded(box: Any) -> list[float]:
    return [round(float(x), 2) for x in box]


def _has_area(box: Any) -> bool:
    return len(box) == 4 and box[2] > box[0] and box[3] > box[1]


def _is_name(name: str) -> bool:
    letters = sum(c.isalpha() for c in name)
    return (
        len(name.split()) <= 14
        and letters >= max(3, len(name) // 2)
        and not name[:1].islower()
        and not name.endswith((",", ";", "-"))
        and not re.search(r"[a-z]{2}[.!?] [A-Z]", name)  # a line of running text
    )


def _is_matter(passage: Passage) -> bool:
    """Text that a heading can stand over, unlike affiliations, badges and stray lines."""
    if passage.kind in ("table", "figure", "equation", "caption", "reference"):
        return True
    if passage.kind == "list":
        return len(passage.text.split()) >= MIN_LIST_WORDS
    return any(can_stand_alone(s) for s in split_sentences(passage.text))


def _spans(document: Document) -> list[tuple[int, int, str]]:
    """(start, end, kind) of every passage: paragraphs, and blocks that no paragraph covers, in text order."""
    blocks = sorted((b for b in document.blocks if b.end > b.start), key=lambda b: (b.start, b.end))
    spans = sorted((p.start, p.end) for p in document.paragraphs if p.end > p.start)
    starts = [s for s, _ in spans]
    for block in blocks:
        at = bisect.bisect_right(starts, block.start) - 1
        inside = at >= 0 and block.start < spans[at][1]
        before_next = at + 1 >= len(spans) or block.end <= spans[at + 1][0]
        if not inside and before_next:
            spans.insert(at + 1, (block.start, block.end))
            starts.insert(at + 1, block.start)
    if not spans:
        spans = list(_between_empty_lines(document.text))
    result: list[tuple[int, int, str]] = []
    at = 0
    for start, end in spans:
        while at < len(blocks) and blocks[at].end <= start:
            at += 1
        overlaps: dict[str, int] = {}
        for block in blocks[at:]:
            if block.start >= end:
                break
            overlaps[block.kind] = overlaps.get(block.kind, 0) + min(end, block.end) - max(start, block.start)
        kind = max(overlaps, key=lambda k: overlaps[k]) if overlaps else "text"
        if kind in ("text", "heading") and not any(page.width for page in document.pages):
            kind = _without_layout(document.text[start:end], first=not result)
        if kind not in _NOT_TEXT:
            result.append((start, end, kind))
    return result


def _between_empty_lines(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of every run of lines that are not empty, without white space at its start."""
    start = 0
    for gap in itertools.chain(re.finditer(r"\n\s*\n", text), [None]):
        end = gap.start() if gap else len(text)
        first = re.compile(r"\S").search(text, start, end)
        if first:
            yield first.start(), end
        start = gap.end() if gap else end


def _without_layout(text: str, first: bool) -> str:
    """The kind of a passage of a plain or Markdown file: its headings are told by their marks."""
    mark = re.match(r"(#{1,6})\s+\S", text)
    if not mark or "\n" in text.strip():
        return "text"
    return "title" if first and len(mark.group(1)) == 1 else "heading"
