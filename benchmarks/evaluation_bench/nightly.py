"""The default suite on a dataset of seventeen papers: two models measured, then one of them again."""

from __future__ import annotations

from benchmarks.datasets_bench.common import Bench as DatasetBench
from benchmarks.evaluation_bench.common import Bench, Part
from benchmarks.evaluation_bench.gate import noisy

LIMIT = 600.0  # seconds


def run(bench: Bench) -> Part:
    part = Part()
    papers = sorted(bench.folder("pdfbench/jose").glob("*.pdf"))
    datasets = DatasetBench(bench.shared, bench.work, bench.model, 0, 2)
    documents = datasets.convert(papers)
    built = datasets.build(documents, "nightly", max_tokens=2048, validation_share=0.3)
    sources = {
        "dataset": built.folder,
        "splits": built.folder / "splits.json",
        "documents": documents / "documents.parquet",
    }
    models = {"base": bench.model, "merged": noisy(bench.model, bench.work / "noisy", 0, 0.01)}
    for name in ("both models", "again"):
        items, seconds, _ = bench.evaluate("suite", models, {}, **sources)
        note = ", ".join(f"{task} n {item.get('n', 0)}" for task, item in items.items())
        part.add(f"{name}, s", seconds, most=LIMIT, note=note)
    return part
