"""Answers that a model writes to the validation questions, compared with the true ones word by word.

The loss of ``answers`` tells how likely the true answer is; this tells what a user gets. Answers of the offline recipes
stand in the document, so F1 over words (as in SQuAD) is a fair measure; of long ones it would mostly measure how long
the model writes, so rows with longer answers than ``max_answer_tokens`` are left out. ROUGE-L, which minds the order of
words, stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from longlora.evaluation.data import Sources
from longlora.evaluation.scoring.rouge import rouge_l
from longlora.evaluation.scoring.words import f1
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.tasks.base import Context, Result, Sample, Task
from longlora.evaluation.tasks.rows import drawn_rows
from longlora.prompts import Rendered


class WrittenAnswers(Task):
    """Mean F1 of greedy answers to the dataset's validation questions."""

    name = "written_answers"
    version = 2
    metric = "f1"
    better = "higher"
    groups = (("task_of_row",),)

    def applies(self, sources: Sources, settings: EvaluateSettings) -> bool:
        return sources.dataset is not None

    def samples(self, context: Context) -> list[Sample]:
        limits = context.settings.written_answers

        def fits(row: Rendered) -> bool:
            short = limits.max_tokens is None or len(row.input_ids) <= limits.max_tokens
            return short and len(row.input_ids) - row.answer_start <= limits.max_answer_tokens

        said = (
            f"written_answers.max_answer_tokens = {limits.max_answer_tokens} and "
            f"written_answers.max_tokens = {limits.max_tokens}"
        )
        return [
            Sample(
                str(row["id"]),
                rendered.input_ids[: rendered.answer_start],
                expected=row["output"],
                about={"task_of_row": row["task"], "tokens": rendered.answer_start},
                prompt=row["instruction"],
                max_new_tokens=limits.max_answer_tokens,
            )
            for row, rendered in drawn_rows(context, "written", limits.max_rows, fits, said)
        ]

    def judge(self, sample: Sample, output: str) -> Result:
        truth = sample.expected
        return {"score": f1(output, truth), "rouge_l": rouge_l(output, truth), "verdict": "scored"}

    def details(self, samples: Sequence[Sample], results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
        return {"rouge_l": {name: math.fsum(r["rouge_l"] for r in rows) / len(rows) for name, rows in results.items()}}
