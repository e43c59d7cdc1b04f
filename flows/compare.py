"""What differs between two runs."""

from __future__ import annotations

from typing import Any

from flows.config import flatten
from flows.runs import RunRecord


def compare_runs(first: RunRecord, second: RunRecord) -> dict[str, Any]:
    """Settings, documents, stage digests and metrics that differ, each as ``{"key", "first", "second"}``."""
    return {
        "first": first.run_id,
        "second": second.run_id,
        "settings": _differences(first.data["config"], second.data["config"]),
        "documents": _documents(first, second),
        "stages": _differences(_stages(first), _stages(second)),
        "metrics": _differences(_metrics(first), _metrics(second)),
    }


def _stages(record: RunRecord) -> dict[str, str]:
    return {row["stage"]: f"{row['digest'][:12]} ({row['action']})" for row in record.data["stages"]}


def _metrics(record: RunRecord) -> dict[str, Any]:
    return {row["stage"]: row["metrics"] for row in record.data["stages"] if row["metrics"]}


def _documents(first: RunRecord, second: RunRecord) -> list[dict[str, Any]]:
    a, b = first.data["documents"], second.data["documents"]
    return [
        {"key": sha[:16], "first": ", ".join(a.get(sha, [])), "second": ", ".join(b.get(sha, []))}
        for sha in sorted(a.keys() ^ b.keys())
    ]


def _differences(first: Any, second: Any) -> list[dict[str, Any]]:
    a, b = dict(flatten(first)), dict(flatten(second))
    return [
        {"key": k, "first": a.get(k), "second": b.get(k)} for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)
    ]
