"""Peak memory of ``longfolio pdf2txt`` on 2,000 pages in one file beside 50."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pdf2txt_bench import big
from benchmarks.pdf2txt_bench.common import Bench, Part, Skip, Watched, convert_command, watch

_FEW, _MANY = 50, 2000
_MOST = 1.2  # times the memory of the few pages
_LIMIT = 900.0
_MB = 1024 * 1024
_PRODUCERS: dict[str, Callable[[Bench, int], Path]] = {
    "papers, by pdfium": big.repeated,
    "books, by Typst": big.typeset,
}


def run(bench: Bench) -> Part:
    part = Part()
    for name, make in _PRODUCERS.items():
        try:
            files = {pages: make(bench, pages) for pages in (_FEW, _MANY)}
        except Skip as why:
            part.skip(name, why)
            continue
        found = {pages: _convert(bench, file) for pages, file in files.items()}
        few, many = found[_FEW], found[_MANY]
        counts = f"{big.page_count(files[_FEW])} and {big.page_count(files[_MANY])} pages"
        for what, key in (("all processes", "peak_sum"), ("the biggest process", "peak_one")):
            a, b = getattr(few, key) / _MB, getattr(many, key) / _MB
            note = f"{b:.0f} MB beside {a:.0f}; {counts}, {many.seconds:.0f} s"
            if few.returncode or many.returncode:
                note = f"exit codes {few.returncode}, {many.returncode}"
                print(few.err[-1000:], many.err[-1000:], flush=True)
            ok = not (few.returncode or many.returncode)
            part.add(f"{name}: {what}, times", b / a if ok else None, most=_MOST, note=note)
        part.data[name] = {str(pages): _figures(w) for pages, w in found.items()}
    return part


def _convert(bench: Bench, file: Path) -> Watched:
    return watch(convert_command([file], bench.folder("out"), "--workers", "1"), _LIMIT, bench.folder("log"))


def _figures(watched: Watched) -> dict[str, Any]:
    return {
        "peak_sum": watched.peak_sum, "peak_one": watched.peak_one,
        "seconds": round(watched.seconds, 2), "returncode": watched.returncode,
    }  # fmt: skip
