"""The rows of one document and one recipe: one unit of work.

Its draws depend on the seed, the document, its company and the recipe and on nothing else, so that a unit is
the same whether it is computed alone, after a kill, or in another process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from random import Random
from typing import TYPE_CHECKING, Any

from datasets_build.corpus import Measured
from datasets_build.layout import LABEL_TOKENS, MIN_PART, ONE, SEPARATOR, Layout, Part, fill
from datasets_build.measure import Measure
from datasets_build.reading import Reading, fold
from datasets_build.recipes import RECIPES, Candidate, FromWindow, Reject
from datasets_build.rows import FROM_DOCUMENT, PLANTED, Row, make_row
from datasets_build.scope import scoped
from datasets_build.settings import DatasetSettings
from datasets_build.window import Window, fit, shrink
from longlora.templates import CHAT, ChosenTemplate
from pdf2txt.units import digest

if TYPE_CHECKING:
    import pyarrow as pa

BUILD_VERSION = 5  # raised when the same candidate gives another row
MAX_CANDIDATES = 20  # per wanted row: where most fail, more of the same would fail too
MAIN_SHARE = (0.25, 0.75)  # of a context that several long documents share, for the one asked about
FOR_QUESTION = 500  # tokens of a question, and of its answer, that are made from the window
NEARLY = 0.1  # of its length may lack of a context that is called full
UNSCOPED = 0.5  # how often a question that quotes its place does not name its document
_SIZE = 8  # bytes that tell a unit's size before it was compressed

Unit = dict[str, list[dict[str, Any]]]  # {"rows": [...], "rejects": [...]}
Lazy = Callable[[], Measured]  # a document that is read when it is wanted


@dataclass(frozen=True)
class Job:
    """What a unit needs beside the document, small enough to send to another process."""

    settings: DatasetSettings
    tokenizer_digest: str  # of a template file too
    template: ChosenTemplate = CHAT

    @cached_property
    def recipes(self) -> dict[str, int]:
        """Recipe name -> rows per document."""
        return self.settings.chosen_recipes()

    @cached_property
    def context_tokens(self) -> int:
        """The longest context that is filled."""
        return max((length.tokens for length in self.settings.lengths), default=self.settings.max_tokens)

    def wants_company(self, recipe: str) -> bool:
        """Whether a unit of ``recipe`` depends on other documents."""
        return bool(self.settings.lengths) or RECIPES[recipe].several

    @cached_property
    def _common(self) -> str:
        s = self.settings
        lengths = [[length.tokens, length.share] for length in s.lengths]
        values = [s.seed, s.template, s.max_tokens, s.min_tokens, s.fill, lengths]
        return digest("document", BUILD_VERSION, values, self.tokenizer_digest)

    def key(self, content: str, company: Sequence[str] = ()) -> str:
        """Identity of a document's units but for their recipes: everything else that can change their rows.

        Args:
            content: the document's ``content_digest``.
            company: those of the documents that may stand beside it.
        """
        return digest(self._common, content, *company)

    @cached_property
    def parts(self) -> dict[str, str]:
        """What tells the unit of each recipe from the document's others."""
        return {name: digest(name, RECIPES[name].version, n)[:16] for name, n in self.recipes.items()}


def pack(unit: Unit) -> bytes:
    """A unit as bytes: how many it is of JSON, then those by Zstandard (rows of one document repeat its text)."""
    data = json.dumps(unit, ensure_ascii=False, sort_keys=True).encode()
    return len(data).to_bytes(_SIZE, "big") + _codec().compress(data, asbytes=True)


def unpack(data: bytes) -> Unit:
    """The unit that ``pack`` made ``data`` of."""
    size = int.from_bytes(data[:_SIZE], "big")
    return json.loads(_codec().decompress(memoryview(data)[_SIZE:], size, asbytes=True))


@cache
def _codec() -> pa.Codec:
    """Zstandard: a fifth of the time of zlib at the same size, half of it to read."""
    import pyarrow as pa

    return pa.Codec("zstd", 3)


