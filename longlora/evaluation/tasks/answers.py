"""Loss on answers: how well a model predicts the validation answers, given their prompts.

Per row the mean of -log p over the answer's tokens (its end-of-turn token included), in nats; then the mean
over rows, so that a long answer counts no more than a short one. The prompt is context and is not scored.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from longlora.evaluation.data import Sources, validation_rows
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.statistics import Bootstrap
from longlora.evaluation.tasks.base import Comparison, Context, Sample, Skipped, compare_means
from longlora.prompts import render

if TYPE_CHECKING:
    from longlora.evaluation.model import LanguageModel


class Answers:
    """Loss on the answers of the dataset's validation rows, given their prompts."""

    name = "answers"
    version = 1
    metric = "nll_per_token"
    better = "lower"

    def applies(self, sources: Sources) -> bool:
        return sources.dataset is not None

    def settings(self, settings: EvaluateSettings) -> dict[str, Any]:
        return {}

    def samples(self, context: Context) -> list[Sample]:
        assert context.sources.dataset is not None
        limits = context.settings.answers
        rows = validation_rows(context.sources.dataset)
        if not rows:
            raise Skipped("the dataset has no validation rows: raise dataset.validation_share, or add documents")
        random.Random(f"answers:{context.settings.seed}").shuffle(rows)
        samples: list[Sample] = []
        for row in rows:
            if len(samples) == limits.max_rows:
                break
            rendered = render(context.tokenizer, context.template, row["instruction"], row["output"])
            length = len(rendered.input_ids)
            if limits.max_tokens is None or length <= limits.max_tokens:
                about = {"task_of_row": row["task"], "tokens": length}
                samples.append(Sample(str(row["id"]), rendered.input_ids, rendered.answer_start, about=about))
        if not samples:
            raise Skipped(f"all {len(rows)} validation rows are longer than answers.max_tokens = {limits.max_tokens}")
        return sorted(samples, key=lambda s: s.id)

    def measure(self, model: LanguageModel, sample: Sample, settings: EvaluateSettings) -> dict[str, Any]:
        tokens = len(sample.input_ids) - sample.start
        loss = model.loss(sample.input_ids, sample.start)
        return {"loss": loss / tokens, "loss_sum": loss, "answer_tokens": tokens, "verdict": "scored"}

    def compare(self, base: list[dict[str, Any]], merged: list[dict[str, Any]] | None, by: Bootstrap) -> Comparison:
        return compare_means(base, merged, "loss", by)
