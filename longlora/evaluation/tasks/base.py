"""What a task is."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from longlora.evaluation.data import Sources
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.statistics import Bootstrap, Interval
from longlora.prompts import Template
from longlora.templates import choose_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from longlora.evaluation.model import LanguageModel


class Skipped(Exception):
    """A task has nothing to measure; the text is the reason, shown in the results."""


@dataclass(frozen=True)
class Context:
    """What samples are made from."""

    settings: EvaluateSettings
    sources: Sources
    tokenizer: PreTrainedTokenizerBase

    @property
    def template(self) -> Template:
        """The prompt format asked for, else the dataset's; a template file is put on the tokenizer."""
        record = self.sources.dataset / "stats.json" if self.sources.dataset else None
        return choose_template(self.settings.template, record).put_on(self.tokenizer)


@dataclass(frozen=True)
class Sample:
    """One thing to measure, the same for every model.

    For a loss, ``input_ids[start:]`` is scored; for an answer, ``input_ids`` is the prompt and ``expected``
    the truth. ``about`` is shown with the result (document, length, depth, ...).
    """

    id: str
    input_ids: list[int]
    start: int = 0
    expected: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """16 hex digits of everything that is measured."""
        total = hashlib.sha256(array("q", self.input_ids).tobytes())
        total.update(f"{self.start}\0{self.expected}".encode())
        return total.hexdigest()[:16]


@dataclass(frozen=True)
class Comparison:
    """Base, merged, and their paired difference (None with one model)."""

    base: Interval
    merged: Interval | None = None
    difference: Interval | None = None
    ratio: Interval | None = None  # merged / base, where that is the natural scale


def compare_means(
    base: list[dict[str, Any]], merged: list[dict[str, Any]] | None, value: str, by: Bootstrap
) -> Comparison:
    """Means of ``value`` over samples, and the mean of the paired differences."""
    a = [r[value] for r in base]
    if merged is None:
        return Comparison(by.mean(a))
    b = [r[value] for r in merged]
    return Comparison(by.mean(a), by.mean(b), by.mean([y - x for x, y in zip(a, b, strict=True)]))


class Task(Protocol):
    """One module each. ``version`` rises when the same settings and data give other numbers."""

    name: str
    version: int
    metric: str
    better: str  # "lower" | "higher"

    def applies(self, sources: Sources) -> bool:
        """Whether the run asks for it at all; if not, it is left out without a word."""

    def settings(self, settings: EvaluateSettings) -> dict[str, Any]:
        """The settings that its results depend on, beside those that its samples already show."""

    def samples(self, context: Context) -> list[Sample]:
        """The samples, in a fixed order.

        Raises:
            Skipped: there are none.
        """

    def measure(self, model: LanguageModel, sample: Sample, settings: EvaluateSettings) -> dict[str, Any]:
        """JSON result of one sample; has ``verdict``."""

    def compare(self, base: list[dict[str, Any]], merged: list[dict[str, Any]] | None, by: Bootstrap) -> Comparison:
        """Results of the same samples in the same order, to numbers."""
