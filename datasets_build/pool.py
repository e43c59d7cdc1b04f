"""Units of documents, computed here or in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from datasets_build.build import Builder, Job, pack
from datasets_build.gates.scan import Scanner
from datasets_build.measure import Measure
from datasets_build.reading import Reading
from pdf2txt.errors import UserError
from pdf2txt.schema import Document
from pdf2txt.units import Units, digest


@dataclass(frozen=True)
class DocumentUnits:
    """The units of one document: (recipe, key, whether it was there already)."""

    doc_id: str
    text_digest: str  # equal for documents with the same text
    units: list[tuple[str, str, bool]]
    scanned_before: bool = True  # the gates' look at the rows was there already


class Worker:
    """Makes the missing units of a document. The tokenizer is loaded when the first is missing."""

    def __init__(self, job: Job, model: Path, units: Units, scanner: Scanner | None = None) -> None:
        self.job, self.model, self.units, self.scanner = job, model, units, scanner

    @cached_property
    def measure(self) -> Measure:
        return Measure(self.model, self.job.template)

    def document(self, document: Document) -> DocumentUnits:
        reading = Reading(document)
        builder: Builder | None = None
        done = []
        for recipe, per_document in self.job.settings.chosen_recipes().items():
            key = self.job.key(reading, recipe, per_document)
            reused = self.units.path(key).exists()
            if not reused:
                builder = builder or Builder(reading, self.measure, self.job.settings)
                self.units.put(key, pack(builder.unit(recipe, per_document)))
            done.append((recipe, key, reused))
        text_digest = digest(reading.flat.casefold())
        scanned = self.scanner is None or self.scanner.ensure(
            lambda: reading.flat, text_digest, [key for _, key, _ in done], lambda: self.measure.row
        )
        return DocumentUnits(document.doc_id, text_digest, done, scanned)


_worker: Worker | None = None


def _start(job: Job, model: Path, units: Units, scanner: Scanner | None, parent: int) -> None:
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
    _worker = Worker(job, model, units, scanner)


def _document(document: Document) -> DocumentUnits:
    assert _worker is not None
    return _worker.document(document)


def documents_units(documents: Iterable[Document], worker: Worker, processes: int) -> Iterator[DocumentUnits]:
    """The units of each document, in order; a few documents in memory at a time.

    Raises:
        UserError: a worker process was killed.
    """
    if processes == 1:
        yield from map(worker.document, documents)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside the tokenizer's threads
    waiting: deque[Future[DocumentUnits]] = deque()
    start = (worker.job, worker.model, worker.units, worker.scanner, os.getpid())
    with ProcessPoolExecutor(processes, context, initializer=_start, initargs=start) as pool:
        try:
            for document in documents:
                waiting.append(pool.submit(_document, document))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                f"one of {processes} worker processes was killed, most often because memory ran out",
                f"set dataset.workers lower than {processes} (or 1) and run again: finished documents are kept",
            ) from error
        finally:
            for future in waiting:
                future.cancel()
