"""A conversion in a store, killed with SIGKILL at a random moment and started again."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

from benchmarks.pdf2txt_bench import big
from benchmarks.pdf2txt_bench.common import Bench, Part, Skip, Watched, watch

_WORKERS = 2
_LONG = 600  # pages of the file that most kills fall into
_LIMIT = 600.0


def run(bench: Bench) -> Part:
    files = [big.repeated(bench, _LONG), *bench.pdfs("jose"), *bench.pdfs("olmocr")]
    sources = bench.work / "sources.json"
    sources.write_text(json.dumps([{"sha256": _sha256(f), "path": str(f)} for f in files]))
    calm_folder = bench.folder("calm")
    calm = _convert(bench, sources, calm_folder)
    if calm.returncode:
        raise Skip(f"the undisturbed run failed: {calm.err.strip()[-300:]}")
    seconds, wanted = calm.seconds, _digest(calm_folder)
    draw = random.Random(f"kills {bench.seed}")
    rounds = []
    for _ in range(bench.kills):
        rounds.append(_round(bench, sources, draw.uniform(0.1, 0.95) * seconds, wanted))
        one = rounds[-1]
        print(f"killed after {one['killed_seconds']:.1f} s, {one['begun']} pages begun; then {one['again']} again",
              flush=True)  # fmt: skip
    part = Part(data={"undisturbed_seconds": seconds, "rounds": rounds, "undisturbed": _metrics(calm)})
    part.add("kills", len(rounds), note=f"at random times of {seconds:.0f} s, a fresh store each")
    part.add("outputs equal to the undisturbed run's", sum(r["equal"] for r in rounds),
             least=len(rounds), most=len(rounds))  # fmt: skip
    part.add("processes that outlived a kill", sum(len(r["left"]) for r in rounds), most=0)
    counted = [r["again"] for r in rounds if r["again"] is not None]
    if counted:
        part.add("pages done again after a kill, at most", max(counted), most=_WORKERS,
                 note=f"{_WORKERS} workers, a page in flight each; of {rounds[0]['pages']} pages")  # fmt: skip
    else:
        part.skip("pages done again after a kill", "the stage's metrics have no pages_read")
    documents = [r["documents_again"] or 0 for r in rounds]
    part.add("finished documents done again after a kill", sum(documents), most=0)
    return part


def _round(bench: Bench, sources: Path, after: float, wanted: str) -> dict[str, Any]:
    """One kill and the run that goes on."""
    folder = bench.folder("killed")
    killed = _convert(bench, sources, folder, kill_after=after)
    events = _events(folder)
    begun = max((e["pages"] for e in events if e["event"] == "progress"), default=0)
    finished = sum(e["event"] == "unit" and e["kind"] == "document" for e in events)
    resumed = _convert(bench, sources, folder)
    metrics = _metrics(resumed)
    again = None
    if "pages_read" in metrics:
        # Pages are begun one by one: what had begun, and was not there when the conversion went on, is done again.
        again = max(0, begun - (metrics["pages"] - metrics["pages_read"]))
    return {
        "killed_seconds": round(killed.seconds, 2), "begun": begun, "again": again,
        "pages": metrics.get("pages"), "documents_before": finished,
        "documents_again": finished - metrics.get("units_reused", 0) if metrics else None,
        "metrics": metrics, "equal": resumed.returncode == 0 and _digest(folder) == wanted,
        "left": [*killed.left, *resumed.left],
    }  # fmt: skip


def _convert(bench: Bench, sources: Path, folder: Path, kill_after: float | None = None) -> Watched:
    """The stage in a process group of its own, its store below ``folder``."""
    command = [
        sys.executable, "-m", "benchmarks.pdf2txt_bench.stage", json.dumps({"workers": _WORKERS}), str(sources),
        str(folder),
    ]  # fmt: skip
    return watch(command, _LIMIT, bench.folder("log"), kill_after)


def _events(folder: Path) -> list[dict[str, Any]]:
    file = folder / "events.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _metrics(done: Watched) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads(done.out) if done.returncode == 0 else {}
    return metrics


def _digest(folder: Path) -> str:
    """Of all rows; not of the Parquet file's bytes, which hold the version of its writer."""
    from pdf2txt.schema import read_documents

    output = folder / "work" / "output" / "documents.parquet"
    if not output.exists():
        return ""
    whole = hashlib.sha256()
    for document in read_documents(output):
        whole.update(json.dumps(document.to_dict(), sort_keys=True).encode())
    return whole.hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
