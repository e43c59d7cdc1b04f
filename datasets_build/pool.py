"""Units of documents, computed here or in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from datasets_build.build import Builder, Job
from datasets_build.corpus import Corpus, Known
from datasets_build.measure import Measure
from datasets_build.packs import Filed, Packs
from pdf2txt.errors import UserError

CHUNK = 16  # documents that a process takes at a time


@dataclass(frozen=True)
class Share:
    """Recipes of a document whose units depend on the same other documents, and are filed under one key."""

    key: str
    recipes: tuple[str, ...]
    company: tuple[Known, ...]


@dataclass(frozen=True)
class Task:
    """A document and the units that it lacks."""

    known: Known
    shares: tuple[Share, ...]


class Worker:
    """Makes the missing units of a document. The tokenizer is loaded when the first is missing."""

    def __init__(self, job: Job, model: Path, packs: Packs, corpus: Corpus) -> None:
        self.job, self.model, self.packs, self.corpus = job, model, packs, corpus

    def __getstate__(self) -> dict[str, Any]:
        """For another process: each loads its own tokenizer, and looks for no packs."""
        return {"job": self.job, "model": self.model, "packs": Packs(self.packs.units), "corpus": self.corpus}

    @cached_property
    def measure(self) -> Measure:
        return Measure(self.model, self.job.template)

    def make(self, task: Task) -> dict[str, Filed]:
        """The units of a task, by recipe."""
        done: dict[str, Filed] = {}
        source = self.corpus.measured(task.known, self.measure)
        for share in task.shares:
            company = [cache(partial(self.corpus.measured, k, self.measure)) for k in share.company]
            builder = Builder(source, self.measure, self.job.settings, company)
            units = {recipe: builder.unit(recipe, self.job.recipes[recipe]) for recipe in share.recipes}
            filed = self.packs.put(share.key, {self.job.parts[recipe]: unit for recipe, unit in units.items()})
            done |= {recipe: filed[self.job.parts[recipe]] for recipe in units}
        return done


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


def _make(tasks: Sequence[Task]) -> list[dict[str, Filed]]:
    assert _worker is not None
    return [_worker.make(task) for task in tasks]


def make_units(tasks: Iterable[Task], worker: Worker, processes: int) -> Iterator[tuple[Task, dict[str, Filed]]]:
    """Each task and its units, in order; a few documents in memory at a time.

    Raises:
        UserError: a worker process was killed.
    """
    if processes == 1:
        for task in tasks:
            yield task, worker.make(task)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside the tokenizer's threads
    waiting: deque[tuple[Sequence[Task], Future[list[dict[str, Filed]]]]] = deque()

    def finish() -> Iterator[tuple[Task, dict[str, Filed]]]:
        chunk, future = waiting.popleft()
        yield from zip(chunk, future.result(), strict=True)

    with ProcessPoolExecutor(processes, context, initializer=_start, initargs=(worker, os.getpid())) as pool:
        try:
            # Neighbours go together: they are one another's company, and read once.
            remaining = iter(tasks)
            while chunk := tuple(islice(remaining, CHUNK)):
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
