"""The stage ``datasets_build``: documents and imported files -> a dataset directory.

Everything slow is a unit (kind ``rows``: one per document and recipe, or per chunk of an imported file; kind ``gates``:
what was seen of a text, or of rows), so that a run after a kill, with one more document or one more recipe computes
only what is new. Assembly is fast and always done again, aside, and renamed into place.
"""

from __future__ import annotations

import dataclasses
import gc
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from datasets_build import card, imports, publish, select
from datasets_build.build import BUILD_VERSION, Job
from datasets_build.company import CHARS_PER_TOKEN, Rings
from datasets_build.corpus import Corpus, Known
from datasets_build.gates import decontaminate, near, pii, scan, sketch
from datasets_build.gates.base import GATES
from datasets_build.gates.keeper import Keeper
from datasets_build.gates.leakage import Leakage
from datasets_build.gates.scan import Scanner
from datasets_build.measure import tokenizer_digest
from datasets_build.mix import sample
from datasets_build.packs import Filed, Packs
from datasets_build.pool import Share, Task, Worker, make_units
from datasets_build.recipes import RECIPES
from datasets_build.rejects import Rejects
from datasets_build.rows import IMPORT_TASK
from datasets_build.select import TRAIN, VALIDATION, Entry
from datasets_build.settings import DatasetSettings
from datasets_build.teacher.collect import Collector
from datasets_build.teacher.collect import identity as teacher_identity
from datasets_build.teacher.recipes import TEACHER_RECIPES
from longlora.templates import choose_template
from pdf2txt.errors import UserError
from pdf2txt.schema import CONVERTED
from pdf2txt.units import Units, digest

STAGE_VERSION = 5
UNIT_KIND = "rows"

Report = Callable[..., None]


def identity(settings: DatasetSettings) -> dict[str, Any]:
    """What decides the rows besides settings and inputs: the recipes' versions."""
    asked = {name: TEACHER_RECIPES[name].version for name in settings.chosen_teacher_recipes()}
    teacher = teacher_identity(settings.teacher, settings.teacher.name) if settings.teacher and asked else {}
    return {
        "build": BUILD_VERSION,
        "imports": imports.IMPORT_VERSION,
        "gates": [
            scan.SCAN_VERSION,
            near.NEAR_VERSION,
            pii.PII_VERSION,
            decontaminate.NGRAMS_VERSION,
            sketch.SKETCH_VERSION,
        ],
        "recipes": {name: RECIPES[name].version for name in settings.chosen_recipes()} | asked,
        **({"teacher": teacher} if teacher else {}),
    }


