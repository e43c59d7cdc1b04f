"""The command: which parts are run, where they may write, what is printed."""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path

from benchmarks.datasets_bench import report
from benchmarks.datasets_bench.common import ROOT, Bench, Part, Skip
from benchmarks.pdf2txt_bench.common import find_shared

PARTS = {
    "papers": "rows of seventeen papers: how many, of what, and whether their answers stand on the pages they cite",
    "books": "rows of 8k, 16k and 32k tokens",
    "scale": "10,000 documents to 12,000 rows, and one document more",
}


def main(description: str | None) -> int:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, apart by commas (default: all)")
    parser.add_argument("--list", action="store_true", help="print the parts and end")
    parser.add_argument("--shared", type=Path, help="the folder that holds pdfbench/ and books/")
    parser.add_argument("--model", type=Path, help="model directory; default: the embedded model")
    parser.add_argument("--work", type=Path, help="keep the scratch files here instead of a temporary folder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--documents", type=int, default=10_000, help="of the part scale")
    parser.add_argument("--workers", type=int, default=2, help="of the part scale")
    args = parser.parse_args()
    if args.list:
        for name, what in PARTS.items():
            print(f"{name:<12}{what}")
        return 0
    names = [name.strip() for name in args.only.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")

    # Of the options, those that change the figures; the folders are this machine's own.
    changed = [name for name in ("documents", "workers") if getattr(args, name) != parser.get_default(name)]
    options = "".join(f" --{name} {getattr(args, name)}" for name in changed)
    missed = 0
    with tempfile.TemporaryDirectory(prefix="longfolio-bench-") as scratch:
        base = args.work or Path(scratch)
        for name in names:
            work = base / name
            bench = Bench(find_shared(args.shared), work, args.model, args.documents, args.workers)
            work.mkdir(parents=True, exist_ok=True)
            print(f"\n## {name}: {PARTS[name]}", flush=True)
            where = report.circumstances(f"benchmarks/datasets.py --only {name}{options}")
            began = time.monotonic()
            try:
                part: Part = importlib.import_module(f"benchmarks.datasets_bench.{name}").run(bench)
            except Skip as why:
                print(f"skipped: {why}", flush=True)
                continue
            seconds = time.monotonic() - began
            print("\n".join(report.table(part.rows)), f"\n{seconds:.0f} s", flush=True)
            report.save(args.out, name, part, where, seconds)
            missed += sum(row.good is False for row in part.rows)
    print(f"\n{missed} targets missed" if missed else "\nall targets met")
    return 1 if missed else 0
