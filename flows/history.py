"""The history of evaluations: ``<store>/history.parquet``, one row per night, model and task, only ever added to."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from flows.errors import UsageError
from flows.figures import read_lines
from flows.runs import RunRecord
from flows.store import Store
from pdf2txt.units import write_atomic

Row = dict[str, Any]
HISTORY = "history.parquet"
LINES = "history.jsonl"  # of earlier versions: read along, and taken over when something is added
# Digests: model is that of the merge, dataset that of datasets_build. value, low, high: of this model alone.
COLUMNS = {
    "run_id": "string", "date": "string", "role": "string", "model": "string", "dataset": "string",
    "evaluation": "string", "suite": "string", "task": "string", "metric": "string", "better": "string",
    "headline": "bool", "value": "double", "low": "double", "high": "double", "n": "int64", "version": "int64",
    "data_digest": "string", "verdict": "string", "seconds": "double",
}  # fmt: skip


def read_history(store: Store) -> list[Row]:
    """Every row, in the order in which it was added.

    Raises:
        UsageError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = store.root / HISTORY
    rows: list[Row] = []
    if path.exists():
        try:
            with pq.ParquetFile(path) as file:
                rows = file.read().to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UsageError(
                f"{path} cannot be read: {error}", "move it away; the next night begins a new one"
            ) from None
    known = {row["run_id"] for row in rows}
    earlier = [row for line in read_lines(store.root / LINES) if line.get("run_id") not in known for row in _old(line)]
    return [*earlier, *({**dict.fromkeys(COLUMNS), **row} for row in rows)]


def add_to_history(store: Store, record: RunRecord) -> list[Row]:
    """Add what a finished run measured, once, however often the run is retried; returns the whole history."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with FileLock(store.root / "history.lock"):
        rows = read_history(store)
        known = {_key(row) for row in rows}
        new = [row for row in rows_of(store, record) if _key(row) not in known]
        if new:
            rows += new
            columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in _types().items()}
            buffer = io.BytesIO()
            pq.write_table(pa.table(columns), buffer, compression="zstd")
            write_atomic(store.root / HISTORY, buffer.getvalue())
        return rows


def rows_of(store: Store, record: RunRecord) -> list[Row]:
    """What a run measured of its model, and of the champion if that is another one, task by task."""
    gate = record.data.get("gate") or {}
    verdicts = {t["task"]: t["verdict"] for t in gate.get("tasks", [])}
    rows = {row["stage"]: row for row in record.data["stages"]}
    headline, champion = gate.get("headline", ""), gate.get("champion") or {}
    sides: list[tuple[str, str, Row]] = [("candidate", rows["merge"]["digest"], rows["evaluate"])]
    if champion and champion["model"] != rows["merge"]["digest"]:
        theirs: Row = record.data.get("champion_evaluation") or {"digest": champion["evaluation"], "seconds": 0.0}
        sides.append(("champion", champion["model"], theirs))
    found = []
    for role, model, row in sides:
        for item in _items(store.finished("evaluate", row["digest"])):
            value = item["merged"] if "merged" in item else item["base"]
            found.append({
                "run_id": record.run_id, "date": record.data["started"], "role": role, "model": model,
                "dataset": rows["datasets_build"]["digest"], "evaluation": row["digest"],
                "suite": str(record.data["config"].get("evaluate", {}).get("suite", "default")), "task": item["task"],
                "metric": item["metric"], "better": item["better"], "headline": item["task"] == headline,
                "value": value["value"], "low": value["low"], "high": value["high"], "n": value["n"],
                "version": item["version"], "data_digest": item["data_digest"],
                "verdict": verdicts.get(item["task"], "") if role == "candidate" else "", "seconds": row["seconds"],
            })  # fmt: skip
    return found


def nights(rows: Iterable[Row], task: str, last: int) -> list[Row]:
    """A task's values of the evaluated model, oldest first, of the last so many runs of the newest one's suite."""
    found = [row for row in rows if row["task"] == task and row["role"] == "candidate"]
    return [row for row in found if row["suite"] == found[-1]["suite"]][-last:]


def _items(output: Path) -> list[Row]:
    return [item for item in json.loads((output / "metrics.json").read_text()) if "skipped" not in item]


def _key(row: Row) -> tuple[str, str, str]:
    return row["run_id"], row["model"], row["task"]


def _types() -> dict[str, Any]:
    import pyarrow as pa

    kinds = {"string": pa.string(), "double": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}
    return {name: kinds[kind] for name, kind in COLUMNS.items()}


def _old(line: dict[str, Any]) -> list[Row]:
    """The rows of a line of ``history.jsonl``, which had a run's short metrics."""
    found = []
    for task, item in line.get("metrics", {}).items():
        if isinstance(item, dict) and item.get("merged") is not None:
            row = {
                "run_id": line["run_id"], "date": line["date"], "role": "candidate", "model": line["model"],
                "evaluation": line["evaluation"], "suite": "default", "task": task, "metric": item["metric"],
                "better": item["better"], "value": item["merged"], "n": item["n"],
            }  # fmt: skip
            found.append({**dict.fromkeys(COLUMNS), **row})
    return found
