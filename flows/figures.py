"""The figures of a run, as artifacts, the HTML report and the history show them alike."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from datasets_build.select import SPLITS
from flows.display import key_numbers


def key_lines(row: dict[str, Any]) -> list[str]:
    """`key_numbers` of a row; none where an older record lacks one of them."""
    with suppress(KeyError, TypeError, ValueError):
        return key_numbers(row["stage"], row["metrics"])
    return []


def resume_command(data: dict[str, Any]) -> str:
    """How to continue a run, from any directory."""
    store = Path(data["stages"][0]["path"]).parents[2]  # <store>/stages/<stage>/<digest>
    return shlex.join(["longfolio", "resume", data["run_id"], "--store", str(store)])


def evaluation_cells(metrics: dict[str, Any]) -> Iterator[list[str]]:
    """For each task: name, base, merged, difference, interval, n, and ``better``, ``worse`` or nothing."""
    for task, item in metrics.items():
        name = task if task.endswith(item["metric"]) else f"{task} {item['metric']}"
        if item.get("skipped"):
            yield [name, "", "", "", f"skipped: {item['skipped']}", "0", ""]
            continue
        low, high = item.get("low"), item.get("high")
        interval = "needs 2 or more" if low is None or high is None else f"[{low:+.3g}, {high:+.3g}]"
        difference = "" if item.get("difference") is None else f"{item['difference']:+.3g}"
        values = number(item["base"]), number(item.get("merged"))
        yield [name, *values, difference, interval, f"{item['n']:,}", verdict(item)]


def verdict(item: dict[str, Any]) -> str:
    """``better`` or ``worse`` where the interval of the difference excludes 0, else nothing."""
    low, high = item.get("low"), item.get("high")
    if low is None or high is None or low <= 0 <= high:
        return ""
    return "better" if (low > 0) == (item["better"] == "higher") else "worse"


def worse_than_base(metrics: dict[str, Any]) -> list[str]:
    """Tasks on which the merged model is worse than its base beyond doubt: the whole interval is on that side."""
    return [task for task, item in metrics.items() if isinstance(item, dict) and verdict(item) == "worse"]


def token_lengths(output: Path) -> dict[str, list[int]]:
    """The lengths of a dataset's rows, by split."""
    import pyarrow.parquet as pq

    lengths: dict[str, list[int]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for path in sorted((output / "data").glob(f"{split}-*.parquet")):
            with pq.ParquetFile(path) as file:
                lengths[split] += file.read(columns=["n_tokens"])["n_tokens"].to_pylist()
    return lengths


def curve(lines: Sequence[dict[str, Any]], key: str, most: int) -> tuple[list[float], list[float]]:
    """Steps and values of ``metrics.jsonl`` as means of ``most`` or fewer groups; only finite values count."""
    points = [(line["step"], line[key]) for line in lines if finite(line.get(key))]
    length = math.ceil(len(points) / most) or 1
    groups = [list(zip(*points[i : i + length], strict=True)) for i in range(0, len(points), length)]
    return [math.fsum(x) / len(x) for x, _ in groups], [math.fsum(y) / len(y) for _, y in groups]


def number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value or "")


def size(count: Any) -> str:
    """Bytes, for people."""
    return f"{count / 1e9:,.2f} GB" if finite(count) and count >= 1e9 else f"{(count or 0) / 1e6:,.1f} MB"


def finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file that may still be written; empty if there is none."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # U+2028 in a text ends no line
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
