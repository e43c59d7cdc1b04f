"""`longlora.attention.cpu` as an autograd function; imports torch, so it is imported where it is used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longlora.attention import cpu
from longlora.attention.heads import Part
from longlora.attention.plan import Run


class SplitCausal(torch.autograd.Function):
    """Keeps q, k and v as they are given: neither widened nor repeated for grouped queries."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, parts: tuple[Part, ...], scale: float | None) -> Tensor:
        heads = sum(part.last - part.first for part in parts)
        complete = all(part.partition.complete for part in parts)
        make = torch.empty if complete else torch.zeros
        out = make(q.shape[0], q.shape[2], heads, v.shape[-1], dtype=q.dtype)
        sums: list[Tensor] = []  # (G, T) log-sum-exp of each run
        at = 0
        for part in parts:
            place = slice(at, at + part.last - part.first)
            at = place.stop
            for rows, runs in part.partition.layouts:
                for run in runs:
                    qs, ks, vs = (_load(x, rows, _heads(part, q, x), run) for x in (q, k, v))
                    size = cpu.padded_size(run, qs.dtype)
                    o, lse = cpu.forward(qs, ks, vs, run.count, size, scale)
                    _write(out.transpose(1, 2), o, rows, place, run)
                    sums.append(lse)
        ctx.save_for_backward(q, k, v, out, *sums)
        ctx.parts, ctx.scale = parts, scale
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out, *sums = ctx.saved_tensors
        # (B, L, H, D) in memory, as the projections that the gradients go to. Heads of the halves add up in k, v.
        written = _all_written(ctx.parts, q, k)
        grads = [
            (torch.empty if written else torch.zeros)(
                x.shape[0], x.shape[2], x.shape[1], x.shape[3], dtype=kind
            ).transpose(1, 2)
            for x, kind in ((q, q.dtype), (k, cpu.compute_dtype(k.dtype)), (v, cpu.compute_dtype(v.dtype)))
        ]
        left = iter(sums)
        at = 0
        for part in ctx.parts:
            place = slice(at, at + part.last - part.first)
            at = place.stop
            for rows, runs in part.partition.layouts:
                for run in runs:
                    qs, ks, vs = (_load(x, rows, _heads(part, q, x), run) for x in (q, k, v))
                    o, g = (_load(x.transpose(1, 2), rows, place, run) for x in (out, upstream))
                    size = cpu.padded_size(run, qs.dtype)
                    dq, dk, dv = cpu.backward(g, qs, ks, vs, o, next(left), run.count, size, ctx.scale)
                    _write(grads[0], dq, rows, slice(part.first, part.last), run)
                    for total, gradient in ((grads[1], dk), (grads[2], dv)):
                        _add(total, gradient, rows, _heads(part, q, total), run)
        return grads[0], grads[1].to(k.dtype), grads[2].to(v.dtype), None, None


def _all_written(parts: tuple[Part, ...], q: Tensor, k: Tensor) -> bool:
    """Whether every gradient is written once and none is left out: no padding, no shared key-value heads."""
    heads = sum(part.last - part.first for part in parts)
    return heads == q.shape[1] == k.shape[1] and all(part.partition.complete for part in parts)


def _heads(part: Part, q: Tensor, x: Tensor) -> slice | list[int]:
    """The heads of ``x`` (q, k or v) that belong to a part; key-value heads as often as they are shared."""
    repeat = q.shape[1] // x.shape[1]
    if repeat == 1:
        return slice(part.first, part.last)
    return [head // repeat for head in range(part.first, part.last)]


def _load(x: Tensor, rows: tuple[int, ...], heads: slice | list[int], run: Run) -> Tensor:
    """The tokens of a run, (rows * heads, T, D), contiguous, in the number format of the computation."""
    x = x[:, :, run.start : run.start + run.count * run.size]
    if len(rows) < x.shape[0]:
        x = x[list(rows)]
    dtype = cpu.compute_dtype(x.dtype)
    x = x[:, heads].to(dtype, memory_format=torch.contiguous_format)  # widened and laid out in one pass
    if tail := cpu.padded_size(run, dtype) - run.size:  # keys after the last query: nobody looks at them
        x = torch.nn.functional.pad(x.unflatten(2, (run.count, run.size)), (0, 0, 0, tail)).flatten(2, 3)
    return x.contiguous().flatten(0, 1)


def _split(x: Tensor, rows: tuple[int, ...], run: Run) -> Tensor:
    """The reverse of `_load`: (G, T, D) -> (rows, heads, tokens, D), without padding."""
    x = x.unflatten(0, (len(rows), -1))
    size = x.shape[2] // run.count
    return x if size == run.size else x.unflatten(2, (run.count, size))[:, :, :, : run.size].flatten(2, 3)


def _write(target: Tensor, x: Tensor, rows: tuple[int, ...], heads: slice, run: Run) -> None:
    tokens = slice(run.start, run.start + run.count * run.size)
    if len(rows) == target.shape[0]:
        target[:, heads, tokens] = _split(x, rows, run)
    else:
        target[list(rows), heads, tokens] = _split(x, rows, run).to(target.dtype)


def _add(target: Tensor, x: Tensor, rows: tuple[int, ...], heads: slice | list[int], run: Run) -> None:
    if isinstance(heads, slice):  # one query head each: written once
        return _write(target, x, rows, heads, run)
    x = _split(x, rows, run)
    for i, head in enumerate(heads):
        for j, row in enumerate(rows):
            target[row, head, run.start : run.start + run.count * run.size] += x[j, i]
    return None
