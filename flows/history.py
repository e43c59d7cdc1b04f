"""The history of evaluations: ``<store>/history.jsonl``, one line per nightly run, only ever added to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from filelock import FileLock

from flows.figures import read_lines, verdict
from flows.runs import RunRecord
from flows.store import Store


def read_history(store: Store) -> list[dict[str, Any]]:
    """Every line, oldest first; a torn last line is left out."""
    return read_lines(store.root / "history.jsonl")


def add_to_history(store: Store, record: RunRecord) -> list[dict[str, Any]]:
    """Add what a finished run measured, once, however often the run is retried; returns the whole history.

    A line: ``run_id, date, model`` (digest of the merge), ``evaluation`` (digest), ``action`` (ran or cached),
    ``metrics`` as of `longlora.evaluation.stage`.
    """
    with FileLock(store.root / "history.lock"):
        known = read_history(store)
        if any(line["run_id"] == record.run_id for line in known):
            return known
        rows = {row["stage"]: row for row in record.data["stages"]}
        line = {
            "run_id": record.run_id, "date": record.data["finished"], "model": rows["merge"]["digest"],
            "evaluation": rows["evaluate"]["digest"], "action": rows["evaluate"]["action"],
            "metrics": rows["evaluate"]["metrics"],
        }  # fmt: skip
        with (store.root / "history.jsonl").open("ab") as file:
            if file.tell() and not _ends_line(store):
                file.write(b"\n")  # after a torn line
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return [*known, line]


def worse_than_base(metrics: dict[str, Any]) -> list[str]:
    """Tasks on which the merged model is worse than its base beyond doubt: the whole interval is on that side."""
    return [task for task, item in metrics.items() if isinstance(item, dict) and verdict(item) == "worse"]


def history_markdown(lines: Sequence[dict[str, Any]], last: int = 14) -> str:
    """The newest evaluations as a table, one column per task, newest first."""
    shown = list(lines)[-last:][::-1]
    tasks = list(dict.fromkeys(task for line in shown for task in line["metrics"]))
    head = ["date (UTC)", "model", "did", *tasks]
    rows = [
        [line["date"][:16].replace("T", " "), f"`{line['model'][:8]}`", line["action"],
         *(_cell(line["metrics"].get(task)) for task in tasks)]
        for line in shown
    ]  # fmt: skip
    table = [head, ["---"] * len(head), *rows]
    return "# Evaluations\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in table) + "\n"


def _cell(item: Any) -> str:
    if not isinstance(item, dict) or item.get("merged") is None:
        return ""
    word = verdict(item)
    return f"{item['merged']:.4g}, base {item['base']:.4g}" + (f", **{word}**" if word else "")


def _ends_line(store: Store) -> bool:
    with (store.root / "history.jsonl").open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
