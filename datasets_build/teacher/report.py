"""What the teacher was asked, what it cost, and how that is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasets_build.teacher.calls import Usage
from datasets_build.teacher.settings import TeacherSettings

if TYPE_CHECKING:
    from datasets_build.teacher.asking import Asking


class Account:
    """The calls that a dataset rests on, each counted once."""

    def __init__(self, settings: TeacherSettings, model: str) -> None:
        self.settings, self.model = settings, model
        self.used: dict[str, Usage] = {}
        self.run: dict[str, Any] = {}

    def add(self, key: str, usage: Usage) -> None:
        """A reply that rows or rejects rest on."""
        self.used[key] = usage

    def close(self, asking: Asking, not_asked: int) -> None:
        """What this build did, once it sent its last call."""
        ledger = asking.responses.ledger(self.model)
        self.run = {
            "new_calls": asking.new.calls,
            "new_tokens": asking.new.tokens,
            "new_cost": self._cost(asking.new),
            "store_calls": ledger.answered.calls,
            "store_lost_calls": ledger.lost.calls,
            "store_tokens_at_most": ledger.spent.tokens,
            "store_cost_at_most": self._cost(ledger.spent),
            "failed_attempts": dict(sorted(asking.troubles.items())),
            "stopped": asking.stopped.reason if asking.stopped else None,
            "not_finished": not_asked,
        }

    def statistics(self) -> dict[str, Any]:
        """For ``stats.json``: what the rows rest on, whenever it was asked."""
        total = sum(self.used.values(), Usage())
        return {
            "model": self.model,
            "calls": total.calls,
            "prompt_tokens": total.prompt_tokens,
            "completion_tokens": total.completion_tokens,
            "calls_without_usage": total.estimated,
            "cost": self._cost(total),
            "price_input": self.settings.price_input,
            "price_output": self.settings.price_output,
            "license": self.settings.license,
        }

    def metrics(self) -> dict[str, Any]:
        """The same with what this build did, each as ``teacher_<name>``."""
        return {f"teacher_{name}": value for name, value in {**self.statistics(), **self.run}.items()}

    def _cost(self, usage: Usage) -> float | None:
        cost = usage.cost(self.settings)
        return None if cost is None else round(cost, 6)


def card_lines(stats: dict[str, Any]) -> list[str]:
    """The section of the dataset card on the teacher; empty without one."""
    teacher = stats.get("teacher")
    if not teacher:
        return []
    cost = "" if teacher["cost"] is None else f", {teacher['cost']:.2f} in the currency of the prices"
    estimated = f" ({teacher['calls_without_usage']} counted in bytes)" if teacher["calls_without_usage"] else ""
    terms = f" Licence of what it wrote: {teacher['license']}." if teacher["license"] else ""
    return [
        "## Teacher",
        "",
        f"Questions and answers of the rows whose `answer_source` begins with `teacher:` were written by "
        f"`{teacher['model']}`. The passages it quoted as evidence were found in the text that the row shows, and a "
        "second call judged that the text answers the question and supports the answer; what failed is in "
        f"`rejects.parquet`.{terms}",
        "",
        f"{teacher['calls']:,} calls, {teacher['prompt_tokens']:,} prompt tokens and "
        f"{teacher['completion_tokens']:,} reply tokens{estimated}{cost}.",
        "",
    ]
