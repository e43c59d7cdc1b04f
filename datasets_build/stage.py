"""The stage ``datasets_build``: documents and imported files -> a dataset directory.

Everything slow is a unit (kind ``rows``: one per document and recipe, or per chunk of an imported file), so
that a run after a kill, with one more document or one more recipe computes only what is new. Assembly is
fast and always done again, aside, and renamed into place.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets_build import card, imports, publish, select
from datasets_build.build import BUILD_VERSION, Job, pack, unpack
from datasets_build.company import CHARS_PER_TOKEN, Rings
from datasets_build.corpus import Corpus, Known
from datasets_build.gates import Gates
from datasets_build.measure import tokenizer_digest
from datasets_build.mix import sample
from datasets_build.packs import Filed, Packs
from datasets_build.pool import Share, Task, Worker, make_units
from datasets_build.recipes import RECIPES
from datasets_build.rejects import Rejects
from datasets_build.select import TRAIN, VALIDATION, Entry
from datasets_build.settings import DatasetSettings
from longlora.templates import choose_template
from pdf2txt.errors import UserError
from pdf2txt.schema import CONVERTED
from pdf2txt.units import Units, digest

STAGE_VERSION = 3
UNIT_KIND = "rows"

Report = Callable[..., None]


def identity(settings: DatasetSettings) -> dict[str, Any]:
    """What decides the rows besides settings and inputs: the recipes' versions."""
    return {
        "build": BUILD_VERSION,
        "imports": imports.IMPORT_VERSION,
        "recipes": {name: RECIPES[name].version for name in settings.chosen_recipes()},
    }


