"""Nasty and mutated files in one conversion: a status each, nothing left running, every good page kept."""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.pdf2txt_bench.common import Bench, Part, Row, content_key, environment, watch
from benchmarks.pdf2txt_bench.mutations import make_mutants

_HERE = Path(__file__).parent
_PAGE_SECONDS = 20.0  # the limit of a page in this run
_LIMIT = 3000.0  # for the whole run
_FEW_WORDS = 10  # a page with fewer cannot be judged by its words
_KEPT = 0.95  # of a page's words: running heads are told by repetition, which lost pages change
_STATUSES = {"ok", "partial", "encrypted", "corrupt", "empty", "timeout", "unsupported"}


def run(bench: Bench) -> Part:
    sources = bench.pdfs("jose", "olmocr", "gnarly")
    folder, mutants = mutated(bench, sources)
    out = bench.folder("out")
    command = [
        sys.executable, "-m", "benchmarks.pdf2txt_bench.convert", json.dumps({"page_seconds": _PAGE_SECONDS}),
        str(out), *map(str, [*sources, folder]),
    ]  # fmt: skip
    done = watch(command, _LIMIT, bench.folder("log"))
    part = Part()
    part.add("exit code", done.returncode, least=0, most=0)
    print(done.err.strip()[-2000:], flush=True)
    try:
        documents = {Path(d["source"]).name: d for d in json.loads(done.out)["documents"]}
    except (ValueError, KeyError):
        part.add("files without a status", len(sources) + len(mutants), most=0, note="no result at all")
        return part
    names = [*(s.name for s in sources), *mutants]
    statuses = Counter(documents[n]["status"] for n in names if n in documents)
    silent = [n for n in names if n not in documents or documents[n]["status"] not in _STATUSES]
    part.add("files without a status", len(silent), most=0, note=_few(silent, f"of {len(names)}"))
    part.add("Python tracebacks", done.err.count("Traceback (most"), most=0)
    part.add("processes left", len(done.left), most=0, note=_few(done.left))
    slow = max((d for d in documents.values()), key=lambda d: d["seconds"])
    part.add("files over the limit", len(_over(documents.values())), most=0,
             note=f"slowest {slow['seconds']:.1f} s: {Path(slow['source']).name}, {slow['pages']} pages")  # fmt: skip
    died = [n for n, d in documents.items() if any("died" in w for w in d["warnings"])]
    part.add("files whose worker died", len(died), note=_few(died))
    good, lost = _good_pages(documents, sources, mutants, out)
    part.add("good pages lost", len(lost), most=0, note=_few(lost, f"of {good} in mutated files"))
    part.add("seconds in all", done.seconds, note=f"{len(names) / done.seconds:.1f} files/s")
    part.rows += _by_kind(documents, mutants, lost)
    part.data |= {
        "statuses": dict(statuses), "lost": lost, "died": died, "without_status": silent, "left": done.left,
        "seed": bench.seed, "peak_memory": done.peak_sum,
        "slowest": {Path(d["source"]).name: d["seconds"]
                    for d in sorted(documents.values(), key=lambda d: -d["seconds"])[:10]},
    }  # fmt: skip
    return part


