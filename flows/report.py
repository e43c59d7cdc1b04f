"""A run's report: one HTML file that needs nothing else, fit to be attached to a mail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import yaml

from flows.evaluation_plots import inline, plots_of, save
from flows.figures import evaluation_cells, key_lines, number, read_lines, resume_command, size, token_lengths
from flows.gate import task_verdicts
from flows.history import nights, read_history
from flows.plots import draw_dataset, draw_evaluation, draw_training, plot
from flows.runs import RunRecord
from flows.store import Store
from longlora.evaluation.gate import cells
from pdf2txt.units import write_atomic

NIGHTS = 60  # drawn
NAMES = 500  # documents and rejected files listed
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --first: #2f6fde;
  --second: #e08a1e; --good: #1a7f37; --bad: #cf222e; --fill: #f4f6f8 }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e4e8ec; --soft: #98a2ad; --line: #353c44;
  --first: #6ea0ff; --second: #f0a948; --good: #56c271; --bad: #ff7b72; --fill: #1d2126 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1.2rem;
  background: var(--paper); color: var(--ink) }
h1 { font-size: 1.5rem; margin: 0 0 .3rem } h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem }
h1 b { font-size: .9rem; vertical-align: .2rem; padding: .15rem .6rem; margin-left: .5rem; border-radius: 1rem;
  color: var(--paper); background: var(--bad) }
h1 b.done { background: var(--good) } h1 b.running { background: var(--first) }
p { margin: .4rem 0 } .soft, caption { color: var(--soft) } .good { color: var(--good) } .bad { color: var(--bad) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere }
th { color: var(--soft); font-weight: 500 } th, td.r, td span, td code { white-space: nowrap } .r { text-align: right }
section { overflow-x: auto } td { min-width: 5rem } td:first-child { min-width: 7rem } td.r { min-width: 0 }
td i { display: block; height: 4px; margin-left: auto; border-radius: 2px; background: var(--first) }
aside { background: var(--fill); border-left: 4px solid var(--bad); padding: .6rem 1rem; margin: 1rem 0 }
code, pre { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere } pre { white-space: pre-wrap;
  background: var(--fill); padding: 1rem; border-radius: 6px }
svg { width: 100%; height: auto; display: block; margin: .8rem 0 }
svg text { font-family: system-ui, sans-serif !important }
summary { cursor: pointer; color: var(--soft) }
@media print { body { max-width: none } details { display: none } }
"""


class Html(str):
    """Markup made here; any other text is escaped."""


