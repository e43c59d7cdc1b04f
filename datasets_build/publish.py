"""The dataset on disk: Parquet shards as Hugging Face names them, rejects, splits, statistics."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from datasets_build.gates.leakage import Leakage
from datasets_build.rejects import Rejects
from datasets_build.rows import COLUMNS, Row, arrow_schema
from datasets_build.select import SPLITS, Entry

SHARD_CHARS = 400_000_000  # characters of text per file, before compression
GROUP_ROWS, GROUP_CHARS = 256, 50_000_000  # per Parquet row group, at most: what a reader has to hold at once
REJECT_ROWS = 10_000  # rejects per row group

Sizes = dict[str, dict[str, int]]  # split -> {"num_examples", "num_bytes" (in memory)}
Load = Callable[[str], list[Row]]  # unit key -> its rows


@dataclass
class Written:
    """What was written, for statistics and the card."""

    row_digest: str = ""
    sizes: Sizes = field(default_factory=dict)
    answer_sources: Counter[str] = field(default_factory=Counter)  # rows by where their answer comes from
    without_boxes: int = 0  # rows with evidence whose document has no layout
    licenses: dict[str, Counter[str]] = field(default_factory=dict)  # source -> licence -> rows


def write_rows(
    folder: Path,
    entries: list[Entry],
    splits: dict[str, str],
    load: Load,
    license_of: Callable[[Entry], str],
    leakage: Leakage,
) -> Written:
    """Write ``data/<split>-0000i-of-0000N.parquet``.

    The row digest is sha256 over the sorted sha256 of (split, row) as MessagePack: the same rows give the same
    digest whatever their order or the version of pyarrow.

    Raises:
        GateError: a document, or a near duplicate of one, is in both splits.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    digests: list[str] = []
    written = Written()
    for split in SPLITS:
        mine = [e for e in entries if splits[e.group] == split]
        shards = list(_shards(mine))
        for number, shard in enumerate(shards):
            name = f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
            size = written.sizes.setdefault(split, {"num_examples": 0, "num_bytes": 0})
            rows = _rows(shard, load, license_of)
            size["num_bytes"] += _write_shard(data / name, _counted(rows, shard, split, leakage, digests, written))
            size["num_examples"] += len(shard)
    leakage.finish()
    written.row_digest = hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
    return written


def _shards(entries: list[Entry]) -> Iterator[list[Entry]]:
    shard: list[Entry] = []
    chars = 0
    for e in entries:
        if shard and chars + e.n_chars > SHARD_CHARS:
            yield shard
            shard, chars = [], 0
        shard.append(e)
        chars += e.n_chars
    if shard:
        yield shard


def _rows(entries: list[Entry], load: Load, license_of: Callable[[Entry], str]) -> Iterator[Row]:
    unit, rows = "", []
    for e in entries:
        if e.unit != unit:
            unit, rows = e.unit, load(e.unit)
        row = {name: rows[e.position][name] for name in COLUMNS}
        row.update(id=e.id, split_group=e.group, license=license_of(e))
        yield row


def _counted(
    rows: Iterator[Row], entries: list[Entry], split: str, leakage: Leakage, digests: list[str], written: Written
) -> Iterator[Row]:
    """The rows, looked at on their way to the file."""
    for row, e in zip(rows, entries, strict=True):
        leakage.check(row, split)
        digests.append(hashlib.sha256(msgpack.packb([split, *row.values()])).hexdigest())
        written.answer_sources[row["answer_source"]] += 1
        written.without_boxes += any(place["box"] is None for place in row["evidence"])
        written.licenses.setdefault(e.source, Counter())[row["license"]] += 1
        yield row


def _write_shard(path: Path, rows: Iterator[Row]) -> int:
    """Write a file as `datasets` writes one; returns its bytes in memory.

    With the features in the metadata, chunks cut by content (an upload of the next version sends what changed) and
    an index of pages. Compressed by zstd and not by snappy: rows of one document repeat its text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import config

    schema = features().arrow_schema
    chunking = config.DEFAULT_CDC_OPTIONS
    size = 0
    with (
        pq.ParquetWriter(
            path, schema, compression="zstd", use_content_defined_chunking=chunking, write_page_index=True
        ) as writer,
        ThreadPoolExecutor(1) as aside,  # compresses a group while the rows of the next are read
    ):
        writing: Future[None] | None = None
        for group in _groups(rows):
            table = pa.Table.from_pylist(group, schema=schema)
            size += int(table.nbytes)
            if writing:
                writing.result()  # two tables in memory at most
            writing = aside.submit(writer.write_table, table)
        if writing:
            writing.result()
        writer.add_key_value_metadata({"content_defined_chunking": json.dumps(chunking)})
    return size


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """The rows of each Parquet row group."""
    group: list[Row] = []
    chars = 0
    for row in rows:
        group.append(row)
        chars += len(row["instruction"]) + len(row["output"])
        if len(group) == GROUP_ROWS or chars >= GROUP_CHARS:
            yield group
            group, chars = [], 0
    if group:
        yield group


def features() -> Any:
    """The columns as `datasets.Features`."""
    from datasets import Features

    return Features.from_arrow_schema(arrow_schema())


def write_rejects(path: Path, rejects: Rejects) -> None:
    """What did not become a row."""
    import pyarrow.parquet as pq

    pq.write_table(rejects.table(), path, row_group_size=REJECT_ROWS, compression="zstd")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON with sorted keys: the same value gives the same bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def statistics(
    entries: list[Entry], splits: dict[str, str], rejects: Counter[str], sampled_out: int, written: Written
) -> dict[str, Any]:
    """Counts and lengths (tokens of prompt and answer) for ``stats.json`` and the card."""
    by_split: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    by_document: dict[str, Counter[str]] = defaultdict(Counter)
    for e in entries:
        by_split[splits[e.group]][e.task] += 1
        by_document[e.source][e.task] += 1
    lengths = sorted(e.n_tokens for e in entries)
    return {
        "rows": len(entries),
        "rows_by_split": {split: counts.total() for split, counts in by_split.items()},
        "tasks_by_split": {split: dict(sorted(counts.items())) for split, counts in by_split.items()},
        "rows_by_document": {source: dict(sorted(c.items())) for source, c in sorted(by_document.items())},
        "tokens": sum(lengths),
        "token_quantiles": {
            f"{q:g}": lengths[round(q * (len(lengths) - 1))] for q in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
        },
        "rejects": dict(sorted(rejects.items())),
        "not_sampled": sampled_out,
        "answer_sources": dict(sorted(written.answer_sources.items())),
        "rows_without_boxes": written.without_boxes,
        "row_digest": written.row_digest,
    }
