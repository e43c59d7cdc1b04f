"""The stage ``datasets_build``: documents and imported files -> a dataset directory.

Everything slow is a unit (kind ``rows``: one per document and recipe, or per chunk of an imported file), so
that a run after a kill, with one more document or one more recipe computes only what is new. Assembly is
fast and always done again, aside, and renamed into place.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets_build import card, imports, publish, select
from datasets_build.build import BUILD_VERSION, Job, Unit, pack, unpack
from datasets_build.gates import decontaminate, near, pii, scan
from datasets_build.gates.base import GATES
from datasets_build.gates.keeper import Keeper
from datasets_build.gates.leakage import Leakage
from datasets_build.gates.scan import Scan, Scanner
from datasets_build.measure import tokenizer_digest
from datasets_build.pool import Worker, documents_units
from datasets_build.recipes import RECIPES
from datasets_build.select import TRAIN, VALIDATION, Entry
from datasets_build.settings import DatasetSettings
from longlora.templates import choose_template
from pdf2txt.errors import UserError
from pdf2txt.schema import CONVERTED, Document, read_documents
from pdf2txt.units import Units, digest

STAGE_VERSION = 3
UNIT_KIND = "rows"

Report = Callable[..., None]


def identity(settings: DatasetSettings) -> dict[str, Any]:
    """What decides the rows besides settings and inputs: the recipes' versions."""
    return {
        "build": BUILD_VERSION,
        "imports": imports.IMPORT_VERSION,
        "gates": [scan.SCAN_VERSION, near.NEAR_VERSION, pii.PII_VERSION, decontaminate.NGRAMS_VERSION],
        "recipes": {name: RECIPES[name].version for name in settings.chosen_recipes()},
    }


def run(settings: DatasetSettings, inputs: dict[str, Path], work: Path, report: Report) -> dict[str, Any]:
    """Build the dataset into ``work / "output"``.

    Args:
        inputs: ``pdf2txt`` (folder with ``documents.parquet``), ``model`` (Hugging Face directory; only its
            tokenizer is read), ``import-<i>`` for ``settings.imports[i]``, ``decontaminate-<i>`` likewise,
            ``template`` (where a file), ``units``.
        report: see docs/architecture.md.

    Returns:
        rows, rows_train, rows_validation, tokens, tasks, rejects, row_digest, units_made, units_reused,
        documents, documents_validation.

    Raises:
        UserError: no rows, too few rows, an import or evaluation file that cannot be read.
        GateError: a gate at level error found something.
    """
    return _Build(settings, inputs, work, report).run()


