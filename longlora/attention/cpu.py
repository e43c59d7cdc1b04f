"""Causal attention on a CPU, cut into rectangles that need no mask.

torch's CPU kernel computes whole blocks of 512 keys across the diagonal: a segment of s tokens costs about
s / 2 + 256 keys per query where s / 2 would do, which for the short segments of S²-Attn is a tenth to a half of
all work. Here a segment is a triangle of causal attention for each t tokens and, below the diagonal, squares of
t, 2t, 4t, ... tokens in which every query sees every key:

    |\\                 The squares of one size are one batched call. The results of a query are merged by
    |_|\\               log-sum-exp, as flash attention merges its blocks (arXiv 2205.14135, section 3.1): with
    |   |\\             the final output and log-sum-exp given, the backward pass is a plain sum over blocks.
    |___|_|\\

Number formats that the CPU does not compute in are widened to float32 first: its matrix kernels emulate
bfloat16 several times slower than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from longlora.attention.heads import Part
from longlora.attention.plan import Run
from longlora.hardware import cpu_bfloat16

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Tokens, by the bytes of a number. Smaller triangles save work, and are computed at a worse rate: below 768 queries the
# kernel takes blocks of 64 queries instead of 256. bfloat16, whose matrix kernels are the faster ones, loses more by
# that than it saves.
TRIANGLES = {2: 1024, 4: 256, 8: 256}
MULTIPLE = 64  # tokens; bfloat16 kernels are kept per length (3.5 MB each), so lengths are rounded up to it
FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
BACKWARD = FORWARD + "_backward"


@cache
def available() -> bool:
    """Whether this torch has the kernels with the arguments used here. They are not public."""
    import torch

    wanted = {
        FORWARD: ["query", "key", "value", "dropout_p", "is_causal", "attn_mask", "scale"],
        BACKWARD: [
            "grad_out", "query", "key", "value", "out", "logsumexp", "dropout_p", "is_causal", "attn_mask", "scale",
        ],
    }  # fmt: skip
    for name, arguments in wanted.items():
        op = getattr(torch.ops.aten, name, None)
        if op is None or [a.name for a in op.default._schema.arguments] != arguments:
            return False
    return True


def usable(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> bool:
    """Whether `attend` can compute this: on a CPU, no dropout, values as wide as keys."""
    return (
        q.device.type == "cpu"
        and dropout == 0.0
        and q.shape[-1] == v.shape[-1]
        and q.dtype == k.dtype == v.dtype
        and available()
    )


@cache
def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The number format that tensors of ``dtype`` are computed in."""
    import torch

    if dtype == torch.float16 or (dtype == torch.bfloat16 and not cpu_bfloat16()):
        return torch.float32
    return dtype


class Tile(NamedTuple):
    """``count`` blocks, the i-th moved on by i * ``stride`` tokens: queries [q, q + q_size), keys [k, k + k_size)."""

    count: int  # type: ignore[assignment]
    stride: int
    q: int
    q_size: int
    k: int
    k_size: int
    causal: bool


@lru_cache(maxsize=1024)
def tiles(count: int, size: int, triangle: int) -> tuple[Tile, ...]:
    """Causal attention inside each of ``count`` neighbouring segments of ``size`` tokens, triangles first."""
    result: list[Tile] = []

    def add(number: int, step: int, q: int, q_size: int, k: int, k_size: int, causal: bool = False) -> None:
        """``number`` blocks in each segment, ``step`` apart."""
        for blocks, stride, first in _progressions(count, size, number, step):
            result.append(Tile(blocks, stride, first + q, q_size, first + k, k_size, causal))

    whole, rest = divmod(size, triangle)
    if whole:
        add(whole, triangle, 0, triangle, 0, triangle, causal=True)
    if rest:
        add(1, size, size - rest, rest, size - rest, rest, causal=True)
    side = triangle
    while side < size:
        whole, rest = divmod(size, 2 * side)
        if whole:
            add(whole, 2 * side, side, side, 0, side)
        if rest > side:  # the last one is cut short below
            start = size - rest
            add(1, size, start + side, rest - side, start, side)
        side *= 2
    return tuple(result)


def _progressions(count: int, size: int, number: int, step: int) -> Iterator[tuple[int, int, int]]:
    """(blocks, stride, first token): as few even rows of blocks as cover ``number`` of them in each segment."""
    if number * step == size:
        yield count * number, step, 0
    elif count <= number:
        for i in range(count):
            yield number, step, i * size
    else:
        for j in range(number):
            yield count, size, j * step