def mutated(bench: Bench, sources: list[Path]) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The folder of mutated files, and of each {"source", "kind", "good": {its page: the source's page}}."""
    code = [_HERE / name for name in ("mutations.py", "fingerprints.py", "robustness.py")]
    key = content_key(bench.seed, bench.mutants, *sources, *code)
    folder = bench.cache / "mutants" / key
    known = folder / "mutants.json"
    if not known.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"making {bench.mutants} mutated files in {folder}", flush=True)
        # The papers three times as often: they have many good pages to lose, and no OCR makes them slow.
        papers = [s for s in sources if s.parent.name == "jose"]
        made = make_mutants([*sources, *papers, *papers], folder, bench.mutants, bench.seed)
        seen = fingerprints([*sources, *(folder / name for name in made)], bench.folder("fingerprints"))
        found = {
            name: {"source": source.name, "kind": kind, "good": _same(seen[folder / name], seen[source])}
            for name, (source, kind) in made.items()
        }
        known.write_text(json.dumps(found))
    mutants: dict[str, dict[str, Any]] = json.loads(known.read_text())
    return folder, mutants


def fingerprints(files: list[Path], folder: Path, patience: float = 60.0) -> dict[Path, list[str | None]]:
    """Of each page of ``files``; none for a file that pdfium dies of or hangs at."""
    found: dict[Path, list[str | None]] = {}
    waiting = list(files)
    while waiting:
        names = folder / "files"
        names.write_text("\n".join(map(str, waiting)))
        command = [sys.executable, str(_HERE / "fingerprints.py"), str(names)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
        )  # fmt: skip
        lines: queue.Queue[str] = queue.Queue()
        assert process.stdout is not None
        threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                line = ""
            if not line:
                break
            one = json.loads(line)
            found[Path(one["path"])] = one["pages"]
        process.kill()
        process.wait()
        waiting = [f for f in waiting if f not in found]
        if waiting:
            found[waiting.pop(0)] = []  # the one it died of
    return found


def _pump(stream: Iterable[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def _same(pages: list[str | None], source: list[str | None]) -> dict[str, int]:
    """Pages (from 1) of a damaged file that are as in the sound one."""
    places = {mark: number for number, mark in reversed(list(enumerate(source, 1))) if mark}
    out = {}
    for number, mark in enumerate(pages, 1):
        if mark in places:
            same_place = number <= len(source) and source[number - 1] == mark
            out[str(number)] = number if same_place else places[mark]
    return out


def _good_pages(documents: dict[str, dict[str, Any]], sources: list[Path], mutants: dict[str, dict[str, Any]],
                out: Path) -> tuple[int, list[str]]:  # fmt: skip
    """(how many good pages mutated files have, those whose text is not in the conversion)."""
    whole = {s.name: _pages(documents.get(s.name), out) for s in sources}
    good, lost = 0, []
    for name, mutant in mutants.items():
        pages = _pages(documents.get(name), out)
        for number, source_page in mutant["good"].items():
            wanted = whole[mutant["source"]].get(source_page, Counter())
            if wanted.total() < _FEW_WORDS:
                continue
            good += 1
            kept = (wanted & pages.get(int(number), Counter())).total() / wanted.total()
            if kept < _KEPT:
                status = documents[name]["status"] if name in documents else "none"
                lost.append(f"{name} page {number}: {100 * kept:.0f} % of the words ({status})")
    return good, lost


def _pages(entry: dict[str, Any] | None, out: Path) -> dict[int, Counter[str]]:
    """Words of each page of a converted document."""
    if entry is None or not entry["text"]:
        return {}
    document = json.loads(Path(entry["text"]).with_suffix(".json").read_text())
    return {
        p["number"]: Counter(re.findall(r"\w+", document["text"][p["start"] : p["end"]].lower()))
        for p in document["pages"]
    }  # fmt: skip


def _over(documents: Iterable[dict[str, Any]]) -> list[str]:
    """Files that took longer than the limit for all their pages and for what is done for all at once."""
    return [d["source"] for d in documents if d["seconds"] > _PAGE_SECONDS * (2 * d["pages"] + 3)]


def _by_kind(documents: dict[str, dict[str, Any]], mutants: dict[str, dict[str, Any]], lost: list[str]) -> list[Row]:
    rows = []
    for kind in sorted({m["kind"] for m in mutants.values()}):
        names = [n for n, m in mutants.items() if m["kind"] == kind]
        counts = Counter(documents[n]["status"] if n in documents else "none" for n in names)
        pages = sum(len(mutants[n]["good"]) for n in names)
        gone = sum(any(line.startswith(f"{n} page") for n in names) for line in lost)
        note = ", ".join(f"{n} {status}" for status, n in counts.most_common())
        rows.append(Row(f"  {kind}", len(names), note=f"{note}; {pages} good pages, {gone} lost"))
    return rows


def _few(names: list[str], before: str = "") -> str:
    few = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return "; ".join(part for part in (before, few) if part)
