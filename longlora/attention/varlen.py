"""S²-Attn by kernels that take a flat list of tokens and the boundaries of its segments: flash-attn and torch's.

Boundaries are all that S²-Attn needs: no data moves, however many documents are packed, and padding is left out.
CUDA only, bfloat16 or float16.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from longlora.attention.heads import Part, attend_by_pieces
from longlora.attention.plan import Partition

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEAD_DIM = 256  # of the flash kernels behind both


class Kernel(Protocol):
    """Causal attention inside each segment: q (T, h, D), k and v (T, hkv, D), cu_seqlens (N + 1,) -> (T, h, D)."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int, scale: float, dropout: float
    ) -> Tensor: ...


class Varlen:
    """A backend on a kernel of this kind.

    Args:
        name: of the backend.
        load: returns the kernel, or raises ImportError.
        takes_dropout: whether the kernel can drop attention weights.
    """

    def __init__(self, name: str, load: Callable[[], Kernel], *, takes_dropout: bool) -> None:
        self.name = name
        self.load = load
        self.takes_dropout = takes_dropout

    def why_not(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> str | None:
        """Why these (B, H, L, D) tensors cannot be computed; None if they can."""
        import torch

        if q.device.type != "cuda":
            return f"it needs a CUDA device, and the tensors are on {q.device.type}"
        if torch.cuda.get_device_capability(q.device) < (8, 0) and not torch.version.hip:
            return "it needs an Ampere GPU or later"
        if q.dtype not in (torch.bfloat16, torch.float16):
            return f"it computes in bfloat16 or float16, not {str(q.dtype).removeprefix('torch.')}"
        if q.shape[-1] > MAX_HEAD_DIM or q.shape[-1] % 8 or q.shape[-1] != v.shape[-1]:
            return f"heads of {q.shape[-1]} and {v.shape[-1]} dimensions: it takes equal multiples of 8 up to 256"
        if dropout and not self.takes_dropout:
            return "it knows no dropout"
        try:
            self.load()
        except Exception as error:  # a broken build of the package raises anything
            return f"it cannot be imported ({type(error).__name__}: {error})"
        return None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, parts: Sequence[Part], scale: float | None, dropout: float
    ) -> Tensor:
        kernel = self.load()
        scale = q.shape[-1] ** -0.5 if scale is None else scale

        def attend(q: Tensor, k: Tensor, v: Tensor, partition: Partition) -> Tensor:
            return attend_flat(kernel, q, k, v, partition, scale, dropout)

        return attend_by_pieces(q, k, v, parts, attend)


def attend_flat(
    kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, partition: Partition, scale: float, dropout: float
) -> Tensor:
    """(B, h, L, D), twice (B, hkv, L, D) -> (B, L, h, D); zeros on padding, which the kernel never sees."""
    batch, heads, length, _ = q.shape
    cu_seqlens, longest, index = partition.boundaries(q.device)
    # Models make (B, L, H, D) and transpose it, so this is a view
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    if index is not None:
        if not index.numel():
            return q.new_zeros(batch, length, heads, v.shape[-1])
        q, k, v = (x.index_select(0, index) for x in (q, k, v))
    out = kernel(q, k, v, cu_seqlens, longest, scale, dropout)
    if index is not None:
        out = out.new_zeros(batch * length, heads, out.shape[-1]).index_copy(0, index, out)
    return out.unflatten(0, (batch, length))


def flash_attn_kernel(function: Callable[..., Any]) -> Kernel:
    """flash-attn 2's ``flash_attn_varlen_func``, which shares key-value heads by itself."""

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int, scale: float, dropout: float
    ) -> Tensor:
        out: Tensor = function(
            q, k, v, cu_seqlens, cu_seqlens, longest, longest, dropout_p=dropout, softmax_scale=scale, causal=True
        )
        return out

    return kernel


def torch_kernel(function: Callable[..., Any]) -> Kernel:
    """`torch.nn.attention.varlen.varlen_attn`, whose arguments differ between releases.

    2.10 has ``is_causal``, later ones ``window_size``; ``scale`` and ``enable_gqa`` came one by one.
    """
    known = inspect.signature(function).parameters

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int, scale: float, dropout: float
    ) -> Tensor:
        options: dict[str, Any] = {"is_causal": True} if "is_causal" in known else {"window_size": (-1, 0)}
        if "scale" in known:
            options["scale"] = scale
        elif scale != q.shape[-1] ** -0.5:  # the kernel's own
            q = q * (scale * q.shape[-1] ** 0.5)
        if q.shape[1] != k.shape[1]:
            if "enable_gqa" in known:
                options["enable_gqa"] = True
            else:
                repeat = q.shape[1] // k.shape[1]
                k, v = (x.repeat_interleave(repeat, dim=1) for x in (k, v))
        out: Tensor = function(q, k, v, cu_seqlens, cu_seqlens, longest, longest, **options)
        return out

    return kernel


@cache
def _load_flash_attn() -> Kernel:
    from flash_attn import flash_attn_varlen_func

    return flash_attn_kernel(flash_attn_varlen_func)


@cache
def _load_torch() -> Kernel:
    from torch.nn.attention.varlen import varlen_attn

    return torch_kernel(varlen_attn)


FLASH_ATTN = Varlen("flash_attn", _load_flash_attn, takes_dropout=True)
TORCH_VARLEN = Varlen("torch_varlen", _load_torch, takes_dropout=False)