def run(settings: DatasetSettings, inputs: dict[str, Path], work: Path, report: Report) -> dict[str, Any]:
    """Build the dataset into ``work / "output"``.

    Args:
        inputs: ``pdf2txt`` (folder with ``documents.parquet``), ``model`` (Hugging Face directory; only its
            tokenizer is read), ``import-<i>`` for ``settings.imports[i]``, ``template`` (where a file), ``units``.
        report: see docs/architecture.md.

    Returns:
        rows, rows_train, rows_validation, tokens, tasks, rejects, row_digest, units_made, units_reused,
        documents, documents_validation.

    Raises:
        UserError: no rows, too few rows, an import that cannot be read.
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
        self.job = Job(settings, tokenizer, template)
        self.packs = Packs(self.units)
        nearby = 2 * CHARS_PER_TOKEN * self.job.context_tokens
        self.corpus = Corpus(inputs["pdf2txt"] / "documents.parquet", cache_chars=nearby)
        self.worker = Worker(self.job, inputs["model"], self.packs, self.corpus)
        self.entries: list[Entry] = []
        self.rejects = Rejects(work / "rejects.jsonl")
        self.made = self.reused = 0
        self.leader: dict[str, str] = {}  # doc_id -> the first document with the same text
        self.splits: dict[str, str] = {}  # group -> split
        self.import_names: dict[str, list[str]] = {}  # Entry.source -> its names in dataset.mix.sources

    def run(self) -> dict[str, Any]:
        self._imports()  # first: a file that cannot be read is told before the long part
        imported, self.entries = self.entries, []
        self._documents()
        self.splits |= select.divide_imports(imported, self.settings)
        self.entries += imported
        if self.settings.exclude_duplicates:
            self.entries, duplicates = select.drop_duplicates(self.entries)
            self.rejects += duplicates
        self._name_apart()
        chosen = sample(self.entries, self.splits, self.settings, self.import_names)
        reasons = self.rejects.reasons
        select.check_counts(chosen, self.splits, self.settings, reasons)
        return self._publish(chosen, self.splits, reasons)

    def _documents(self) -> None:
        """Rows of the documents. Look at all of them first: what stands beside one depends on the others."""
        known = self._known()
        rings = Rings(known, self.splits, self.leader, self.settings.seed)
        total = len(known)
        self.report("progress", done=0, total=total, unit="documents", rows=0)
        results = make_units(self._lacking(known, rings), self.worker, self.settings.workers)
        for done, (task, made) in enumerate(results, 1):
            for recipe, filed in made.items():
                self._file(task.known, recipe, filed, reused=False)
            self.report("progress", done=done, total=total, unit="documents", rows=len(self.entries))
        self.entries.sort(key=lambda e: (e.source, e.task, e.position))
        self.report("progress", done=total, total=total, unit="documents", rows=len(self.entries))

    def _known(self) -> list[Known]:
        """The documents to make rows of. Divides all of them into splits."""
        total = len(self.corpus)
        texts: dict[str, str] = {}
        known: list[Known] = []
        expected: Counter[str] = Counter()
        for seen, k in enumerate(self.corpus.known(), 1):
            if seen % 1000 == 0:
                self.report("progress", done=seen, total=total, unit="documents looked at")
            if not k.usable:
                reason = "no-text" if k.status in CONVERTED else "not-converted"
                self.rejects.append({"doc_id": k.doc_id, "task": "", "reason": reason, "detail": k.status})
                continue
            leader = self.leader[k.doc_id] = texts.setdefault(k.text, k.doc_id)
            if leader != k.doc_id and self.settings.exclude_duplicates:
                detail = f"same text as {leader}"
                self.rejects.append({"doc_id": k.doc_id, "task": "", "reason": "duplicate-document", "detail": detail})
                continue
            expected[leader] += select.expected_rows(k.chars, self.settings)
            known.append(k)
        self.splits |= select.divide_documents(expected, self.settings)
        return known

    def _lacking(self, known: list[Known], rings: Rings) -> Iterator[Task]:
        """The documents that lack units, neighbours after each other; files the units that are there."""
        alone = tuple(r for r in self.job.recipes if not self.job.wants_company(r))
        beside = tuple(r for r in self.job.recipes if self.job.wants_company(r))
        for index in rings.order:
            k = known[index]
            shares = [Share(self.job.key(k.content), alone, ())] if alone else []
            if beside:
                company = tuple(rings.company(index, self.job.context_tokens))
                key = self.job.key(k.content, [c.content for c in company] or [""])
                shares.append(Share(key, beside, company))
            lacking = []
            for share in shares:
                there = self.packs.find(share.key)
                missing = []
                for recipe in share.recipes:
                    filed = there.get(self.job.parts[recipe])
                    if filed is None:
                        missing.append(recipe)
                    else:
                        self._file(k, recipe, filed, reused=True)
                if missing:
                    lacking.append(dataclasses.replace(share, recipes=tuple(missing)))
            if lacking:
                yield Task(k, tuple(lacking))

    def _file(self, known: Known, recipe: str, filed: Filed, reused: bool) -> None:
        self._count_unit(filed.name, reused)
        self.rejects += filed.rejects
        group = self.leader[known.doc_id]
        unit = filed.unit
        self.entries += [select.entry_of(unit, i, facts, "long", group) for i, facts in enumerate(filed.rows)]

    def _imports(self) -> None:
        for i, one in enumerate(self.settings.imports):
            path = self.inputs.get(f"import-{i}", one.path)
            if not path.is_file():
                raise UserError(f"import {path}: no such file", f"mend dataset.imports[{i}].path")
            sha256 = imports.file_sha256(path)
            common = imports.common_lines(path, one, str(i))
            tokenizer = self.job.tokenizer_digest
            self.import_names.setdefault(f"import:{sha256[:16]}", []).append(f"import-{i}")
            for batch in imports.chunks(path, one, str(i)):
                key = imports.chunk_key(batch, sha256, common, one, self.settings, tokenizer)
                reused = self.units.path(key).exists()
                if not reused:
                    limit = self.settings.max_tokens
                    unit = imports.chunk_unit(batch, sha256, common, one, limit, self.worker.measure)
                    self.units.put(key, pack(unit))
                self._count_unit(key, reused)
                self._take(key, one.kind, None)

    def _count_unit(self, key: str, reused: bool) -> None:
        self.made += not reused
        self.reused += reused
        self.report("unit", kind=UNIT_KIND, key=key, reused=reused)

    def _load(self, key: str) -> list[dict[str, Any]]:
        if "#" in key:
            return self.packs.rows(key)
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
        self.rejects.close()
        documents = {doc_id: splits.get(leader, TRAIN) for doc_id, leader in self.leader.items()}
        publish.write_json(aside / "splits.json", documents)
        stats = publish.statistics(chosen, splits, reasons, len(self.entries) - len(chosen), row_digest)
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
        }

    def _sources(self, chosen: list[Entry]) -> dict[str, tuple[str, int]]:
        licenses = {}
        for i, one in enumerate(self.settings.imports):
            sha256 = imports.file_sha256(self.inputs.get(f"import-{i}", one.path))
            licenses[f"import:{sha256[:16]}"] = one.license
        rows = Counter(e.source for e in chosen)
        return {source: (licenses.get(source, self.settings.license), n) for source, n in rows.items()}
