"""Who attends to whom: documents of a batch, cut into segments for both halves of the heads.

    heads [0, H//2)    |----g----|----g----|----g----|--rest--|     attention inside each segment only
    heads [H//2, H)    |-g/2-|----g----|----g----|----g----|..|     the same, boundaries moved by g/2

Segments are counted from the start of each document, and padding is in none. A document's result is therefore
the same alone, padded on either side, or packed with others. One that fits a group is a single segment in both
halves: it has full attention. No L x L mask is ever built, and no length has to be divisible by anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["split", "wrap"]


class Span(NamedTuple):
    """Tokens [start, stop) of a row."""

    start: int
    stop: int


class Run(NamedTuple):
    """``count`` neighbouring segments of ``size`` tokens each, from token ``start`` of a row."""

    start: int
    count: int  # type: ignore[assignment]  # nobody counts in a tuple of three numbers
    size: int


def group_tokens(group: float | int, length: int) -> int:
    """A group in tokens: ``group`` itself if 1 or more, else that share of ``length`` (the paper: 1/4)."""
    if group >= 1:
        return int(group)
    return max(1, math.ceil(group * length))


def segments(length: int, group: int | None, shift: int = 0) -> list[int]:
    """Boundaries of the segments of one document: ``[0, ..., length]``, strictly increasing.

    A document that fits one group is not cut, shifted or not: there is no boundary for the shift to bridge.

    Args:
        length: tokens of the document, at least 1.
        group: tokens per segment; None for one segment (full attention).
        shift: length of the first segment (0: an ordinary group), ``group // 2`` for the shifted heads.
    """
    if group is None or length <= group:
        return [0, length]
    return [0, *range(shift or group, length, group), length]


def roll_of(length: int, group: int | None) -> int:
    """Tokens by which the wrap mode rolls a document to the left (LongLoRA, Algorithm 1: half a group).

    A document that fits one group has no boundary to bridge and is not rolled.
    """
    return 0 if group is None or length <= group else group // 2


def document_spans(batch: int, length: int, mask: Tensor | None, position_ids: Tensor | None) -> list[list[Span]]:
    """The documents of each row, in order; what lies between them is padding.

    Args:
        batch, length: shape (B, L) of the batch.
        mask: (B, L) or None, true on real tokens. They must be contiguous in a row.
        position_ids: (B, L), (1, L) or None; a document starts wherever they do not grow by one.

    Raises:
        ValueError: the mask has holes, or the position ids are of another form (multi-axis RoPE).
    """
    import torch

    if position_ids is not None and (position_ids.ndim != 2 or position_ids.shape[-1] != length):
        raise ValueError(f"S²-Attn needs position_ids of shape (B, L), got {tuple(position_ids.shape)}")
    if mask is None and position_ids is None:
        return [[Span(0, length)] for _ in range(batch)]
    cuts = torch.zeros(batch, length, dtype=torch.bool)  # (B, L), true where a document starts
    if position_ids is not None:
        cuts[:, 1:] |= (position_ids[:, 1:] - position_ids[:, :-1] != 1).cpu()
    real = torch.ones(batch, length, dtype=torch.bool) if mask is None else mask.to("cpu", torch.bool)
    if bool(((real[:, 1:] & ~real[:, :-1]).sum(1) + real[:, 0] > 1).any()):
        raise ValueError("S²-Attn: the attention mask has holes; pad on one side, and pack with position_ids")
    cuts[:, 1:] |= real[:, 1:] != real[:, :-1]
    result = []
    for row, is_real in zip(cuts, real, strict=True):
        bounds = [0, *row.nonzero().flatten().tolist(), length]
        result.append([Span(a, b) for a, b in pairwise(bounds) if b > a and is_real[a]])
    return result


class Boundaries(NamedTuple):
    """Segments of a batch for kernels that take a flat list of tokens.

    cu_seqlens: (N + 1,) int32. longest: tokens. index: (tokens,) where the real tokens lie in (B * L), None if
    all are real.
    """

    cu_seqlens: Tensor
    longest: int
    index: Tensor | None  # type: ignore[assignment]


@dataclass(frozen=True)
class Partition:
    """Causal attention inside each of these segments of a (batch, length) batch. ``rows``: the segments of each."""

    batch: int
    length: int
    rows: tuple[tuple[Span, ...], ...]
    _on_device: dict[str, Boundaries] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def layouts(self) -> tuple[tuple[tuple[int, ...], tuple[Run, ...]], ...]:
        """Rows of one layout together, neighbouring segments of one size together: few large calls do the work."""
        found: dict[tuple[Span, ...], list[int]] = {}
        for row, spans in enumerate(self.rows):
            found.setdefault(spans, []).append(row)
        return tuple((tuple(rows), _runs(spans)) for spans, rows in found.items())

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest segment; 0 where all is padding."""
        return max((b - a for spans in self.rows for a, b in spans), default=0)

    @cached_property
    def complete(self) -> bool:
        """Whether no token is padding."""
        return sum(b - a for spans in self.rows for a, b in spans) == self.batch * self.length

    def boundaries(self, device: object) -> Boundaries:
        """The segments as tensors on ``device``, made once: all layers of a step share them."""
        import torch

        key = str(device)
        if key not in self._on_device:
            spans = [(row * self.length + a, b - a) for row, part in enumerate(self.rows) for a, b in part]
            ends = torch.tensor([0, *(size for _, size in spans)]).cumsum(0).to(torch.int32)
            index = None
            if not self.complete:
                pieces = [torch.arange(start, start + size) for start, size in spans]
                index = torch.cat([torch.zeros(0, dtype=torch.long), *pieces]).to(torch.device(key))
            self._on_device[key] = Boundaries(ends.to(torch.device(key)), self.longest, index)
        return self._on_device[key]


