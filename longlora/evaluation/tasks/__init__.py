"""The registry of tasks. A task makes samples, and turns what a model did with one into a score."""

from __future__ import annotations

from longlora.evaluation.tasks.answers import Answers
from longlora.evaluation.tasks.base import Context, Sample, Skipped, Task
from longlora.evaluation.tasks.leval import LEval
from longlora.evaluation.tasks.lm_eval import LmEval
from longlora.evaluation.tasks.longbench import LongBench
from longlora.evaluation.tasks.longchat import LongChat
from longlora.evaluation.tasks.needle import Needle
from longlora.evaluation.tasks.passkey import Passkey
from longlora.evaluation.tasks.perplexity import Perplexity, TextPerplexity
from longlora.evaluation.tasks.ruler import RULER
from longlora.evaluation.tasks.written import WrittenAnswers

_ALL: tuple[Task, ...] = (
    Answers(), WrittenAnswers(), Perplexity(), TextPerplexity(), Passkey(), Needle(), *RULER,
    LEval(), LongBench(), LongChat(), LmEval(),
)  # fmt: skip
TASKS: dict[str, Task] = {task.name: task for task in _ALL}

__all__ = ["TASKS", "Context", "Sample", "Skipped", "Task"]
