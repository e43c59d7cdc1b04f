"""What a person sees on the terminal: progress bars, the table at the end, messages. All on stderr but tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from flows.gate import task_verdicts
from flows.plan import Plan, PlannedStage
from flows.runner import Watcher
from longlora.evaluation.gate import cells

ACTION_STYLE = {"ran": "green", "cached": "cyan", "run": "yellow", "skipped": "dim", "failed": "bold red"}
err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


class TerminalWatcher(Watcher):
    """One bar per running stage; on a pipe, a line every ten seconds instead."""

    LINE_SECONDS = 10.0

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(), TextColumn("[bold]{task.description:<15}"), BarColumn(bar_width=28),
            TextColumn("{task.fields[count]}"), TimeElapsedColumn(), TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[note]}"), console=err,
        )  # fmt: skip
        self._bars: dict[str, TaskID] = {}
        self._last_line = 0.0

    def __enter__(self) -> TerminalWatcher:
        if err.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if err.is_terminal:
            self._progress.stop()

    def stage_started(self, stage: PlannedStage) -> None:
        err.print(f"[yellow]▸[/] [bold]{stage.name}[/]  {escape(stage.why)}")
        self._bars[stage.name] = self._progress.add_task(stage.name, total=None, count="", note="")

    def bar(self, name: str) -> Callable[..., None]:
        """A ``report`` callable for a library that is used alone."""
        self._bars[name] = self._progress.add_task(name, total=None, count="", note="")
        return lambda event, **fields: self.stage_event(name, event, fields)

    def stage_event(self, stage: str, event: str, fields: dict[str, Any]) -> None:
        if event in ("warning", "transient"):
            err.print(f"[yellow]  ! [/]{escape(str(fields['message']))}")
        elif event == "note":
            err.print(f"  {escape(str(fields['message']))}")
        elif event == "progress" and stage in self._bars:
            self._advance(stage, **fields)

    def _advance(self, stage: str, done: int, total: int | None, unit: str, **numbers: Any) -> None:
        count = f"{done:,}/{total:,} {unit}" if total else (f"{done:,} {unit}" if done else unit)
        note = "  ".join(f"{key} {_number(value)}" for key, value in numbers.items())
        if err.is_terminal:
            self._progress.update(self._bars[stage], completed=done, total=total, count=count, note=note)
        elif time.monotonic() - self._last_line > self.LINE_SECONDS:
            self._last_line = time.monotonic()
            err.print(f"  {stage}: {count}  {note}".rstrip())

    def stage_ended(self, row: dict[str, Any]) -> None:
        name, action = row["stage"], row["action"]
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))
        if action != "skipped":
            mark = "[red]✗[/]" if action == "failed" else "[green]✓[/]"
            why = f"  {escape(row['why'])}" if action == "cached" else ""
            err.print(f"{mark} [bold]{name}[/]  {action}{why}  [dim]{row['seconds']:.1f} s[/]")


def new_table(title: str = "") -> Table:
    """The one look of all tables: no frame, so that narrow terminals keep the room for text."""
    return Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, title=title or None, title_justify="left")


def print_run(rows: Sequence[dict[str, Any]]) -> None:
    """What a run did: a table of stages, the evaluation, and where everything lies (unwrapped, to be copied)."""
    table = new_table()
    table.add_column("stage", style="bold", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("key numbers", overflow="fold", ratio=1)
    for row in rows:
        action = row["action"]
        numbers = [escape(line) for line in key_numbers(row["stage"], row["metrics"])]
        if action not in ("ran", "cached"):
            numbers.append(f"[dim]{escape(row.get('error') or row['why'])}[/]")
        done = Text(action, style=ACTION_STYLE.get(action, ""))
        table.add_row(row["stage"], done, f"{row['seconds']:.1f}", "\n".join(numbers))
    out.print(table)
    out.print()
    evaluation = next((r["metrics"] for r in rows if r["stage"] == "evaluate" and r["metrics"]), None)
    if evaluation:
        out.print(evaluation_table(evaluation))
        out.print()
    for row in rows:
        if row["action"] in ("ran", "cached"):
            out.print(f"[dim]{row['stage']:<15}[/] {escape(row['path'])}", soft_wrap=True)


VERDICT_STYLE = {"pass": "green", "warn": "yellow", "fail": "bold red", "new": "dim"}


def print_gate(data: dict[str, Any]) -> None:
    """The verdict of a run (``RunRecord.data``), task by task. Nothing for a run that did not get there."""
    gate = data.get("gate")
    if not gate:
        return
    out.print()
    if gate["champion"] and gate["tasks"]:
        out.print(gate_table(gate))
        out.print()
    style = VERDICT_STYLE.get(gate["verdict"], "yellow")
    out.print(f"gate     [{style}]{gate['verdict']}[/]: {escape(gate['reason'])}", soft_wrap=True)


def gate_table(gate: dict[str, Any]) -> Table:
    """This model against the champion, in 80 columns; the report has every figure."""
    table = new_table(f"against champion {gate['champion']['run_id']} (* the headline)")
    for column in ("task", "now", "champion", "difference, 95 %", "verdict"):
        table.add_column(column, justify="left" if column in ("task", "verdict") else "right", no_wrap=True)
    for task in task_verdicts(gate):
        _, _, now, champion, _, interval, *_ = cells(task)
        style = VERDICT_STYLE.get(task.verdict, "yellow")
        name = f"{task.task}{' *' if task.headline else ''}"
        table.add_row(*map(escape, (name, now, champion, interval)), Text(task.verdict, style=style))
    return table


def evaluation_table(metrics: dict[str, Any]) -> Table:
    """Base against merged with the paired 95 % interval of the difference; one model with its own."""
    items = {task: item for task, item in metrics.items() if isinstance(item, dict) and "metric" in item}
    two = any("merged" in item for item in items.values())
    columns = ("task", "base", "merged", "difference", "95 % interval", "n")
    table = new_table()
    for column in columns if two else ("task", "value", "95 % interval", "n"):
        table.add_column(column, justify="left" if column == "task" else "right", no_wrap=True)
    skipped = []
    for task, item in items.items():
        name = task if task.endswith(item["metric"]) else f"{task} {item['metric']}"
        if item.get("skipped"):
            skipped.append(f"{name}: not measured: {item['skipped']}")
            continue
        low, high = (item.get(key) for key in (("low", "high") if two else ("base_low", "base_high")))
        sign = "+" if two else ""
        interval = "needs 2 or more" if low is None or high is None else f"[{low:{sign}.3g}, {high:{sign}.3g}]"
        values = [_number(item["base"])]
        if two:
            difference = "" if item.get("difference") is None else f"{item['difference']:+.3g}"
            values += [_number(item.get("merged", "")), difference]
        table.add_row(name, *values, escape(interval), str(item["n"]))
    if skipped:
        table.caption, table.caption_justify = escape("\n".join(skipped)), "left"
    return table


def plan_table(plan: Plan) -> Table:
    table = new_table()
    table.add_column("stage", style="bold", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=1)
    table.add_column("digest", style="dim", no_wrap=True)
    for stage in plan.stages:
        style = ACTION_STYLE[stage.action]
        table.add_row(stage.name, f"[{style}]{stage.action}[/]", escape(stage.why), stage.digest[:12])
    return table


def key_numbers(stage: str, metrics: dict[str, Any]) -> list[str]:
    """The lines of a stage that a person wants to see at the end of a run."""
    return _KEY_NUMBERS[stage](metrics) if metrics else []


def _pdf2txt(m: dict[str, Any]) -> list[str]:
    lines = [
        f"{m['converted']} of {m['documents']} documents, {m['pages']} pages, {m['pages_ocr']} by OCR, "
        f"{m['characters']:,} characters"
    ]
    lines += [f"rejected {item['source']}: {item['status']}" for item in m.get("rejected_files", [])[:8]]
    return lines


def _datasets_build(m: dict[str, Any]) -> list[str]:
    lines = [
        f"{m['rows']} rows ({m['rows_train']} train, {m['rows_validation']} validation), {m['tokens']:,} tokens, "
        f"{len(m['tasks'])} tasks"
    ]
    if "teacher_model" in m:
        cost = "" if m["teacher_cost"] is None else f", cost {m['teacher_cost']:,.4g}"
        tokens = m["teacher_prompt_tokens"] + m["teacher_completion_tokens"]
        new = m.get("teacher_new_calls", 0)
        lines.append(
            f"teacher {m['teacher_model']}: {m['teacher_calls']:,} calls ({new:,} new), {tokens:,} tokens{cost}"
        )
    return lines


def _train(m: dict[str, Any]) -> list[str]:
    return [
        f"{m['steps']} steps, {m['tokens']:,} tokens, loss {m['loss_start']:.3f} -> {m['loss_end']:.3f}, "
        f"{m['tokens_per_second']:.0f} tokens/s"
    ]


def _merge(m: dict[str, Any]) -> list[str]:
    return [
        f"context {m['context_length']:,}, {m['parameters'] / 1e6:.1f} M parameters, "
        f"largest logit difference {m['logits_max_difference']:.1e}"
    ]


def _evaluate(m: dict[str, Any]) -> list[str]:
    return [
        f"{task} {_number(item['base'])} -> {_number(item['merged'])}"
        for task, item in m.items()
        if item.get("merged") is not None
    ]


_KEY_NUMBERS = {
    "pdf2txt": _pdf2txt, "datasets_build": _datasets_build, "train": _train, "merge": _merge, "evaluate": _evaluate,
}  # fmt: skip


def _number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
