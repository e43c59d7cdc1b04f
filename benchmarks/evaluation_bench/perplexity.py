"""The same text of six books, cut into windows of 8,192 tokens and finer."""

from __future__ import annotations

from benchmarks.evaluation_bench.common import Bench, Part, interval


def run(bench: Bench) -> Part:
    part = Part()
    perplexity = {"window": 8192, "shorter": [1024, 2048, 4096], "max_windows": 6}
    settings = {"tasks": ["text_perplexity"], "texts": [bench.folder("books/test")], "perplexity": perplexity}
    items, seconds, _ = bench.evaluate("perplexity", {"model": bench.model}, settings)
    item = items["text_perplexity"]
    before: float | None = None
    for row in item["by"]["length"]:
        value = row["base"]["value"]
        part.add(f"{row['length']:,} tokens", value, most=before and round(before, 3), note=interval(row["base"]))
        before = value
    for row in item["by_position"]:
        part.add(f"position {row['from']:,} to {row['to']:,}", row["base"], note=f"{row['tokens']:,} tokens")
    part.add("tokens a second", 4 * item["tokens"] / seconds, note=f"{item['n']} windows at four lengths")
    return part
