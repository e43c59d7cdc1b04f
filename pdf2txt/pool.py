"""Many documents over worker processes, none of which can take the run with it.

A short document is one task. A long one is divided: its pages are read, and later shaped, a range at a time by
whichever worker is free (`convert.Conversion`), so that one book keeps all of them busy. A page that exceeds its
CPU seconds or its worker's memory has the worker killed and is left out; what was done of the document is kept.
Work on a whole document has seconds of its own, more for more pages. A worker that dies by itself (a crash in a
native library, the kernel's memory killer) costs its task one retry, alone; a page that kills twice is left out.
Workers are replaced now and then, because native libraries leak. All end when the generator ends, whatever ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spool import ranges

_TICK = 0.2  # seconds between looks at the workers' CPU time and memory
_STEP_SECONDS = 30.0  # CPU seconds that what is no page's work may take at least: a worker's start is part of it
_MAX_SKIPPED = 10  # pages that may be left out before the rest of the document is given up for this run
_STUCK = 20  # a worker that is silent for so many times its limit, whatever its CPU seconds, is taken for stuck
_RECYCLE = 5000  # pages after which a worker is replaced: a new one takes a second to be ready,
_GROWN = 0.5  # or sooner if it has grown to this share of its memory limit
_SHORT = 4  # pages up to which a document is one task even where workers are idle
_LONG = 64  # pages from which it is divided even where they are not
_BIG = 1_000_000  # bytes of a file that is likely to be divided


@dataclass
class Job:
    """A file to convert, and what went wrong with it so far."""

    path: Path
    sha256: str
    result: Path  # where the finished document goes
    attempt: Path  # where it goes if pages had to be left out: not a finished unit
    folder: Path  # where it is kept on its way
    skip: dict[int, str] = field(default_factory=dict)
    rest: str = ""  # why nothing more is read of it
    pages: int = 0  # as far as known
    pages_read: int = 0  # begun in this run
    pages_reused: int = 0  # known from one that was interrupted
    open_tasks: int = 0  # of the step that is in progress
    began: float = 0.0  # when its first task began, `time.monotonic`; later by what it lay idle

    @property
    def outcome_path(self) -> Path:
        return self.attempt if self.skip or self.rest else self.result


@dataclass
class Task:
    """A piece of a job that one worker does: all of it ("whole"), or a step of `convert.Conversion`."""

    job: Job
    step: str = "whole"  # | "read" | "decide" | "shape" | "finish"
    first: int = 0
    last: int = 0
    page: int = 0  # in flight, 0: none yet, or all at once
    deaths: Counter[int] = field(default_factory=Counter)  # page in flight -> how often the worker died
    put_off: float = 0.0  # when it was queued to be tried alone, `time.monotonic`


@dataclass(frozen=True)
class Outcome:
    """The end of a job for this run: its result is at ``job.outcome_path``, or there is none."""

    job: Job
    problem: str = ""  # why there is no result; "" where there is one


def worker_count(settings: Pdf2txtSettings) -> int:
    """Worker processes: as many as asked for, or one per core."""
    return settings.workers or cores()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """One process and the two pipes to it."""

    def __init__(self, hello: dict[str, object], log: IO[bytes]) -> None:
        child_in, to_child = os.pipe()
        from_child, child_out = os.pipe()
        root = str(Path(__file__).parent.parent)
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pdf2txt.worker", str(child_in), str(child_out), str(os.getpid())],
                pass_fds=(child_in, child_out),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Arrow's own allocators keep what they were once given: 30 MB after a book.
                env={"ARROW_DEFAULT_MEMORY_POOL": "system", **os.environ, "PYTHONPATH": path},
                process_group=0,  # with the programs that it starts (poppler), to be ended together
            )
        except BaseException:
            os.close(to_child)
            os.close(from_child)
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
        import psutil

        self.looked_at = psutil.Process(self.process.pid)  # not yet waited for: it is there, be it dead
        self.commands = os.fdopen(to_child, "wb", buffering=0)
        self.replies = os.fdopen(from_child, "rb", buffering=0)
        self.rest = b""
        self.task: Task | None = None
        self.pages = 0  # that it has begun
        self.page_began = 0.0  # this process's CPU seconds when the page in flight began
        self.heard = time.monotonic()  # when its last message came
        self.send(hello)

    def send(self, message: dict[str, object]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died: noticed at the end of its replies
            self.commands.write(json.dumps(message).encode() + b"\n")

    def start(self, task: Task, at_most: int) -> None:
        job = task.job
        self.task, task.page = task, 0
        self.heard = time.monotonic()
        job.began = job.began + self.heard - task.put_off if task.put_off else job.began or self.heard
        task.put_off = 0.0
        self.page_began = self.cpu_seconds()
        job.outcome_path.parent.mkdir(parents=True, exist_ok=True)
        self.send({
            "path": str(job.path), "sha256": job.sha256, "result": str(job.outcome_path), "unit": str(job.result),
            "folder": str(job.folder),
            "skip": job.skip, "rest": job.rest, "step": task.step, "first": task.first, "last": task.last,
            "at_most": at_most, "began": job.began,
        })  # fmt: skip

    def receive(self) -> list[dict[str, object]] | None:
        """Messages that have arrived; None at the end (the process is gone)."""
        data = self.replies.read(65536)
        if not data:
            return None
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def cpu_seconds(self) -> float:
        import psutil

        try:
            times = self.looked_at.cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def gigabytes(self) -> float:
        import psutil

        try:
            return float(self.looked_at.memory_info().rss) / 1e9
        except psutil.Error:
            return 0.0

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.commands.close()
        self.replies.close()


def convert_all(
    jobs: list[Job],
    settings: Pdf2txtSettings,
    *,
    units: Path,
    page_key: str,
    log: Path,
    on_page: Callable[[Job], None] = lambda job: None,
    on_unit: Callable[[str, bool], None] = lambda key, reused: None,
) -> Generator[Outcome, None, None]:
    """Outcomes of ``jobs`` as they finish.

    Args:
        units: root of the units, for pages read by OCR; ``page_key``: what such a page depends on besides
        its file. log: a file for what libraries print.
        on_page: called when the reading of another page of a job begins.
        on_unit: called with the key of a page's unit that was made or (True) reused.
    """
    if not jobs:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    count = worker_count(settings)
    hello: dict[str, object] = {
        "settings": settings.model_dump(mode="json"),
        "units": str(units),
        "page_key": page_key,
        "threads": max(1, cores() // count),
    }
    with selectors.DefaultSelector() as selector, log.open("ab") as log_file:
        pool = _Pool(jobs, settings, count, lambda: _Worker(hello, log_file), selector, on_page, on_unit)
        try:
            yield from pool.outcomes()
        finally:
            pool.end()


class _Pool:
    def __init__(
        self,
        jobs: list[Job],
        settings: Pdf2txtSettings,
        count: int,
        spawn: Callable[[], _Worker],
        selector: selectors.BaseSelector,
        on_page: Callable[[Job], None],
        on_unit: Callable[[str, bool], None],
    ) -> None:
        self.settings, self.count, self.spawn, self.selector = settings, count, spawn, selector
        self.on_page, self.on_unit = on_page, on_unit
        self.waiting = deque(Task(job) for job in jobs)
        self.alone: deque[Task] = deque()  # tasks whose worker died, to be tried with nothing beside them
        self.idle: list[_Worker] = []
        self.busy: list[_Worker] = []
        self.looked = 0.0  # when limits were last checked

    def outcomes(self) -> Generator[Outcome, None, None]:
        while self.waiting or self.alone or self.busy:
            self._hand_out()
            for key, _ in self.selector.select(_TICK):
                if key.data in self.busy or key.data in self.idle:  # not ended by the news of another
                    yield from self._hear(key.data)
            if time.monotonic() - self.looked < _TICK:
                continue
            self.looked = time.monotonic()
            for worker in list(self.busy):
                if worker not in self.busy or worker.task is None:
                    continue
                if worker.gigabytes() > self.settings.worker_memory:
                    self._dismiss(worker)
                    why = f"over its limit of {self.settings.worker_memory:g} GB of memory"
                    yield from self._after_death(worker.task, why)  # what earlier pages left may have been too much
                elif why := self._over_limit(worker):
                    self._dismiss(worker)
                    yield from self._without_page(worker.task, why)

    def _hand_out(self) -> None:
        while len(self.busy) < self.count and (self.waiting or (self.alone and not self.busy)):
            task = self.waiting.popleft() if self.waiting else self.alone.popleft()
            while self.idle and self._is_old(self.idle[-1]):
                self._dismiss(self.idle[-1])
            if not self.idle:
                self._spawn()
            worker = self.idle.pop()
            self.busy.append(worker)
            others_wait = len(self.waiting) + len(self.busy) > self.count
            worker.start(task, _LONG if others_wait else _SHORT)
            if task.deaths and not self.waiting:
                break  # nothing else beside it
            if task.step == "whole" and not self.waiting and len(self.busy) < self.count and not self.idle:
                self._help_ahead(task.job)

    def _spawn(self) -> None:
        worker = self.spawn()
        self.selector.register(worker.replies, selectors.EVENT_READ, worker)
        self.idle.append(worker)

    def _help_ahead(self, job: Job) -> None:
        """Start a further worker while another is still opening a big file, which it will then help to read."""
        with contextlib.suppress(OSError):  # that it is gone is noticed by the one that opens it
            if job.path.stat().st_size >= _BIG:
                self._spawn()

    def _is_old(self, worker: _Worker) -> bool:
        if worker.pages > _RECYCLE:
            return True
        # Asked now and then: a task of a few pages takes less time than a hundred such questions.
        return worker.pages % 64 < 8 and worker.gigabytes() > _GROWN * self.settings.worker_memory

    def _dismiss(self, worker: _Worker) -> None:
        self.selector.unregister(worker.replies)
        worker.end()
        for group in (self.idle, self.busy):
            if worker in group:
                group.remove(worker)

    def end(self) -> None:
        for worker in [*self.idle, *self.busy]:
            worker.end()

    def _over_limit(self, worker: _Worker) -> str:
        assert worker.task is not None
        limit = allowance(worker.task, self.settings.page_seconds)
        if worker.cpu_seconds() - worker.page_began > limit:
            return f"over its limit of {limit:g} CPU seconds"
        if time.monotonic() - worker.heard > _STUCK * limit:
            return f"over its limit of {_STUCK * limit:g} seconds, most of them asleep"
        return ""

    def _hear(self, worker: _Worker) -> Iterator[Outcome]:
        """What the messages waiting from ``worker`` bring about."""
        messages = worker.receive()
        task = worker.task
        if messages is None:
            self._dismiss(worker)
            if task is not None:
                yield from self._after_death(task, "its worker process died twice")
            return
        worker.heard = time.monotonic()
        for message in messages:
            assert task is not None
            job, event = task.job, message["event"]
            if event == "page":
                task.page, job.pages = int(str(message["page"])), int(str(message["pages"]))
                worker.page_began = float(str(message["cpu"]))
                worker.pages += 1
                if message["step"] == "read":
                    job.pages_read += 1
                    self.on_page(job)
            elif event == "unit":
                self.on_unit(str(message["key"]), bool(message["reused"]))
            else:
                worker.task = None
                self.busy.remove(worker)
                self.idle.append(worker)
                job.pages_reused += int(str(message.get("reused", 0)))
                if event == "page-lost":
                    yield from self._without_page(task, str(message["message"]))
                elif event == "transient":
                    yield from self._give_up(task, str(message["message"]))
                elif event == "long":
                    job.pages = int(str(message["pages"]))
                    self._divide(job, "read")
                else:
                    yield from self._next(task)

    def _divide(self, job: Job, step: str) -> None:
        """Queue a step over all pages, before other documents: what is begun is finished first."""
        tasks = [Task(job, step, first, last) for first, last in ranges(job.pages)]
        job.open_tasks = len(tasks)
        self.waiting.extendleft(reversed(tasks))

    def _next(self, task: Task) -> Iterator[Outcome]:
        """What follows a finished task."""
        job = task.job
        if task.step in ("read", "shape"):
            job.open_tasks -= 1
            if job.open_tasks == 0:
                self.waiting.appendleft(Task(job, "decide" if task.step == "read" else "finish"))
        elif task.step == "decide":
            self._divide(job, "shape")
        else:
            yield Outcome(job)

    def _without_page(self, task: Task, why: str) -> Iterator[Outcome]:
        """The page in flight is left out, and the task tried again; a document whose own steps fail is given up."""
        job = task.job
        if task.page == 0:
            yield from self._give_up(task, why)
            return
        leave_out(job, task.page, why)
        self.waiting.append(task)

    def _give_up(self, task: Task, why: str) -> Iterator[Outcome]:
        job = task.job
        if task.step in ("read", "shape") and any(t.job is job for t in (*self.waiting, *self.alone)):
            self.waiting = deque(t for t in self.waiting if t.job is not job)
            self.alone = deque(t for t in self.alone if t.job is not job)
        for worker in [w for w in self.busy if w.task is not None and w.task.job is job]:
            self._dismiss(worker)
        yield Outcome(job, why)

    def _after_death(self, task: Task, why: str) -> Iterator[Outcome]:
        """Queue the task again after its worker ended in the middle, or the second time (``why``) give it up."""
        task.deaths[task.page] += 1
        if task.deaths[task.page] >= 2:
            if task.page == 0:
                yield from self._give_up(task, why)
                return
            leave_out(task.job, task.page, why)
        time.sleep(0.05)  # a machine short of memory gets a moment
        task.put_off = time.monotonic()
        self.alone.append(task)


def allowance(task: Task, page_seconds: float) -> float:
    """CPU seconds for what is in flight: one page, or (page 0) a step over all pages."""
    return page_seconds if task.page else max(_STEP_SECONDS, page_seconds) * (1 + task.job.pages / 100)


def leave_out(job: Job, page: int, why: str) -> None:
    """Leave a page out of this run; after too many, all that has not been read."""
    job.skip[page] = why
    if len(job.skip) > _MAX_SKIPPED:
        job.rest = f"left out after {len(job.skip)} pages that could not be read"