class _Build:
    def __init__(self, settings: DatasetSettings, inputs: dict[str, Path], work: Path, report: Report) -> None:
        template = choose_template(inputs.get("template", settings.template))
        settings = settings.model_copy(update={"template": template.name})
        self.settings, self.inputs, self.work, self.report, self.template = settings, inputs, work, report, template
        self.units = Units(inputs.get("units", work / "units"), UNIT_KIND)
        tokenizer = tokenizer_digest(inputs["model"])
        if template.chat_template:
            tokenizer = digest(tokenizer, template.chat_template)
        job = Job(settings, tokenizer, template)
        self.keeper = Keeper(settings.gates, settings.exclude_duplicates)
        units = inputs.get("units", work / "units")
        self.scanner = Scanner(
            settings.gates, settings.max_tokens, self.units, Units(units, scan.KIND), self._index(units), tokenizer
        )
        self.worker = Worker(job, inputs["model"], self.units, self.scanner)
        self.entries: list[Entry] = []
        self.rejects: list[dict[str, Any]] = []
        self.licenses: dict[str, str] = {}  # of imports, by source
        self.languages: set[str] = set()  # of the documents
        self.made = self.reused = 0
        self.leader: dict[str, str] = {}  # doc_id -> the first document with the same text

    def run(self) -> dict[str, Any]:
        self._imports()  # first: a file that cannot be read is told before the long part
        imported, self.entries = self.entries, []
        self._documents()
        self.entries += imported
        self.entries, rejects = self.keeper.filter(self.entries, set(self.leader))
        self.rejects += rejects
        self._name_apart()
        splits = select.divide(self.entries, self.settings)
        chosen = select.sample(self.entries, splits, self.settings)
        reasons = Counter(r["reason"] for r in self.rejects)
        self._check_counts(chosen, splits, reasons)
        return self._publish(chosen, splits, reasons)

    def _index(self, units: Path) -> decontaminate.Index | None:
        """The index of the evaluation files, made unless it is there."""
        if not self.settings.decontaminate or self.settings.gates.level("decontamination") == "off":
            return None
        paths = [self.inputs.get(f"decontaminate-{i}", path) for i, path in enumerate(self.settings.decontaminate)]
        files = decontaminate.evaluation_files(paths)
        n = self.settings.gates.ngram
        key = decontaminate.index_key([(name, imports.file_sha256(path)) for name, path in files], n)
        kept = Units(units, decontaminate.KIND)
        reused = kept.path(key).exists()
        if not reused:
            kept.put(key, decontaminate.build_index(files, n))
        self.report("unit", kind=decontaminate.KIND, key=key, reused=reused)
        return decontaminate.Index(kept, key)

    def _check_counts(self, chosen: list[Entry], splits: dict[str, str], reasons: Counter[str]) -> None:
        try:
            select.check_counts(chosen, splits, self.settings, reasons)
        except UserError as error:
            self.keeper.note("counts", str(error))
            if self.keeper.level("counts") == "error" or not any(splits[e.group] == TRAIN for e in chosen):
                raise
            self.report("warning", message=str(error))

    def _documents(self) -> None:
        source = self.inputs["pdf2txt"] / "documents.parquet"
        total = _count(source)
        texts: dict[str, str] = {}

        def converted() -> Any:
            for document in read_documents(source):
                if document.status not in CONVERTED or not document.text.strip():
                    self._reject(document)
                elif self._speaks_wanted_language(document):
                    self.languages.add(document.language)
                    yield document

        self.report("progress", done=0, total=total, unit="documents")
        results = documents_units(converted(), self.worker, self.settings.workers)
        for done, result in enumerate(results, 1):
            leader = texts.setdefault(result.text_digest, result.doc_id)
            self.leader[result.doc_id] = leader
            for _, key, reused in result.units:
                self._count_unit(key, reused)
            keys = [key for _, key, _ in result.units]
            self._count_scan(result.text_digest, keys, result.scanned_before)
            if leader == result.doc_id or not self.settings.exclude_duplicates:
                self._take(self.scanner.read(result.text_digest, keys), "long", leader, result.doc_id)
            if leader != result.doc_id and self.settings.exclude_duplicates:
                detail = f"same text as {leader}"
                self.rejects.append(
                    {"doc_id": result.doc_id, "task": "", "reason": "duplicate-document", "detail": detail}
                )
            self.report("progress", done=done, total=total, unit="documents", rows=len(self.entries))
        self.report("progress", done=total, total=total, unit="documents", rows=len(self.entries))

    def _imports(self) -> None:
        for i, one in enumerate(self.settings.imports):
            path = self.inputs.get(f"import-{i}") or imports.source(one)
            if not path.exists():
                raise UserError(f"import {path}: no such file", f"mend dataset.imports[{i}].path")
            sha256, license_ = imports.source_sha256(path), imports.license_of(path, one)
            self.licenses[f"import:{sha256[:16]}"] = license_
            common = imports.common_lines(path, one, str(i))
            tokenizer = self.worker.job.tokenizer_digest
            for batch in imports.chunks(path, one, str(i)):
                key = imports.chunk_key(batch, sha256, common, license_, self.settings, tokenizer)
                reused = self.units.path(key).exists()
                if not reused:
                    limit = self.settings.max_tokens
                    unit = imports.chunk_unit(batch, sha256, common, license_, limit, self.worker.measure)
                    self.units.put(key, pack(unit))
                self._count_unit(key, reused)
                self._count_scan("", [key], self.scanner.ensure(None, "", [key], lambda: self.worker.measure.row))
                self._take(self.scanner.read("", [key]), one.kind)

    def _reject(self, document: Document) -> None:
        reason = "not-converted" if document.status not in CONVERTED else "no-text"
        self.rejects.append({"doc_id": document.doc_id, "task": "", "reason": reason, "detail": document.status})

    def _count_unit(self, key: str, reused: bool) -> None:
        self.made += not reused
        self.reused += reused
        self.report("unit", kind=UNIT_KIND, key=key, reused=reused)

    def _speaks_wanted_language(self, document: Document) -> bool:
        if self.keeper.wanted_language(document.language):
            return True
        if not self.keeper.note("language", f"document {document.doc_id}: {document.language}"):
            return True
        self.rejects.append({"doc_id": document.doc_id, "task": "", "reason": "language", "detail": document.language})
        return False

    def _count_scan(self, text_digest: str, keys: list[str], reused: bool) -> None:
        self.report("unit", kind=scan.KIND, key=self.scanner.key(text_digest, keys), reused=reused)

    def _load(self, key: str) -> list[dict[str, Any]]:
        return self._unit(key)["rows"]

    def _unit(self, key: str) -> Unit:
        data = self.units.get(key)
        if data is None:
            raise FileNotFoundError(f"unit {self.units.path(key)} vanished during the build")
        return unpack(data)

    def _take(self, scanned: Scan, kind: str, group: str = "", doc_id: str = "") -> None:
        self.keeper.take(scanned, doc_id)
        for key, (shown, _) in scanned.units.items():
            if shown != key:  # with personal data masked
                self.report("unit", kind=UNIT_KIND, key=shown, reused=True)
            unit = self._unit(shown)
            self.rejects += unit["rejects"]
            for position, row in enumerate(unit["rows"]):
                self.entries.append(select.entry(shown, position, row, kind, group or row["split_group"]))

    def _name_apart(self) -> None:
        """Equal rows that are kept (exclude_duplicates off) get ids of their own."""
        seen: Counter[str] = Counter()
        for i, e in enumerate(self.entries):
            seen[e.id] += 1
            if seen[e.id] > 1:
                self.entries[i] = dataclasses.replace(e, id=f"{e.id}-{seen[e.id]}")

    def _publish(self, chosen: list[Entry], splits: dict[str, str], reasons: Counter[str]) -> dict[str, Any]:
        aside, output = self.work / "assembling", self.work / "output"
        shutil.rmtree(aside, ignore_errors=True)
        leakage = Leakage(self.keeper.near_documents)
        row_digest, sizes = publish.write_rows(aside, chosen, splits, self._load, leakage)
        publish.write_rejects(aside / "rejects.parquet", self.rejects)
        documents = {
            doc_id: splits.get(self.keeper.clusters.leader(leader), TRAIN)
            for doc_id, leader in self.leader.items()
            if not self.keeper.in_no_split(leader)
        }
        publish.write_json(aside / "splits.json", documents)
        stats = publish.statistics(chosen, splits, reasons, len(self.entries) - len(chosen), row_digest)
        gates = self.settings.gates
        sought = {"decontamination": self.scanner.index, "language": gates.languages, "pii": gates.pii}
        looked = [name for name in GATES if sought.get(name, True) and self.keeper.level(name) != "off"]
        stats |= {"gates": self.keeper.report(self.report, looked), "settings": self.settings.record()}
        # Training and evaluation take the template from here, so that lengths stay true.
        publish.write_json(aside / "stats.json", {**self.template.record(), **stats})
        card.plot_lengths(aside / card.PLOT, chosen, splits, self.settings.max_tokens)
        card.write_card(aside, self.settings, stats, self._sources(chosen), sizes, sorted(self.languages - {""}))
        shutil.rmtree(output, ignore_errors=True)
        aside.rename(output)
        tasks = Counter(e.task for e in chosen)
        return {
            "rows": len(chosen),
            "rows_train": stats["rows_by_split"][TRAIN],
            "rows_validation": stats["rows_by_split"][VALIDATION],
            "tokens": stats["tokens"],
            "tasks": dict(sorted(tasks.items())),
            "rejects": dict(sorted(reasons.items())),
            "documents": len(self.leader),
            "documents_validation": sum(split == VALIDATION for split in documents.values()),
            "row_digest": row_digest,
            "gates": {g["gate"]: g["found"] for g in stats["gates"] if g["found"]},
            "units_made": self.made,
            "units_reused": self.reused,
        }

    def _sources(self, chosen: list[Entry]) -> dict[str, tuple[str, int]]:
        rows = Counter(e.source for e in chosen)
        return {source: (self.licenses.get(source, self.settings.license), n) for source, n in rows.items()}


def _count(source: Path) -> int:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        return int(file.metadata.num_rows)
