"""S²-Attn as transformers calls it: an attention function and a mask function, registered under our names."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longlora.attention.backends import s2_attention
from longlora.attention.plan import Mode, Plan, document_spans, make_plan

if TYPE_CHECKING:
    from torch import Tensor, nn

# No "flash", "sdpa" or "flex" in a name: transformers takes such names for its own implementations.
NAME = "s2_attn"
WRAP_NAME = "s2_attn_wrap"
GROUP_ATTRIBUTE = "s2_group_size"  # on the model config, tokens or None
BACKEND_ATTRIBUTE = "s2_backend"  # on the model config, auto where it is missing

# Arguments that transformers' models hand to attention functions and that change nothing here.
HARMLESS = frozenset({
    "cache_position", "is_causal", "layer_past", "logits_to_keep", "num_items_in_batch", "output_hidden_states",
    "past_key_value", "past_key_values", "position_embeddings", "position_ids", "return_dict", "sliding_window",
    "use_cache",
})  # fmt: skip


@dataclass
class _PlanCache:
    """The last plan: all layers of a step, and their recomputation, share one batch."""

    key: tuple[Any, ...] = ()
    tensors: tuple[Any, ...] = ()
    plan: Plan | None = None

    def get(
        self, shape: tuple[int, int], group: int | None, mode: Mode, mask: Tensor | None, positions: Tensor | None
    ) -> Plan:
        def make() -> Plan:
            return make_plan(document_spans(*shape, mask, positions), shape[1], group, mode)

        given = (mask, positions)
        if any(t is not None and t.is_inference() for t in given):  # no version counter: a change would go unseen
            return make()
        same = len(self.tensors) == 2 and all(
            new is None if old is None else old() is new and new is not None
            for old, new in zip(self.tensors, given, strict=True)
        )
        key = (*shape, group, mode, tuple(None if t is None else t._version for t in given))
        if self.plan is None or not same or key != self.key:
            self.plan = make()
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
    *,
    mode: Mode = "split",
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls (`AttentionInterface`).

    Args:
        module: the attention module; ``module.config.s2_group_size`` is the group in tokens, None for full.
        query: (B, H, L, D); key, value: (B, Hkv, Lk, D).
        attention_mask: (B, L) padding mask or None; 4-D only outside training (generation with a cache).
        mode: see `make_plan`.
        kwargs: ``position_ids`` marks packed documents.

    Returns:
        (B, L, H, D) and None for the weights.

    Raises:
        ValueError: something S²-Attn cannot honour (a sliding window shorter than a segment, soft-capping,
            attention sinks, a cache while training, ...).
        UserError: the backend named in the config cannot be used.
    """
    import torch

    unknown = sorted(k for k, x in kwargs.items() if k not in HARMLESS and x is not None and x is not False)
    if unknown:
        raise ValueError(f"{NAME} does not support {', '.join(unknown)}; this model needs sdpa or eager attention")
    if kwargs.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise ValueError(f"{NAME} is causal; this module is not")
    if query.shape[2] != key.shape[2] or (attention_mask is not None and attention_mask.ndim != 2):
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
    plan = _cache.get((query.shape[0], query.shape[2]), group, mode, attention_mask, kwargs.get("position_ids"))
    window = kwargs.get("sliding_window")
    if window is not None and window < (longest := max(plan.straight.longest, plan.shifted.longest)):
        raise ValueError(f"{NAME}: a sliding_window of {window} tokens is shorter than a segment of {longest}")
    if len({query.dtype, key.dtype, value.dtype}) > 1 or torch.is_autocast_enabled(query.device.type):
        # Norms on queries and keys whose weights are float32 widen them; flash kernels know no autocast.
        dtype = value.dtype
        if torch.is_autocast_enabled(query.device.type):
            dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = (x.to(dtype) for x in (query, key, value))
    backend = getattr(config, BACKEND_ATTRIBUTE, "auto")
    return s2_attention(query, key, value, plan, scaling=scaling, dropout=dropout, backend=backend), None


def s2_attention_wrap_forward(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """`s2_attention_forward` with the paper's roll."""
    return s2_attention_forward(*args, mode="wrap", **kwargs)


def s2_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """The (B, L) padding mask, or None where nothing is padded (`AttentionMaskInterface`).

    With a key-value cache (generation) it is SDPA's (B, 1, Lq, Lk) mask instead.

    Raises:
        ValueError: the model asks for a mask that is not causal, chunked, or its own.
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
    _check_mask(q_length, **kwargs)
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask[:, :kv_length]


def _check_mask(
    length: int, mask_function: Any = None, local_size: int | None = None, config: Any = None, use_vmap: bool = False,
    **kwargs: Any,
) -> None:  # fmt: skip
    """Refuse what the (B, L) mask cannot say. Windows come again as an argument of the attention function."""
    import torch

    if use_vmap:
        raise ValueError(f"{NAME}: this model puts a mask of its own over causal attention")
    if local_size is not None and local_size < length and local_size != getattr(config, "sliding_window", None):
        raise ValueError(f"{NAME}: this model attends in chunks of {local_size} tokens")
    if mask_function is None or length < 2 or getattr(mask_function, "__name__", "") == "causal_mask_function":
        return
    device = kwargs.get("device")
    first, zero = torch.arange(length - 1, device=device), torch.zeros((), dtype=torch.long, device=device)
    if bool(torch.as_tensor(mask_function(zero, zero, first, first + 1)).any()):
        raise ValueError(f"{NAME} is causal; this model lets tokens see later ones")


def register() -> None:
    """Make ``attn_implementation="s2_attn"`` and ``"s2_attn_wrap"`` known to transformers. Harmless when repeated."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, s2_attention_forward)
    AttentionInterface.register(WRAP_NAME, s2_attention_wrap_forward)
    for name in (NAME, WRAP_NAME):
        AttentionMaskInterface.register(name, s2_mask)
