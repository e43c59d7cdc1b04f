"""L-Eval on a small model: not for its score, but that every kind of question is asked, cut, judged and told."""

from __future__ import annotations

from benchmarks.evaluation_bench.common import Bench, Part, interval

SUBSETS = ("quality", "tpo", "gov_report_summ", "scientific_qa", "multidoc_qa")


def run(bench: Bench) -> Part:
    part = Part()
    settings = {
        "tasks": ["leval"],
        "leval": {"path": bench.folder("leval"), "subsets": SUBSETS, "max_new_tokens": 128},
        "limit": bench.limit,
    }
    items, seconds, _ = bench.evaluate("leval", {"model": bench.model}, settings)
    item = items["leval"]
    part.add("all, %", 100 * item["base"]["value"], note=interval(item["base"], 100))
    for row in item["by"]["subset"]:
        part.add(f"{row['subset']}, %", 100 * row["base"]["value"], note=interval(row["base"], 100))
    note = f"of {item['n']}; {item.get('tokens_cut_mean', 0):,.0f} tokens left out of each on average"
    part.add("prompts whose document's middle was left out", item.get("truncated", 0), note=note)
    part.add("seconds", seconds)
    part.data |= {key: value for key, value in item.items() if key not in ("base", "by")}
    return part