def run(settings: DatasetSettings, inputs: dict[str, Path], work: Path, report: Report) -> dict[str, Any]:
    """Build the dataset into ``work / "output"``.

    Args:
        inputs: ``pdf2txt`` (folder with ``documents.parquet``), ``model`` (Hugging Face directory; only its
            tokenizer is read), ``import-<i>`` for ``settings.imports[i]``, ``decontaminate-<i>`` likewise,
            ``template`` (where a file), ``units``, ``teacher`` (Hugging Face directory of ``settings.teacher.local``).
        report: see docs/architecture.md.

    Returns:
        rows, rows_train, rows_validation, tokens, tasks, rejects, row_digest, units_made, units_reused,
        documents, documents_validation, gates, and with a teacher what it was asked and what it cost.

    Raises:
        UserError: no rows, too few rows, an import or evaluation file that cannot be read, a teacher that refuses
            every call.
        GateError: a gate at level error found something.
    """
    with _seldom_collected():
        return _Build(settings, inputs, work, report).run()


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Entries are held to the end and in no cycle: to look through them again and again is a tenth of an assembly."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class _Build:
    def __init__(self, settings: DatasetSettings, inputs: dict[str, Path], work: Path, report: Report) -> None:
        template = choose_template(inputs.get("template", settings.template))
        settings = settings.model_copy(update={"template": template.name})
        self.settings, self.inputs, self.work, self.report, self.template = settings, inputs, work, report, template
        tokenizer = tokenizer_digest(inputs["model"])
        if template.chat_template:
            tokenizer = digest(tokenizer, template.chat_template)
        self.job = Job(settings, tokenizer, template)
        units = inputs.get("units", work / "units")
        self.packs = Packs(Units(units, UNIT_KIND))
        nearby = 2 * CHARS_PER_TOKEN * self.job.context_tokens
        self.corpus = Corpus(inputs["pdf2txt"] / "documents.parquet", cache_chars=nearby)
        self.scanner = Scanner(
            settings.gates, settings.max_tokens, self.packs, Units(units, scan.KIND), self._index(units), tokenizer
        )
        self.worker = Worker(self.job, inputs["model"], self.packs, self.corpus, self.scanner)
        self.entries: list[Entry] = []
        self.rejects = Rejects()
        self.keeper = Keeper(settings.gates, self.rejects, settings.exclude_duplicates)
        self.licenses: dict[str, str] = {}  # of imports, by source
        self.files: dict[str, str] = {}  # likewise: what they are called
        self.languages: set[str] = set()  # of the documents
        self.made = self.reused = 0
        self.leader: dict[str, str] = {}  # doc_id -> the first document with the same text
        self.splits: dict[str, str] = {}  # group -> split
        self.import_names: dict[str, list[str]] = {}  # Entry.source -> its names in dataset.mix.sources
        self.teacher_stopped = ""  # what to do about it
        self.mix: dict[str, dict[str, int]] = {}  # kind -> rows wanted and got, for stats.json
        self.teacher: dict[str, dict[str, Any]] = {}  # what it was asked, for stats.json and for the metrics

    def run(self) -> dict[str, Any]:
        self._imports()  # first: a file that cannot be read is told before the long part
        imported, self.entries = self.entries, []
        self.keeper.take_imported(imported)
        self.scanner.sketches = bool(self.keeper.imported_texts)
        known = self._known(imported)
        self._documents(known)
        self._ask_teacher(known)
        self.entries = self.keeper.filter([*self.entries, *imported], self.leader.keys())
        # Those with the text of a document are where it is.
        own = (e for e in self.entries if e.task == IMPORT_TASK and e.group not in self.splits)
        self.splits |= select.divide_imports(own, self.settings)
        self._name_apart()
        chosen = sample(self.entries, self.splits, self.settings, self.import_names)
        self._check_mix(chosen)
        self._check_counts(chosen)
        return self._publish(chosen)

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
        index = decontaminate.Index(kept, key)
        if warning := index.warning():
            self.report("warning", message=warning)
        return index

    def _check_mix(self, chosen: list[Entry]) -> None:
        """A mix that cannot be met is told, with what there was."""
        wanted = {"long": self.settings.mix.long, "short": self.settings.mix.short}
        got = Counter(e.kind for e in chosen)
        for kind, count in wanted.items():
            if count is None:
                continue
            self.mix[kind] = {"wanted": count, "got": got[kind]}
            if got[kind] < count:
                what = "documents, recipes or dataset.per_document" if kind == "long" else "dataset.imports"
                message = f"dataset.mix.{kind} wants {count} rows and there are {got[kind]}: more come from {what}"
                self.report("warning", message=message)

    def _check_counts(self, chosen: list[Entry]) -> None:
        try:
            select.check_counts(chosen, self.splits, self.settings, self.rejects.reasons, self.teacher_stopped)
        except UserError as error:
            self.keeper.note("counts", str(error))
            if self.keeper.level("counts") == "error" or not any(self.splits[e.group] == TRAIN for e in chosen):
                raise
            self.report("warning", message=str(error))

    def _documents(self, known: list[Known]) -> None:
        """Rows that need no teacher."""
        rings = Rings(known, self.splits, {k.doc_id: self._group(k.doc_id) for k in known}, self.settings.seed)
        total = len(known)
        self.report("progress", done=0, total=total, unit="documents", rows=0)
        results = make_units(self._lacking(known, rings), self.worker, self.settings.workers)
        for done, (task, made) in enumerate(results, 1):
            self._file(made, "long", self._group(task.known.doc_id), reused=False)
            self._file(task.unseen, "long", self._group(task.known.doc_id), reused=True)
            self.report("progress", done=done, total=total, unit="documents", rows=len(self.entries))
        self.entries.sort(key=lambda e: (e.source, e.task, e.position))
        self.report("progress", done=total, total=total, unit="documents", rows=len(self.entries))

    def _known(self, imported: Sequence[Entry]) -> list[Known]:
        """The documents to make rows of, all looked at before the first row: one may show several of them.

        Divides them into splits.
        """
        total = len(self.corpus)
        texts: dict[str, str] = {}
        known: list[Known] = []
        for seen, k in enumerate(self.corpus.known(), 1):
            if seen % 1000 == 0:
                self.report("progress", done=seen, total=total, unit="documents looked at")
            if not k.usable:
                reason = "no-text" if k.status in CONVERTED else "not-converted"
                self.rejects.append({"doc_id": k.doc_id, "task": "", "reason": reason, "detail": k.status})
                continue
            if not self._speaks_wanted_language(k):
                continue
            leader = self.leader[k.doc_id] = texts.setdefault(k.text, k.doc_id)
            self.languages.add(k.language)
            if leader != k.doc_id and self.settings.exclude_duplicates:
                detail = f"same text as {leader}"
                self.rejects.append({"doc_id": k.doc_id, "task": "", "reason": "duplicate-document", "detail": detail})
                continue
            found, reused = self.scanner.text(k.text, lambda k=k: self.corpus.text(k))  # type: ignore[misc]
            self.report("unit", kind=scan.KIND, key=self.scanner.text_key(k.text), reused=reused)
            self.keeper.take_document(k.doc_id, found)
            known.append(k)
        self.keeper.filter_documents()
        known = [k for k in known if k.doc_id not in self.keeper.dropped_documents]
        expected: Counter[str] = Counter()
        most = select.most_rows(self.settings)
        for k in known:
            expected[self._group(k.doc_id)] += select.expected_rows(k.chars, most)
        # Rows on a document's text are held out with it.
        joined = (self.keeper.clusters.leader(e.group) for e in imported)
        expected.update(group for group in joined if group in expected)
        self.splits |= select.divide_documents(expected, self.settings)
        return known

    def _speaks_wanted_language(self, known: Known) -> bool:
        if self.keeper.wanted_language(known.language):
            return True
        if not self.keeper.note("language", f"document {known.doc_id}: {known.language}"):
            return True
        self.rejects.append({"doc_id": known.doc_id, "task": "", "reason": "language", "detail": known.language})
        return False

    def _group(self, doc_id: str) -> str:
        """The split group of a document: those with the same text, or nearly the same, have one."""
        return self.keeper.clusters.leader(self.leader[doc_id])

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
            lacking: list[Share] = []
            there: list[Filed] = []
            for share in shares:
                found = self.packs.find(share.key)
                there += [found[part] for r in share.recipes if (part := self.job.parts[r]) in found]
                missing = tuple(r for r in share.recipes if self.job.parts[r] not in found)
                if missing:
                    lacking.append(dataclasses.replace(share, recipes=missing))
            scans = {name: self.scanner.find(name) for name in {filed.name for filed in there}}
            self._file([f for f in there if scans[f.name]], "long", self._group(k.doc_id), reused=True, scans=scans)
            unseen = tuple(f for f in there if not scans[f.name])
            if lacking or unseen:
                yield Task(k, tuple(lacking), unseen)

    def _imports(self) -> None:
        for i, one in enumerate(self.settings.imports):
            path = self.inputs.get(f"import-{i}") or imports.source(one)
            if not path.exists():
                raise UserError(f"import {path}: no such file", f"mend dataset.imports[{i}].path")
            sha256, license_ = imports.source_sha256(path), imports.license_of(path, one)
            source = f"import:{sha256[:16]}"
            self.licenses[source], self.files[source] = license_, one.hub or path.name
            self.import_names.setdefault(source, []).append(f"import-{i}")
            common = imports.common_lines(path, one, str(i))
            for batch in imports.chunks(path, one, str(i)):
                key = imports.chunk_key(batch, sha256, common, self.settings, self.job.tokenizer_digest)
                there = list(self.packs.find(key).values())
                reused = bool(there)
                if not reused:
                    limit = self.settings.max_tokens
                    unit = imports.chunk_unit(batch, sha256, common, limit, self.worker.measure)
                    there = list(self.packs.put(key, {IMPORT_TASK: unit}).values())
                self._look(there, one.kind, "", reused, lambda: self.worker.measure.row)

    def _ask_teacher(self, known: list[Known]) -> None:
        if not self.settings.chosen_teacher_recipes():
            return
        sides: dict[str, list[Known]] = {}
        for k in known:
            sides.setdefault(self.splits[self._group(k.doc_id)], []).append(k)
        collector = Collector(
            self.job, self.corpus, sides.values(), lambda: self.worker.measure, self.packs,
            self.inputs.get("teacher"), self.report,
        )  # fmt: skip
        for made in collector.run():
            group = self._group(made.doc_ids[0])
            self._look([made.filed], "long", group, made.reused, lambda: collector.lengths.row)
        self.teacher_stopped = collector.stopped
        self.teacher = {"stats": collector.account.statistics(), "metrics": collector.account.metrics()}

    def _look(
        self, filed: list[Filed], kind: str, group: str, reused: bool, measure: Callable[[], scan.Measure]
    ) -> None:
        """File the units of a pack, and have the gates look at it unless they have."""
        name = filed[0].name
        found = self.scanner.find(name)
        if not found:
            self.scanner.ensure(name, lambda: self.packs.read(name), measure)
        self._file(filed, kind, group, reused, {name: found})

    def _file(
        self,
        units: Iterable[Filed],
        kind: str,
        group: str,
        reused: bool,
        scans: Mapping[str, scan.Scan | None] | None = None,
    ) -> None:
        """Take up the rows of units.

        Args:
            group: of the rows' split; "" for each row's own.
            scans: of the packs that the gates had looked at before.
        """
        for name, parts in groupby(sorted(units, key=lambda filed: filed.name), key=lambda filed: filed.name):
            seen = scans.get(name) if scans else None
            found = seen or self.scanner.read(name)
            self.report("unit", kind=scan.KIND, key=self.scanner.key(name), reused=bool(seen))
            masked = self.packs.filed(found.shown) if found.shown != name else {}
            if masked:  # with personal data masked
                self.report("unit", kind=UNIT_KIND, key=found.shown, reused=True)
            for made in parts:
                self.made += not reused
                self.reused += reused
                self.report("unit", kind=UNIT_KIND, key=name, reused=reused)
                filed = masked.get(made.part, made)
                self.rejects += filed.rejects
                if not filed.rows:
                    continue
                unit = filed.unit
                self.keeper.take(unit, found.parts[filed.part])
                for position, facts in enumerate(filed.rows):
                    self.entries.append(select.entry(unit, position, facts, kind, group or facts["split_group"]))

    def _name_apart(self) -> None:
        """Equal rows that are kept (exclude_duplicates off) get ids of their own."""
        seen: Counter[str] = Counter()
        for i, e in enumerate(self.entries):
            seen[e.id] += 1
            if seen[e.id] > 1:
                self.entries[i] = dataclasses.replace(e, id=f"{e.id}-{seen[e.id]}")

    def _publish(self, chosen: list[Entry]) -> dict[str, Any]:
        aside, output = self.work / "assembling", self.work / "output"
        shutil.rmtree(aside, ignore_errors=True)
        splits, reasons = self.splits, self.rejects.reasons
        quoted = [(doc_id, self.keeper.clusters.leader(group)) for doc_id, group in self.keeper.quoted]
        leakage = Leakage([*self.keeper.near_documents, *quoted])
        written = publish.write_rows(aside, chosen, splits, self.packs.rows, self._license, leakage)
        publish.write_rejects(aside / "rejects.parquet", self.rejects)
        documents = {
            doc_id: splits.get(self._group(doc_id), TRAIN)
            for doc_id, leader in self.leader.items()
            if not self.keeper.in_no_split(leader)
        }
        publish.write_json(aside / "splits.json", documents)
        stats = publish.statistics(chosen, splits, reasons, len(self.entries) - len(chosen), written)
        if self.teacher:
            stats["teacher"] = self.teacher["stats"]
        if self.mix:
            stats["mix"] = self.mix
        if self.scanner.index:
            stats["decontamination"] = self.scanner.index.statistics()
        gates = self.settings.gates
        sought = {"decontamination": self.scanner.index, "language": gates.languages, "pii": gates.pii}
        looked = [name for name in GATES if sought.get(name, True) and self.keeper.level(name) != "off"]
        stats |= {"gates": self.keeper.report(self.report, looked), "settings": self.settings.record()}
        # Training and evaluation take the template from here, so that lengths stay true.
        publish.write_json(aside / "stats.json", {**self.template.record(), **stats})
        card.plot_lengths(aside / card.PLOT, chosen, splits, self.settings.max_tokens)
        card.write_card(aside, self.settings, stats, written, self._names(chosen), sorted(self.languages - {""}))
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
            "row_digest": written.row_digest,
            "gates": {g["gate"]: g["found"] for g in stats["gates"] if g["found"]},
            "units_made": self.made,
            "units_reused": self.reused,
            **self.teacher.get("metrics", {}),
        }

    def _license(self, e: Entry) -> str:
        """The licence of a row: of what it was made of, and of what a teacher wrote."""
        own = self.licenses.get(e.source, self.settings.license)
        teacher = self.settings.teacher.license if self.settings.teacher and e.task in TEACHER_RECIPES else None
        return own if teacher in (None, own) else f"{own} AND {teacher}"

    def _names(self, chosen: list[Entry]) -> dict[str, str]:
        """The names of the files that the sources of rows are."""
        names = {source: self.files[source] for source in {e.source for e in chosen} if source in self.files}
        return names | self.corpus.names({e.source for e in chosen})
