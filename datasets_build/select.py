"""Which rows are published, and in which split: duplicates out, documents divided, kinds mixed.

Works on entries, a few hundred bytes per row; the rows themselves stay in their units until they are written.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from datasets_build.rows import IMPORT_TASK, Row, duplicate_key
from datasets_build.settings import DatasetSettings
from pdf2txt.errors import UserError
from pdf2txt.units import digest

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)


@dataclass(frozen=True)
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


def entry(unit: str, position: int, row: Row, kind: str, group: str) -> Entry:
    """The entry of a row."""
    source = row["doc_ids"][0] if row["doc_ids"] else f"import:{row['source_sha256'][:16]}"
    chars = len(row["instruction"]) + len(row["output"])
    return Entry(
        unit,
        position,
        row["id"],
        row["task"],
        kind,
        group,
        source,
        duplicate_key(row),
        row["n_tokens"],
        chars,
    )


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


def divide(entries: list[Entry], settings: DatasetSettings) -> dict[str, str]:
    """Split of each group. Documents are held out whole, up to ``validation_share`` of their rows."""
    share = settings.validation_share
    splits = {}
    for group in {e.group for e in entries if e.task == IMPORT_TASK}:
        held_out = int(digest(settings.seed, group)[:12], 16) / 16**12 < share
        splits[group] = VALIDATION if held_out else TRAIN
    rows = Counter(e.group for e in entries if e.task != IMPORT_TASK)
    held = _held_out_documents(rows, settings) if share else set()
    splits.update({group: VALIDATION if group in held else TRAIN for group in rows})
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
    # A share too small for any document, or for the minimum: the smallest document that makes it good.
    while (not held or n < settings.min_validation_rows) and len(held) < len(rows) - 1:
        rest = [group for group in order if group not in held]
        enough = [group for group in rest if n + rows[group] >= settings.min_validation_rows]
        chosen = min(enough, key=lambda g: rows[g]) if enough else max(rest, key=lambda g: rows[g])
        held.add(chosen)
        n += rows[chosen]
    return held


def sample(entries: list[Entry], splits: dict[str, str], settings: DatasetSettings) -> list[Entry]:
    """The entries of the mix, in their old order. Each split gets its share of each kind."""
    wanted = {"long": settings.mix.long, "short": settings.mix.short}
    chosen: set[int] = set()
    for kind, count in wanted.items():
        pools = {s: [i for i, e in enumerate(entries) if e.kind == kind and splits[e.group] == s] for s in SPLITS}
        if count is None:
            chosen.update(*pools.values())
            continue
        held = max(round(count * settings.validation_share), min(settings.min_validation_rows, count // 2))
        held = min(held, len(pools[VALIDATION]))
        for split, n in ((VALIDATION, held), (TRAIN, count - held)):
            in_turn = _round_robin([(i, entries[i]) for i in pools[split]], settings.seed)
            chosen.update(i for i, _ in zip(in_turn, range(n), strict=False))
    return [e for i, e in enumerate(entries) if i in chosen]


def _round_robin(entries: list[tuple[int, Entry]], seed: int) -> Iterator[int]:
    """Indices, one task after the other and within a task one document after the other: none dominates."""
    tasks: dict[str, dict[str, list[tuple[str, int]]]] = defaultdict(lambda: defaultdict(list))
    for i, e in entries:
        tasks[e.task][e.source].append((digest(seed, e.id), i))
    queues = []
    for task in sorted(tasks):
        sources = sorted(tasks[task], key=lambda source: digest(seed, task, source))
        queues.append(list(_in_turn([[i for _, i in sorted(tasks[task][s])] for s in sources])))
    yield from _in_turn(queues)


def _in_turn(queues: list[list[int]]) -> Iterator[int]:
    for depth in range(max(map(len, queues), default=0)):
        yield from (queue[depth] for queue in queues if depth < len(queue))


def check_counts(entries: list[Entry], splits: dict[str, str], settings: DatasetSettings, rejects: Counter) -> None:
    """Minimum counts.

    Raises:
        UserError: too few rows in all or held out, with what to do about it.
    """
    n = Counter(splits[e.group] for e in entries)
    if not entries:
        reasons = ", ".join(f"{reason} {k}" for reason, k in rejects.most_common(5)) or "no document had text"
        raise UserError(
            f"the dataset has no rows ({reasons})",
            "raise dataset.max_tokens, add recipes, documents or dataset.imports, or see what pdf2txt found",
        )
    if n.total() < settings.min_rows:
        raise UserError(
            f"the dataset has {n.total()} rows, fewer than dataset.min_rows ({settings.min_rows})",
            "add documents, raise dataset.per_document or dataset.mix, or lower dataset.min_rows",
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
