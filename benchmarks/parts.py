"""Benchmarks in parts: which are run, where they may write, what is printed, and the results files.

The results have one section a part, each with when and where it was measured.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.lines import processor
from benchmarks.pdf2txt_bench.common import ROOT, Part, Row, Skip


@dataclass(frozen=True)
class Benchmark:
    """A benchmark in parts: ``python benchmarks/<name>.py``, ``results/<name>.json`` and ``.md``."""

    name: str
    title: str  # of the table file
    parts: dict[str, str]  # name -> what it measures; the module of that name in ``<name>_bench`` has ``run(bench)``
    packages: tuple[str, ...]  # whose versions are noted

    def parser(self, description: str | None) -> argparse.ArgumentParser:
        """With the options that every benchmark has."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--only", default=",".join(self.parts), help="parts, apart by commas (default: all)")
        parser.add_argument("--list", action="store_true", help="print the parts and end")
        parser.add_argument("--shared", type=Path, help="the folder that holds pdfbench/ and books/")
        parser.add_argument("--work", type=Path, help="keep the scratch files here instead of a temporary folder")
        parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
        return parser

    def main(
        self, parser: argparse.ArgumentParser, kept: Sequence[str], make: Callable[[argparse.Namespace, Path], Any]
    ) -> int:
        """Run the parts that are asked for; 1 if a target was missed.

        Args:
            parser: see `parser`, with more options where there are some.
            kept: names of the options that change the figures, for the command that is noted; the folders are this
                machine's own.
            make: of the options and a part's scratch folder, what the part's ``run`` takes.
        """
        args = parser.parse_args()
        if args.list:
            for name, what in self.parts.items():
                print(f"{name:<12}{what}")
            return 0
        names = [name.strip() for name in args.only.split(",") if name.strip()]
        if unknown := [name for name in names if name not in self.parts]:
            parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(self.parts)}")
        changed = [name for name in kept if getattr(args, name) != parser.get_default(name)]
        options = "".join(f" --{name.replace('_', '-')} {getattr(args, name)}" for name in changed)
        missed = 0
        with tempfile.TemporaryDirectory(prefix="longfolio-bench-") as scratch:
            for name in names:
                work = (args.work or Path(scratch)) / name
                work.mkdir(parents=True, exist_ok=True)
                print(f"\n## {name}: {self.parts[name]}", flush=True)
                where = self._circumstances(f"benchmarks/{self.name}.py --only {name}{options}")
                began = time.monotonic()
                try:
                    module = importlib.import_module(f"benchmarks.{self.name}_bench.{name}")
                    part: Part = module.run(make(args, work))
                except Skip as why:
                    print(f"skipped: {why}", flush=True)
                    continue
                seconds = time.monotonic() - began
                print("\n".join(table(part.rows)), f"\n{seconds:.0f} s", flush=True)
                self._save(args.out, name, part, where, seconds)
                missed += sum(row.good is False for row in part.rows)
        print(f"\n{missed} targets missed" if missed else "\nall targets met")
        return 1 if missed else 0

    def _circumstances(self, command: str) -> dict[str, Any]:
        """Date, versions, cores, load: what a figure depends on besides the code."""
        versions = {"python": platform.python_version()}
        for name in self.packages:
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
            "processor": processor(),
            "load_average": [round(x, 2) for x in os.getloadavg()],
            "versions": versions,
        }

    def _save(self, folder: Path, name: str, part: Part, where: dict[str, Any], seconds: float) -> None:
        """Put one part's section into both files; the other parts' sections stay as they are."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.name}.json"
        known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        rows = [asdict(r) for r in part.rows]
        known[name] = {**where, "seconds": round(seconds, 1), "rows": rows, "data": part.data}
        file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
        (folder / f"{self.name}.md").write_text(self.markdown(known))

    def markdown(self, known: dict[str, Any]) -> str:
        """The table file, of the sections in the JSON file."""
        out = [f"# {self.title}", "", f"Written by `benchmarks/{self.name}.py`; each part says when and where.", ""]
        for name in [n for n in self.parts if n in known]:
            section = known[name]
            versions = ", ".join(f"{k} {v}" for k, v in section["versions"].items())
            out += [
                f"## {name}: {self.parts[name]}", "",
                f"{section['date']}, commit {section['commit']}, {section['cores']} cores ({section['processor']}), "
                f"load average at start {section['load_average'][0]}, took {section['seconds']:.0f} s. {versions}.",
                "", f"`{section['command']}`", "",
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
