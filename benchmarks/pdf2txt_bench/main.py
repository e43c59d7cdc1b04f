"""The command: which parts are run, where they may write, what is printed."""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path

from benchmarks.pdf2txt_bench import report
from benchmarks.pdf2txt_bench.common import ROOT, Bench, Part, Skip, cache_folder, find_shared

PARTS = {
    "quality": "text of the benchmark PDFs against their publisher's XML and fact tests",
    "speed": "pages a second of one process beside a peer",
    "ocr": "the papers as scans of six forms",
    "hyphens": "line-end hyphens, kept or removed",
    "robustness": "nasty and mutated files",
    "memory": "peak memory of 2,000 pages beside 50",
    "workers": "two workers beside one",
    "kill": "killed at random and started again",
}


def main(description: str | None) -> int:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, apart by commas (default: all)")
    parser.add_argument("--list", action="store_true", help="print the parts and end")
    parser.add_argument("--shared", type=Path, help="the folder that holds pdfbench/")
    parser.add_argument("--work", type=Path, help="keep the scratch files here instead of a temporary folder")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="peers' environments, mutants, big PDFs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--seed", type=int, default=1, help="of mutations and kills")
    parser.add_argument("--repeat", type=int, default=3, help="of what is timed")
    parser.add_argument("--mutants", type=int, default=500)
    parser.add_argument("--ocr-documents", type=int, default=0, help="papers read as scans (0: all)")
    parser.add_argument("--kills", type=int, default=6)
    args = parser.parse_args()
    if args.list:
        for name, what in PARTS.items():
            print(f"{name:<12}{what}")
        return 0
    names = [name.strip() for name in args.only.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")

    # Of the options, those that change the figures; the folders are this machine's own.
    kept = ("seed", "repeat", "mutants", "ocr_documents", "kills")
    changed = [name for name in kept if getattr(args, name) != parser.get_default(name)]
    options = "".join(f" --{name.replace('_', '-')} {getattr(args, name)}" for name in changed)
    missed = 0
    with tempfile.TemporaryDirectory(prefix="longfolio-bench-") as scratch:
        for name in names:
            work = (args.work or Path(scratch)) / name
            bench = Bench(
                find_shared(args.shared), work, args.cache, args.seed, args.repeat, args.mutants, args.ocr_documents,
                args.kills,
            )  # fmt: skip
            work.mkdir(parents=True, exist_ok=True)
            print(f"\n## {name}: {PARTS[name]}", flush=True)
            where = report.circumstances(f"benchmarks/pdf2txt.py --only {name}{options}")
            began = time.monotonic()
            try:
                part: Part = importlib.import_module(f"benchmarks.pdf2txt_bench.{name}").run(bench)
            except Skip as why:
                print(f"skipped: {why}", flush=True)
                continue
            seconds = time.monotonic() - began
            print("\n".join(report.table(part.rows)), f"\n{seconds:.0f} s", flush=True)
            report.save(args.out, name, part, where, seconds)
            missed += sum(row.good is False for row in part.rows)
    print(f"\n{missed} targets missed" if missed else "\nall targets met")
    return 1 if missed else 0
