"""From measurements to ``metrics.json``, ``samples.jsonl``, ``table.md`` and the short metrics of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from longlora.evaluation.statistics import Bootstrap, Interval, compare
from longlora.evaluation.tasks import TASKS, Sample


@dataclass(frozen=True)
class Measured:
    """One task's samples and each model's results, in the same order. ``skipped``: why there are none.

    ``data_digest``: of the samples that count. ``settings``: that the results depend on, beside the samples.
    ``engine``: how they were computed.
    """

    task: str
    samples: list[Sample]
    results: dict[str, list[dict[str, Any]]]  # model name -> one per sample
    data_digest: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""
    engine: str = ""


def entry(measured: Measured, names: list[str], by: Bootstrap) -> dict[str, Any]:
    """One item of metrics.json. ``names``: the baseline and, if there is one, the model compared with it."""
    task = TASKS[measured.task]
    head = {"task": task.name, "metric": task.metric, "better": task.better, "version": task.version}
    if measured.skipped:
        return {**head, "skipped": measured.skipped}
    counted = [i for i, sample in enumerate(measured.samples) if sample.counts]
    item = {
        **head,
        "scale": task.scale,
        "data_digest": measured.data_digest,
        "settings": measured.settings,
        "engine": measured.engine,
        "n": len(counted),
        "confidence": by.confidence,
        **_numbers(measured, counted, names, by),
    }
    broken_down = {}
    for fields in task.groups:
        members: dict[tuple[Any, ...], list[int]] = {}
        for i, sample in enumerate(measured.samples):
            if all(field in sample.about for field in fields):
                members.setdefault(tuple(sample.about[field] for field in fields), []).append(i)
        rows = [
            {**dict(zip(fields, values, strict=True)), "n": len(own), **_numbers(measured, own, names, by)}
            for values, own in sorted(members.items())
        ]
        if rows:
            broken_down[",".join(fields)] = rows
    if broken_down:
        item["by"] = broken_down
    cut = [sample.about["truncated"] for sample in measured.samples if sample.about.get("truncated")]
    if cut:
        item |= {"truncated": len(cut), "tokens_cut_mean": sum(cut) / len(cut)}
    results = {key: measured.results[name] for key, name in zip(("base", "merged"), names, strict=False)}
    return item | task.details(measured.samples, results)


def _numbers(measured: Measured, chosen: list[int], names: list[str], by: Bootstrap) -> dict[str, Any]:
    """base, merged, difference and ratio over the chosen samples."""
    results = [[measured.results[name][i] for i in chosen] for name in names]
    c = compare(TASKS[measured.task].scale, results[0], results[1] if len(results) > 1 else None, by)
    found = {"base": c.base.to_dict()}
    for key, interval in (("merged", c.merged), ("difference", c.difference), ("ratio", c.ratio)):
        if interval is not None:
            found[key] = interval.to_dict(**({} if key == "merged" else {"paired": True}))
    return found


def short(items: list[dict[str, Any]]) -> dict[str, Any]:
    """``{task: {metric, base, merged, difference, low, high, n}}``; perplexity has its ratio too.

    ``low`` and ``high`` are of the difference, ``base_low`` and ``base_high`` of the base alone.
    """
    found: dict[str, Any] = {}
    for item in items:
        if "skipped" in item:
            found[item["task"]] = {"metric": item["metric"], "skipped": item["skipped"], "n": 0}
            continue
        line = {
            "metric": item["metric"],
            "better": item["better"],
            "scale": item["scale"],
            "n": item["n"],
            "base": item["base"]["value"],
            "base_low": item["base"]["low"],
            "base_high": item["base"]["high"],
        }
        if "merged" in item:
            difference = item["difference"]
            line |= {"merged": item["merged"]["value"], "difference": difference["value"]}
            line |= {"low": difference["low"], "high": difference["high"]}
        if "ratio" in item:
            ratio = item["ratio"]
            line |= {"ratio": ratio["value"], "ratio_low": ratio["low"], "ratio_high": ratio["high"]}
        found[item["task"]] = line
    return found


def sample_lines(measured: list[Measured]) -> str:
    """``samples.jsonl``: one line per sample and model."""
    lines = []
    for m in measured:
        for name, results in m.results.items():
            for sample, result in zip(m.samples, results, strict=True):
                measurement = {k: result[k] for k in sorted(result) if k not in ("id", "digest")}
                row = {
                    "task": m.task,
                    "model": name,
                    "id": sample.id,
                    "prompt_digest": sample.digest,
                    "counts": sample.counts,
                    **sample.about,
                }
                lines.append(json.dumps({**row, **measurement}, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)


def table(items: list[dict[str, Any]], names: list[str]) -> str:
    """A Markdown table of all tasks; skipped ones below it, with the reason."""
    shown = [i for i in items if "skipped" not in i]
    percent = f"{shown[0]['confidence']:.0%}" if shown else "95%"
    heads = ["task", "metric", "n", *names]
    heads += ["difference", "ratio"] if len(names) > 1 else []
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for i in shown:
        arrow = "↓" if i["better"] == "lower" else "↑"
        cells = [i["task"], f"{i['metric']} {arrow}", str(i["n"]), _cell(i["base"])]
        if len(names) > 1:
            cells += [
                _cell(i["merged"]),
                _cell(i["difference"], "+"),
                _cell(i["ratio"]) if "ratio" in i else "",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"In brackets: {percent} intervals"
        + (f"; differences, ratios: paired, {names[-1]} against {names[0]}." if len(names) > 1 else "."),
    ]
    lines += [
        f"\n{i['task']}: the document's middle is left out of {i['truncated']} of {i['n']} prompts, "
        f"{i['tokens_cut_mean']:,.0f} tokens on average."
        for i in shown
        if i.get("truncated")
    ]
    lines += [f"\nNot measured: {i['task']}: {i['skipped']}." for i in items if "skipped" in i]
    return "\n".join(lines) + "\n"


def _cell(interval: dict[str, Any], sign: str = "") -> str:
    i = Interval(*(interval[k] for k in ("value", "low", "high", "n")))
    if i.low is None or i.high is None:
        return f"{i.value:{sign}.4g} [too few samples]"
    return f"{i.value:{sign}.4g} [{i.low:{sign}.4g}, {i.high:{sign}.4g}]"
