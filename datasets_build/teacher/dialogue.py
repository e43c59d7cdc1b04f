"""One row by way of the teacher: a question, an answer from the whole window, and what has to hold of both."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from datasets_build.build import Job
from datasets_build.layout import ONE, SEPARATOR
from datasets_build.reading import Reading
from datasets_build.recipes.base import Reject, shuffled
from datasets_build.rows import Row, make_row
from datasets_build.teacher import prompts
from datasets_build.teacher.asking import Asking
from datasets_build.teacher.calls import Call, Usage, parameters
from datasets_build.teacher.frames import TWO
from datasets_build.teacher.quotes import Shown, folded
from datasets_build.teacher.recipes import MIN_WORDS, TeacherRecipe, words
from datasets_build.teacher.replies import Junk, parse_object, string, strings, truth
from datasets_build.teacher.subject import Subject
from datasets_build.window import Window, fit, shrink
from pdf2txt.units import digest

CHUNK_WORDS = 250  # of the passage that a question is made from; less where the window is small
SPARE_TOKENS = 16  # tokens can merge otherwise at a joint than where passages are counted one by one
MAX_QUESTION_WORDS = 80
MIN_ANCHOR_WORDS = 20
SAME_ANSWER = 0.5  # F1 of words: an answer without the text that is as near to the row's needs no text
WHOLE, PART = "document", "excerpt"  # what the text is called when it is all of the document, and when a part
_POINTS_AT_CHUNK = re.compile(r"\b(?:this|the|given|above)\s+(?:passages?|text above|text below|excerpt above)\b", re.I)

T = TypeVar("T")


class Rejected(Exception):
    """The row cannot be had; ``reject`` says why."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reject = Reject(reason, detail)


@dataclass
class Outcome:
    """What came of a dialogue. ``used``: the replies it rests on, by key."""

    question: str = ""
    row: Row | None = None
    reject: Reject | None = None
    used: dict[str, Usage] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """What the row shows of its documents."""

    instruction: str
    windows: tuple[Window, ...]
    texts: tuple[tuple[str, str], ...]  # (name, text) as the teacher gets them


