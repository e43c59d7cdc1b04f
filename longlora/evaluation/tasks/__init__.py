"""The registry of tasks. A task makes samples, measures one model on one sample, and compares two."""

from __future__ import annotations

from longlora.evaluation.tasks.answers import Answers
from longlora.evaluation.tasks.base import Context, Sample, Skipped, Task
from longlora.evaluation.tasks.passkey import Passkey
from longlora.evaluation.tasks.perplexity import Perplexity, TextPerplexity

TASKS: dict[str, Task] = {task.name: task for task in (Answers(), Perplexity(), TextPerplexity(), Passkey())}

__all__ = ["TASKS", "Context", "Sample", "Skipped", "Task"]
