"""Pages a second of one process on the papers, beside the peer, turn and turn about."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from benchmarks.pdf2txt_bench.common import Bench, Part, Skip, convert_command, run_json, watch
from benchmarks.pdf2txt_bench.peers import PYMUPDF4LLM, python_of
from benchmarks.pdf2txt_bench.quality import EXTRACT

_LIMIT = 900.0
_TIMES = 10.0  # the peer's pages a second


def run(bench: Bench) -> Part:
    files = bench.pdfs("jose")
    tools = {"longfolio": sys.executable, "pdfium": sys.executable}
    part = Part()
    try:
        tools["pymupdf4llm"] = str(python_of(bench, PYMUPDF4LLM))
    except Skip as why:
        part.skip("pymupdf4llm + pymupdf-layout", why)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in tools}
    for _ in range(bench.repeat):
        for name, python in tools.items():
            out = bench.folder(name)
            runs[name].append(_rates(run_json([python, str(EXTRACT), name, str(out), *map(str, files)], _LIMIT)))
    middle = {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]} for name, found in runs.items()
    }
    ours = middle["longfolio"]
    part.add("longfolio, pages/s", ours["per_second"], note="conversion alone, one process, libraries loaded")
    if peer := middle.get("pymupdf4llm"):
        part.add("pymupdf4llm + pymupdf-layout, pages/s", peer["per_second"], note="the same")
        part.add("times the peer's pages/s", ours["per_second"] / peer["per_second"], least=_TIMES)
        part.add("the same by CPU seconds", ours["per_cpu_second"] / peer["per_cpu_second"],
                 note="what a machine shared with others does not change")  # fmt: skip
    part.add("raw text layer (pypdfium2), pages/s", middle["pdfium"]["per_second"])
    part.add("longfolio ready after, s", ours["ready_seconds"], note="interpreter, imports and one document")
    if peer:
        part.add("peer ready after, s", peer["ready_seconds"])
    folder = bench.folder("command")
    whole = []
    for _ in range(bench.repeat):
        done = watch(convert_command(files, bench.folder("cli"), "--workers", "1"), _LIMIT, folder)
        whole.append(ours["pages"] / done.seconds)
    part.add("longfolio pdf2txt --workers 1, pages/s", statistics.median(whole), note="start and writing counted")
    part.data = {"runs": runs, "command_pages_per_second": whole}
    return part


def _rates(result: dict[str, Any]) -> dict[str, float]:
    documents = result["documents"]
    pages = sum(d["pages"] for d in documents)
    return {
        "pages": pages,
        "per_second": pages / sum(d["seconds"] for d in documents),
        "per_cpu_second": pages / sum(d["cpu_seconds"] for d in documents),
        "ready_seconds": result["ready_seconds"],
    }
