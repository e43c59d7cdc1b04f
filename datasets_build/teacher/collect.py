"""All rows of the teacher: the dialogues of every document and recipe, many at once, in a fixed order."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_build import layout
from datasets_build.build import Job
from datasets_build.corpus import Corpus, Known
from datasets_build.measure import Measure
from datasets_build.packs import Filed, Packs
from datasets_build.teacher import frames
from datasets_build.teacher.asking import Asking, Client, Unanswered
from datasets_build.teacher.calls import Usage
from datasets_build.teacher.dialogue import Dialogue, Outcome
from datasets_build.teacher.limits import Stopped
from datasets_build.teacher.pairs import pair_up
from datasets_build.teacher.prompts import PROMPTS_VERSION
from datasets_build.teacher.quotes import folded
from datasets_build.teacher.recipes import TEACHER_RECIPES, TeacherRecipe
from datasets_build.teacher.report import Account
from datasets_build.teacher.responses import KIND as RESPONSES
from datasets_build.teacher.settings import TeacherSettings
from datasets_build.teacher.subject import Lengths, Subject
from pdf2txt.units import digest

COLLECT_VERSION = 1  # raised when the same replies give other rows
AHEAD = 4  # dialogues begun per call in flight: what keeps the endpoint busy while the first of them is slow
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class TeacherUnit:
    """The rows of one recipe and one document, or two."""

    filed: Filed
    reused: bool
    doc_ids: tuple[str, ...]


@dataclass
class _Pending:
    recipe: TeacherRecipe
    subject: Subject
    key: str
    filed: Filed | None = None  # where it is there
    dialogues: list[tuple[Dialogue, Future[Outcome]]] = field(default_factory=list)


def identity(settings: TeacherSettings, model: str) -> dict[str, Any]:
    """What of the teacher decides its rows: the model and how it is asked, not where it is."""
    fields = type(settings).model_fields
    speed = {name for name, f in fields.items() if (f.json_schema_extra or {}).get("digest") is False}  # type: ignore[union-attr]
    kept = settings.model_dump(mode="json", exclude=speed | {"model", "local", "license"})
    return {"model": model, "prompts": PROMPTS_VERSION, "collect": COLLECT_VERSION, **kept}


def model_key(settings: TeacherSettings, folder: Path | None) -> str:
    """The model's name, for one on this machine with its content."""
    if folder is None:
        return settings.name
    import hashlib

    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                total.update(f"{path.name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return f"{settings.name}@{total.hexdigest()[:12]}"


def open_client(settings: TeacherSettings, units: Path, folder: Path | None) -> Client:
    """The client of the settings; ``folder``: of a model on this machine.

    Raises:
        UserError: the package openai is missing, or the model cannot be used.
    """
    if folder is None:
        from datasets_build.teacher.endpoint import Endpoint

        return Endpoint(settings, units)
    from datasets_build.teacher.local import LocalModel

    return LocalModel(settings, units, folder)


class Collector:
    """Makes the units of the teacher that are missing.

    Args:
        groups: the documents to ask about, of ``corpus``; those of one group may be compared.
        measure: gives the target model's tokenizer; called when the first unit is missing.
        packs: where the rows are kept. Replies are kept beside them.
        folder: of a model on this machine.
    """

    def __init__(
        self, job: Job, corpus: Corpus, groups: Collection[Sequence[Known]], measure: Callable[[], Measure],
        packs: Packs, folder: Path | None, report: Callable[..., None],
    ) -> None:  # fmt: skip
        assert job.settings.teacher is not None
        self.job, self.corpus, self.lengths = job, corpus, Lengths(measure)
        self.groups = [sorted(k.doc_id for k in group) for group in groups]
        self.documents = {k.doc_id: k for group in groups for k in group}
        self.packs, self.root, self.folder, self.report = packs, packs.units.folder.parent, folder, report
        self.teacher = job.settings.teacher
        self.model = model_key(self.teacher, folder)
        self.account = Account(self.teacher, self.model)
        self.called: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.asking: Asking | None = None
        self.last: Subject | None = None
        self.not_asked = self.done = self.total = 0
        self.stopped = ""  # what to do about a teacher that was asked no more

    def run(self) -> Iterator[TeacherUnit]:
        """The units by document and recipe, pairs last. One that could not be finished holds the rows there are.

        Raises:
            UserError: wrong key, unknown model, or a package is missing.
        """
        tasks = list(self._tasks())
        waiting: deque[_Pending] = deque()
        pool = ThreadPoolExecutor(self.teacher.concurrency if self.folder is None else 1)
        self.total = len(tasks)
        try:
            for recipe, doc_ids in tasks:
                waiting.append(self._begin(recipe, doc_ids, pool))
                while waiting and self._enough(waiting):
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
        finally:
            if self.asking is not None:
                self.asking.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            if self.asking is not None:
                self.asking.client.close()
            pool.shutdown()
            self._drain()
        if self.asking is not None:
            self.account.close(self.asking, self.not_asked)
            if self.asking.stopped is not None:
                self._tell_stop(self.asking.stopped)

    def _enough(self, waiting: deque[_Pending]) -> bool:
        """Whether to wait for the first unit rather than begin another: the documents are held meanwhile."""
        most = AHEAD * self.teacher.concurrency
        return not waiting[0].dialogues or len(waiting) > most or sum(len(p.dialogues) for p in waiting) > most

    def _tasks(self) -> Iterator[tuple[TeacherRecipe, tuple[str, ...]]]:
        """Recipe and documents of every unit: what is about one document together, so that it is read once."""
        recipes = [TEACHER_RECIPES[name] for name in self.job.settings.chosen_teacher_recipes()]
        for doc_id in sorted(self.documents):
            yield from ((recipe, (doc_id,)) for recipe in recipes if not recipe.pair)
        pairs = sorted(pair for group in self.groups for pair in pair_up(group, self.job.settings.seed))
        yield from ((recipe, pair) for recipe in recipes if recipe.pair for pair in pairs)

    def _subject(self, doc_ids: tuple[str, ...]) -> Subject:
        if self.last is None or self.last.doc_ids != doc_ids:
            self.last = Subject(tuple(self.corpus.reading(self.documents[d]) for d in doc_ids), self.lengths)
        return self.last

    def _begin(self, recipe: TeacherRecipe, doc_ids: tuple[str, ...], pool: ThreadPoolExecutor) -> _Pending:
        subject = self._subject(doc_ids)
        per_document = self.job.settings.chosen_teacher_recipes()[recipe.name]
        pending = _Pending(recipe, subject, self._key(recipe, per_document, subject))
        pending.filed = self.packs.find(pending.key).get(recipe.name)
        if pending.filed is not None:
            return pending
        asking = self._asking()
        for n in range(per_document):
            dialogue = Dialogue(self.job, subject, recipe, n, asking)
            pending.dialogues.append((dialogue, pool.submit(dialogue.run)))
        return pending

    def _asking(self) -> Asking:
        if self.asking is None:
            client = open_client(self.teacher, self.root, self.folder)
            self.asking = Asking(self.teacher, self.model, self.root, client, self.called.put)
        return self.asking

    def _key(self, recipe: TeacherRecipe, per_document: int, subject: Subject) -> str:
        s = self.job.settings
        return digest(
            ["teacher", recipe.name, recipe.version, per_document, identity(self.teacher, self.model)],
            [s.seed, s.template, s.max_tokens, s.min_tokens, s.fill, self.job.tokenizer_digest],
            [layout.ONE, frames.TWO],
            subject.content,
        )

    def _finish(self, pending: _Pending) -> TeacherUnit:
        part = pending.recipe.name
        reused = pending.filed is not None
        if pending.filed is not None:
            filed = pending.filed
            unit: dict[str, Any] = self.packs.read(filed.name, part)[part]
        else:
            unit, unfinished = self._unit(pending)
            key = pending.key if not unfinished else digest(pending.key, "part", unit["rejects"], unit["rows"])
            filed = self.packs.put(key, {part: unit})[part]
        for name, values in unit["responses"].items():
            self.account.add(name, Usage(*values))
            self.report("unit", kind=RESPONSES, key=name, reused=reused)
        self.done += 1
        self._progress()
        return TeacherUnit(filed, reused, pending.subject.doc_ids)

    def _unit(self, pending: _Pending) -> tuple[dict[str, Any], bool]:
        """The unit, and whether something in it has to be tried again by a later build."""
        rows: list[dict[str, Any]] = []
        rejects: list[dict[str, Any]] = []
        responses: dict[str, tuple[int, ...]] = {}
        questions: set[str] = set()
        unfinished = False
        not_asked: dict[str, int] = {}

        def reject(reason: str, detail: str) -> None:
            doc_id = pending.subject.doc_ids[0]
            rejects.append({"doc_id": doc_id, "task": pending.recipe.name, "reason": reason, "detail": detail[:200]})

        for dialogue, future in pending.dialogues:
            try:
                outcome = self._result(future)
            except Unanswered as error:
                reject(error.reason, str(error))
                # A prompt that is refused while no other was answered may be refused for what the settings say.
                if error.passing or not self._asking().answered:
                    unfinished = True
                    documents = ", ".join(pending.subject.doc_ids)
                    self.report("transient", message=f"{pending.recipe.name} of {documents}: {error.reason}: {error}")
                continue
            except Stopped as stopped:
                unfinished = True
                not_asked[stopped.reason] = not_asked.get(stopped.reason, 0) + 1
                continue
            finally:
                responses |= {key: usage.values() for key, usage in dialogue.outcome.used.items()}
            asked = folded(outcome.question)
            if outcome.reject is not None:
                reject(outcome.reject.reason, outcome.reject.detail)
            elif outcome.row is not None and asked in questions and pending.recipe.kinds:
                reject("duplicate-question", outcome.question)
            elif outcome.row is not None:
                questions.add(asked)
                rows.append(outcome.row)
        for reason, n in not_asked.items():
            reject(reason, f"{n} rows not finished")
            self.not_asked += n
        return {"rows": rows, "rejects": rejects, "responses": responses}, unfinished

    def _result(self, future: Future[Outcome]) -> Outcome:
        while not future.done():
            wait([future], timeout=POLL_SECONDS)
            self._drain()
            self._progress()
        return future.result()

    def _drain(self) -> None:
        """Tell of the calls begun meanwhile: their replies belong to this output, even if it is killed now."""
        with suppress(queue.Empty):
            while True:
                self.report("unit", kind=RESPONSES, key=self.called.get_nowait(), reused=False)

    def _progress(self) -> None:
        calls = self.asking.new.calls if self.asking else 0
        self.report("progress", done=self.done, total=self.total, unit="teacher tasks", calls=calls)

    def _tell_stop(self, stopped: Stopped) -> None:
        where = self.teacher.base_url or "the model"
        todo = "raise dataset.teacher.budget (--budget)" if stopped.reason == "budget" else f"see that {where} answers"
        self.stopped = f"the teacher was asked no more ({stopped.reason}): {todo} and run again"
        self.report(
            "transient",
            message=f"teacher stopped ({stopped.reason}): {stopped}. {self.not_asked} rows were not finished; {todo} "
            "and run again to go on: no answered call is repeated",
        )
