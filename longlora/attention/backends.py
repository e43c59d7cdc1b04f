"""Which kernels compute S²-Attn, and the attention function itself, independent of any model library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from longlora.attention.heads import Part
from longlora.attention.plan import Plan
from longlora.attention.sdpa import Sdpa
from longlora.attention.varlen import FLASH_ATTN, TORCH_VARLEN
from longlora.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


class Backend(Protocol):
    """Kernels for causal attention inside segments."""

    name: str

    def why_not(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> str | None:
        """Why it cannot compute these (B, H, L, D) tensors, for the user; None if it can."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, parts: Sequence[Part], scale: float | None, dropout: float
    ) -> Tensor:
        """(B, H, L, D), twice (B, Hkv, L, D) -> (B, L, heads of all parts, D), zeros on padding."""


BACKENDS: dict[str, Backend] = {b.name: b for b in (FLASH_ATTN, TORCH_VARLEN, Sdpa())}  # fastest first


def choose(wanted: str | Backend, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Backend:
    """The backend for these tensors: the fastest that can (``auto``), or the named one.

    Raises:
        UserError: the named one is unknown or cannot; the message has the reason.
    """
    if wanted == "auto":
        return next(b for b in BACKENDS.values() if b.why_not(q, k, v, dropout) is None)
    if isinstance(wanted, str):
        if wanted not in BACKENDS:
            raise UserError(f"attention backend {wanted!r} is unknown", f"use auto or one of {', '.join(BACKENDS)}")
        wanted = BACKENDS[wanted]
    if reason := wanted.why_not(q, k, v, dropout):
        raise UserError(f"attention backend {wanted.name} cannot be used: {reason}", "set attention_backend: auto")
    return wanted


def s2_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: Plan,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    backend: str | Backend = "auto",
) -> Tensor:
    """Shifted sparse attention (LongLoRA, arXiv 2309.12307, section 3.2).

    Args:
        query: (B, H, L, D), RoPE already applied with the original positions.
        key, value: (B, Hkv, L, D); H is a multiple of Hkv.
        plan: of this batch, see `make_plan`.
        scaling: of the scores; None is D ** -0.5.
        dropout: probability on attention weights.
        backend: see `choose`.

    Returns:
        (B, L, H, D), zeros on padding. Of an odd number of heads the smaller half is the unshifted one.

    Raises:
        UserError: the backend cannot be used.
    """
    import torch

    attend = choose(backend, query, key, value, dropout)
    heads = query.shape[1]
    half = heads // 2
    if plan.uniform or (half == 0 and plan.order is None):
        return attend(query, key, value, [Part(0, heads, plan.shifted)], scaling, dropout)
    straight, shifted = Part(0, half, plan.straight), Part(half, heads, plan.shifted)
    if plan.order is None:
        return attend(query, key, value, [straight, shifted], scaling, dropout)
    order, inverse = plan.orders(query.device)
    q, k, v = (_reordered(x.transpose(1, 2), order).transpose(1, 2) for x in (query, key, value))
    high = _reordered(attend(q, k, v, [shifted], scaling, dropout), inverse)
    if half == 0:
        return high
    return torch.cat([attend(query, key, value, [straight], scaling, dropout), high], dim=2)


def _reordered(x: Tensor, order: Tensor) -> Tensor:
    """(B, L, ...) with its B * L tokens in another order."""
    return x.flatten(0, 1).index_select(0, order).unflatten(0, x.shape[:2])
