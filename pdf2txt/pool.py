"""Many documents over worker processes, none of which can take the run with it.

A page that exceeds its CPU seconds has its worker killed and is left out when the document is tried again;
work on a whole document has seconds of its own, more for more pages. A worker that dies by itself (a crash in
a native library, the kernel's memory killer) costs its document one retry, alone; a page that kills twice is
left out. All workers end when the generator ends, whatever ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pdf2txt.settings import Pdf2txtSettings

_TICK = 0.2  # seconds between looks at the workers' CPU time
_MAX_SKIPPED = 10  # pages that may be left out before the document is given up for this run


@dataclass
class Job:
    """A file to convert, and what went wrong with it so far."""

    path: Path
    sha256: str
    result: Path  # where the finished document goes
    attempt: Path  # where it goes if pages had to be left out: not a finished unit
    skip: dict[int, str] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)  # page in flight -> how often the worker died
    page: int = 0  # in flight, 0: none yet, or all at once
    pages: int = 0  # as far as known

    @property
    def outcome_path(self) -> Path:
        return self.attempt if self.skip else self.result


@dataclass(frozen=True)
class Outcome:
    """The end of a job for this run: its result is at ``job.outcome_path``, or there is none."""

    job: Job
    problem: str = ""  # why there is no result; "" where there is one
    again: bool = False  # no end yet: to be tried again without the pages in ``job.skip``


def worker_count(settings: Pdf2txtSettings, jobs: int) -> int:
    """Worker processes for so many jobs: no more than asked for, or than cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(settings.workers or cores, jobs))


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
                env={**os.environ, "PYTHONPATH": path},
            )
        except BaseException:
            os.close(to_child)
            os.close(from_child)
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
        self.commands = os.fdopen(to_child, "wb", buffering=0)
        self.replies = os.fdopen(from_child, "rb", buffering=0)
        self.rest = b""
        self.job: Job | None = None
        self.page_began = 0.0  # this process's CPU seconds when the page in flight began
        self.send(hello)

    def send(self, message: dict[str, object]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died: noticed at the end of its replies
            self.commands.write(json.dumps(message).encode() + b"\n")

    def start(self, job: Job) -> None:
        self.job, job.page = job, 0
        self.page_began = self.cpu_seconds()
        job.outcome_path.parent.mkdir(parents=True, exist_ok=True)
        self.send({
            "path": str(job.path), "sha256": job.sha256, "result": str(job.outcome_path), "skip": job.skip,
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
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def end(self) -> None:
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
        on_page: called when work on ``job.page`` begins.
        on_unit: called with the key of a page's unit that was made or (True) reused.
    """
    if not jobs:
        return
    count = worker_count(settings, len(jobs))
    cores = worker_count(settings.model_copy(update={"workers": 0}), 1_000_000)
    hello: dict[str, object] = {
        "settings": settings.model_dump(mode="json"),
        "units": str(units),
        "page_key": page_key,
        "threads": max(1, cores // count),
    }
    waiting, alone = deque(jobs), deque[Job]()
    idle: list[_Worker] = []
    busy: dict[int, _Worker] = {}
    log.parent.mkdir(parents=True, exist_ok=True)
    with selectors.DefaultSelector() as selector, log.open("ab") as log_file:
        try:
            while waiting or alone or busy:
                while len(busy) < count and (waiting or (alone and not busy)):
                    job = waiting.popleft() if waiting else alone.popleft()
                    if not idle:
                        worker = _Worker(hello, log_file)
                        selector.register(worker.replies, selectors.EVENT_READ, worker)
                        idle.append(worker)
                    worker = idle.pop()
                    busy[worker.process.pid] = worker
                    worker.start(job)
                    if job.deaths:
                        break  # nothing else beside it
                ready = [key.data for key, _ in selector.select(_TICK)]
                for worker in ready:
                    outcome = _heard(worker, on_page, on_unit)
                    if outcome is _DIED:
                        selector.unregister(worker.replies)
                        worker.end()
                        busy.pop(worker.process.pid, None)
                        if worker in idle:
                            idle.remove(worker)
                        if worker.job is not None and (lost := _after_death(worker.job, alone)) is not None:
                            yield lost
                    elif outcome is not None:
                        busy.pop(worker.process.pid)
                        idle.append(worker)
                        if outcome.again:
                            waiting.append(outcome.job)
                        else:
                            yield outcome
                for worker in list(busy.values()):
                    job_now = worker.job
                    if job_now is None:
                        continue
                    limit = allowance(job_now, settings.page_seconds)
                    if worker.cpu_seconds() - worker.page_began <= limit:
                        continue
                    selector.unregister(worker.replies)
                    worker.end()
                    busy.pop(worker.process.pid)
                    outcome = _without_page(job_now, f"over its limit of {limit:g} CPU seconds")
                    if outcome.again:
                        waiting.append(job_now)
                    else:
                        yield outcome
        finally:
            for worker in [*idle, *busy.values()]:
                worker.end()


_DIED = Outcome(Job(Path(), "", Path(), Path()), "died")


def allowance(job: Job, page_seconds: float) -> float:
    """CPU seconds for what is in flight: one page, or (page 0) a step over all pages."""
    return page_seconds if job.page else page_seconds * (1 + job.pages / 100)


def _without_page(job: Job, why: str) -> Outcome:
    """The page in flight is to be left out, unless there is none or too many are."""
    job.skip[job.page] = why
    if job.page == 0 or len(job.skip) > _MAX_SKIPPED:
        return Outcome(job, why)
    return Outcome(job, again=True)


def _heard(worker: _Worker, on_page: Callable[[Job], None], on_unit: Callable[[str, bool], None]) -> Outcome | None:
    """What the messages waiting from ``worker`` mean: its job's outcome, ``_DIED``, or None (still at it)."""
    messages = worker.receive()
    if messages is None:
        return _DIED
    job = worker.job
    for message in messages:
        assert job is not None
        if message["event"] == "page":
            job.page, job.pages = int(str(message["page"])), int(str(message["pages"]))
            worker.page_began = worker.cpu_seconds()
            if message["step"] == "read":
                on_page(job)
        elif message["event"] == "unit":
            on_unit(str(message["key"]), bool(message["reused"]))
        else:
            worker.job = None
            if message["event"] == "page-lost":
                return _without_page(job, str(message["message"]))
            return Outcome(job, str(message.get("message", "")) if message["event"] == "transient" else "")
    return None


def _after_death(job: Job, alone: deque[Job]) -> Outcome | None:
    """Queue ``job`` again after its worker died, or give it up."""
    job.deaths[job.page] = job.deaths.get(job.page, 0) + 1
    if job.deaths[job.page] >= 2:
        if job.page == 0 or len(job.skip) >= _MAX_SKIPPED:
            return Outcome(job, "its worker process died twice")
        job.skip[job.page] = "its worker process died twice"
    time.sleep(0.05)  # a machine short of memory gets a moment
    alone.append(job)
    return None