class Dialogue:
    """Dialogue number ``n`` of a subject and a recipe. It depends on nothing else but the teacher's replies."""

    def __init__(self, job: Job, subject: Subject, recipe: TeacherRecipe, n: int, asking: Asking) -> None:
        teacher = job.settings.teacher
        assert teacher is not None
        self.settings, self.teacher = job.settings, teacher
        self.subject, self.recipe, self.n, self.asking = subject, recipe, n, asking
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Ask, check, and make the row.

        Raises:
            Unanswered, Stopped, UserError: see `Asking.ask`; what was answered is in the store.
        """
        try:
            self.outcome.row = self._row()
        except Rejected as rejected:
            self.outcome.reject = rejected.reject
        return self.outcome

    def _row(self) -> Row | None:
        for reading in self.subject.readings:
            if words(reading) < MIN_WORDS:
                raise Rejected("no-text", f"{words(reading)} words of running text")
            if unfit := self.recipe.fits(reading):
                raise Rejected(unfit.reason, unfit.detail)
        rng = self._rng(self.n)
        chunks = [self._chunk(reading) for reading in self.subject.readings]
        frame, left_share = rng.choice(TWO if self.recipe.pair else ONE), rng.random()
        limit = self.settings.max_tokens
        target = int(limit * rng.uniform(self.settings.fill, 1.0))
        if self.recipe.kinds:
            question = self._question(chunks, rng.choice(self.recipe.kinds))
            view = self._view(question, question, chunks, frame, target, left_share)
        else:
            phrase = rng.choice(self.recipe.questions)
            whole, part = (phrase.format(noun=noun) for noun in (WHOLE, PART))
            view = self._view(whole, part, [Window(c.first, c.first) for c in chunks], frame, target, left_share)
            is_whole = view.windows[0] == Window(0, len(self.subject.readings[0].passages) - 1)
            if is_whole and self.n > 0:
                return None  # the same text and the same task again
            if self.recipe.whole and not is_whole:
                raise Rejected("document-too-long", f"more than {limit} tokens")
            question = whole if is_whole else part
        self.outcome.question = question
        answer, quotations = self._answer(question, view)
        evidence = self._evidence(view, quotations)
        n_tokens = self.subject.lengths.row(view.instruction, answer)
        if n_tokens > limit:
            raise Rejected("answer-too-long", f"{n_tokens} tokens")
        if n_tokens < self.settings.min_tokens:
            raise Rejected("too-short", f"{n_tokens} tokens")
        self._check(question, answer, view)
        if self.teacher.closed_book and self.recipe.kinds:
            self._closed_book(question, answer)
        documents = [reading.document for reading in self.subject.readings]
        return make_row(
            instruction=view.instruction,
            output=answer,
            task=self.recipe.name,
            n_tokens=n_tokens,
            source_sha256=documents[0].sha256,
            answer_source=f"teacher:{self.teacher.name}",
            split_group=documents[0].doc_id,
            doc_ids=self.subject.doc_ids,
            evidence=tuple(evidence),
            question=question,
        )

    def _rng(self, *parts: Any) -> Random:
        return Random(digest(self.settings.seed, self.subject.content, self.recipe.name, *parts))

    def _chunk(self, reading: Reading) -> Window:
        """A passage of some length; those of one document are apart as far as it allows."""
        body = [p for p in reading.body if len(p.text.split()) >= MIN_ANCHOR_WORDS] or reading.body
        anchors = shuffled(body, self._rng("anchors", reading.content_digest))
        first = last = anchors[self.n % len(anchors)].index
        n_words = len(reading.passages[first].text.split())
        enough = min(CHUNK_WORDS, self.settings.max_tokens // (8 * len(self.subject.readings)))
        while n_words < enough and last + 1 < len(reading.passages):
            last += 1
            n_words += len(reading.passages[last].text.split())
        return Window(first, last)

    def _question(self, chunks: list[Window], kind: str) -> str:
        texts = [_text(r, chunk) for r, chunk in zip(self.subject.readings, chunks, strict=True)]
        if self.recipe.pair:
            names = ("first passage", "second passage")
            template = prompts.PAIR_QUESTION
        else:
            names = ("passage",)  # type: ignore[assignment]
            template = prompts.QUESTION
        prompt = template.format(
            texts=prompts.material(*zip(names, texts, strict=True)), kind=kind, origin=self.recipe.origin, noun=WHOLE
        )
        question = self._ask(
            prompt,
            prompts.QUESTION_SCHEMA,
            ("question",),
            lambda reply: string(reply["question"], "question", MAX_QUESTION_WORDS),
        )
        if _POINTS_AT_CHUNK.search(question) and not self.recipe.pair:
            raise Rejected("question-about-passage", question)
        return question

    def _view(self, whole: str, part: str, spans: list[Window], frame: str, target: int, left_share: float) -> View:
        """Windows around ``spans``, as long as leaves room for the answer.

        ``whole``, ``part``: the question where the window is all of the document, and where it is not.
        """
        counts = self.subject.counts()
        everything = tuple(Window(0, len(c) - 1) for c in counts)
        room = min(self.teacher.answer_tokens, self.settings.max_tokens // 4)
        overhead = self.subject.lengths.row(self._instruction(frame, part, (), everything), "") + room
        if sum(map(sum, counts)) + overhead <= self.settings.max_tokens:
            target, windows = self.settings.max_tokens, everything
        else:
            needed = overhead + sum(sum(c[s.first : s.last + 1]) for c, s in zip(counts, spans, strict=True))
            target = max(target, min(self.settings.max_tokens, needed + SPARE_TOKENS))
            windows = self._fit(counts, spans, target - overhead, left_share)
        while True:
            question = whole if windows == everything else part
            instruction = self._instruction(frame, question, windows, everything)
            excess = self.subject.lengths.row(instruction, "") + room - target
            if excess <= 0:
                break
            windows = self._shrink(windows, counts, spans, excess)
        texts = self._texts(windows, windows == everything)
        return View(instruction, windows, texts)

    def _fit(self, counts: list[list[int]], spans: list[Window], budget: int, left_share: float) -> tuple[Window, ...]:
        """A window of each document; what one does not need goes to the other."""
        windows: list[Window] = []
        needs = [sum(c[s.first : s.last + 1]) for c, s in zip(counts, spans, strict=True)]
        for i, (c, span) in enumerate(zip(counts, spans, strict=True)):
            others = sum(max(needs[k], min(sum(counts[k]), budget // 2)) for k in range(len(counts)) if k != i)
            window = fit(c, span.first, span.last, max(needs[i], budget - others), left_share)
            if window is None or sum(needs) > budget:
                raise Rejected("evidence-too-long", f"{sum(needs)} tokens")
            windows.append(window)
        return tuple(windows)

    def _shrink(
        self, windows: tuple[Window, ...], counts: list[list[int]], spans: list[Window], excess: int
    ) -> tuple[Window, ...]:
        spare = [sum(c[w.first : w.last + 1]) for w, c in zip(windows, counts, strict=True)]
        order = sorted(range(len(windows)), key=lambda i: -spare[i])
        for i in order:
            smaller = shrink(windows[i], counts[i], spans[i].first, spans[i].last, excess)
            if smaller is not None and smaller != windows[i]:
                return (*windows[:i], smaller, *windows[i + 1 :])
        raise Rejected("evidence-too-long", f"{excess} tokens too many")

    def _texts(self, windows: tuple[Window, ...], whole: bool) -> tuple[tuple[str, str], ...]:
        names = ("first document", "second document") if self.recipe.pair else (WHOLE if whole else PART,)
        shown = zip(names, self.subject.readings, windows, strict=True)
        return tuple((name, _text(reading, window)) for name, reading, window in shown)

    def _instruction(
        self, frame: str, question: str, windows: tuple[Window, ...], everything: tuple[Window, ...]
    ) -> str:
        """The row's instruction; without windows that of an empty text."""
        texts = [text for _, text in self._texts(windows, False)] if windows else ["", ""]
        if self.recipe.pair:
            return frame.format(first=texts[0], second=texts[1], question=question)
        noun, name = (WHOLE, f"a {WHOLE}") if windows == everything else (PART, f"an {PART}")
        return frame.format(name=name, noun=noun, context=texts[0], question=question)

    def _answer(self, question: str, view: View) -> tuple[str, tuple[str, ...]]:
        prompt = prompts.ANSWER.format(
            texts=prompts.material(*view.texts),
            question=question,
            manner=self.recipe.manner,
            both=prompts.BOTH if self.recipe.pair else "",
        )

        def read(reply: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
            if _is_null(reply["answer"]):
                return "", ()
            answer = string(reply["answer"], "answer", self.recipe.answer_words)
            return answer, strings(reply["evidence"], "evidence")

        answer, quotations = self._ask(prompt, prompts.ANSWER_SCHEMA, ("answer", "evidence"), read)
        if not answer:
            raise Rejected("unanswerable", question)
        return answer, quotations

    def _evidence(self, view: View, quotations: tuple[str, ...]) -> list[dict[str, Any]]:
        """The places of all quotations.

        Every one has to stand in the text that is shown: one that does not is a sign of an answer made up.
        """
        if not quotations:
            raise Rejected("evidence-missing")
        shown = [
            Shown(reading.passages[w.first : w.last + 1])
            for reading, w in zip(self.subject.readings, view.windows, strict=True)
        ]
        evidence: list[dict[str, Any]] = []
        cited = set()
        for quotation in quotations:
            for i, (reading, text) in enumerate(zip(self.subject.readings, shown, strict=True)):
                found = text.find(quotation)
                if found is None:
                    continue
                cited.add(i)
                for part in found:
                    evidence += [e for e in reading.evidence(part.passage, part.text) if e not in evidence]
                break
            else:
                raise Rejected("evidence-not-found", quotation)
        if len(cited) < len(shown):
            raise Rejected("evidence-from-one-document", quotations[0])
        return evidence

    def _check(self, question: str, answer: str, view: View) -> None:
        prompt = prompts.CHECK.format(texts=prompts.material(*view.texts), question=question, answer=answer)

        def read(reply: dict[str, Any]) -> tuple[bool, bool, str]:
            return (
                truth(reply["answerable"], "answerable"),
                truth(reply["supported"], "supported"),
                str(reply.get("reason", "")),
            )

        answerable, supported, why = self._ask(prompt, prompts.CHECK_SCHEMA, ("answerable", "supported"), read)
        if not answerable:
            raise Rejected("not-answerable", why or question)
        if not supported:
            raise Rejected("not-supported", why or answer)

    def _closed_book(self, question: str, answer: str) -> None:
        prompt = prompts.CLOSED_BOOK.format(question=question)
        known = self._ask(
            prompt,
            prompts.CLOSED_BOOK_SCHEMA,
            ("answer",),
            lambda reply: "" if _is_null(reply["answer"]) else string(reply["answer"], "answer", 400),
        )
        if f1(known, answer) >= SAME_ANSWER:
            raise Rejected("answerable-without-text", known)

    def _ask(
        self, prompt: str, schema: dict[str, Any], keys: tuple[str, ...], read: Callable[[dict[str, Any]], T]
    ) -> T:
        """What ``read`` makes of the reply; junk is asked again with the reason."""
        why = ""
        for attempt in range(1 + self.teacher.junk_retries):
            text = prompt + (prompts.AGAIN.format(attempt=attempt, why=why) if attempt else "")
            call = Call(self.asking.model, text, parameters(self.teacher, schema), attempt)
            reply = self.asking.ask(call)
            self.outcome.used[call.key] = reply.usage
            try:
                return read(parse_object(reply.text, keys))
            except Junk as junk:
                why = str(junk) if reply.whole else f"it was cut at {self.teacher.output_tokens} tokens"
        raise Rejected("junk-reply", why)


def f1(a: str, b: str) -> float:
    """Overlap of the words of two answers, 0 to 1."""
    first, second = ([folded(w).strip(".,;:!?()") for w in text.split()] for text in (a, b))
    rest = list(second)
    same = 0
    for word in first:
        if word in rest:
            rest.remove(word)
            same += 1
    return 2 * same / (len(first) + len(second)) if same else 0.0


def _text(reading: Reading, window: Window) -> str:
    return SEPARATOR.join(p.text for p in reading.passages[window.first : window.last + 1])


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() in ("", "null", "none"))
