"""Answers that a model writes to the validation questions, compared with the true ones word by word.

The loss of ``answers`` tells how likely the true answer is; this tells what a user gets. Answers of the offline recipes
stand in the document, so F1 over words (as in SQuAD) is a fair measure; of long ones it would mostly measure how long
the model writes, so rows with longer answers than ``max_answer_tokens`` are left out.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from longlora.evaluation.data import Sources, validation_rows
from longlora.evaluation.overlap import f1
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.statistics import Bootstrap
from longlora.evaluation.tasks.base import Comparison, Context, Sample, Skipped, compare_means
from longlora.prompts import render

if TYPE_CHECKING:
    from longlora.evaluation.model import LanguageModel


class WrittenAnswers:
    """Mean F1 of greedy answers to the dataset's validation questions."""

    name = "written_answers"
    version = 1
    metric = "f1"
    better = "higher"

    def applies(self, sources: Sources) -> bool:
        return sources.dataset is not None

    def settings(self, settings: EvaluateSettings) -> dict[str, Any]:
        return {"max_new_tokens": settings.written.max_answer_tokens}

    def samples(self, context: Context) -> list[Sample]:
        assert context.sources.dataset is not None
        limits = context.settings.written
        rows = validation_rows(context.sources.dataset)
        random.Random(f"written:{context.settings.seed}").shuffle(rows)
        samples: list[Sample] = []
        for row in rows:
            if len(samples) == limits.max_rows:
                break
            rendered = render(context.tokenizer, context.template, row["instruction"], row["output"])
            prompt = rendered.input_ids[: rendered.answer_start]
            answer = len(rendered.input_ids) - len(prompt)
            fits = limits.max_tokens is None or len(rendered.input_ids) <= limits.max_tokens
            if fits and answer <= limits.max_answer_tokens:
                about = {"task_of_row": row["task"], "tokens": len(prompt)}
                samples.append(Sample(str(row["id"]), prompt, expected=row["output"], about=about))
        if not samples:
            raise Skipped(
                f"none of {len(rows)} validation rows is within written.max_answer_tokens = "
                f"{limits.max_answer_tokens} and written.max_tokens = {limits.max_tokens}"
            )
        return sorted(samples, key=lambda s: s.id)

    def measure(self, model: LanguageModel, sample: Sample, settings: EvaluateSettings) -> dict[str, Any]:
        output = model.greedy(sample.input_ids, settings.written.max_answer_tokens)
        return {
            "output": output, "expected": sample.expected, "f1": f1(output, sample.expected), "verdict": "scored",
        }  # fmt: skip

    def compare(self, base: list[dict[str, Any]], merged: list[dict[str, Any]] | None, by: Bootstrap) -> Comparison:
        return compare_means(base, merged, "f1", by)
