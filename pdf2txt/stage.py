"""The ``pdf2txt`` stage: files -> ``documents.parquet`` (see docs/architecture.md for the contract)."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdf2txt.engines import describe
from pdf2txt.pool import Job, Outcome, convert_all
from pdf2txt.schema import CONVERTED, encodable, facts, read_unit, write_tables
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.units import READING, Units, digest

if TYPE_CHECKING:
    import pyarrow as pa

STAGE_VERSION = 7
_PAGE_VERSION = 5  # of pages read by OCR, which most changes of the stage leave as they are

Report = Callable[..., None]
Sources = dict[str, Path]  # sha256 -> path
Shard = Callable[[Sources], tuple[int, int]]  # converts some sources; returns how many were (converted, reused)
Spread = Callable[[Sources, Shard], None]


def at_once(sources: Sources, shard: Shard) -> None:
    """All sources as one shard. Another `Spread` may call ``shard`` for a part at a time."""
    shard(sources)


def identity(settings: Pdf2txtSettings) -> dict[str, Any]:
    """Engines that ``settings`` lead to on this machine: names, versions, sha256 of weights.

    Raises:
        UserError: an engine asked for by name is not installed.
    """
    return describe(settings)


def digested(settings: Pdf2txtSettings) -> dict[str, Any]:
    """The settings that change the output. What a path leads to counts by content (``identity``), not the path."""
    paths = {name for name, value in settings if isinstance(value, Path)}
    out = settings.model_dump(mode="json", exclude=paths)
    for name, field in Pdf2txtSettings.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("digest") is False:
            out.pop(name, None)
    return out


def document_key(sha256: str, suffix: str, settings: Pdf2txtSettings, engines: dict[str, Any]) -> str:
    """Key of the unit of one converted file (its suffix decides how its bytes are read)."""
    return digest("document", sha256, suffix.lower(), digested(settings), engines, STAGE_VERSION)


def page_key(settings: Pdf2txtSettings, engines: dict[str, Any]) -> str:
    """What the lines of a page read by OCR depend on besides its file: not on layout, cleaning or language."""
    poppler = ["poppler"] * (engines["render"] == "poppler")
    took_part = ["pypdfium2", engines["ocr"], engines["ocr_backend"], "torch", *poppler]
    versions = {name: engines["versions"].get(name, "") for name in took_part}
    names = [engines[k] for k in ("render", "ocr", "ocr_backend")]
    return digest("page", settings.dpi, names, versions, engines["weights"]["ocr"], _PAGE_VERSION)


def run(
    settings: Pdf2txtSettings, inputs: dict[str, Path], work: Path, report: Report, spread: Spread = at_once
) -> dict[str, Any]:
    """Convert ``inputs["sources"]`` into ``work/output/documents.parquet``; returns the metrics.

    Rejected files (encrypted, corrupt, empty, unsupported) are rows with a status and no text. What may
    pass on another try (a worker lost, a page over its limit, an unreadable file) is reported as
    ``transient`` and is not kept as a unit; a document that lost pages that way is a row, one that has no
    result is not. ``spread`` decides into how many shards the sources are divided, and who runs them.
    """
    began = time.monotonic()
    sources: dict[str, Path] = {}
    for entry in sorted(json.loads(inputs["sources"].read_text()), key=lambda e: e["path"]):
        sources.setdefault(entry["sha256"], Path(entry["path"]))
    root = inputs.get("units", work / "units")
    converter = Converter(settings, root, work, report)
    progress = _Progress(report, len(sources))
    spread(sources, lambda shard: converter.convert(shard, progress))

    output = work / "output"
    output.mkdir(parents=True, exist_ok=True)
    aside = work / "documents.parquet.tmp"
    tally = _Tally()
    write_tables(aside, tally.count(converter.tables(sources)))
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    aside.replace(output / "documents.parquet")
    return {
        "documents": tally.documents,
        "converted": tally.documents - sum(tally.rejected.values()),
        "rejected": dict(sorted(tally.rejected.items())),
        "rejected_files": tally.rejected_files,
        "pages": tally.pages,
        "pages_ocr": tally.pages_ocr,
        "characters": tally.characters,
        "languages": dict(tally.languages.most_common()),
        "units_converted": converter.converted,
        "units_reused": converter.reused,
        "pages_read": converter.pages_read,
        "pages_reused": converter.pages_reused,
        "transient": converter.transient,
        "seconds": round(time.monotonic() - began, 3),
    }


class Converter:
    """Converts files to units and reads them back."""

    def __init__(self, settings: Pdf2txtSettings, root: Path, work: Path, report: Report) -> None:
        self.settings, self.root, self.work, self.report = settings, root, work, report
        self.engines = identity(settings)
        self.units = Units(root, "document")
        self.results: dict[str, Path] = {}  # sha256 -> where the document is
        self.reused = self.converted = 0
        self.pages_read = self.pages_reused = 0  # of documents that were not converted yet
        self.transient: list[str] = []
        self.problems: dict[str, str] = {}  # sha256 -> why there is no document

    def convert(self, sources: Sources, progress: _Progress | None = None) -> tuple[int, int]:
        """Make sure that every source has a result, or a transient failure reported; returns (converted, reused)."""
        progress = progress or _Progress(self.report, len(sources))
        converted, reused = self.converted, self.reused
        jobs = []
        for sha256, path in sources.items():
            key = document_key(sha256, path.suffix, self.settings, self.engines)
            unit = self.units.path(key)
            if unit.exists():
                self.reused += 1
                progress.documents += 1
                self.results[sha256] = unit
                self.report("unit", kind="document", key=key, reused=True)
            else:
                (self.work / "attempts" / key).unlink(missing_ok=True)
                jobs.append(Job(path, sha256, unit, self.work / "attempts" / key, self.root / READING / key))

        def on_page(job: Job) -> None:
            progress.pages[job.sha256] = job.pages_read + job.pages_reused
            progress.show()

        outcomes = convert_all(
            jobs,
            self.settings,
            units=self.root,
            page_key=page_key(self.settings, self.engines),
            log=self.work / "workers.log",
            on_page=on_page,
            on_unit=lambda key, reused: self.report("unit", kind="page", key=key, reused=reused),
        )
        with contextlib.closing(outcomes):  # whatever stops us stops the workers first
            for outcome in outcomes:
                progress.documents += 1
                progress.show(force=True)
                self._take(outcome)
        return self.converted - converted, self.reused - reused

    def _take(self, outcome: Outcome) -> None:
        job = outcome.job
        self.pages_read += job.pages_read
        self.pages_reused += job.pages_reused
        if outcome.problem:
            self.problems[job.sha256] = outcome.problem
            self._transient(f"{job.path.name}: {outcome.problem}")
            return
        done = job.outcome_path
        self.results[job.sha256] = done if done.exists() else job.result  # another run may have been quicker
        if job.skip:
            for page, why in sorted(job.skip.items()):
                self._transient(f"{job.path.name}: page {page}: {why}")
            if job.rest:
                self._transient(f"{job.path.name}: the rest was {job.rest}")
        else:
            self.converted += 1
            self.report("unit", kind="document", key=job.result.name, reused=False)

    def _transient(self, message: str) -> None:
        self.transient.append(message)
        self.report("transient", message=message)

    def tables(self, sources: Sources) -> Iterator[pa.Table]:
        """The rows of the converted documents ordered by ``doc_id``, one in memory at a time."""
        for table, _ in self.tables_and_seconds(sources):
            yield table

    def tables_and_seconds(self, sources: Sources) -> Iterator[tuple[pa.Table, float]]:
        for sha256 in sorted(self.results):
            table, seconds = read_unit(self.results[sha256])
            if table["source"][0].as_py() != (
                name := encodable(sources[sha256].name)
            ):  # in the run that the unit is of
                at = table.schema.get_field_index("source")
                table = table.set_column(at, table.schema.field(at), [[name]])
            yield table, seconds


class _Progress:
    """Of all shards together; reports at most five times a second."""

    def __init__(self, report: Report, total: int) -> None:
        self.report, self.total, self.documents = report, total, 0
        self.pages: dict[str, int] = {}  # sha256 -> pages begun
        self.last = 0.0

    def show(self, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self.last > 0.2:
            self.last = now
            pages = sum(self.pages.values())
            self.report("progress", done=self.documents, total=self.total, unit="documents", pages=pages)


class _Tally:
    """Counts documents as they pass."""

    def __init__(self) -> None:
        self.documents = self.pages = self.pages_ocr = self.characters = 0
        self.rejected: Counter[str] = Counter()
        self.rejected_files: list[dict[str, str]] = []
        self.languages: Counter[str] = Counter()

    def count(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            d = facts(table)
            self.documents += 1
            self.characters += d["characters"]
            if d["status"] in CONVERTED:
                self.pages += d["pages"]
                self.pages_ocr += d["pages_ocr"]
                self.languages[d["language"]] += 1
            else:
                self.rejected[d["status"]] += 1
                why = "; ".join(d["warnings"][:3])
                self.rejected_files.append({"source": d["source"], "status": d["status"], "why": why})
            yield table
