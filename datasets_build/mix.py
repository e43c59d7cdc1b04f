"""How many rows of each kind, task and source are published, and which: sampled by seed, none dominates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from datasets_build.rows import DOCUMENTS, IMPORT_TASK
from datasets_build.select import SPLITS, VALIDATION, Entry
from datasets_build.settings import DatasetSettings, MixSettings
from pdf2txt.units import digest


def sample(
    entries: Sequence[Entry],
    splits: Mapping[str, str],
    settings: DatasetSettings,
    imports: Mapping[str, Sequence[str]] | None = None,
) -> list[Entry]:
    """The entries of the mix, in their old order. Each split gets its share of each kind.

    Args:
        imports: the names in dataset.mix.sources (``import-0``) of each ``Entry.source`` that is a file.
    """
    mix = settings.mix
    chosen: set[int] = set()
    for kind, count in (("long", mix.long), ("short", mix.short)):
        pools = {s: [i for i, e in enumerate(entries) if e.kind == kind and splits[e.group] == s] for s in SPLITS}
        wanted: dict[str, int | None] = dict.fromkeys(SPLITS)
        if count is not None:
            held = max(round(count * settings.validation_share), min(settings.min_validation_rows, count // 2))
            held = min(held, len(_allowed(pools[VALIDATION], entries, held, mix, settings.seed, imports or {})))
            wanted = {s: held if s == VALIDATION else count - held for s in SPLITS}
        for split in SPLITS:
            chosen.update(_allowed(pools[split], entries, wanted[split], mix, settings.seed, imports or {}))
    return [e for i, e in enumerate(entries) if i in chosen]


def _allowed(
    pool: list[int],
    entries: Sequence[Entry],
    count: int | None,
    mix: MixSettings,
    seed: int,
    imports: Mapping[str, Sequence[str]],
) -> list[int]:
    """Up to ``count`` indices of ``pool`` (None: as many as may be) such that no bound of ``mix`` is broken.

    A share is one of the rows that are chosen, so fewer rows allow fewer of a task: try with as many as there
    are, then with as many as came out, until it holds.
    """
    total = len(pool) if count is None else min(count, len(pool))
    in_turn = list(_round_robin([(i, entries[i]) for i in pool], seed))
    bounded = bool(mix.tasks or mix.sources or mix.max_task_share)
    if not bounded:
        return in_turn[:total]
    tasks = {entries[i].task for i in pool} - {IMPORT_TASK}
    share = max(mix.max_task_share or 1.0, 1 / max(1, len(tasks)))
    while True:

        def bound(amount: int | float, rows: int = total) -> int:
            return amount if isinstance(amount, int) else int(amount * rows + 1e-9)

        taken = list(_bounded(in_turn, total, entries, mix, bound, share, imports))
        if len(taken) == total:
            return taken
        total = len(taken)


def _bounded(
    in_turn: list[int],
    total: int,
    entries: Sequence[Entry],
    mix: MixSettings,
    bound: Callable[[int | float], int],
    max_task_share: float,
    imports: Mapping[str, Sequence[str]],
) -> Iterator[int]:
    counts: Counter[tuple[str, str]] = Counter()
    for i in in_turn:
        e = entries[i]
        if counts["", ""] == total:
            return
        limits = {("", ""): total}
        if e.task in mix.tasks:
            limits["task", e.task] = bound(mix.tasks[e.task])
        elif e.task != IMPORT_TASK and max_task_share < 1:
            limits["task", e.task] = max(1, bound(max_task_share))
        names = imports.get(e.source, ()) if e.task == IMPORT_TASK else (DOCUMENTS,)
        limits |= {("source", n): bound(mix.sources[n]) for n in (*names, e.source) if n in mix.sources}
        if all(counts[name] < limit for name, limit in limits.items()):
            counts.update(limits.keys())
            yield i


def _round_robin(entries: list[tuple[int, Entry]], seed: int) -> Iterator[int]:
    """Indices, one task after the other and within a task one document after the other: none dominates."""
    tasks: dict[str, dict[str, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
    for i, e in entries:
        tasks[e.task][e.source].append((i, e.id))
    queues = []
    for task, rows in sorted(tasks.items()):
        sources = sorted(rows, key=lambda source: digest(seed, task, source))
        queues.append(list(_in_turn([_drawn(rows[source], seed) for source in sources])))
    yield from _in_turn(queues)


def _drawn(rows: list[tuple[int, str]], seed: int) -> list[int]:
    """The indices of (index, id) in an order drawn by seed; one, as most often, needs no draw."""
    if len(rows) > 1:
        rows = sorted(rows, key=lambda row: (digest(seed, row[1]), row[0]))
    return [i for i, _ in rows]


def _in_turn(queues: list[list[int]]) -> Iterator[int]:
    for depth in range(max(map(len, queues), default=0)):
        yield from (queue[depth] for queue in queues if depth < len(queue))
