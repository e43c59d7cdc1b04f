"""Line-end hyphens: the figures of ``benchmarks/hyphens.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.pdf2txt_bench.common import ROOT, Bench, Part, Skip, environment

_LEAST = 99.0  # percent, in each direction
_JUDGED = ("en", "de", "examples")  # the other languages are told without a target
_DIRECTIONS = ("go", "stay")  # suspended ones are too few to judge by
_LIMIT = 1800.0
_NAMES = {"go": "hyphens that must go", "stay": "hyphens that must stay", "suspended": "suspended hyphens"}


def run(bench: Bench) -> Part:
    script = ROOT / "benchmarks" / "hyphens.py"
    if not script.exists():
        raise Skip("benchmarks/hyphens.py is not there")
    target = bench.work / "hyphens.json"
    # -P: the script's own folder holds a pdf2txt.py.
    command = [sys.executable, "-P", str(script), "--out", str(target)]
    shared = {"LONGFOLIO_SHARED": str(bench.shared)} if bench.shared else {}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, env=environment(**shared))
    if not target.exists():
        raise Skip(f"benchmarks/hyphens.py ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    text = target.read_text().replace(str(bench.shared), "shared").replace(str(Path.home()), "~")
    found: dict[str, Any] = json.loads(text)
    part = Part(data=found)
    for language, sizes in found["languages"].items():
        for size, table in sizes.items():
            _rows(part, language, f"{language}, {size}", table)
    _rows(part, "examples", "example documents", found["examples"])
    for one in found.get("skipped", []):
        part.skip(f"{one['language']}, {one['source']}", one["reason"])
    return part


def _rows(part: Part, group: str, name: str, table: dict[str, Any]) -> None:
    for direction, cell in table.items():
        low, high = cell["interval_95"]
        note = f"{cell['right']} of {cell['hyphens']}, 95 % between {low:g} and {high:g}"
        least = _LEAST if group in _JUDGED and direction in _DIRECTIONS else None
        part.add(f"{name}: {_NAMES.get(direction, direction)}, %", cell["percent"], least=least, note=note)
