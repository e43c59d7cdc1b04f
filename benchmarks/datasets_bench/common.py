"""What the parts share: the data, the model, and one build of a dataset watched from outside."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.pdf2txt_bench.common import ROOT, Part, Row, Skip, Watched, watch

_LIMIT = 7200.0  # seconds of one build
__all__ = ["ROOT", "Bench", "Built", "Part", "Row", "Skip"]


@dataclass(frozen=True)
class Built:
    """A dataset directory, the stage's metrics, and what the command took."""

    folder: Path
    metrics: dict[str, Any]
    watched: Watched

    def rows(self, *columns: str) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as pq

        for file in sorted((self.folder / "data").glob("*.parquet")):
            for batch in pq.ParquetFile(file).iter_batches(64, columns=list(columns) or None):
                yield from batch.to_pylist()


@dataclass
class Bench:
    """Where things are, and how much is asked for."""

    shared: Path | None
    work: Path
    model_dir: Path | None
    documents: int
    workers: int

    def files(self, folder: str, pattern: str) -> list[Path]:
        """The files of a folder of the shared data.

        Raises:
            Skip: there are none.
        """
        if self.shared is None:
            raise Skip("no data: set LONGFOLIO_SHARED or --shared to the folder that holds pdfbench/ and books/")
        found = sorted((self.shared / folder).glob(pattern))
        if not found:
            raise Skip(f"no {folder}/{pattern} in the shared data")
        return found

    @cached_property
    def model(self) -> Path:
        """A directory with the tokenizer of the embedded model."""
        from longlora.models import ModelSettings, prepare

        return self.model_dir or prepare(ModelSettings(name="smollm2-135m-q4"), self.work / "models")

    def convert(self, files: list[Path]) -> Path:
        """The folder with the ``documents.parquet`` of some files."""
        from pdf2txt.settings import Pdf2txtSettings
        from pdf2txt.stage import run

        folder = self.work / "converted"
        if not (folder / "output" / "documents.parquet").exists():
            folder.mkdir(exist_ok=True)
            sources = [{"path": str(f), "sha256": hashlib.sha256(f.read_bytes()).hexdigest()} for f in files]
            (folder / "sources.json").write_text(json.dumps(sources))
            run(Pdf2txtSettings(), {"sources": folder / "sources.json"}, folder, lambda *_, **__: None)
        return folder / "output"

    def build(self, documents: Path, name: str, units: str | None = None, **settings: Any) -> Built:
        """``python -m datasets_build`` in a process of its own.

        Args:
            units: name of an earlier build whose finished pieces are taken over.

        Raises:
            Skip: it failed; the end of what it said is the reason.
        """
        import yaml

        out = self.work / name
        if units and not out.with_name(f"{name}.work").exists():
            out.with_name(f"{name}.work").symlink_to(out.with_name(f"{units}.work"))
        file = self.work / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "datasets_build", "--documents", str(documents), "--model", str(self.model)]
        log = self.work / f"{name}.log"
        log.mkdir(exist_ok=True)
        watched = watch([*command, "--out", str(out), "--settings", str(file)], _LIMIT, log)
        if watched.returncode:
            raise Skip(f"build {name} failed with {watched.returncode}: {watched.err.strip()[-600:]}")
        return Built(out, json.loads(watched.out), watched)
