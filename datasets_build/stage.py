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
from datasets_build.build import BUILD_VERSION, Job, pack, unpack
from datasets_build.gates import Gates
from datasets_build.measure import tokenizer_digest
from datasets_build.pool import Worker, documents_units
from datasets_build.recipes import RECIPES
from datasets_build.select import TRAIN, VALIDATION, Entry
from datasets_build.settings import DatasetSettings
from datasets_build.teacher.collect import Collector
from datasets_build.teacher.collect import identity as teacher_identity
from datasets_build.teacher.recipes import TEACHER_RECIPES
from longlora.templates import choose_template
from pdf2txt.errors import UserError
from pdf2txt.schema import CONVERTED, Document, read_documents
from pdf2txt.units import Units, digest

STAGE_VERSION = 3
UNIT_KIND = "rows"

Report = Callable[..., None]


def identity(settings: DatasetSettings) -> dict[str, Any]:
    """What decides the rows besides settings and inputs: the recipes' versions."""
    asked = {name: TEACHER_RECIPES[name].version for name in settings.chosen_teacher_recipes()}
    teacher = teacher_identity(settings.teacher, settings.teacher.name) if settings.teacher and asked else {}
    return {
        "build": BUILD_VERSION,
        "imports": imports.IMPORT_VERSION,
        "recipes": {name: RECIPES[name].version for name in settings.chosen_recipes()} | asked,
        **({"teacher": teacher} if teacher else {}),
    }


