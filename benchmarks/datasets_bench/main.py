"""The command: its parts and options."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from benchmarks.datasets_bench.common import Bench
from benchmarks.parts import Benchmark
from benchmarks.pdf2txt_bench.common import find_shared

BENCHMARK = Benchmark(
    "datasets",
    "What datasets_build shows",
    {
        "papers": "rows of seventeen papers: how many, of what, and whether their answers stand on the pages they cite",
        "books": "rows of 8k, 16k and 32k tokens",
        "gates": "planted defects caught with their reasons, and LongAlpaca's form taken over row for row",
        "learning": "a model trained on the set, asked about papers it has not seen",
        "scale": "10,000 documents to 12,000 rows, and one document more",
    },
    ("pyarrow", "tokenizers", "transformers", "datasets", "pypdfium2"),
)


def main(description: str | None) -> int:
    parser = BENCHMARK.parser(description)
    parser.add_argument("--model", type=Path, help="model directory; default: the embedded model")
    parser.add_argument("--documents", type=int, default=10_000, help="of the part scale")
    parser.add_argument("--workers", type=int, default=2, help="of the part scale")

    def bench(args: Namespace, work: Path) -> Bench:
        return Bench(find_shared(args.shared), work, args.model, args.documents, args.workers)

    return BENCHMARK.main(parser, ("documents", "workers"), bench)
