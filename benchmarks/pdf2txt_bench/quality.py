"""Default settings on the benchmark PDFs, by the command line, beside the raw text layer and a peer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.pdf2txt_bench.common import Bench, Part, Skip, convert_command, environment, run_json
from benchmarks.pdf2txt_bench.peers import PYMUPDF4LLM, python_of

EXTRACT = Path(__file__).with_name("extract.py")
_FIGURES = ("recall", "exact", "order", "noise", "coverage", "facts", "handwritten")
_LIMIT = 900.0  # seconds for one tool over all documents


def run(bench: Bench) -> Part:
    files = bench.pdfs("jose", "olmocr")
    part = Part()
    out = bench.folder("longfolio")
    result = run_json(convert_command(files, out, "--page-breaks"), _LIMIT)
    ours = score(bench, out)
    raw_out = bench.folder("pdfium")
    run_json([sys.executable, str(EXTRACT), "pdfium", str(raw_out), *map(str, files)], _LIMIT)
    raw = score(bench, raw_out)

    mean = ours["mean"]
    part.add("recall, %", mean["recall"], least=99.8)
    part.add("exact, %", mean["exact"], least=97)
    part.add("order", mean["order"], least=99.9)
    part.add("noise, %", mean["noise"], most=3)
    part.add("coverage, %", mean["coverage"], least=round(raw["mean"]["coverage"] - 0.5, 2))
    part.add("facts", mean["facts"], least=16, note=f"of {mean['facts_of']}")
    hand = sum(not ok for ok in _handwritten(bench, ours).values())
    part.add("handwritten facts", mean["handwritten"], note=f"{hand} missed")
    part.data["longfolio"] = _summary(ours) | {"status": _statuses(result)}
    peers: dict[str, Any] = {"raw text layer (pypdfium2)": raw}
    try:
        python = python_of(bench, PYMUPDF4LLM)
        peer_out = bench.folder("pymupdf4llm")
        run_json([str(python), str(EXTRACT), "pymupdf4llm", str(peer_out), *map(str, files)], _LIMIT)
        peers["pymupdf4llm + pymupdf-layout"] = score(bench, peer_out)
    except Skip as why:
        part.skip("pymupdf4llm + pymupdf-layout", why)
    for name, scores in peers.items():
        figures = "  ".join(f"{k} {round(scores['mean'][k], 2)}" for k in _FIGURES)
        part.add(name, None, note=figures)
        part.data[name] = _summary(scores)
    return part


def score(bench: Bench, predictions: Path) -> dict[str, Any]:
    """What ``score.py`` says of a folder of ``<stem>.txt`` files."""
    target = predictions / "score.report"
    command = [sys.executable, str(bench.pdfbench / "score.py"), str(predictions), "--json", str(target)]
    subprocess.run(command, check=True, capture_output=True, env=environment())
    scores: dict[str, Any] = json.loads(target.read_text())
    return scores


def _summary(scores: dict[str, Any]) -> dict[str, Any]:
    failed = sorted(name for name, ok in scores["olmocr"].items() if not ok)
    return {"mean": scores["mean"], "documents": scores["jose"], "facts_missed": failed}


def _statuses(result: dict[str, Any]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for document in result["documents"]:
        out.setdefault(document["status"], []).append(Path(document["source"]).name)
    return out


def _handwritten(bench: Bench, scores: dict[str, Any]) -> dict[str, bool]:
    """The facts of handwritten pages by id: as ``score.py`` counts them, told from the files' names there."""
    lines = (bench.pdfbench / "olmocr" / "tests.jsonl").read_text(encoding="utf-8").splitlines()
    tests = {test["id"]: test["pdf"] for test in map(json.loads, lines)}
    names = load_score(bench).HANDWRITTEN
    return {key: ok for key, ok in scores["olmocr"].items() if tests.get(key) in names}


def load_score(bench: Bench) -> Any:
    """The module ``score.py``."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("pdfbench_score", bench.pdfbench / "score.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
