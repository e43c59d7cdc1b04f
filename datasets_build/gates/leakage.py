"""Split leakage, checked on the rows as they are written."""

from __future__ import annotations

from collections.abc import Iterable

from datasets_build.gates.base import Finding, GateError, row_name
from datasets_build.rows import Row


class Leakage:
    """No split group, document or near duplicate of one is in both splits, and no id occurs twice."""

    def __init__(self, near: Iterable[tuple[str, str]] = ()) -> None:
        """``near``: pairs of documents, or of a document and a split group, with the same text."""
        self.finding = Finding("split-leakage", "error")
        self.near = list(near)
        self.split_of: dict[str, str] = {}
        self.ids: set[str] = set()

    def check(self, row: Row, split: str) -> None:
        """Look at a row that is about to be written."""
        if row["id"] in self.ids:
            self.finding.add(f"{_describe(row)}: id occurs twice")
        self.ids.add(row["id"])
        for group in dict.fromkeys((row["split_group"], *row["doc_ids"])):
            if self.split_of.setdefault(group, split) != split:
                self.finding.add(f"{_describe(row)}: {group} is in both splits")

    def finish(self) -> None:
        """After the last row.

        Raises:
            GateError: names the rows.
        """
        for a, b in self.near:
            if self.split_of.get(a, "") != self.split_of.get(b, self.split_of.get(a, "")) and a in self.split_of:
                self.finding.add(f"{a} and {b} have the same text, in different splits")
        if self.finding.found:
            remedy = "a defect of the builder: please report it, with the run file"
            raise GateError("split-leakage", self.finding.found, self.finding.examples, remedy)


def _describe(row: Row) -> str:
    return row_name(row["id"], row["task"], row["doc_ids"])
