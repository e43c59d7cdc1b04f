"""The deciding part of the gates: which rows stay, what is reported, where the build stops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

from datasets_build.gates import near
from datasets_build.gates.base import GATES, Finding, GateError, Level, row_name
from datasets_build.gates.scan import RowScan, TextScan
from datasets_build.gates.settings import GatesSettings
from datasets_build.gates.sketch import Sketches
from datasets_build.rejects import Rejects
from datasets_build.rows import IMPORT_TASK
from datasets_build.select import Entry, drop_duplicates

REMEDY = {
    "schema": "leave the recipe out of dataset.recipes (and report it: a defect), or mend the imported file",
    "whole-answers": "a defect of the recipe: please report it, and leave the recipe out of dataset.recipes meanwhile",
    "evidence": "a defect of the recipe: please report it, and leave the recipe out of dataset.recipes meanwhile",
}


class Keeper:
    """Takes scans in, then filters entries. Holds a scan per row until then, no rows."""

    def __init__(self, settings: GatesSettings, rejects: Rejects, exclude_duplicates: bool = True) -> None:
        self.settings, self.rejects = settings, rejects
        self.exclude_duplicates = exclude_duplicates
        self.findings = {name: Finding(name, self.level(name)) for name in GATES}
        self.scans: dict[tuple[str, int], RowScan] = {}  # (unit, position in it)
        self.signatures: dict[str, bytes] = {}  # doc_id -> signature of its text
        self.clusters = near.Clusters()  # of documents and import groups
        self.near_documents: list[tuple[str, str]] = []
        self.imported_texts = Sketches(())
        self.quoted: list[tuple[str, str]] = []  # (doc_id, group of imported rows that hold its text)
        self.dropped_documents: set[str] = set()
        self.hits: dict[str, str] = {}  # doc_id -> where its text stands in the evaluation files

    def level(self, gate: str) -> Level:
        """A gate's level; ``exclude_duplicates: false`` keeps near duplicates too."""
        chosen = self.settings.level(gate)
        keeps = not self.exclude_duplicates and gate not in self.settings.levels
        return "warn" if keeps and gate in ("duplicates", "near-duplicates") else chosen

    def take(self, unit: str, found: Sequence[RowScan]) -> None:
        """What was seen of the rows of a unit."""
        self.scans.update({(unit, i): row for i, row in enumerate(found)})

    def take_document(self, doc_id: str, scan: TextScan) -> None:
        """What was seen of a document's text."""
        self.signatures[doc_id] = scan.signature
        if scan.hit:
            self.hits[doc_id] = scan.hit
        self.quoted += [(doc_id, group) for group in dict.fromkeys(self.imported_texts.sharing(scan.sketch))]

    def take_imported(self, entries: Sequence[Entry]) -> None:
        """The imported rows, before the first document: a document whose text they hold goes to their split."""
        found = ((e.group, self.scans[e.unit, e.position].sketch) for e in entries)
        self.imported_texts = Sketches((group, data) for group, data in found if data)

    def wanted_language(self, code: str) -> bool:
        """Whether a document in this language is wanted (by pdf2txt's finding, "" where it found none)."""
        if not self.settings.languages or not code or self.level("language") == "off":
            return True
        return code in self.settings.languages

    def note(self, gate: str, what: str) -> bool:
        """Count a finding; returns whether what it is about is left out."""
        self.findings[gate].add(what)
        return self.level(gate) == "drop"

    def filter_documents(self) -> None:
        """Look for near duplicates among the documents taken: before there are rows, as rows may show several.

        Raises:
            GateError: a gate at level error found something.
        """
        self._near_documents()
        for doc_id, group in self.quoted:
            if doc_id not in self.dropped_documents:
                self.clusters.join(doc_id, group)
        self._evaluation_documents()
        self.signatures.clear()
        self.stop_at_errors()

    def filter(self, entries: list[Entry], doc_ids: Collection[str]) -> list[Entry]:
        """The entries that stay, their groups joined where imported rows are near duplicates; a reject for others.

        Args:
            entries: in order; of near duplicates the first stays.
            doc_ids: the documents of the input.

        Raises:
            GateError: a gate at level error found something; all such gates have looked at all rows before.
        """
        entries = self._each_row(entries, doc_ids)
        entries = self._duplicates(entries)
        entries = self._near_rows(entries)
        self.scans.clear()  # more than the entries themselves
        self.stop_at_errors()
        return [
            e if (group := self.clusters.leader(e.group)) == e.group else dataclasses.replace(e, group=group)
            for e in entries
        ]

    def stop_at_errors(self) -> None:
        """Stop the build at the first gate at level error that found something.

        Raises:
            GateError: with the rows' ids and what to do.
        """
        for finding in self.findings.values():
            if finding.level == "error" and finding.found and finding.gate != "counts":
                gate = finding.gate
                loosen = [level for level in GATES[gate].levels if level not in ("error", "off", "mask")]
                how = f"mend them, or set dataset.gates.levels.{gate} to {' or '.join(loosen)}"
                raise GateError(gate, finding.found, finding.examples, REMEDY.get(gate, how))

    def report(self, warn: Callable[..., None], looked: Collection[str]) -> list[dict[str, Any]]:
        """One warning for each WARN gate that found something; the results of all gates, for stats.json.

        ``looked``: the gates that had something to look for; the others are off, whatever their level.
        """
        for finding in self.findings.values():
            if finding.level == "warn" and finding.found and finding.gate != "counts":
                first = f", first: {finding.examples[0]}" if finding.examples else ""
                warn("warning", message=f"gate {finding.gate}: {finding.found} found{first}")
        return [{**f.to_json(), "level": f.level if f.gate in looked else "off"} for f in self.findings.values()]

    def _each_row(self, entries: list[Entry], doc_ids: Collection[str]) -> list[Entry]:
        kept = []
        for e in entries:
            scan = self.scans[e.unit, e.position]
            reasons = list(scan.problems)
            unknown = [d for d in scan.doc_ids if d not in doc_ids]
            if unknown:
                reasons.append(("evidence", f"comes from a document that is not in the input: {unknown[0]}"))
            if scan.hit and self.level("decontamination") != "off":
                reasons.append(("decontamination", scan.hit))
            if not self.wanted_language(scan.language):
                reasons.append(("language", scan.language))
            if scan.pii and self.level("pii") != "off":
                reasons.append(("pii", ", ".join(f"{n} {kind}" for kind, n in scan.pii)))
            drops = [
                (gate, what)
                for gate, what in reasons
                if self.note(gate, f"{row_name(e.id, e.task, scan.doc_ids)}: {what}")
            ]
            if drops:
                gate, what = drops[0]
                self._reject(e, gate, f"row {e.id}: {what}")
            else:
                kept.append(e)
        return kept

    def _near_documents(self) -> None:
        level = self.level("near-duplicate-documents")
        if level == "off":
            return
        ids = list(self.signatures)
        pairs = near.near_pairs(
            [self.signatures[d] for d in ids], self.settings.document_similarity, leave_out=level == "drop"
        )
        for a, b, similarity in pairs:
            detail = f"{similarity:.0%} like {ids[a]}"
            if self.note("near-duplicate-documents", f"document {ids[b]}: {detail}"):
                self.dropped_documents.add(ids[b])
                self._reject_document(ids[b], "near-duplicate-document", detail)
            else:
                self.clusters.join(ids[a], ids[b])
                self.near_documents.append((ids[a], ids[b]))

    def _evaluation_documents(self) -> None:
        """Documents that hold evaluation text: their other windows stay, training on their text does not."""
        for doc_id, hit in self.hits.items() if self.level("decontamination") == "drop" else ():
            self._reject_document(doc_id, "decontamination", f"left out of training on text: {hit}"[:400])

    def in_no_split(self, doc_id: str) -> bool:
        """Whether a document is left out as a whole: its text is in neither split."""
        return doc_id in self.dropped_documents or (doc_id in self.hits and self.level("decontamination") == "drop")

    def _duplicates(self, entries: list[Entry]) -> list[Entry]:
        kept, duplicates = drop_duplicates(entries)
        dropped = [self.note("duplicates", f"{r['doc_id']}, task {r['task']}: {r['detail']}") for r in duplicates]
        if all(dropped):
            self.rejects += duplicates
            return kept
        return entries

    def _near_rows(self, entries: list[Entry]) -> list[Entry]:
        level = self.level("near-duplicates")
        if level == "off":
            return entries
        dropped = set()
        signatures = [self.scans[e.unit, e.position].signature for e in entries]
        for a, b, similarity in near.near_pairs(signatures, self.settings.similarity, leave_out=level == "drop"):
            first, second = entries[a], entries[b]
            detail = f"row {second.id}: question and answer {similarity:.0%} like row {first.id}"
            if self.note("near-duplicates", detail):
                dropped.add(b)
                self._reject(second, "near-duplicate", detail)
            elif first.task == second.task == IMPORT_TASK:
                # Or one would be trained on and the other measured. Documents are joined by their texts: that two
                # have a sentence in common makes them no duplicates.
                self.clusters.join(first.group, second.group)
        return [e for i, e in enumerate(entries) if i not in dropped]

    def _reject(self, e: Entry, reason: str, detail: str) -> None:
        self.rejects.append({"doc_id": e.source, "task": e.task, "reason": reason, "detail": detail[:400]})

    def _reject_document(self, doc_id: str, reason: str, detail: str) -> None:
        self.rejects.append({"doc_id": doc_id, "task": "", "reason": reason, "detail": detail})
