"""S²-Attn by `torch.nn.functional.scaled_dot_product_attention`: any device, number format and torch.

Segments of one size are one batch of causal attention without a mask, which every flash kernel takes. On a CPU
the work goes to `longlora.attention.cpu` where it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from longlora.attention import cpu
from longlora.attention.heads import Part, attend_by_pieces
from longlora.attention.plan import Partition, Run

if TYPE_CHECKING:
    from torch import Tensor


class Sdpa:
    """The backend that always works."""

    name = "sdpa"

    def why_not(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> str | None:
        return None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, parts: Sequence[Part], scale: float | None, dropout: float
    ) -> Tensor:
        if cpu.usable(q, k, v, dropout):
            return cpu.attend(q, k, v, parts, scale)
        return stock(q, k, v, parts, scale, dropout)


def stock(
    q: Tensor, k: Tensor, v: Tensor, parts: Sequence[Part], scale: float | None = None, dropout: float = 0.0
) -> Tensor:
    """The same by nothing but SDPA. (B, H, L, D), twice (B, Hkv, L, D) -> (B, L, heads of all parts, D)."""

    def attend(q: Tensor, k: Tensor, v: Tensor, partition: Partition) -> Tensor:
        return _attend(q, k, v, partition, scale, dropout)

    return attend_by_pieces(q, k, v, parts, attend)


def _attend(q: Tensor, k: Tensor, v: Tensor, partition: Partition, scale: float | None, dropout: float) -> Tensor:
    import torch

    results = []
    for rows, runs in partition.layouts:
        # advanced indexing copies, so not where one layout is all there is
        whole = len(partition.layouts) == 1
        qr, kr, vr = (q, k, v) if whole else (x[list(rows)] for x in (q, k, v))
        batch, heads, length, _ = qr.shape
        outputs, at = [], 0
        for run in runs:
            outputs.append(q.new_zeros(batch, run.start - at, heads, v.shape[-1]))  # padding
            outputs.append(_attend_run(qr, kr, vr, run, scale, dropout))
            at = run.start + run.count * run.size
        outputs.append(q.new_zeros(batch, length - at, heads, v.shape[-1]))
        outputs = [x for x in outputs if x.shape[1]]
        results.append(outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1))
    if len(results) == 1:
        return results[0]
    order = [row for rows, _ in partition.layouts for row in rows]
    return torch.cat(results)[sorted(range(len(order)), key=order.__getitem__)]


def _attend_run(q: Tensor, k: Tensor, v: Tensor, run: Run, scale: float | None, dropout: float) -> Tensor:
    """Causal attention inside each segment of a run. -> (B, tokens of the run, h, D)."""
    from torch.nn.functional import scaled_dot_product_attention

    batch, size = q.shape[0], run.count * run.size
    # (B, h, n*s, D) -> (B*n, h, s, D): the segments of a run are one batch. A view where B is 1.
    qh, kh, vh = (
        x.narrow(2, run.start, size).unflatten(2, (run.count, run.size)).transpose(1, 2).flatten(0, 1)
        for x in (q, k, v)
    )
    # the keyword only where it is needed: flash kernels of some devices decline it
    grouped: dict[str, Any] = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    out = scaled_dot_product_attention(qh, kh, vh, is_causal=run.size > 1, dropout_p=dropout, scale=scale, **grouped)
    return out.transpose(1, 2).reshape(batch, size, out.shape[1], -1)
