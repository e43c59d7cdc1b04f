"""Units of documents, computed here or in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from datasets_build.build import Builder, Job, Unit
from datasets_build.corpus import Corpus, Known
from datasets_build.gates.scan import Scanner
from datasets_build.measure import Measure
from datasets_build.packs import Filed, Packs
from pdf2txt.errors import UserError

CHUNK = 16  # documents that a process takes at a time, at most
START_TOKENS = 8_000_000  # of contexts: as many are filled in the seconds that a process needs to start
START_CHARS = 1_000_000  # of documents: likewise read and searched
FEW = 64  # documents that are done without another process, at most


@dataclass(frozen=True)
class Share:
    """Recipes of a document whose units depend on the same other documents, and are filed under one key."""

    key: str
    recipes: tuple[str, ...]
    company: tuple[Known, ...]


@dataclass(frozen=True)
class Task:
    """A document, the units that it lacks, and those that the gates have not looked at."""

    known: Known
    shares: tuple[Share, ...]
    unseen: tuple[Filed, ...] = ()


class Worker:
    """Makes the missing units of a document, and looks at their rows. The tokenizer is loaded when it is needed."""

    def __init__(self, job: Job, model: Path, packs: Packs, corpus: Corpus, scanner: Scanner) -> None:
        self.job, self.model, self.packs, self.corpus, self.scanner = job, model, packs, corpus, scanner

    def __getstate__(self) -> dict[str, Any]:
        """For another process: each loads its own tokenizer."""
        return {name: value for name, value in vars(self).items() if name != "measure"}

    @cached_property
    def measure(self) -> Measure:
        return Measure(self.model, self.job.template)

    @property
    def few(self) -> int:
        """As many documents are done before another process has begun, if they are short (`START_CHARS`)."""
        return min(FEW, START_TOKENS // max(1, self.job.context_tokens * sum(self.job.recipes.values())))

    def make(self, task: Task) -> list[Filed]:
        """The units of a task that were missing."""
        done: list[Filed] = []
        for share in task.shares:
            source = self.corpus.measured(task.known, self.measure)
            company = [cache(partial(self.corpus.measured, k, self.measure)) for k in share.company]
            builder = Builder(source, self.measure, self.job.settings, company)
            units = {self.job.parts[r]: builder.unit(r, self.job.recipes[r]) for r in share.recipes}
            filed = list(self.packs.put(share.key, units).values())
            self._look(filed[0].name, units)
            done += filed
        for name in {filed.name for filed in task.unseen}:
            self._look(name)
        return done

    def _look(self, name: str, units: Mapping[str, Unit] | None = None) -> None:
        """Have the gates look at a pack: while its rows are at hand, or at what is kept."""
        self.scanner.ensure(name, lambda: units or self.packs.read(name), lambda: self.measure.row)


_worker: Worker | None = None


def _start(worker: Worker, parent: int) -> None:
    """In a new process: die with the parent (its queue would otherwise be waited on for ever)."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends us
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; Linux only
    except (OSError, AttributeError):
        pass
    if os.getppid() != parent:
        os._exit(1)
    _worker = worker


def _make(tasks: Sequence[Task]) -> list[list[Filed]]:
    assert _worker is not None
    return [_worker.make(task) for task in tasks]


def make_units(tasks: Iterable[Task], worker: Worker, processes: int) -> Iterator[tuple[Task, list[Filed]]]:
    """Each task and its units, in order; a few documents in memory at a time.

    Raises:
        UserError: a worker process was killed.
    """
    remaining = iter(tasks)
    first = list(islice(remaining, max(CHUNK * processes, worker.few + 1))) if processes > 1 else []
    tasks = chain(first, remaining)
    soon_done = len(first) <= worker.few and sum(task.known.chars for task in first) <= START_CHARS
    if processes == 1 or soon_done:
        for task in tasks:
            yield task, worker.make(task)
        return
    size = min(CHUNK, -(-len(first) // processes))  # of a chunk: of few documents each process gets as many
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside the tokenizer's threads
    waiting: deque[tuple[Sequence[Task], Future[list[list[Filed]]]]] = deque()

    def finish() -> Iterator[tuple[Task, list[Filed]]]:
        chunk, future = waiting.popleft()
        yield from zip(chunk, future.result(), strict=True)

    with ProcessPoolExecutor(processes, context, initializer=_start, initargs=(worker, os.getpid())) as pool:
        try:
            # Neighbours go together: they are one another's company, and read once.
            while chunk := tuple(islice(tasks, size)):
                waiting.append((chunk, pool.submit(_make, chunk)))
                if len(waiting) > 2 * processes:
                    yield from finish()
            while waiting:
                yield from finish()
        except BrokenProcessPool as error:
            raise UserError(
                f"one of {processes} worker processes was killed, most often because memory ran out",
                f"set dataset.workers lower than {processes} (or 1) and run again: finished documents are kept",
            ) from error
        finally:
            for _, future in waiting:
                future.cancel()
