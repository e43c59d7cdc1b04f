"""The papers as scans: recall and pages/s of each form, and single pages beside RapidOCR and EasyOCR as they come."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.pdf2txt_bench.common import ROOT, Bench, Part, Skip, content_key, convert_command, run_json, watch
from benchmarks.pdf2txt_bench.quality import load_score

# Recall in percent that each form of scan shall keep.
_LEAST = {"150": 97.0, "200": 99.0, "300": 99.0, "blur": 97.0, "skew": 97.0, "rotate90": 97.0}
_PAGES_A_SECOND = 0.9
_WORKERS = 2
_LIMIT = 3000.0
_PEER_FORMS = ("200", "blur", "skew", "rotate90")
_PEER_PAGES = {"rapidocr": 3, "easyocr": 1}  # of each form; EasyOCR takes over a minute a page
_ENGINE = Path(__file__).with_name("ocr_engine.py")


def run(bench: Bench) -> Part:
    if not (ROOT / "benchmarks" / "scans.py").exists():
        raise Skip("benchmarks/scans.py is not there")
    sources = bench.pdfs("jose")[: bench.ocr_documents or None]
    judge = load_score(bench)
    part = Part()
    speeds: dict[str, float] = {}
    texts: dict[str, dict[str, dict[int, str]]] = {}
    for form, least in _LEAST.items():
        scans = _scans(bench, sources, form)
        done = watch(
            convert_command(scans, bench.folder(form), "--workers", str(_WORKERS)), _LIMIT, bench.folder("log")
        )  # fmt: skip
        if done.returncode:
            print(done.err[-1000:], flush=True)
            part.add(f"{form}: recall, %", None, least=least, note=f"exit code {done.returncode}")
            continue
        documents = {Path(d["source"]).stem: d for d in json.loads(done.out)["documents"]}
        texts[form] = {stem: _pages(entry) for stem, entry in documents.items()}
        scores = {s.stem: judge.score_jats(s.with_suffix(".jats"), _text(documents[s.stem])) for s in sources}
        pages = sum(d["pages"] for d in documents.values())
        speeds[form] = pages / done.seconds
        mean = {key: statistics.mean(score[key] for score in scores.values()) for key in next(iter(scores.values()))}
        worst = min(scores, key=lambda stem: scores[stem]["recall"])
        note = "  ".join(f"{k} {mean[k]:.2f}" for k in ("exact", "order", "noise", "coverage"))
        part.add(f"{form}: recall, %", mean["recall"], least=least,
                 note=f"{note}; worst {worst} {scores[worst]['recall']:.2f}")  # fmt: skip
        read = sum(d["pages_ocr"] for d in documents.values())
        part.data[form] = {"mean": mean, "documents": scores, "pages": pages, "pages_ocr": read,
                           "seconds": round(done.seconds, 1), "peak_memory": done.peak_sum}  # fmt: skip
        print(f"{form}: recall {mean['recall']:.2f}, {speeds[form]:.2f} pages/s", flush=True)
    for form, speed in speeds.items():
        note = f"{part.data[form]['pages']} pages, {_WORKERS} workers, start counted"
        part.add(f"{form}: pages/s", speed, least=_PAGES_A_SECOND, note=note)
    _beside(bench, sources, texts, part)
    return part


def _scans(bench: Bench, sources: list[Path], form: str) -> list[Path]:
    from benchmarks.scans import make_scans

    key = content_key(*sources, ROOT / "benchmarks" / "scans.py", form)
    folder = bench.cache / "scans" / key
    if not (folder / "complete").exists():
        make_scans(sources, folder, form)
        (folder / "complete").touch()
    return sorted(folder.glob("*.pdf"))


def _text(entry: dict[str, Any]) -> str:
    return Path(entry["text"]).read_text(encoding="utf-8") if entry["text"] else ""


def _pages(entry: dict[str, Any]) -> dict[int, str]:
    if not entry["text"]:
        return {}
    document = json.loads(Path(entry["text"]).with_suffix(".json").read_text())
    return {p["number"]: document["text"][p["start"] : p["end"]] for p in document["pages"]}


# ------------------------------------------------------------------- page by page beside other engines


def _beside(bench: Bench, sources: list[Path], texts: dict[str, dict[str, dict[int, str]]], part: Part) -> None:
    """The first pages of some papers, as each engine reads the bare image; the truth are the words of their text
    layer, without running heads and the like: those that the publisher's record does not have.
    """
    engines: dict[str, str | Skip] = {}
    for name, find in (("rapidocr", lambda: sys.executable), ("easyocr", lambda: easyocr_python(bench))):
        try:
            engines[name] = find()
        except Skip as why:
            engines[name] = why
    for form in _PEER_FORMS:
        if form not in texts:
            continue
        scans = _scans(bench, sources, form)[: max(_PEER_PAGES.values())]
        images = _images(scans, bench.folder(f"{form}-images"))
        truths = [_truth(bench.pdfbench / "jose" / scan.name) for scan in scans]
        ours = [_words(texts[form][scan.stem].get(1, "")) for scan in scans]
        share, note = _found(truths, ours)
        part.add(f"{form}, first pages: longfolio, % of the words", share, note=f"{note}, {len(scans)} pages")
        for name, python in engines.items():
            label = f"{form}, first pages: {name}, % of the words"
            if isinstance(python, Skip):
                part.skip(label, python)
                continue
            count = min(_PEER_PAGES[name], len(images))
            try:
                done = run_json([python, str(_ENGINE), name, *map(str, images[:count])], _LIMIT)
            except Skip as why:
                part.skip(label, why)
                continue
            read = [_words(page["text"]) for page in done["pages"]]
            share, note = _found(truths[:count], read)
            seconds = statistics.mean(page["seconds"] for page in done["pages"])
            part.add(label, share, note=f"{note}, {seconds:.1f} s/page, {count} pages")


def easyocr_python(bench: Bench) -> str:
    """The interpreter of the environment that ``make test-easyocr`` makes.

    Raises:
        Skip: there is none.
    """
    named = os.environ.get("LONGFOLIO_EASYOCR_PYTHON", "")
    if named and Path(named).exists():
        return named
    for python in sorted(bench.cache.glob("easyocr-*/bin/python")):
        return str(python)
    if importlib.util.find_spec("easyocr") is not None:
        return sys.executable
    raise Skip("no environment with EasyOCR: make test-easyocr makes one")


def _images(scans: list[Path], folder: Path) -> list[Path]:
    import pypdfium2

    out = []
    for scan in scans:
        with pypdfium2.PdfDocument(scan) as pdf:
            image = pdf[0].render(scale=200 / 72).to_pil()
        out.append(folder / f"{scan.stem}.png")
        image.save(out[-1])
    return out


def _truth(pdf: Path) -> Counter[str]:
    import pypdfium2

    with pypdfium2.PdfDocument(pdf) as opened:
        layer = _words(opened[0].get_textpage().get_text_range())
    record = _words(" ".join(ElementTree.parse(pdf.with_suffix(".jats")).getroot().itertext()))
    return layer & record


def _words(text: str) -> Counter[str]:
    """Words of five letters and more: shorter ones are found anywhere, and hyphens at line ends make others."""
    return Counter(word for word in re.findall(r"[a-z]+", text.lower()) if len(word) >= 5)


def _found(truths: list[Counter[str]], read: list[Counter[str]]) -> tuple[float, str]:
    """(percent of the words that were read, note with the percent of what was read that is true)."""
    hit = sum((t & r).total() for t, r in zip(truths, read, strict=True))
    share = 100 * hit / max(1, sum(t.total() for t in truths))
    right = 100 * hit / max(1, sum(r.total() for r in read))
    return share, f"{right:.2f} % of what is read is true"
