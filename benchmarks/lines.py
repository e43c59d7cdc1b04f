"""Results as JSON lines with a Markdown table of them beside: one line for each variant and run."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def processor() -> str:
    """The CPU by name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """Of ``cpu`` or ``cuda``."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return processor()


def read(file: Path) -> list[Line]:
    """The lines so far."""
    return [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []


def keep(file: Path, line: Line, table: Callable[[list[Line]], str]) -> None:
    """Print a line, append it to ``file`` (.jsonl), and write the table of all lines (.md) anew."""
    print(json.dumps(line), flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")
    file.with_suffix(".md").write_text(table(read(file)))


def newest(lines: Iterable[Line], same: Sequence[str]) -> list[Line]:
    """The last line of each variant: of those that agree in the keys ``same``."""
    return list({tuple(line.get(key) for key in same): line for line in lines}.values())


def markdown(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a table."""
    heads = list(heads)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return [*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)