def attend(q: Tensor, k: Tensor, v: Tensor, parts: Sequence[Part], scale: float | None = None) -> Tensor:
    """Causal attention inside the segments of each part of the heads, differentiable once.

    Args:
        q: (B, H, L, D); k, v: (B, Hkv, L, D).
        parts: the heads to compute.
        scale: of the scores; None is D ** -0.5.

    Returns:
        (B, L, heads of all parts, D); zeros on padding.
    """
    from longlora.attention.cpu_function import SplitCausal

    result: Any = SplitCausal.apply(q, k, v, tuple(parts), scale)
    return result


def padded_size(run: Run, dtype: torch.dtype) -> int:
    """Tokens that a segment of ``run`` takes up in the work tensors."""
    return run.size if dtype.itemsize >= 4 else -(-run.size // MULTIPLE) * MULTIPLE


def view(x: Tensor, tile_count: int, stride: int, first: int, size: int) -> Tensor:
    """(G, T, ...) -> (count, G, size, ...), blocks of tokens without a copy."""
    group, token, *rest = x.stride()
    return x.as_strided(
        (tile_count, x.shape[0], size, *x.shape[2:]),
        (stride * token, group, token, *rest),
        x.storage_offset() + first * token,
    )


def forward(q: Tensor, k: Tensor, v: Tensor, count: int, size: int, scale: float | None) -> tuple[Tensor, Tensor]:
    """Attention in ``count`` segments of ``size`` tokens; q, k, v (G, T, D) -> output (G, T, D), log-sum-exp (G, T)."""
    import torch

    op = getattr(torch.ops.aten, FORWARD)
    groups, tokens, width = q.shape
    out = lse = None
    for n, stride, at_q, q_size, at_k, k_size, causal in tiles(count, size, TRIANGLES[q.dtype.itemsize]):
        keys = (n, stride, at_k, k_size)
        o, part = op(
            view(q, n, stride, at_q, q_size), view(k, *keys), view(v, *keys), 0.0, causal and q_size > 1, scale=scale
        )
        if out is None and n * q_size == tokens:  # the kernel's own layout, (T, G, D): nothing to copy
            out = o.transpose(1, 2).reshape(tokens, groups, width).transpose(0, 1)
            lse = part.transpose(1, 2).reshape(tokens, groups).transpose(0, 1)
            continue
        if out is None or lse is None:
            out = q.new_empty(tokens, groups, width).transpose(0, 1)
            lse = part.new_empty(tokens, groups).transpose(0, 1)
        queries = (n, stride, at_q, q_size)
        if causal:
            view(out, *queries).copy_(o)
            view(lse, *queries).copy_(part)
        else:
            so_far = view(lse, *queries)
            view(out, *queries).lerp_(o, (part - so_far).sigmoid_().unsqueeze(-1).to(o.dtype))
            torch.logaddexp(so_far, part, out=so_far)
    assert out is not None and lse is not None
    return out, lse


def backward(
    upstream: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    count: int,
    size: int,
    scale: float | None,
) -> list[Tensor]:
    """Gradients of q, k and v, (G, T, D) each."""
    import torch

    op = getattr(torch.ops.aten, BACKWARD)
    groups, tokens, width = q.shape
    total: list[Tensor] = []
    for n, stride, at_q, q_size, at_k, k_size, causal in tiles(count, size, TRIANGLES[q.dtype.itemsize]):
        queries, keys = (n, stride, at_q, q_size), (n, stride, at_k, k_size)
        gradients = op(
            view(upstream, *queries),
            view(q, *queries),
            view(k, *keys),
            view(v, *keys),
            view(out, *queries),
            view(lse, *queries),
            0.0,
            causal and q_size > 1,
            scale=scale,
        )
        if not total and n * q_size == tokens:
            total = [x.transpose(1, 2).reshape(tokens, groups, width).transpose(0, 1) for x in gradients]
            continue
        if not total:
            total = [q.new_empty(tokens, groups, width).transpose(0, 1) for _ in range(3)]
        for x, gradient, where in zip(total, gradients, (queries, keys, keys), strict=True):
            if causal:  # the triangles come first and touch every token once
                view(x, *where).copy_(gradient)
            else:
                view(x, *where).add_(gradient)
    return total
