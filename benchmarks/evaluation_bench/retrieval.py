"""What stands where in the context the model can find, up to its 8,192 tokens."""

from __future__ import annotations

from benchmarks.evaluation_bench.common import Bench, Part, interval

LENGTHS = [1024, 2048, 4096, 7936]  # the last leaves room for the answer


def run(bench: Bench) -> Part:
    part = Part()
    settings = {
        "tasks": ["passkey", "needle", "multi_needle", "variable_tracking", "common_words", "frequent_words"],
        "texts": [bench.folder("books/test")],
        "passkey": {"lengths": LENGTHS, "depths": [0.1, 0.5, 0.9], "trials": 2},
        "needle": {"lengths": LENGTHS[:3], "depths": [0, 0.5, 1]},
        "synthetic": {"lengths": LENGTHS[:2], "trials": 4},
    }
    items, seconds, _ = bench.evaluate("retrieval", {"model": bench.model}, settings)
    for name, item in items.items():
        for row in item["by"]["length"]:
            part.add(
                f"{name}, {row['length']:,} tokens, %", 100 * row["base"]["value"], note=interval(row["base"], 100)
            )
    part.add("seconds", seconds)
    return part
