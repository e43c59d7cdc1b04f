"""The results files: one section a part, each with when and where it was measured."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.pdf2txt_bench import report
from benchmarks.pdf2txt_bench.common import Part, Row
from benchmarks.pdf2txt_bench.report import table

_PACKAGES = ("pyarrow", "tokenizers", "transformers", "datasets", "pypdfium2")


def circumstances(command: str) -> dict[str, Any]:
    """Date, versions, cores, load: what a figure depends on besides the code."""
    where = report.circumstances(command)
    versions = {"python": where["versions"]["python"]}
    return {**where, "versions": versions | {name: importlib.metadata.version(name) for name in _PACKAGES}}


def save(folder: Path, name: str, part: Part, where: dict[str, Any], seconds: float) -> None:
    """Put one part's section into both files; the other parts' sections stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "datasets.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    known[name] = {**where, "seconds": round(seconds, 1), "rows": [asdict(r) for r in part.rows], "data": part.data}
    file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    (folder / "datasets.md").write_text(markdown(known))


def markdown(known: dict[str, Any]) -> str:
    from benchmarks.datasets_bench.main import PARTS

    out = ["# What datasets_build shows", "", "Written by `benchmarks/datasets.py`; each part says when and where.", ""]
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
