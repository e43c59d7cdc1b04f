"""What a teacher is asked about, measured once for all the threads that ask."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property

from datasets_build.measure import Measure
from datasets_build.reading import Reading


class Lengths:
    """The target model's tokenizer, for several threads: it serves one at a time. Loaded when first asked."""

    def __init__(self, measure: Callable[[], Measure]) -> None:
        self.measure = measure
        self.lock = threading.Lock()

    def row(self, instruction: str, output: str) -> int:
        """Tokens of a row."""
        with self.lock:
            return self.measure().row(instruction, output)

    def passages(self, reading: Reading) -> list[int]:
        """Tokens of each passage of a document."""
        with self.lock:
            return self.measure().passages([p.text for p in reading.passages])


class Subject:
    """What the questions are about: one document, or two. Shared by all its dialogues."""

    def __init__(self, readings: tuple[Reading, ...], lengths: Lengths) -> None:
        self.readings = readings
        self.lengths = lengths
        self.lock = threading.Lock()
        self.known: list[list[int]] = []

    @cached_property
    def content(self) -> list[str]:
        return [reading.content_digest for reading in self.readings]

    @cached_property
    def doc_ids(self) -> tuple[str, ...]:
        return tuple(reading.document.doc_id for reading in self.readings)

    def counts(self) -> list[list[int]]:
        """Tokens of each passage of each document."""
        with self.lock:
            if not self.known:
                self.known = [self.lengths.passages(reading) for reading in self.readings]
            return self.known
