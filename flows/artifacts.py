"""The Markdown that Prefect's UI shows: pure functions of plans, rows of the run record, and outputs.

The UI renders GitHub's Markdown with sanitized HTML and Mermaid. File names, messages and document text come from
outside and may hold any characters, so they pass through `escape`, or `code` outside of tables.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from datasets_build.select import SPLITS
from flows.display import key_numbers
from flows.figures import curve, evaluation_cells, finite, key_lines, number, resume_command, size, token_lengths
from flows.gate import task_verdicts
from flows.history import nights
from flows.plan import Plan
from longlora.evaluation.gate import cells

CURVE_POINTS = 60
SAMPLES = 3
CLIP = 200  # characters shown of a sample's instruction (its end) and output (its beginning)
BINS = 16
BAR = 40  # characters of the longest
MESSAGES = 10
FILES = 50
NIGHTS = 14
HISTORY_ROWS = 50
WORST = 5
ARROWS = {"lower": " ↓", "higher": " ↑"}

# The first colour of the UI's own palette is a cream that cannot be seen on white.
_LOOK = '%%{init: {"xyChart": {"height": 320}, "themeVariables": {"xyChart": {"plotColorPalette": "#3b82f6"}}}}%%'
# Addresses too, as a link would swallow the backslashes that follow in it.
_MARKUP = re.compile(r"[\\`*<\[|&~@]|(?<![^\W_])_|_(?![^\W_])|:(?=/)|(?<=[wW])\.")
_BLOCK = re.compile(r"^\d*[-+.)#](?=[\s#-]|$)|^>")  # at the start of a line: a list, a rule, a heading, a quote


def escape(text: object) -> str:
    """Text from outside as one line of Markdown that shows just this text, in a cell of a table too."""
    line = _MARKUP.sub(r"\\\g<0>", _one_line(text))
    return _BLOCK.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", line)


def code(text: object) -> str:
    """Text from outside as a code span. Not for tables, where a ``|`` inside would end the cell."""
    line = _one_line(text)
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence, pad = "`" * (longest + 1), " " if longest else ""  # a backtick at either end would join the fence
    return f"{fence}{pad}{line}{pad}{fence}" if line else ""


def plan_markdown(plan: Plan) -> str:
    """What would run, what is there already, and why."""
    to_run = sum(stage.action == "run" for stage in plan.stages)
    rows = [(s.name, f"**{s.action}**" if s.action == "run" else s.action, escape(s.why), f"`{s.digest[:12]}`")
            for s in plan.stages]  # fmt: skip
    return _join(
        f"# Plan: {to_run} of {len(rows)} stages to run",
        f"Documents: {len(plan.external.documents):,}",
        _table(("stage", "action", "why", "digest"), rows),
        *_messages("Warnings", [warning for stage in plan.stages for warning in stage.warnings]),
    )


def stage_markdown(row: dict[str, Any]) -> str:
    """What one stage did. ``row``: of the run record."""
    # The digest alone fits into the UI's column; the whole path in one piece would not.
    folder = row["path"].removesuffix(row["digest"])
    facts = [*map(escape, key_lines(row)), f"{row['seconds']:,.1f} s"]
    if row["action"] in ("ran", "cached"):
        facts.append(f"output {code(folder)} {code(row['digest'])}")
    details = evaluation_markdown if row["stage"] == "evaluate" else _details
    return _join(
        f"# {row['stage']}: {row['action']}",
        escape(row["why"]),
        f"**{escape(row['error'])}**" if row.get("error") else "",
        "\n".join(f"- {fact}" for fact in facts),
        *_messages("Failures that may pass when tried again", row.get("transient", [])),
        *_messages("Warnings", row.get("warnings", [])),
        details(row["metrics"]) if row["metrics"] else "",
    )


def dataset_markdown(output: Path, metrics: dict[str, Any]) -> str:
    """The dataset: rows by task and split, lengths, what was left out and why, and a few rows, clipped."""
    by_split: dict[str, dict[str, int]] = {}
    chart, samples = "", list[str]()
    try:
        by_split = json.loads((output / "stats.json").read_text())["tasks_by_split"]
        chart = _histogram([n for values in token_lengths(output).values() for n in values])
        samples = ["## Some rows, clipped", *_samples(output)]
    except (OSError, ValueError, KeyError, TypeError) as error:  # a report must not fail a run whose work is done
        chart = chart or f"The rows cannot be read: {escape(error)}"
    rows = [
        [escape(task), *(f"{by_split.get(split, {}).get(task, 0):,}" for split in SPLITS), f"{count:,}"]
        for task, count in sorted(metrics["tasks"].items())
    ]
    return _join(
        "# Dataset",
        *map(escape, key_numbers("datasets_build", metrics)),
        _table(("task", *SPLITS, "all"), rows, "lrrr"),
        "## Lengths",
        chart,
        "## Left out",
        _counts("rule", metrics["rejects"]) or "Nothing.",
        *samples,
    )  # fmt: skip


def training_markdown(lines: list[dict[str, Any]], total_steps: int) -> str:
    """The loss so far and the newest numbers. ``lines``: of ``metrics.jsonl``. ``total_steps``: 0 if not known."""
    if not lines:
        return _join("# Training", "No step is finished yet.")
    last = lines[-1]
    odd = [str(line["step"]) for line in lines if not finite(line.get("loss"))]
    numbers = [number(last.get(k)) for k in ("step", "loss", "learning_rate", "grad_norm", "tokens_per_second")]
    return _join(
        f"# Training: step {last['step']:,}" + (f" of {total_steps:,}" if total_steps else ""),
        _loss_curve(lines),
        *_messages("Steps without a finite loss, not drawn", odd),
        _table(("step", "loss", "learning rate", "gradient norm", "tokens/s", "memory"),
               [(*numbers, size(last.get("memory_bytes")))], "rrrrrr"),
    )  # fmt: skip


def evaluation_markdown(metrics: dict[str, Any]) -> str:
    """Base against merged model."""
    arrows = [ARROWS.get(item.get("better", ""), "") for item in metrics.values()]
    rows = [[f"{escape(task)}{arrow}", *map(escape, values), f"**{word}**" if word else ""]
            for arrow, (task, *values, word) in zip(arrows, evaluation_cells(metrics), strict=True)]  # fmt: skip
    return _join(
        "# Base against merged model",
        _table(("task", "base", "merged", "difference", "95 % interval", "n", "verdict"), rows, "lrrrrrl"),
        "↓ lower is better, ↑ higher is better. Called better or worse only where the interval excludes 0.",
    )


def gate_markdown(gate: dict[str, Any]) -> str:
    """A recorded verdict (``RunRecord.data["gate"]``): the tasks, and the samples that lost most."""
    return _join(f"# Gate: {gate['verdict']}", escape(gate["reason"]), *_against(gate), *_lost(gate))


def nightly_markdown(data: dict[str, Any], history: Sequence[dict[str, Any]], store: Path) -> str:
    """A night: the verdict, what was compared, the last nights, the worst samples, and how to do it again.

    ``data``: of the run's record; ``history``: as of `flows.history.read_history`.
    """
    gate = data["gate"]
    sides = [f"model {code(gate['candidate']['model'][:12])}, evaluation {code(gate['candidate']['evaluation'][:12])}"]
    if gate["champion"]:
        theirs = gate["champion"]
        sides.append(f"champion {code(theirs['model'][:12])} of run {code(theirs['run_id'])}, "
                     f"evaluation {code(theirs['evaluation'][:12])}")  # fmt: skip
    dataset = next(row["digest"] for row in data["stages"] if row["stage"] == "datasets_build")
    sides.append(f"dataset {code(dataset[:12])}")
    headline = gate["headline"] or next((row["task"] for row in history if row["run_id"] == data["run_id"]), "")
    again = shlex.join(["longfolio", "eval", data["run_id"], "--store", str(store)])
    return _join(
        f"# {escape(gate['verdict'])}",
        escape(gate["reason"]),
        "\n".join(f"- {side}" for side in sides),
        *_against(gate),
        *_nights(nights(history, headline, NIGHTS), headline),
        *_lost(gate),
        f"The same again: {code(again)}",
    )


def history_markdown(history: Sequence[dict[str, Any]]) -> str:
    """The newest rows of the history, newest first."""
    rows = [
        (row["date"][:16].replace("T", " "), row["role"], f"`{row['model'][:8]}`", escape(row["task"]),
         escape(f"{row['metric']}{ARROWS.get(row['better'], '')}"), escape(number(row["value"])), _interval(row),
         f"{row['n']:,}", escape(row["verdict"] or ""))
        for row in history[-HISTORY_ROWS:][::-1]
    ]  # fmt: skip
    head = ("date (UTC)", "role", "model", "task", "metric", "value", "95 % interval", "n", "verdict")
    return _join("# Evaluations", _table(head, rows, "lllllrrrl"))


def summary_markdown(data: dict[str, Any]) -> str:
    """A run (``RunRecord.data``): what its stages did, how long that took, and how to go on if it is not done."""
    rows = []
    for row in data["stages"]:
        lines = [*key_lines(row), *([row["error"]] if row.get("error") else [])]
        rows.append((row["stage"], row["action"], escape(row["why"]), f"{row['seconds']:,.1f}",
                     "<br>".join(map(escape, lines))))  # fmt: skip
    gate = data.get("gate")
    started = f"{data['started'][:16].replace('T', ' ')} UTC"
    rows.append(("**all**", "", "", f"**{sum(row['seconds'] for row in data['stages']):,.1f}**", ""))
    return _join(
        f"# Run {data['run_id']}: {data['status']}",
        f"Started {started}" + (f", recipe {code(data['config_name'])}" if data.get("config_name") else ""),
        _table(("stage", "did", "why", "seconds", "key numbers"), rows, "lllrl"),
        f"Gate: **{gate['verdict']}**, {escape(gate['reason'])}" if gate else "",
        "" if data["status"] in ("done", "running") else
        f"What is finished stays. Continue with {code(resume_command(data))}",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- parts


def _join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _one_line(text: object) -> str:
    """Without control characters and marks that reorder text; all white space single blanks."""
    return " ".join("".join(c for c in str(text) if c.isprintable() or c.isspace()).split())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    marks = ("--:" if a == "r" else "---" for a in align.ljust(len(head), "l"))
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, tuple(marks), *rows))


def _against(gate: dict[str, Any]) -> list[str]:
    if not gate["champion"]:
        return []
    head = ("task", "metric", "now", "champion", "Δ", "95 % interval", "n", "p worse", "verdict")
    # The reasons stand below: a tenth column would be out of sight in the UI.
    rows = [[f"**{escape(cell)}**" if i == 8 else escape(cell) for i, cell in enumerate(cells(task)[:9])]
            for task in task_verdicts(gate)]  # fmt: skip
    reasons = [f"- {escape(task.task)}: {escape(task.reason)}" for task in task_verdicts(gate)]
    return [_table(head, rows, "llrrrrrrl"), "\n".join(reasons)]


def _lost(gate: dict[str, Any]) -> list[str]:
    """The samples that lost most. What models wrote, and the answers, are text from outside."""
    parts = []
    for sample in gate.get("worst", [])[:WORST]:
        lines = [f"**{escape(sample['task'])}**, {escape(sample['id'])}: {number(sample['candidate'])}, "
                 f"champion {number(sample['champion'])}"]  # fmt: skip
        for key, name in (("expected", "expected"), ("output", "now"), ("champion_output", "champion")):
            if sample.get(key) is not None:
                text = sample[key] if isinstance(sample[key], str) else json.dumps(sample[key], ensure_ascii=False)
                lines.append(f"- {name}: {code(text[:CLIP])}")
        parts.append("\n".join([lines[0], "", *lines[1:]]))
    return ["## Samples that lost most", *parts] if parts else []


def _nights(rows: Sequence[dict[str, Any]], task: str) -> list[str]:
    """The headline of the last nights as a chart. Mermaid draws equal labels as one: each has its time."""
    values = [row["value"] for row in rows if finite(row["value"])]
    if len(values) < 2 or len(values) < len(rows):
        return []
    labels = [row["date"][5:10] for row in rows]
    if len(set(labels)) < len(labels):
        labels = [row["date"][5:19].replace("T", " ") for row in rows]
    if len(set(labels)) < len(labels):
        labels = [str(i) for i in range(1 - len(rows), 1)]
    margin = max((max(values) - min(values)) / 10, max(map(abs, values)) / 100, 1e-4)
    axis = f"x-axis [{', '.join(json.dumps(label) for label in labels)}]"
    scale = f'y-axis "{rows[-1]["metric"]}" {min(values) - margin:.5f} --> {max(values) + margin:.5f}'
    drawn = ", ".join(f"{value:.5f}" for value in values)
    chart = "\n".join(["```mermaid", _LOOK, "xychart-beta", axis, scale, f"line [{drawn}]", "```"])
    other = sum((row["data_digest"], row["version"]) != (rows[-1]["data_digest"], rows[-1]["version"]) for row in rows)
    note = f"{other} of these nights measured other data: their values are not comparable." if other else ""
    return [f"## {escape(task)}, the last {len(rows)} evaluations", chart, note]


def _interval(row: dict[str, Any]) -> str:
    return "" if row["low"] is None or row["high"] is None else f"{number(row['low'])} to {number(row['high'])}"


def _counts(name: str, counts: dict[str, int]) -> str:
    rows = [(escape(key), f"{n:,}") for key, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return _table((name, "count"), rows, "lr") if rows else ""


def _messages(title: str, messages: Sequence[str]) -> list[str]:
    lines = [f"- {escape(message)}" for message in messages[:MESSAGES]]
    lines += [f"- and {len(messages) - MESSAGES:,} more"] if len(messages) > MESSAGES else []
    return [f"## {title} ({len(messages):,})", "\n".join(lines)] if messages else []


def _details(metrics: dict[str, Any]) -> str:
    """All that a stage measured: plain numbers in one table, counts and files in one each."""
    plain = [(key, size(value) if key.endswith("bytes") else escape(number(value)))
             for key, value in metrics.items() if value is not None and not isinstance(value, dict | list)]  # fmt: skip
    parts = [_table(("number", "value"), [(key.replace("_", " "), value) for key, value in plain], "lr")]
    for key, value in metrics.items():
        if isinstance(value, dict) and value:
            parts.append(_counts(key.replace("_", " "), value))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rows = [[escape(cell) for cell in file.values()] for file in value[:FILES]]
            more = f"and {len(value) - FILES:,} more" if len(value) > FILES else ""
            parts += [_table(list(value[0]), rows), more]
    return _join(*parts)


def _histogram(lengths: Sequence[int]) -> str:
    """A table, since Mermaid draws a bar for 0, too."""
    width = 1
    while lengths and max(lengths) // width >= BINS:
        width *= 2
    counts = Counter(n // width for n in lengths)
    longest = max(counts.values(), default=0)
    rows = [(f"{i * width:,}", f"{counts[i]:,}", "█" * math.ceil(BAR * counts[i] / longest))
            for i in range(max(counts, default=-1) + 1)]  # fmt: skip
    return _table(("tokens from", "rows", ""), rows, "rrl")


def _loss_curve(lines: Sequence[dict[str, Any]]) -> str:
    """Nothing before there are two points. Mermaid spaces the values evenly, so they are interpolated to that."""
    import numpy as np

    steps, losses = curve(lines, "loss", CURVE_POINTS)
    if len(steps) < 2:
        return ""
    even = np.interp(np.linspace(steps[0], steps[-1], len(steps)), steps, losses)
    margin = max((max(losses) - min(losses)) / 20, max(map(abs, losses)) / 100, 0.01)
    # No exponents: Mermaid does not read them.
    values = ", ".join(f"{value:.4f}" for value in even)
    scale = f'y-axis "loss" {min(losses) - margin:.4f} --> {max(losses) + margin:.4f}'
    axis = f'x-axis "step" {steps[0]:.1f} --> {steps[-1]:.1f}'
    return "\n".join(["```mermaid", _LOOK, "xychart-beta", axis, scale, f"line [{values}]", "```"])


def _samples(output: Path) -> list[str]:
    """The first rows of different tasks."""
    import pyarrow.parquet as pq

    found: dict[str, str] = {}
    for path in sorted((output / "data").glob("train-*.parquet"))[:1]:
        with pq.ParquetFile(path) as file:
            for batch in islice(file.iter_batches(1, columns=["task", "n_tokens", "instruction", "output"]), 100):
                row = batch.to_pylist()[0]
                asked = "…" * (len(row["instruction"]) > CLIP) + row["instruction"][-CLIP:]
                answer = row["output"][:CLIP] + "…" * (len(row["output"]) > CLIP)
                text = f"{row['n_tokens']:,} tokens\n\n- asked: {code(asked)}\n- answer: {code(answer)}"
                found.setdefault(row["task"], f"**{escape(row['task'])}**, {text}")
                if len(found) == SAMPLES:
                    break
    return list(found.values())
