"""Two worker processes beside one: many files, and one long file.

What two cores can do at most depends on the machine (caches, memory, clock, its other guests): two conversions of
one file at once, one worker each, share nothing but that.
"""

from __future__ import annotations

import os
import statistics
from concurrent.futures import ThreadPoolExecutor
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
        at_once: list[float] = []
        for _ in range(bench.repeat):
            for workers, times in seconds.items():
                times.append(_convert(bench, files, bench.folder("out"), workers))
            if name == "one file":
                at_once.append(_two_at_once(bench, files))
        one, two = (statistics.median(seconds[n]) for n in (1, 2))
        note = f"{len(files)} files, {pages} pages: {one:.1f} s and {two:.1f} s, {pages / two:.0f} pages/s with two"
        part.add(f"{name}: times as fast with two workers", one / two, least=_LEAST, note=note)
        part.data[name] = {"files": len(files), "pages": pages, "seconds": {str(n): t for n, t in seconds.items()}}
        if at_once:
            both = statistics.median(at_once)
            note = f"what the machine allows two workers at most: {one:.1f} s alone, {both:.1f} s for both"
            part.add("two conversions at once: times the pages of one", 2 * one / both, note=note)
            part.data[name]["seconds_at_once"] = at_once
    return part


def _two_at_once(bench: Bench, files: list[Path]) -> float:
    """Seconds until the slower of two conversions of ``files`` is done, begun together, one worker each."""
    with ThreadPoolExecutor(2) as pool:
        outs = [bench.folder("out"), bench.folder("out")]
        return max(pool.map(lambda out: _convert(bench, files, out, 1), outs))


def _convert(bench: Bench, files: list[Path], out: Path, workers: int) -> float:
    """Seconds of one conversion.

    Raises:
        Skip: it failed.
    """
    command = convert_command(files, out, "--workers", str(workers))
    done = watch(command, _LIMIT, out)
    if done.returncode:
        raise Skip(f"exit code {done.returncode} with {workers} workers: {done.err.strip()[-300:]}")
    return done.seconds
