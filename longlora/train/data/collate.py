"""Rows to tensors. Padding needs no mask: it is one more document at the end of the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from longlora.train.data.samples import IGNORE, Row

MULTIPLE = 128  # row lengths are padded to it: oneDNN caches kernels per shape, 20 MB of them each


def collate(rows: Sequence[Row], pad_id: int, multiple: int = MULTIPLE) -> dict[str, Any]:
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