def write_report(record: RunRecord, store: Store) -> Path:
    """Write ``runs/<run id>/report.html`` of a run in any state; what cannot be read is named in it and left out."""
    data, status = record.data, record.status
    rows = {row["stage"]: row for row in data["stages"]}
    sections: dict[str, Callable[[], str]] = {
        "Stages": partial(_stages, data["stages"]),
        "Evaluation": partial(_evaluation, rows),
        "By length, position and night": partial(_curves, rows, store, store.runs / record.run_id / "plots"),
        "Gate": partial(_gate, data),
        "Training": partial(_training, rows, store),
        "Dataset": partial(_dataset, rows, store),
        "Documents": partial(_documents, rows, data),
        "Settings and environment": partial(_settings, data),
    }
    title = f"Longfolio run {escape(record.run_id)}"
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style></head><body>
<h1>{title} <b class="{escape(status)}">{escape(status)}</b></h1>
{_head(data, status)}
{"".join(_section(title, build) for title, build in sections.items())}
</body></html>
"""
    path = store.runs / record.run_id / "report.html"
    write_atomic(path, page.encode(errors="replace"))  # file names may hold bytes that are no text
    return path


def _section(title: str, build: Callable[[], str]) -> str:
    try:
        body = build()
    except Exception as error:  # whatever is wrong with one output, the rest of the report stands
        body = f'<p class="soft">Cannot be shown: {escape(f"{type(error).__name__}: {error}")}</p>'
    return f"<section><h2>{title}</h2>{body}</section>\n" if body else ""


def _head(data: dict[str, Any], status: str) -> str:
    model = data["config"].get("model", {})
    seconds = sum(row["seconds"] for row in data["stages"])
    facts = [
        f"{_when(data['started'])} to {_when(data['finished'])}" if data.get("finished") else _when(data["started"]),
        f"stages {_duration(seconds)}",
        f"recipe {data['config_name']}" if data.get("config_name") else "",
        f"{len(data.get('documents', {})):,} documents",
        f"model {Path(model['path']).name if model.get('path') else model.get('name')}",
    ]
    head = f'<p class="soft">{escape(" · ".join(filter(None, facts)))}</p>'
    if status in ("done", "running"):
        return head
    errors = [f"<p>{escape(row['stage'])}: {escape(row['error'])}</p>" for row in data["stages"] if row.get("error")]
    return f"{head}<aside>{''.join(errors)}<p>Continue: <code>{escape(resume_command(data))}</code></p></aside>"


def _stages(rows: list[dict[str, Any]]) -> str:
    longest = max(row["seconds"] for row in rows) or 1
    table = []
    for row in rows:
        bar = Html(f'{row["seconds"]:,.1f}<i style="width: {100 * row["seconds"] / longest:.1f}%"></i>')
        notes = [f"{kind}: {len(row[kind]):,}" for kind in ("transient", "warnings") if row.get(kind)]
        style = "bad" if row["action"] == "failed" else "soft" * (row["action"] == "skipped")
        action = Html(f'<span class="{style}">{escape(row["action"])}</span>')
        name, digest = Html(f"<span>{escape(row['stage'])}</span>"), Html(f"<code>{escape(row['digest'][:12])}</code>")
        table.append((name, action, row["why"], bar, _lines([*key_lines(row), *notes]), digest))
    return _table(("stage", "", "why", "seconds", "key numbers", "digest"), table, {3})


def _evaluation(rows: dict[str, dict[str, Any]]) -> str:
    metrics = rows["evaluate"]["metrics"]
    if not metrics:
        return ""
    colour = {"better": "good", "worse": "bad", "": ""}
    table = [
        (*values, Html(f'<span class="{colour[word]}">{word}</span>')) for *values, word in evaluation_cells(metrics)
    ]
    drawn = {name: item for name, item in metrics.items() if item.get("low") is not None}
    drawing = plot("evaluation", 0.75 * len(drawn) + 0.3, partial(draw_evaluation, drawn)) if drawn else ""
    note = "Differences with 95 % intervals, each task on its own scale; right of the line is better."
    return (
        _table(("task", "base", "merged", "difference", "95 % interval", "n", ""), table, {1, 2, 3, 4, 5})
        + (f'{drawing}<p class="soft">{note}</p>' if drawing else "")
    )  # fmt: skip


def _curves(rows: dict[str, dict[str, Any]], store: Store, folder: Path) -> str:
    """Plots that are kept as files in ``folder``, too; nothing without an evaluation that is still in the store."""
    path = Path(rows["evaluate"]["path"]) / "metrics.json"
    if not rows["evaluate"]["metrics"] or not path.is_file():
        return ""
    history = read_history(store)
    last = next((row["task"] for row in reversed(history) if row["headline"]), "")
    plots = plots_of(json.loads(path.read_text()), nights(history, last, NIGHTS) if last else ())
    save(plots, folder)
    return "".join(inline(plots))


def _gate(data: dict[str, Any]) -> str:
    gate = data.get("gate")
    if not gate:
        return ""
    colour = {"pass": "good", "fail": "bad"}
    word = escape(gate["verdict"])
    said = f'<p><span class="{colour.get(word, "")}">{word}</span>: {escape(gate["reason"])}</p>'
    if not gate["champion"]:
        return said
    table = []
    for task in task_verdicts(gate):
        *values, word, _ = cells(task)
        table.append((*values, Html(f'<span class="{colour.get(word, "")}">{escape(word)}</span>')))
    head = ("task", "metric", "now", "champion", "difference", "95 % interval", "n", "p worse", "verdict")
    why = "".join(f"<p>{escape(task.task)}: {escape(task.reason)}</p>" for task in task_verdicts(gate))
    lost = [(f"{s['task']} {s['id']}", number(s["candidate"]), number(s["champion"]), s.get("output", ""),
             s.get("champion_output", "")) for s in gate.get("worst", [])]  # fmt: skip
    samples = _table(("sample", "now", "champion", "output now", "output of the champion"), lost, {1, 2})
    return (
        f'<p class="soft">Against champion {escape(gate["champion"]["run_id"])}, sample by sample</p>'
        + said + _table(head, table, {2, 3, 4, 5, 6, 7}) + why
        + (f"<details><summary>Samples that lost most</summary>{samples}</details>" if lost else "")
    )  # fmt: skip


def _training(rows: dict[str, dict[str, Any]], store: Store) -> str:
    row = rows["train"]
    folders = store.finished("train", row["digest"]), store.attempt("train", row["digest"])
    path = next((p for p in (folder / "metrics.jsonl" for folder in folders) if p.is_file()), None)
    if path is None:
        return ""
    lines = read_lines(path)
    if not lines:
        return ""
    last = lines[-1]
    facts = f"step {number(last['step'])}: loss {number(last['loss'])}, peak memory {size(last.get('memory_bytes'))}"
    return f"<p>{escape(facts)}</p>" + plot("training", 4.2, partial(draw_training, lines))


def _dataset(rows: dict[str, dict[str, Any]], store: Store) -> str:
    row = rows["datasets_build"]
    if row["action"] not in ("ran", "cached"):
        return ""
    output = store.finished("datasets_build", row["digest"])
    tasks = json.loads((output / "stats.json").read_text())["tasks_by_split"]
    names = sorted({task for counts in tasks.values() for task in counts}, reverse=True)
    draw = partial(draw_dataset, token_lengths(output), tasks, names)
    rejects = sorted(row["metrics"].get("rejects", {}).items(), key=lambda item: (-item[1], item[0]))
    left_out = _table(("left out", "count"), [(name, f"{n:,}") for name, n in rejects], {1})
    return (
        f"<p>{_lines(key_lines(row))}</p>{plot('dataset', 1.6 + 0.2 * len(names), draw)}"
        f"<details><summary>What was left out, by rule</summary>{left_out}</details>"
    )


def _documents(rows: dict[str, dict[str, Any]], data: dict[str, Any]) -> str:
    files = rows["pdf2txt"]["metrics"].get("rejected_files", [])
    table = [(file["source"], file["status"], file["why"]) for file in files[:NAMES]]
    names = sorted(f"{Path(paths[0]).name}  {sha[:12]}" for sha, paths in data.get("documents", {}).items())
    listed = "\n".join(names[:NAMES]) + (f"\nand {len(names) - NAMES:,} more" if len(names) > NAMES else "")
    return (
        f"<p>{_lines(key_lines(rows['pdf2txt'])[:1])}</p>"
        + (_table(("rejected", "status", "why"), table) if table else "")
        + (f"<p>and {len(files) - NAMES:,} more</p>" if len(files) > NAMES else "")
        + f"<details><summary>All documents ({len(names):,})</summary><pre>{escape(listed)}</pre></details>"
    )


def _settings(data: dict[str, Any]) -> str:
    settings = yaml.safe_dump(data["config"], sort_keys=False, allow_unicode=True)
    env = data["environment"]
    machine = (
        f"{env['host']}: {env['platform']}, {env['cpus']} CPUs, {size(env['memory_bytes'])}; Python {env['python']}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    return (
        f'<p class="soft">{escape(machine)}, {escape(versions)}</p>'
        f"<details><summary>Settings</summary><pre>{escape(settings)}</pre></details>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> str:
    def line(tag: str, row: Sequence[object]) -> str:
        marks = (' class="r"' if i in right else "" for i in range(len(row)))
        return "".join(f"<{tag}{mark}>{_safe(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def _safe(value: object) -> str:
    return value if isinstance(value, Html) else escape(str(value))


def _lines(texts: Iterable[str]) -> Html:
    return Html("<br>".join(map(escape, texts)))


def _when(stamp: str) -> str:
    return f"{stamp[:10]} {stamp[11:19]} UTC"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