class Builder:
    """Places the candidates of one document in contexts."""

    def __init__(
        self, source: Measured, measure: Measure, settings: DatasetSettings, company: Sequence[Lazy] = ()
    ) -> None:
        self.source, self.reading, self.measure, self.settings = source, source.reading, measure, settings
        self._company = company

    @classmethod
    def of(cls, reading: Reading, measure: Measure, settings: DatasetSettings, *others: Reading) -> Builder:
        """The builder of a reading beside ``others``."""
        company = [cache(partial(Measured, other, measure)) for other in others]
        return cls(Measured(reading, measure), measure, settings, company)

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
        if RECIPES[recipe].several and not self._company:
            yield Reject("no-company")
            return
        for n, found in enumerate(RECIPES[recipe].find(self.reading, rng)):
            if n >= MAX_CANDIDATES * per_document:
                return
            yield found if isinstance(found, Reject) else self._place(found, recipe, self._rng(recipe, n))

    def _rng(self, *parts: Any) -> Random:
        return Random(digest(self.settings.seed, self.reading.content_digest, *parts))

    def _target(self, rng: Random) -> int:
        """Tokens that a row may have."""
        share = rng.uniform(self.settings.fill, 1.0)
        if not self.settings.lengths:
            return int(self.settings.max_tokens * share)
        (length,) = rng.choices(self.settings.lengths, [length.share for length in self.settings.lengths])
        return int(length.tokens * share)

    def _place(self, found: Candidate | FromWindow, recipe: str, rng: Random) -> tuple[Row, bool] | Reject:
        """A row for a candidate: choose what to show by estimate, then measure it exactly and trim."""
        several = RECIPES[recipe].several
        frame, place, left_share = rng.randrange(len(ONE)), rng.random(), rng.random()
        limit, target, draws = self.settings.max_tokens, self._target(rng), rng.getrandbits(64)
        filled = bool(self.settings.lengths)

        # A question that depends on the window has no text yet: some tokens are set aside for it.
        candidate = found if isinstance(found, Candidate) else None
        first, last = found.span() if isinstance(found, Candidate) else (found.anchor, found.anchor)
        hides = candidate.hides if candidate else frozenset()
        avoid = found.avoid if isinstance(found, FromWindow) else frozenset()
        counts = [0 if i in hides else limit + 1 if i in avoid else n for i, n in enumerate(self.source.counts)]
        empty = Layout(frame, Part(self.source, Window(0, -1)))
        if candidate:
            overhead = self.measure.row(empty.instruction(candidate.question, ""), candidate.answer)
        else:
            overhead = self.measure.row(empty.instruction("", ""), "") + min(target // 5, FOR_QUESTION)
        everything = Window(0, len(counts) - 1)
        tokens = sum(counts) + overhead
        share = rng.uniform(*MAIN_SHARE) if several else 1.0
        if tokens <= (target * share if several or filled else limit):
            window = everything
            target = target if several or filled else limit
        elif candidate and candidate.whole:
            if tokens > limit or several:
                return Reject("document-too-long", f"{tokens} tokens")
            target, window = min(limit, tokens + 64) if filled else limit, everything
        else:
            room = sum(counts[first : last + 1]) + overhead
            if room > limit:
                return Reject("evidence-too-long", f"{room} tokens")
            target = max(target, min(limit, room + 16))
            window = fit(counts, first, last, int(target * share) - overhead, left_share) or Window(first, last)

        if isinstance(found, FromWindow) and (several or filled):
            early = found.make(window.first, window.last)
            if early:  # shown whole, it will most likely stay what it is
                asked = SEPARATOR.join([early.question, *early.plants])
                overhead = self.measure.row(empty.instruction(asked, ""), early.answer)
        layout = Layout(frame, Part(self.source, window, hides), place=place)
        room = target - overhead - sum(counts[window.first : window.last + 1]) - 4 * LABEL_TOKENS
        # A scrap of another document at the end of a context that is nearly full would teach nothing.
        if room >= MIN_PART + LABEL_TOKENS and (several or (filled and room >= NEARLY * target)):
            others = rng.sample(self._company, len(self._company))
            layout.others = fill(room, (read() for read in others), rng)
        while True:
            if isinstance(found, FromWindow):
                candidate = found.make(layout.main.window.first, layout.main.window.last)
                if candidate is None:
                    return Reject("window-without-matter")
            assert candidate is not None
            if several and not layout.others:
                return Reject("no-room-for-company", f"{target} tokens")
            question = self._question(candidate, layout, Random(draws))
            if question is None:
                return Reject("no-scope", candidate.question[:80])
            plants = Random(draws)
            layout.plants = tuple((sentence, plants.random()) for sentence in candidate.plants)
            instruction = layout.instruction(question)
            n_tokens = self.measure.row(instruction, candidate.answer)
            if n_tokens <= target:
                break
            if layout.others:
                layout.cut(n_tokens - target)
                continue
            if candidate.whole:
                if n_tokens <= limit:
                    break
                return Reject("document-too-long", f"{n_tokens} tokens")
            smaller = shrink(layout.main.window, counts, first, last, n_tokens - target)
            if smaller is None and n_tokens <= limit:
                break
            if smaller is None:
                return Reject("evidence-too-long", f"{n_tokens} tokens")
            layout.main.window = smaller
        if n_tokens < self.settings.min_tokens:
            return Reject("too-short", f"{n_tokens} tokens")
        if candidate.plants:
            # Neither what is asked about nor the answer may stand in the documents themselves, or be told twice.
            texts = [text.casefold() for text in (*candidate.keys, candidate.answer)]
            twice = sum(candidate.answer in plant for plant in candidate.plants) > 1
            if twice or any(text in part.reading.folded for part in layout.parts for text in texts):
                return Reject("plant-in-text", candidate.answer[:80])
        elif not self._stands_in_document(candidate.answer):
            return Reject("answer-not-in-text", candidate.answer[:80])
        return self._row(candidate, recipe, question, instruction, n_tokens, layout), candidate.distinct

    def _question(self, candidate: Candidate, layout: Layout, rng: Random) -> str | None:
        """The question, with what tells its document from the others where that is needed."""
        if not layout.others or candidate.plants:
            return candidate.question
        if candidate.keys and (not candidate.scopes or rng.random() < UNSCOPED):
            keys = [key.casefold() for key in candidate.keys]
            if not any(key in part.reading.folded for part in layout.others for key in keys):
                return candidate.question
        return scoped(candidate.question, candidate, layout, rng)

    def _stands_in_document(self, answer: str) -> bool:
        return all(fold(line) in self.reading.flat for line in answer.splitlines() if line.strip())

    def _row(
        self, candidate: Candidate, recipe: str, question: str, instruction: str, n_tokens: int, layout: Layout
    ) -> Row:
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
            answer_source=PLANTED if candidate.plants else FROM_DOCUMENT,
            split_group=document.doc_id,
            doc_ids=(document.doc_id, *(part.reading.document.doc_id for part in layout.others)),
            evidence=tuple(evidence),
            question=question,
        )
