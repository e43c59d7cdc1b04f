"""Two worker processes beside one: many files, and one long file."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from benchmarks.pdf2txt_bench import big
from benchmarks.pdf2txt_bench.common import Bench, Part, Skip, convert_command, watch

_PAGES = 2000
_LEAST = 1.8  # times as fast
_LIMIT = 900.0


def run(bench: Bench) -> Part:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        raise Skip("one core")
    part = Part()
    jobs = {"many files": big.copies(bench, _PAGES), "one file": [big.repeated(bench, _PAGES)]}
    try:
        jobs["one file, by Typst"] = [big.typeset(bench, _PAGES)]
    except Skip as why:
        part.skip("one file, by Typst", why)
    for name, files in jobs.items():
        pages = sum(map(big.page_count, files))
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(bench.repeat):
            for workers, times in seconds.items():
                times.append(_convert(bench, files, workers))
        one, two = (statistics.median(seconds[n]) for n in (1, 2))
        note = f"{len(files)} files, {pages} pages: {one:.1f} s and {two:.1f} s, {pages / two:.0f} pages/s with two"
        part.add(f"{name}: times as fast with two workers", one / two, least=_LEAST, note=note)
        part.data[name] = {"files": len(files), "pages": pages, "seconds": {str(n): t for n, t in seconds.items()}}
    return part


def _convert(bench: Bench, files: list[Path], workers: int) -> float:
    command = convert_command(files, bench.folder("out"), "--workers", str(workers))
    done = watch(command, _LIMIT, bench.folder("log"))
    if done.returncode:
        raise Skip(f"exit code {done.returncode} with {workers} workers: {done.err.strip()[-300:]}")
    return done.seconds
