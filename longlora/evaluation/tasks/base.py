"""What a task is: it makes samples, and turns what a model did with one into a score."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from longlora.errors import UserError
from longlora.evaluation.data import Sources
from longlora.evaluation.settings import EvaluateSettings
from longlora.prompts import Template, encode_prompt, plain_ids
from longlora.templates import choose_template

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

Scale = Literal["mean", "proportion", "perplexity"]
Result = dict[str, Any]


class Skipped(Exception):
    """A task has nothing to measure; the text is the reason, shown in the results."""


@dataclass(frozen=True)
class Context:
    """What samples are made from. ``limit``: tokens of the longest prompt that all models can read."""

    settings: EvaluateSettings
    sources: Sources
    tokenizer: PreTrainedTokenizerBase
    limit: int = 1 << 40

    @cached_property
    def template(self) -> Template:
        """The prompt format asked for, else the dataset's; a template file is put on the tokenizer."""
        record = self.sources.dataset / "stats.json" if self.sources.dataset else None
        return choose_template(self.settings.template, record).put_on(self.tokenizer)


@dataclass(frozen=True)
class Sample:
    """One thing to measure, the same for every model.

    For a loss, ``input_ids[start:]`` is scored; for an answer, ``input_ids`` is the prompt, ``prompt`` the same as
    text before the prompt format (what an endpoint is sent), and ``expected`` the truth. Samples of one ``document``
    stand next to each other and share its prefill. ``about`` is shown with the result (length, depth, subset, ...).
    ``about["measure"]``: how it is judged, where that is the sample's own matter.
    ``counts``: whether it is part of the task's one number, or of its breakdown only.
    """

    id: str
    input_ids: list[int]
    start: int = 0
    expected: Any = ""
    about: dict[str, Any] = field(default_factory=dict)
    prompt: str = ""
    document: str = ""
    max_new_tokens: int = 0
    counts: bool = True

    @cached_property
    def digest(self) -> str:
        """16 hex digits of everything that is measured."""
        total = hashlib.sha256(array("q", self.input_ids).tobytes())
        expected = self.expected if isinstance(self.expected, str) else json.dumps(self.expected, sort_keys=True)
        total.update(f"{self.start}\0{expected}\0{self.max_new_tokens}\0{self.about.get('measure', '')}".encode())
        return total.hexdigest()[:16]


class Task:
    """One module each. ``version`` rises when the same settings and data give other numbers.

    ``scale``: how scores become one number and its interval. ``answers``: whether a model has to write, or its losses
    are taken. ``groups``: fields of ``about`` that the number is broken down by. ``own``: it asks the model by itself
    (`measure`), a subset at once. ``draws``: whether ``evaluate.limit`` draws from its samples; if not, the task minds
    the limit by itself.
    """

    name: str
    version: int
    metric: str
    better: Literal["lower", "higher"]
    scale: Scale = "mean"
    answers: bool = True
    own: bool = False
    draws: bool = True
    groups: tuple[tuple[str, ...], ...] = ()

    def applies(self, sources: Sources, settings: EvaluateSettings) -> bool:
        """Whether the run asks for it at all; if not, it is left out without a word."""
        return True

    def settings(self, settings: EvaluateSettings) -> dict[str, Any]:
        """The settings that its results depend on, beside those that its samples already show."""
        return {}

    def samples(self, context: Context) -> list[Sample]:
        """The samples, in a fixed order.

        Raises:
            Skipped: there are none.
            UserError: the data or a setting is no good.
        """
        raise NotImplementedError

    def judge(self, sample: Sample, output: str) -> Result:
        """What an answer is worth: ``score``, ``verdict`` (correct, wrong or scored), and more to show."""
        raise NotImplementedError

    def measured(self, sample: Sample, losses: np.ndarray) -> Result:
        """The same from the losses (nats) of ``input_ids[start:]``: ``score`` is their mean.

        Also ``tokens``, how many they are.
        """
        return {"score": float(losses.sum()) / len(losses), "tokens": len(losses), "verdict": "scored"}

    def measure(self, engine: Any, samples: Sequence[Sample], settings: EvaluateSettings) -> list[Result]:
        """The results of a subset's samples, of a task that asks by itself; ``engine`` holds a transformers model."""
        raise NotImplementedError

    def details(self, samples: Sequence[Sample], results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
        """More for its entry in metrics.json. ``results``: one per sample, for each model."""
        return {}


def answer_sample(
    context: Context,
    id: str,
    parts: tuple[str, str, str],
    expected: Any,
    max_new_tokens: int,
    about: dict[str, Any] | None = None,
    document: str = "",
) -> Sample:
    """A question about a document, the middle of the document left out as far as the prompt would be too long.

    Beginnings and ends of documents say most, so the middle goes (as in LongBench, Bai et al. 2023, section 4.1);
    ``about`` has ``tokens`` (of the prompt) and ``truncated`` (of the document, left out).

    Args:
        parts: what stands before the document, the document, and what stands after it.

    Raises:
        UserError: not even the question fits.
    """
    before, text, after = parts
    room = context.limit - max_new_tokens

    def encode(body: str) -> list[int]:
        return encode_prompt(context.tokenizer, context.template, f"{before}{body}{after}")

    body, cut = text, 0
    ids = encode(text) if len(text) < 64 * room else []
    if not ids or len(ids) > room:
        tokens = plain_ids(context.tokenizer, text)
        frame = len(encode(""))
        keep = room - frame
        while True:
            if keep < 2:
                raise UserError(
                    f"{id}: of {context.limit} tokens the question alone takes {frame}, its answer {max_new_tokens}",
                    "raise evaluate.max_prompt_tokens, or leave the task out",
                )
            # A document's questions differ in length: all keep the same beginning, which is prefilled once.
            first = keep // 2 if keep < 1024 else keep // 2 // 256 * 256
            head, tail = tokens[:first], tokens[len(tokens) - (keep - first) :]
            body = "".join(str(context.tokenizer.decode(kept)) for kept in (head, tail))
            if len(ids := encode(body)) <= room:
                break
            keep -= len(ids) - room  # joined anew, tokens can become more
        cut = len(tokens) - keep
    known = {**(about or {}), "tokens": len(ids), "truncated": cut}
    return Sample(id, ids, 0, expected, known, f"{before}{body}{after}", document, max_new_tokens)
