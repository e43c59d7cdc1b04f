"""What every published row has to satisfy, checked on the row as it is written."""

from __future__ import annotations

from datasets_build.rows import COLUMNS, FROM_DOCUMENT, Row


class GateError(Exception):
    """A row that must not be published; ``remedy`` says how to build without it."""

    def __init__(self, row: Row, what: str) -> None:
        super().__init__(f"row {row.get('id')} (task {row.get('task')}, documents {row.get('doc_ids')}): {what}")
        self.remedy = "a defect of the recipe: please report it, and leave the recipe out of dataset.recipes meanwhile"


class Gates:
    """Schema, whole answers, evidence and split leakage, over all rows of one dataset."""

    def __init__(self, max_tokens: int, doc_ids: set[str]) -> None:
        self.max_tokens = max_tokens
        self.doc_ids = doc_ids
        self.split_of: dict[str, str] = {}
        self.ids: set[str] = set()

    def check(self, row: Row, split: str) -> None:
        """Raises GateError naming the row."""
        if tuple(row) != COLUMNS:
            raise GateError(row, f"columns {tuple(row)}")
        if not row["instruction"].strip() or not row["output"].strip():
            raise GateError(row, "empty instruction or output")
        if not 0 < row["n_tokens"] <= self.max_tokens:
            # Longer than the window means that training would cut the answer.
            raise GateError(row, f"{row['n_tokens']} tokens, the window has {self.max_tokens}")
        if row["id"] in self.ids:
            raise GateError(row, "id occurs twice")
        self.ids.add(row["id"])
        if row["answer_source"] == FROM_DOCUMENT:
            cited = {e["doc_id"] for e in row["evidence"]}
            if not cited or not cited <= set(row["doc_ids"]):
                raise GateError(row, "no evidence, or evidence from another document")
            if not set(row["doc_ids"]) <= self.doc_ids:
                raise GateError(row, "comes from a document that is not in the input")
        for group in (row["split_group"], *row["doc_ids"]):
            if self.split_of.setdefault(group, split) != split:
                raise GateError(row, f"{group} is in both splits")