def _runs(spans: tuple[Span, ...]) -> tuple[Run, ...]:
    runs: list[Run] = []
    for start, stop in spans:
        last = runs[-1] if runs else Run(0, 0, 0)
        if last.size == stop - start and last.start + last.count * last.size == start:
            runs[-1] = last._replace(count=last.count + 1)
        else:
            runs.append(Run(start, 1, stop - start))
    return tuple(runs)


@dataclass(frozen=True)
class Plan:
    """What to compute for a batch.

    straight, shifted: segments of the first half of the heads and of the rest.
    order: for the wrap mode, (B * L,) positions in the flattened batch in the order in which the shifted heads
        read their tokens (each document rolled within itself); None otherwise.
    """

    straight: Partition
    shifted: Partition
    order: Tensor | None = None
    _on_device: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def uniform(self) -> bool:
        """Whether both halves do the same."""
        return self.order is None and self.straight == self.shifted

    def orders(self, device: object) -> tuple[Tensor, Tensor]:
        """``order`` and its inverse on ``device``, made once."""
        import torch

        assert self.order is not None
        key = str(device)
        if key not in self._on_device:
            order = self.order.to(torch.device(key))
            self._on_device[key] = (order, order.argsort())
        return self._on_device[key]


def make_plan(documents: list[list[Span]], length: int, group: int | None, mode: Mode = "split") -> Plan:
    """Cut the documents of a batch.

    Args:
        documents: of each row, see `document_spans`.
        length: tokens per row, padding included.
        group: tokens per segment, None for full attention.
        mode: how the shifted heads read a document longer than a group. split cuts a half group off its front, and
            nothing leaks. wrap rolls it left by half a group (LongLoRA, Algorithm 1): its first ``group // 2`` tokens
            then share the last group with its last ones and see them, although they lie in the future.
    """

    def partition(shift: int) -> Partition:
        rows = (
            tuple(
                Span(start + a, start + b)
                for start, stop in spans
                for a, b in pairwise(segments(stop - start, group, shift))
            )
            for spans in documents
        )
        return Partition(len(documents), length, tuple(rows))

    straight = partition(0)
    if mode == "split" or group is None:
        return Plan(straight, partition(0 if group is None else group // 2))
    import torch

    order = torch.arange(len(documents) * length).view(len(documents), length)
    rolled = False
    for row, spans in enumerate(documents):
        for start, stop in spans:
            if roll := roll_of(stop - start, group):
                order[row, start:stop] = order[row, start:stop].roll(-roll)
                rolled = True
    return Plan(straight, straight, order.flatten() if rolled else None)
