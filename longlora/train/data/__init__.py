"""From dataset rows or documents to packed training rows.

    samples   one per dataset row or piece of text: tokens and labels (-100: no loss)
    rows      lists of samples that share one packed row; best-fit, no sample is cut
    stream    the rows in training order, all steps of all epochs: a function of the seed, so that
              "data position" is simply the step
    collate   rows -> tensors; position_ids start anew at every sample, which keeps attention inside it

Padding needs no mask either: it is one more document at the end of the row.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longlora.errors import UserError
from longlora.prompts import Template, plain_ids, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100
MULTIPLE = 128  # row lengths are padded to it: oneDNN caches kernels per shape, 20 MB of them each


@dataclass(frozen=True)
class Sample:
    """``labels[0]`` is always -100: nothing predicts a document's first token."""

    id: str
    input_ids: np.ndarray  # (n,) int32
    labels: np.ndarray  # (n,) int32, the token itself or -100

    def __len__(self) -> int:
        return len(self.input_ids)


Row = list[Sample]


def sft_samples(dataset: Path, tokenizer: PreTrainedTokenizerBase, template: Template, row_tokens: int) -> list[Sample]:
    """The train rows of a dataset directory, loss on the answer and its end-of-turn token.

    Raises:
        UserError: no rows, missing columns, or a row longer than ``row_tokens`` (no answer is ever cut).
    """
    samples, too_long = [], []
    for row in _parquet_rows(sorted((dataset / "data").glob("train-*.parquet")), ["id", "instruction", "output"]):
        try:
            rendered = render(tokenizer, template, row["instruction"], row["output"])
        except ValueError as error:
            raise UserError(f"train.template: {error}", "set train.template to inst or plain") from error
        ids = np.asarray(rendered.input_ids, dtype=np.int32)
        labels = ids.copy()
        labels[: max(1, rendered.answer_start)] = IGNORE
        samples.append(Sample(str(row["id"]), ids, labels))
        if len(ids) > row_tokens:
            too_long.append(samples[-1])
    if not samples:
        raise UserError(f"the dataset in {dataset} has no training rows", "build it with more documents or recipes")
    if too_long:
        longest = max(too_long, key=len)
        raise UserError(
            f"{len(too_long)} of {len(samples)} dataset rows are longer than a training row "
            f"of {row_tokens:,} tokens (row {longest.id}: {len(longest):,})",
            f"lower dataset.max_tokens to {row_tokens}, or raise train.row_tokens (and train.context_length) "
            f"to {len(longest)}",
        )
    return samples


def text_samples(documents: Path, splits: Path, tokenizer: PreTrainedTokenizerBase, row_tokens: int) -> list[Sample]:
    """The train-split documents as pieces of at most ``row_tokens`` tokens, the first token without loss.

    Args:
        documents: pdf2txt's ``documents.parquet`` (columns doc_id, text).
        splits: datasets_build's ``splits.json``, ``{doc_id: split}`` or ``{split: [doc_id, ...]}``.

    Raises:
        UserError: the train split has no text.
    """
    wanted = train_documents(splits)
    samples = []
    for row in _parquet_rows([documents], ["doc_id", "text"]):
        if row["doc_id"] not in wanted or not row["text"]:
            continue
        ids = np.asarray([*plain_ids(tokenizer, row["text"]), tokenizer.eos_token_id], dtype=np.int32)
        for start in range(0, len(ids), row_tokens):
            piece = ids[start : start + row_tokens]
            if len(piece) > 1:  # a single token predicts nothing
                samples.append(Sample(f"{row['doc_id']}:{start}", piece, np.r_[np.int32(IGNORE), piece[1:]]))
    if not samples:
        raise UserError(
            f"no document of the train split in {documents} has text", "add documents, or use train.data: sft"
        )
    return samples


def train_documents(splits: Path) -> set[str]:
    """The ``doc_id``s of the train split."""
    value = json.loads(splits.read_text())
    listed = value.get("train")
    if isinstance(listed, list):
        return {str(doc_id) for doc_id in listed}
    return {str(doc_id) for doc_id, split in value.items() if split == "train"}


def _parquet_rows(files: Sequence[Path], columns: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                missing = set(columns) - set(file.schema_arrow.names)
                if missing:
                    raise UserError(f"{path} lacks the column {sorted(missing)[0]}", "build it again")
                for group in range(file.num_row_groups):
                    yield from file.read_row_group(group, columns).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}", "build it again") from error


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing bin packing: indices per row, at most ``capacity`` tokens each. Deterministic."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted: the tightest row that fits is found by bisection
    for index in order:
        length = lengths[index]
        at = bisect.bisect_left(room, (length, -1))
        if at < len(room):
            left, row = room.pop(at)
        else:
            left, row = capacity, len(rows)
            rows.append([])
        rows[row].append(index)
        bisect.insort(room, (left - length, row))
    return rows


def make_rows(samples: list[Sample], row_tokens: int, packing: bool) -> list[Row]:
    """Samples as packed rows, or each as a row of its own."""
    if not packing:
        return [[sample] for sample in samples]
    return [[samples[i] for i in indices] for indices in pack([len(s) for s in samples], row_tokens)]


def stream(rows: list[Row], count: int, seed: int) -> list[Row]:
    """``count`` rows in training order: every epoch a new permutation, drawn from ``(seed, epoch)``."""
    result: list[Row] = []
    epoch = 0
    while len(result) < count:
        order = np.random.default_rng([seed, epoch]).permutation(len(rows))
        result += [rows[i] for i in order[: count - len(result)]]
        epoch += 1
    return result


def collate(rows: list[Row], pad_id: int, multiple: int = MULTIPLE) -> dict[str, Any]:
    """Tensors (B, L) int64 ``input_ids``, ``labels``, ``position_ids``; lists ``row_ids``; ``tokens``: real ones."""
    import torch

    lengths = [sum(len(s) for s in row) for row in rows]
    length = -(-max(lengths) // multiple) * multiple
    input_ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    labels = np.full((len(rows), length), IGNORE, dtype=np.int64)
    position_ids = np.zeros((len(rows), length), dtype=np.int64)
    for b, row in enumerate(rows):
        at = 0
        for sample in row:
            end = at + len(sample)
            input_ids[b, at:end] = sample.input_ids
            labels[b, at:end] = sample.labels
            position_ids[b, at:end] = np.arange(len(sample))
            at = end
        position_ids[b, at:] = np.arange(length - at)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "labels": torch.from_numpy(labels),
        "position_ids": torch.from_numpy(position_ids),
        "row_ids": [[sample.id for sample in row] for row in rows],
        "tokens": sum(lengths),
    }
