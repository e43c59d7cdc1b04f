"""Which rows are published, and in which split: duplicates out, documents divided, kinds mixed.

Works on entries, a few hundred bytes per row; the rows themselves stay in their units until they are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from sys import intern
from typing import Any

from datasets_build.rows import IMPORT_TASK
from datasets_build.settings import DatasetSettings
from pdf2txt.errors import UserError
from pdf2txt.units import digest

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)
NEAR = 0.8  # of the held-out rows that were aimed at
CHARS_PER_ROW = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """A row by reference: ``position`` in the unit ``unit``."""

    unit: str
    position: int
    id: str
    task: str
    kind: str  # long | short, as in dataset.mix
    group: str  # rows of one group are in one split
    source: str  # doc_id, or import:<hash>
    duplicate: str
    n_tokens: int
    n_chars: int


def entry(unit: str, position: int, known: dict[str, Any], kind: str, group: str) -> Entry:
    """The entry of a row of which the `rows.facts` are known."""
    task, source = intern(known["task"]), intern(known["source"])
    numbers = known["n_tokens"], known["n_chars"]
    return Entry(unit, position, known["id"], task, kind, intern(group), source, known["duplicate"], *numbers)


def drop_duplicates(entries: Iterable[Entry]) -> tuple[list[Entry], list[dict[str, Any]]]:
    """The first of each set of equal rows, and a reject for each of the others."""
    first: dict[str, Entry] = {}
    rejects = []
    for e in entries:
        if e.duplicate in first:
            detail = f"same as row {first[e.duplicate].id}"
            rejects.append({"doc_id": e.source, "task": e.task, "reason": "duplicate", "detail": detail})
        else:
            first[e.duplicate] = e
    return list(first.values()), rejects


def divide_documents(expected: Counter[str], settings: DatasetSettings) -> dict[str, str]:
    """Split of each document, before there are rows: a row may show several documents, all of one split.

    Documents are held out whole, up to ``validation_share`` of the rows that are ``expected`` of each (its
    copies count with it). One more document moves none or one or two of the others to the other split.
    """
    held = _held_out_documents(expected, settings) if settings.validation_share else set()
    return {group: VALIDATION if group in held else TRAIN for group in expected}


def divide_imports(entries: Iterable[Entry], settings: DatasetSettings) -> dict[str, str]:
    """Split of each group of imported rows."""
    splits = {}
    for group in {e.group for e in entries}:
        held_out = int(digest(settings.seed, group)[:12], 16) / 16**12 < settings.validation_share
        splits[group] = VALIDATION if held_out else TRAIN
    return splits


def _held_out_documents(rows: Counter[str], settings: DatasetSettings) -> set[str]:
    """Documents in an order drawn by seed, each taken if it brings the rows nearer to the share."""
    if len(rows) < 2:
        return set()
    target = settings.validation_share * rows.total()
    order = sorted(rows, key=lambda group: digest(settings.seed, group))
    held: set[str] = set()
    n = 0
    for group in order:
        if abs(n + rows[group] - target) < abs(n - target) and len(held) < len(rows) - 1:
            held.add(group)
            n += rows[group]
        elif n > NEAR * target:
            break  # looking on for a document of the size that is missing would change with every document
    # A share too small for any document, or for the minimum: the smallest document that makes it good.
    while (not held or n < settings.min_validation_rows) and len(held) < len(rows) - 1:
        rest = [group for group in order if group not in held]
        enough = [group for group in rest if n + rows[group] >= settings.min_validation_rows]
        chosen = min(enough, key=lambda g: rows[g]) if enough else max(rest, key=lambda g: rows[g])
        held.add(chosen)
        n += rows[chosen]
    return held


def most_rows(settings: DatasetSettings) -> int:
    """The rows that a long document gives."""
    return sum((settings.chosen_recipes() | settings.chosen_teacher_recipes()).values())


def expected_rows(chars: int, most: int) -> int:
    """A rough guess of the rows that a document of ``chars`` characters gives; a scrap gives none."""
    return min(chars // CHARS_PER_ROW, most)


def check_counts(
    entries: list[Entry], splits: dict[str, str], settings: DatasetSettings, rejects: Counter, teacher_stopped: str = ""
) -> None:
    """Minimum counts.

    Args:
        teacher_stopped: what to do about a teacher that stopped answering, which is why rows are missing.

    Raises:
        UserError: too few rows in all or held out, with what to do about it.
    """
    n = Counter(splits[e.group] for e in entries)
    if not entries:
        reasons = ", ".join(f"{reason} {k}" for reason, k in rejects.most_common(5)) or "no document had text"
        raise UserError(
            f"the dataset has no rows ({reasons})",
            teacher_stopped
            or "raise dataset.max_tokens, add recipes, documents or dataset.imports, or see what pdf2txt found",
        )
    if n.total() < settings.min_rows:
        raise UserError(
            f"the dataset has {n.total()} rows, fewer than dataset.min_rows ({settings.min_rows})",
            teacher_stopped or "add documents, raise dataset.per_document or dataset.mix, or lower dataset.min_rows",
        )
    if settings.validation_share and n[VALIDATION] < settings.min_validation_rows:
        documents = len({e.source for e in entries if e.task != IMPORT_TASK})
        raise UserError(
            f"the validation split has {n[VALIDATION]} rows of {documents} documents with rows, fewer than "
            f"dataset.min_validation_rows ({settings.min_validation_rows})",
            "add documents (two at least: they are held out whole), raise dataset.per_document or "
            "dataset.validation_share, lower dataset.min_validation_rows, or hold out nothing: "
            "dataset.validation_share=0",
        )
    if not n[TRAIN]:
        raise UserError("every row is held out: nothing to train on", "add documents or lower dataset.validation_share")
