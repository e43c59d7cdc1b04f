"""Loss on answers: how well a model predicts the validation answers, given their prompts.

Per row the mean of -log p over the answer's tokens (its end-of-turn token included), in nats; then the mean
over rows, so that a long answer counts no more than a short one. The prompt is context and is not scored.
"""

from __future__ import annotations

from longlora.evaluation.data import Sources
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.tasks.base import Context, Sample, Task
from longlora.evaluation.tasks.rows import drawn_rows
from longlora.prompts import Rendered


class Answers(Task):
    """Loss on the answers of the dataset's validation rows, given their prompts."""

    name = "answers"
    version = 2
    metric = "nll_per_token"
    better = "lower"
    answers = False
    groups = (("task_of_row",),)

    def applies(self, sources: Sources, settings: EvaluateSettings) -> bool:
        return sources.dataset is not None

    def samples(self, context: Context) -> list[Sample]:
        limits = context.settings.answers

        def fits(row: Rendered) -> bool:
            return limits.max_tokens is None or len(row.input_ids) <= limits.max_tokens

        said = f"answers.max_tokens = {limits.max_tokens}"
        return [
            Sample(
                str(row["id"]),
                rendered.input_ids,
                rendered.answer_start,
                about={"task_of_row": row["task"], "tokens": len(rendered.input_ids)},
            )
            for row, rendered in drawn_rows(context, "answers", limits.max_rows, fits, said)
        ]
