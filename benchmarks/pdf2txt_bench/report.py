"""The results files: one section a part, each with when and where it was measured."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.pdf2txt_bench.common import ROOT, Part, Row

_PACKAGES = ("pypdfium2", "rapidocr", "onnxruntime", "openvino", "rapid-layout", "numpy", "ftfy", "wordfreq")


def circumstances(command: str) -> dict[str, Any]:
    """Date, versions, cores, load: what a figure depends on besides the code."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    git = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        "commit": git.stdout.strip(),
        "cores": cores,
        "processor": _processor(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def save(folder: Path, name: str, part: Part, where: dict[str, Any], seconds: float) -> None:
    """Put one part's section into both files; the other parts' sections stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pdf2txt.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    known[name] = {**where, "seconds": round(seconds, 1), "rows": [asdict(r) for r in part.rows], "data": part.data}
    file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    (folder / "pdf2txt.md").write_text(markdown(known))


def markdown(known: dict[str, Any]) -> str:
    from benchmarks.pdf2txt_bench.main import PARTS

    out = ["# What pdf2txt shows", "", "Written by `benchmarks/pdf2txt.py`; each part says when and where.", ""]
    for name in [n for n in PARTS if n in known]:
        section = known[name]
        versions = ", ".join(f"{k} {v}" for k, v in section["versions"].items())
        out += [
            f"## {name}: {PARTS[name]}", "",
            f"{section['date']}, commit {section['commit']}, {section['cores']} cores ({section['processor']}), load "
            f"average at start {section['load_average'][0]}, took {section['seconds']:.0f} s. {versions}.", "",
            f"`{section['command']}`", "",
            *table([Row(**row) for row in section["rows"]]), "",
        ]  # fmt: skip
    return "\n".join(out)


def table(rows: list[Row]) -> list[str]:
    """A Markdown table, its columns padded: it is printed too."""
    head = ("", "measured", "target", "", "note")
    cells = [
        [r.name, _number(r.value), r.target, {None: "", True: "PASS", False: "MISS"}[r.good], r.note] for r in rows
    ]
    cells = [[text.replace("|", "\\|") for text in row] for row in cells]
    widths = [max(len(row[i]) for row in [head, *cells]) for i in range(4)] + [len("note")]
    lines = [head, tuple("-" * w for w in widths), *map(tuple, cells)]
    return ["| " + " | ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) + " |" for line in lines]


def _number(value: float | int | str | None) -> str:
    return "" if value is None else f"{value:,.2f}" if isinstance(value, float) else str(value)
