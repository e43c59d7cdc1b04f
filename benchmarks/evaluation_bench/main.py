"""The command: its parts and options."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from benchmarks.evaluation_bench.common import Bench
from benchmarks.parts import Benchmark
from benchmarks.pdf2txt_bench.common import find_shared

BENCHMARK = Benchmark(
    "evaluation",
    "What evaluation shows",
    {
        "perplexity": "books the model has not seen, at contexts of 1k to 8k tokens",
        "retrieval": "passkey, needle and RULER's forms up to 8k tokens",
        "leval": "five subsets of L-Eval, a few questions each, and what was cut",
        "gate": "planted regressions caught, equal models let through",
        "nightly": "the default suite: how long a night takes",
    },
    ("torch", "transformers", "tokenizers", "numpy"),
)


def main(description: str | None) -> int:
    parser = BENCHMARK.parser(description)
    parser.add_argument("--model", type=Path, help="model directory; default: the embedded model")
    parser.add_argument("--runs", type=int, default=20, help="of the part gate, of each kind")
    parser.add_argument("--limit", type=int, default=4, help="questions of each subset, of the part leval")

    def bench(args: Namespace, work: Path) -> Bench:
        return Bench(find_shared(args.shared), work, args.model, args.runs, args.limit)

    return BENCHMARK.main(parser, ("runs", "limit"), bench)
