"""Shifted sparse attention (S²-Attn, LongLoRA, arXiv 2309.12307, section 3.2) without the wrap-around.

    heads [0, H//2)    |----g----|----g----|----g----|--rest--|     attention inside each segment only
    heads [H//2, H)    |-g/2-|----g----|----g----|----g----|..|     the same, boundaries moved by g/2

Every segment is plain causal attention, so cost grows with L·g instead of L². Information crosses a boundary
of one half of the heads through the other half. The paper rolls the sequence by g/2, which lets the first
tokens of the rolled heads see the last ones; cutting a short first segment instead (as the authors' flash
code does) needs no roll and leaks nothing.

Segments are counted from the start of each document, and padding is a document of its own that nobody looks
at. A document's result is therefore the same alone, padded on either side, or packed with others. No L x L
mask is ever built, and no length has to be divisible by anything.

    register()                                     # once per process
    config.s2_group_size = 2048                    # tokens; None: full attention, mask-free even when packed
    model.set_attn_implementation("s2_attn")

Outside training (``module.training`` is False) the attention is full, as LongLoRA evaluates.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

NAME = "s2_attn"
CPU_MULTIPLE = 64  # segments are padded to it on a CPU, where a bf16 kernel is kept per length (3.5 MB each)
GROUP_ATTRIBUTE = "s2_group_size"  # on the model config, tokens or None


def group_tokens(group: float | int, length: int) -> int:
    """A group in tokens: ``group`` itself if 1 or more, else that share of ``length`` (the paper: 1/4)."""
    if group >= 1:
        return int(group)
    return max(1, math.ceil(group * length))


def segments(length: int, group: int | None, shift: int = 0) -> list[int]:
    """Boundaries of the segments of one document: ``[0, ..., length]``, strictly increasing.

    Args:
        length: tokens of the document, at least 1.
        group: tokens per segment; None for one segment (full attention).
        shift: length of the first segment (0: an ordinary group), ``group // 2`` for the shifted heads.
    """
    if group is None:
        return [0, length]
    return [0, *range(shift or group, length, group), length]


@dataclass(frozen=True)
class _Run:
    """``count`` neighbouring segments of ``size`` tokens each."""

    count: int
    size: int


@dataclass(frozen=True)
class Plan:
    """What to compute for a batch: for each set of rows with one layout, the runs of both halves of heads.

    ``rows``: (row numbers, runs of the unshifted heads, runs of the shifted heads).
    """

    rows: tuple[tuple[tuple[int, ...], tuple[_Run, ...], tuple[_Run, ...]], ...]


def document_lengths(batch: int, length: int, mask: Tensor | None, position_ids: Tensor | None) -> list[list[int]]:
    """Lengths of the documents of each row, in order; they sum to ``length``.

    Args:
        batch, length: shape (B, L) of the batch.
        mask: (B, L) or None, true on real tokens. They must be contiguous in a row.
        position_ids: (B, L), (1, L) or None; a document starts wherever they do not grow by one.

    Raises:
        ValueError: the mask has holes, or the position ids are of another form (multi-axis RoPE).
    """
    import torch

    if position_ids is not None and (position_ids.ndim != 2 or position_ids.shape[-1] != length):
        raise ValueError(f"{NAME} needs position_ids of shape (B, L), got {tuple(position_ids.shape)}")
    if mask is None and position_ids is None:
        return [[length]] * batch
    cuts = torch.zeros(batch, length, dtype=torch.bool)  # (B, L), true where a document starts
    if position_ids is not None:
        cuts[:, 1:] |= (position_ids[:, 1:] - position_ids[:, :-1] != 1).cpu()
    if mask is not None:
        real = mask.to(torch.bool).cpu()
        edges = real[:, 1:] != real[:, :-1]
        starts = (real[:, 1:] & ~real[:, :-1]).sum(1) + real[:, 0]
        if bool((starts > 1).any()):
            raise ValueError(f"{NAME}: the attention mask has holes; pad on one side, and pack with position_ids")
        cuts[:, 1:] |= edges
    result = []
    for row in cuts:
        bounds = [0, *row.nonzero().flatten().tolist(), length]
        result.append([b - a for a, b in pairwise(bounds) if b > a])
    return result


def make_plan(documents: list[list[int]], group: int | None) -> Plan:
    """Group rows of one layout and neighbouring segments of one size, so that few large calls do the work."""
    layouts: dict[tuple[int, ...], list[int]] = {}
    for row, lengths in enumerate(documents):
        layouts.setdefault(tuple(lengths), []).append(row)
    shift = 0 if group is None else group // 2
    return Plan(
        tuple(
            (tuple(rows), _runs(lengths, group, 0), _runs(lengths, group, shift)) for lengths, rows in layouts.items()
        )
    )


def _runs(lengths: tuple[int, ...], group: int | None, shift: int) -> tuple[_Run, ...]:
    runs: list[_Run] = []
    for length in lengths:
        bounds = segments(length, group, shift)
        for size in (b - a for a, b in pairwise(bounds)):
            if runs and runs[-1].size == size:
                runs[-1] = _Run(runs[-1].count + 1, size)
            else:
                runs.append(_Run(1, size))
    return tuple(runs)


def s2_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: Plan,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """S²-Attn by SDPA over groups.

    Args:
        query: (B, H, L, D), RoPE already applied with the original positions.
        key, value: (B, Hkv, L, D); H is a multiple of Hkv.
        plan: of this batch, see `make_plan`.
        scaling: of the scores; None is D ** -0.5.
        dropout: probability on attention weights.

    Returns:
        (B, L, H, D). Padding positions hold finite values that mean nothing.
    """
    import torch

    half = query.shape[1] // 2
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:  # the cut between the halves may fall inside a key-value head (9 heads on 3)
        key, value = (_repeat_heads(x, repeat) for x in (key, value))
    parts = []
    for rows, straight, shifted in plan.rows:
        q, k, v = (query, key, value) if len(plan.rows) == 1 else (x[list(rows)] for x in (query, key, value))
        if straight == shifted or half == 0:  # one pattern for all heads
            parts.append(_attend(q, k, v, shifted, scaling, dropout))
            continue
        low = _attend(q[:, :half], k[:, :half], v[:, :half], straight, scaling, dropout)
        high = _attend(q[:, half:], k[:, half:], v[:, half:], shifted, scaling, dropout)
        parts.append(torch.cat([low, high], dim=2))
    if len(parts) == 1:
        return parts[0]
    order = [row for rows, _, _ in plan.rows for row in rows]
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return torch.cat(parts)[inverse]


def _repeat_heads(x: Tensor, repeat: int) -> Tensor:
    """(B, Hkv, L, D) -> (B, Hkv * repeat, L, D), each head ``repeat`` times in a row."""
    return x.unsqueeze(2).expand(-1, -1, repeat, -1, -1).flatten(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, runs: tuple[_Run, ...], scaling: float | None, dropout: float) -> Tensor:
    """Causal attention inside each segment. (B, h, L, D) three times -> (B, L, h, D)."""
    import torch
    from torch.nn.functional import pad, scaled_dot_product_attention

    batch = q.shape[0]
    sizes = [run.count * run.size for run in runs]
    outputs = []
    # split, not slices: its backward is one concatenation
    for run, *qkv in zip(runs, q.split(sizes, 2), k.split(sizes, 2), v.split(sizes, 2), strict=True):
        # (B, h, n*s, D) -> (B*n, h, s, D): the segments of a run are one batch. A view where B is 1.
        qh, kh, vh = [x.unflatten(2, (run.count, run.size)).transpose(1, 2).flatten(0, 1) for x in qkv]
        if q.device.type == "cpu" and (tail := -run.size % CPU_MULTIPLE) and run.size > CPU_MULTIPLE:
            # keys after the last query: causal attention never looks at them
            qh, kh, vh = (pad(x, (0, 0, 0, tail)) for x in (qh, kh, vh))
        out = scaled_dot_product_attention(qh, kh, vh, is_causal=run.size > 1, dropout_p=dropout, scale=scaling)
        outputs.append(out[:, :, : run.size].transpose(1, 2).reshape(batch, run.count * run.size, out.shape[1], -1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


@dataclass
class _PlanCache:
    """The last plan: all layers of a step, and their recomputation, share one batch."""

    key: tuple[Any, ...] = ()
    tensors: tuple[Any, ...] = ()
    plan: Plan | None = field(default=None)

    def get(self, shape: tuple[int, int], group: int | None, mask: Tensor | None, positions: Tensor | None) -> Plan:
        given = (mask, positions)
        if any(t is not None and t.is_inference() for t in given):  # no version counter: a change would go unseen
            return make_plan(document_lengths(*shape, mask, positions), group)
        versions = tuple(None if t is None else t._version for t in given)
        same = len(self.tensors) == 2 and all(
            new is None if old is None else old() is new and new is not None
            for old, new in zip(self.tensors, given, strict=True)
        )
        key = (*shape, group, versions)
        if self.plan is None or not same or key != self.key:
            self.plan = make_plan(document_lengths(*shape, mask, positions), group)
            self.key = key
            self.tensors = tuple(None if t is None else weakref.ref(t) for t in given)
        return self.plan


_cache = _PlanCache()


def s2_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls (`AttentionInterface`).

    Args:
        module: the attention module; ``module.config.s2_group_size`` is the group in tokens, None for full.
        query: (B, H, L, D); key, value: (B, Hkv, Lk, D).
        attention_mask: (B, L) padding mask or None; 4-D only outside training (generation with a cache).
        kwargs: ``position_ids`` marks packed documents.

    Returns:
        (B, L, H, D) and None for the weights.

    Raises:
        ValueError: something S²-Attn cannot honour (sliding window, soft-capping, cache while training, ...).
    """
    for name in ("sliding_window", "softcap", "position_bias"):
        if kwargs.get(name) is not None:
            raise ValueError(f"{NAME} does not support {name}; train this model with attention: full and sdpa")
    if kwargs.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise ValueError(f"{NAME} is causal; this module is not")
    cached = query.shape[2] != key.shape[2] or (attention_mask is not None and attention_mask.ndim != 2)
    if cached:
        if module.training:
            raise ValueError(f"{NAME}: no cache and no ready-made 4-D mask while training")
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out, None
    config: Any = module.config
    if not hasattr(config, GROUP_ATTRIBUTE):
        raise ValueError(
            f"{NAME}: set config.{GROUP_ATTRIBUTE} to the group size in tokens, or None for full attention"
        )
    group = getattr(config, GROUP_ATTRIBUTE) if module.training else None
    plan = _cache.get((query.shape[0], query.shape[2]), group, attention_mask, kwargs.get("position_ids"))
    return s2_attention(query, key, value, plan, scaling=scaling, dropout=dropout), None


def s2_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """The (B, L) padding mask, or None where nothing is padded (`AttentionMaskInterface`).

    With a key-value cache (generation) it is SDPA's (B, 1, Lq, Lk) mask instead.
    """
    if q_length != kv_length:
        from transformers.masking_utils import sdpa_mask

        return sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,
            attention_mask=attention_mask,
            **kwargs,
        )
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask[:, :kv_length]


def register() -> None:
    """Make ``attn_implementation="s2_attn"`` known to transformers. Harmless when repeated."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, s2_attention_forward)
    AttentionMaskInterface.register(NAME, s2_mask)
