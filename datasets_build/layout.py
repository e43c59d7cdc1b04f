"""What the model is shown: the question, and one document or several, whole or a part of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from datasets_build.corpus import Measured
from datasets_build.reading import Passage, Reading
from datasets_build.window import Window, fit

SEPARATOR = "\n\n"
LABEL = "[Document {number}]"
LABEL_TOKENS = 12  # of a label and its blank line, generously
MIN_PART = 120  # tokens: less of a document is no company

ONE = (
    "Here is {name}.\n\n{context}\n\nThe {noun} ends here. {question}",
    "Read the following {noun} and answer the question below it.\n\n{context}\n\n{question}",
    "{question}\n\nAnswer from this {noun}:\n\n{context}",
    "{context}\n\nAnswer from the {noun} above. {question}",
)
SEVERAL = (
    "Here are {name}.\n\n{context}\n\nThe {noun} end here. {question}",
    "Read the following {noun} and answer the question below them.\n\n{context}\n\n{question}",
    "{question}\n\nAnswer from these {noun}:\n\n{context}",
    "{context}\n\nAnswer from the {noun} above. {question}",
)


@dataclass
class Part:
    """A run of passages of one document."""

    source: Measured
    window: Window
    hides: frozenset[int] = frozenset()

    @property
    def reading(self) -> Reading:
        return self.source.reading

    @property
    def whole(self) -> bool:
        return self.window == Window(0, len(self.source.counts) - 1)

    @property
    def shown(self) -> list[Passage]:
        """The passages that stand in the context."""
        window = self.reading.passages[self.window.first : self.window.last + 1]
        return [p for p in window if p.index not in self.hides]

    @property
    def passages(self) -> list[str]:
        return [p.text for p in self.shown]


@dataclass
class Layout:
    """Parts in the order in which they are shown; ``main`` is the one that is asked about."""

    frame: int
    main: Part
    others: list[Part] = field(default_factory=list)
    place: float = 0.0  # 0: main comes first, 1: last
    plants: tuple[tuple[str, float], ...] = ()  # sentence, and how deep in the context it stands (0..1)

    @property
    def at(self) -> int:
        """Where ``main`` stands, from 0."""
        return min(int(self.place * (len(self.others) + 1)), len(self.others))

    @property
    def parts(self) -> list[Part]:
        return [*self.others[: self.at], self.main, *self.others[self.at :]]

    def context(self) -> str:
        """The documents, labelled if there are several."""
        parts = self.parts
        pieces: list[str] = []
        for number, part in enumerate(parts, 1):
            pieces += [LABEL.format(number=number)] * (len(parts) > 1) + part.passages
        for sentence, depth in self.plants:
            # After a label or a passage, never before the first: a statement belongs to the documents.
            pieces.insert(1 + int(depth * (len(pieces) - 1)), sentence)
        return SEPARATOR.join(pieces)

    def instruction(self, question: str, context: str | None = None) -> str:
        """The whole of what is asked."""
        if self.others:
            frame, noun = SEVERAL[self.frame], "documents"
            name = f"{len(self.others) + 1} documents"
        else:
            frame, noun = ONE[self.frame], "document" if self.main.whole else "excerpt"
            name = "a document" if self.main.whole else "an excerpt"
        shown = self.context() if context is None else context
        return frame.format(name=name, noun=noun, context=shown, question=question)

    def cut(self, excess: int) -> bool:
        """Take passages worth ``excess`` tokens from the last of the other documents; False if none is left."""
        while self.others and excess > 0:
            part = self.others[-1]
            counts, first, last = part.source.counts, part.window.first, part.window.last
            while last >= first and excess > 0:
                excess -= counts[last]
                last -= 1
            if last < first or sum(counts[first : last + 1]) < MIN_PART:
                excess -= sum(counts[first : last + 1]) + LABEL_TOKENS
                self.others.pop()
            else:
                part.window = Window(first, last)
        return bool(self.others)


def fill(room: int, company: Iterable[Measured], rng: Random) -> list[Part]:
    """Other documents worth ``room`` tokens: whole ones as long as they fit, then a part of one that does not."""
    parts: list[Part] = []
    for source in company if room >= MIN_PART + LABEL_TOKENS else ():
        counts = source.counts
        budget = room - LABEL_TOKENS
        if not counts or sum(counts) < MIN_PART:
            continue
        window: Window | None = Window(0, len(counts) - 1)
        if sum(counts) > budget:
            start = rng.randrange(len(counts))
            window = fit(counts, start, start, int(budget * rng.uniform(0.5, 1.0)), rng.random())
        if window is None or sum(counts[window.first : window.last + 1]) < MIN_PART:
            continue
        parts.append(Part(source, window))
        room -= sum(counts[window.first : window.last + 1]) + LABEL_TOKENS
        if room < MIN_PART + LABEL_TOKENS:
            break  # before the next is read
    return parts
