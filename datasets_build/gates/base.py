"""What a gate is: a name, a level, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["error", "drop", "mask", "warn", "off"]
NAMED = 10  # rows that an error names
EXAMPLES = 5  # findings that stats.json and the card show


@dataclass(frozen=True)
class Gate:
    """``levels`` are the possible ones, the default first."""

    name: str
    about: str
    levels: tuple[Level, ...]


GATES: dict[str, Gate] = {
    gate.name: gate
    for gate in (
        Gate("schema", "columns and types are right, question and answer are not empty", ("error", "drop")),
        Gate("whole-answers", "no row is longer than the window, where training would cut its answer",
             ("error", "drop")),
        Gate("evidence", "a row from documents says where its answer stands", ("error", "drop", "warn")),
        Gate("duplicates", "no two rows are equal but for case and white space", ("drop", "error", "warn")),
        Gate("near-duplicates", "no two rows have nearly the same question and answer",
             ("drop", "error", "warn", "off")),
        Gate("near-duplicate-documents", "documents with nearly the same text are in one split",
             ("warn", "drop", "error", "off")),
        Gate("decontamination", "no row shares a run of words with the evaluation files",
             ("drop", "error", "warn", "off")),
        Gate("language", "rows are in the languages that are wanted", ("drop", "error", "warn", "off")),
        Gate("pii", "personal data", ("warn", "drop", "mask", "error", "off")),
        Gate("counts", "there are enough rows, in all and held out", ("error", "warn")),
        Gate("split-leakage", "no document, nor a near duplicate of one, is in both splits", ("error",)),
    )
}  # fmt: skip


@dataclass
class Finding:
    """What one gate found in one build."""

    gate: str
    level: Level
    found: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, what: str) -> None:
        self.found += 1
        if len(self.examples) < (NAMED if self.level == "error" else EXAMPLES):
            self.examples.append(what)

    def to_json(self) -> dict[str, Any]:
        return {"gate": self.gate, "level": self.level, "found": self.found, "examples": self.examples}


def row_name(row_id: str, task: str, doc_ids: Sequence[str]) -> str:
    """A row as messages name it."""
    return f"row {row_id} (task {task}, documents {list(doc_ids)})"


class GateError(Exception):
    """Rows or documents that must not be published; ``remedy`` says how to build without them."""

    def __init__(self, gate: str, found: int, named: Sequence[str], remedy: str) -> None:
        more = f"\n  and {found - len(named)} more" if found > len(named) else ""
        super().__init__(f"gate {gate}, {GATES[gate].about}: {found} found\n  " + "\n  ".join(named) + more)
        self.remedy = remedy
