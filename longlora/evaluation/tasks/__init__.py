"""The registry of tasks. A task makes samples, measures one model on one sample, and compares two."""

from __future__ import annotations

from longlora.evaluation.tasks.answers import Answers
from longlora.evaluation.tasks.base import Context, Sample, Skipped, Task
from longlora.evaluation.tasks.passkey import Passkey
from longlora.evaluation.tasks.perplexity import Perplexity, TextPerplexity
from longlora.evaluation.tasks.written import WrittenAnswers

_ALL: tuple[Task, ...] = (Answers(), WrittenAnswers(), Perplexity(), TextPerplexity(), Passkey())
TASKS: dict[str, Task] = {task.name: task for task in _ALL}

__all__ = ["TASKS", "Context", "Sample", "Skipped", "Task"]