def run(settings: DatasetSettings, inputs: dict[str, Path], work: Path, report: Report) -> dict[str, Any]:
    """Build the dataset into ``work / "output"``.

    Args:
        inputs: ``pdf2txt`` (folder with ``documents.parquet``), ``model`` (Hugging Face directory; only its
            tokenizer is read), ``import-<i>`` for ``settings.imports[i]``, ``template`` (where a file), ``units``,
            ``teacher`` (Hugging Face directory of ``settings.teacher.local``).
        report: see docs/architecture.md.

    Returns:
        rows, rows_train, rows_validation, tokens, tasks, rejects, row_digest, units_made, units_reused,
        documents, documents_validation, and with a teacher what it was asked and what it cost.

    Raises:
        UserError: no rows, too few rows, an import that cannot be read, a teacher that refuses every call.
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
        self.worker = Worker(job, inputs["model"], self.units)
        self.entries: list[Entry] = []
        self.rejects: list[dict[str, Any]] = []
        self.made = self.reused = 0
        self.leader: dict[str, str] = {}  # doc_id -> the first document with the same text
        self.teacher: dict[str, dict[str, Any]] = {}  # what it was asked, for stats.json and for the metrics

    def run(self) -> dict[str, Any]:
        self._imports()  # first: a file that cannot be read is told before the long part
        imported, self.entries = self.entries, []
        self._documents()
        self._ask_teacher()
        self.entries += imported
        if self.settings.exclude_duplicates:
            self.entries, duplicates = select.drop_duplicates(self.entries)
            self.rejects += duplicates
        self._name_apart()
        splits = select.divide(self.entries, self.settings)
        chosen = select.sample(self.entries, splits, self.settings)
        reasons = Counter(r["reason"] for r in self.rejects)
        select.check_counts(chosen, splits, self.settings, reasons)
        return self._publish(chosen, splits, reasons)

    def _documents(self) -> None:
        source = self.inputs["pdf2txt"] / "documents.parquet"
        total = _count(source)
        texts: dict[str, str] = {}

        def converted() -> Any:
            for document in read_documents(source):
                if document.status in CONVERTED and document.text.strip():
                    yield document
                else:
                    self._reject(document)

        self.report("progress", done=0, total=total, unit="documents")
        results = documents_units(converted(), self.worker, self.settings.workers)
        for done, result in enumerate(results, 1):
            leader = texts.setdefault(result.text_digest, result.doc_id)
            self.leader[result.doc_id] = leader
            for _, key, reused in result.units:
                self._count_unit(key, reused)
                if leader == result.doc_id or not self.settings.exclude_duplicates:
                    self._take(key, "long", leader)
            if leader != result.doc_id and self.settings.exclude_duplicates:
                detail = f"same text as {leader}"
                self.rejects.append(
                    {"doc_id": result.doc_id, "task": "", "reason": "duplicate-document", "detail": detail}
                )
            self.report("progress", done=done, total=total, unit="documents", rows=len(self.entries))
        self.report("progress", done=total, total=total, unit="documents", rows=len(self.entries))

    def _ask_teacher(self) -> None:
        if not self.settings.chosen_teacher_recipes():
            return
        mine = [d for d, leader in self.leader.items() if d == leader or not self.settings.exclude_duplicates]
        collector = Collector(
            self.worker.job, self.inputs["pdf2txt"] / "documents.parquet", [mine], lambda: self.worker.measure,
            self.units.folder.parent, self.inputs.get("teacher"), self.report,
        )  # fmt: skip
        together: list[tuple[str, ...]] = []
        for unit in collector.run():
            self._count_unit(unit.key, unit.reused)
            self._take(unit.key, "long", self.leader[unit.doc_ids[0]])
            together += [unit.doc_ids] * unit.has_rows
        self._join(together)
        self.teacher = {"stats": collector.account.statistics(), "metrics": collector.account.metrics()}

    def _join(self, together: list[tuple[str, ...]]) -> None:
        """Documents that share a row are one group of the split."""
        root = {leader: leader for leader in self.leader.values()}

        def find(group: str) -> str:
            while root[group] != group:
                group = root[group]
            return group

        for first, *others in together:
            for other in others:
                a, b = sorted((find(self.leader[first]), find(self.leader[other])))
                root[b] = a
        self.leader = {doc_id: find(leader) for doc_id, leader in self.leader.items()}
        self.entries = [dataclasses.replace(e, group=find(e.group)) for e in self.entries]

    def _imports(self) -> None:
        for i, one in enumerate(self.settings.imports):
            path = self.inputs.get(f"import-{i}", one.path)
            if not path.is_file():
                raise UserError(f"import {path}: no such file", f"mend dataset.imports[{i}].path")
            sha256 = imports.file_sha256(path)
            common = imports.common_lines(path, one, str(i))
            tokenizer = self.worker.job.tokenizer_digest
            for batch in imports.chunks(path, one, str(i)):
                key = imports.chunk_key(batch, sha256, common, one, self.settings, tokenizer)
                reused = self.units.path(key).exists()
                if not reused:
                    limit = self.settings.max_tokens
                    unit = imports.chunk_unit(batch, sha256, common, one, limit, self.worker.measure)
                    self.units.put(key, pack(unit))
                self._count_unit(key, reused)
                self._take(key, one.kind, None)

    def _reject(self, document: Document) -> None:
        reason = "not-converted" if document.status not in CONVERTED else "no-text"
        self.rejects.append({"doc_id": document.doc_id, "task": "", "reason": reason, "detail": document.status})

    def _count_unit(self, key: str, reused: bool) -> None:
        self.made += not reused
        self.reused += reused
        self.report("unit", kind=UNIT_KIND, key=key, reused=reused)

    def _load(self, key: str) -> list[dict[str, Any]]:
        data = self.units.get(key)
        if data is None:
            raise FileNotFoundError(f"unit {self.units.path(key)} vanished during the build")
        return unpack(data)["rows"]

    def _take(self, key: str, kind: str, group: str | None) -> None:
        data = self.units.get(key)
        assert data is not None
        unit = unpack(data)
        self.rejects += unit["rejects"]
        for position, row in enumerate(unit["rows"]):
            self.entries.append(select.entry(key, position, row, kind, group or row["split_group"]))

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
        gates = Gates(self.settings.max_tokens, set(self.leader))
        row_digest = publish.write_rows(aside, chosen, splits, self._load, gates)
        publish.write_rejects(aside / "rejects.parquet", self.rejects)
        documents = {doc_id: splits.get(leader, TRAIN) for doc_id, leader in self.leader.items()}
        publish.write_json(aside / "splits.json", documents)
        stats = publish.statistics(chosen, splits, reasons, len(self.entries) - len(chosen), row_digest)
        if self.teacher:
            stats["teacher"] = self.teacher["stats"]
        # Training and evaluation take the template from here, so that lengths stay true.
        publish.write_json(aside / "stats.json", {**self.template.record(), **stats})
        card.plot_lengths(aside / card.PLOT, chosen, self.settings.max_tokens)
        card.write_card(aside, self.settings, stats, self._sources(chosen))
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
            "units_made": self.made,
            "units_reused": self.reused,
            **self.teacher.get("metrics", {}),
        }

    def _sources(self, chosen: list[Entry]) -> dict[str, tuple[str, int]]:
        licenses = {}
        for i, one in enumerate(self.settings.imports):
            sha256 = imports.file_sha256(self.inputs.get(f"import-{i}", one.path))
            licenses[f"import:{sha256[:16]}"] = one.license
        rows = Counter(e.source for e in chosen)
        return {source: (licenses.get(source, self.settings.license), n) for source, n in rows.items()}


def _count(source: Path) -> int:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        return int(file.metadata.num_rows)
