"""The rows of one document and one recipe: one unit of work.

Its draws depend on the seed, the document and the recipe and on nothing else, so that a unit is the same
whether it is computed alone, after a kill, or in another process.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from datasets_build.measure import Measure
from datasets_build.reading import Reading, fold
from datasets_build.recipes import RECIPES, Candidate, FromWindow, Reject
from datasets_build.rows import FROM_DOCUMENT, Row, make_row
from datasets_build.settings import DatasetSettings
from datasets_build.window import Window, fit, shrink
from longlora.templates import CHAT, ChosenTemplate
from pdf2txt.units import digest

BUILD_VERSION = 3  # raised when the same candidate gives another row
SEPARATOR = "\n\n"
MAX_CANDIDATES = 20  # per wanted row: where most fail, more of the same would fail too

FRAMES = (
    "Here is {article} {noun}.\n\n{context}\n\nThe {noun} ends here. {question}",
    "Read the following {noun} and answer the question below it.\n\n{context}\n\n{question}",
    "{question}\n\nAnswer from this {noun}:\n\n{context}",
    "{context}\n\nAnswer from the {noun} above. {question}",
)
# What the text is called when it is all of the document, and when it is a part.
WHOLE, PART = ("a", "document"), ("an", "excerpt")

Unit = dict[str, list[dict[str, Any]]]  # {"rows": [...], "rejects": [...]}


@dataclass(frozen=True)
class Job:
    """What a unit needs beside the document, small enough to send to another process."""

    settings: DatasetSettings
    tokenizer_digest: str  # of a template file too
    template: ChosenTemplate = CHAT

    def key(self, reading: Reading, recipe: str, per_document: int) -> str:
        """Identity of the unit: everything that can change its rows."""
        s = self.settings
        return digest(
            ["document", BUILD_VERSION, recipe, RECIPES[recipe].version, per_document],
            [s.seed, s.template, s.max_tokens, s.min_tokens, s.fill, s.license, self.tokenizer_digest],
            reading.content_digest,
        )


def pack(unit: Unit) -> bytes:
    """A unit as bytes (compressed JSON: rows of one document repeat its text)."""
    return zlib.compress(json.dumps(unit, ensure_ascii=False, sort_keys=True).encode(), 6)


def unpack(data: bytes) -> Unit:
    """The unit that ``pack`` made ``data`` of."""
    return json.loads(zlib.decompress(data))


class Builder:
    """Places the candidates of one document in windows."""

    def __init__(self, reading: Reading, measure: Measure, settings: DatasetSettings) -> None:
        self.reading = reading
        self.measure = measure
        self.settings = settings
        texts = [p.text for p in reading.passages]
        self.counts = [n + measure.separator for n in measure.texts(texts)]

    def unit(self, recipe: str, per_document: int) -> Unit:
        """Up to ``per_document`` rows of a recipe, and why there are no more."""
        rows: list[Row] = []
        rejects: list[dict[str, Any]] = []
        seen: set[str] = set()
        for result in self._results(recipe, per_document):
            if isinstance(result, Reject):
                rejects.append(
                    {
                        "doc_id": self.reading.document.doc_id,
                        "task": recipe,
                        "reason": result.reason,
                        "detail": result.detail[:200],
                    }
                )
                continue
            row, distinct = result
            if row["id"] in seen or (distinct and row["output"] in seen):
                continue
            seen.update((row["id"], row["output"]))
            rows.append(row)
            if len(rows) == per_document:
                break
        return {"rows": rows, "rejects": rejects}

    def _results(self, recipe: str, per_document: int) -> Iterator[tuple[Row, bool] | Reject]:
        rng = self._rng(recipe, "find")
        if not self.reading.passages:
            yield Reject("no-text")
            return
        for n, found in enumerate(RECIPES[recipe].find(self.reading, rng)):
            if n >= MAX_CANDIDATES * per_document:
                return
            yield found if isinstance(found, Reject) else self._place(found, recipe, self._rng(recipe, n))

    def _rng(self, *parts: Any) -> Random:
        return Random(digest(self.settings.seed, self.reading.content_digest, *parts))

    def _place(self, found: Candidate | FromWindow, recipe: str, rng: Random) -> tuple[Row, bool] | Reject:
        """A row for a candidate: choose a window by estimate, then measure it exactly and trim."""
        frame = rng.choice(FRAMES)
        target = int(self.settings.max_tokens * rng.uniform(self.settings.fill, 1.0))
        left_share = rng.random()
        limit = self.settings.max_tokens

        # A question that depends on the window has no text yet: a fifth is set aside for it.
        candidate = found if isinstance(found, Candidate) else None
        first, last = found.span() if isinstance(found, Candidate) else (found.anchor, found.anchor)
        hides = candidate.hides if candidate else frozenset()
        avoid = found.avoid if isinstance(found, FromWindow) else frozenset()
        counts = [0 if i in hides else limit + 1 if i in avoid else n for i, n in enumerate(self.counts)]
        if candidate:
            overhead = self.measure.row(_instruction(frame, "", candidate.question, PART), candidate.answer)
        else:
            overhead = self.measure.row(_instruction(frame, "", "", PART), "") + target // 5
        everything = Window(0, len(counts) - 1)
        if sum(counts) + overhead <= limit:
            target, window = limit, everything
        elif candidate and candidate.whole:
            return Reject("document-too-long", f"{sum(counts) + overhead} tokens")
        else:
            room = sum(counts[first : last + 1]) + overhead
            if room > limit:
                return Reject("evidence-too-long", f"{room} tokens")
            target = max(target, min(limit, room + 16))
            window = fit(counts, first, last, target - overhead, left_share) or Window(first, last)

        while True:
            if isinstance(found, FromWindow):
                candidate = found.make(window.first, window.last)
                if candidate is None:
                    return Reject("window-without-matter")
            assert candidate is not None
            shown = [p for p in self.reading.passages[window.first : window.last + 1] if p.index not in hides]
            context = SEPARATOR.join(p.text for p in shown)
            instruction = _instruction(frame, context, candidate.question, WHOLE if window == everything else PART)
            n_tokens = self.measure.row(instruction, candidate.answer)
            if n_tokens <= target:
                break
            if candidate.whole:
                return Reject("document-too-long", f"{n_tokens} tokens")
            smaller = shrink(window, counts, first, last, n_tokens - target)
            if smaller is None and n_tokens <= limit:
                break
            if smaller is None:
                return Reject("evidence-too-long", f"{n_tokens} tokens")
            window = smaller
        if n_tokens < self.settings.min_tokens:
            return Reject("too-short", f"{n_tokens} tokens")
        if not self._stands_in_document(candidate.answer):
            return Reject("answer-not-in-text", candidate.answer[:80])
        return self._row(candidate, recipe, instruction, n_tokens), candidate.distinct

    def _stands_in_document(self, answer: str) -> bool:
        return all(fold(line) in self.reading.flat for line in answer.splitlines() if line.strip())

    def _row(self, candidate: Candidate, recipe: str, instruction: str, n_tokens: int) -> Row:
        evidence: list[dict[str, Any]] = []
        for passage, text in candidate.evidence:
            evidence += [e for e in self.reading.evidence(passage, text) if e not in evidence]
        document = self.reading.document
        return make_row(
            instruction=instruction,
            output=candidate.answer,
            task=recipe,
            n_tokens=n_tokens,
            source_sha256=document.sha256,
            license=self.settings.license,
            answer_source=FROM_DOCUMENT,
            split_group=document.doc_id,
            doc_ids=(document.doc_id,),
            evidence=tuple(evidence),
            question=candidate.question,
        )


def _instruction(frame: str, context: str, question: str, name: tuple[str, str]) -> str:
    article, noun = name
    return frame.format(article=article, noun=noun, context=context, question=question)
