"""The command: its parts and options."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from benchmarks.parts import Benchmark
from benchmarks.pdf2txt_bench.common import Bench, cache_folder, find_shared

BENCHMARK = Benchmark(
    "pdf2txt",
    "What pdf2txt shows",
    {
        "quality": "text of the benchmark PDFs against their publisher's XML and fact tests",
        "speed": "pages a second of one process beside a peer",
        "ocr": "the papers as scans of six forms",
        "hyphens": "line-end hyphens, kept or removed",
        "robustness": "nasty and mutated files",
        "memory": "peak memory of 2,000 pages beside 50",
        "workers": "two workers beside one",
        "kill": "killed at random and started again",
    },
    ("pypdfium2", "rapidocr", "onnxruntime", "openvino", "rapid-layout", "numpy", "ftfy", "wordfreq"),
)


def main(description: str | None) -> int:
    parser = BENCHMARK.parser(description)
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="peers' environments, mutants, big PDFs")
    parser.add_argument("--seed", type=int, default=1, help="of mutations and kills")
    parser.add_argument("--repeat", type=int, default=3, help="of what is timed")
    parser.add_argument("--mutants", type=int, default=500)
    parser.add_argument("--ocr-documents", type=int, default=0, help="papers read as scans (0: all)")
    parser.add_argument("--kills", type=int, default=6)
    kept = ("seed", "repeat", "mutants", "ocr_documents", "kills")

    def bench(args: Namespace, work: Path) -> Bench:
        return Bench(find_shared(args.shared), work, args.cache, **{name: getattr(args, name) for name in kept})

    return BENCHMARK.main(parser, kept, bench)
