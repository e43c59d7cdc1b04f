"""AdamW over the parameter groups, each with its own rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from longlora.adapters import parameter_groups
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from torch import nn

FULL_STATE = 32  # bits


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW over A, B, embed, norm, head and (full fine-tuning) base; norms and biases never decay.

    Its param_groups carry ``name``. Not PEFT's LoRA+ helper: that gives norms B's rate.

    Args:
        model: from `longlora.adapters`.
        settings: rates, decay and kind of optimizer.
    """
    groups: list[dict[str, Any]] = []
    for group in parameter_groups(model):
        flat = [p for p in group.parameters.values() if p.ndim < 2]
        matrices = [p for p in group.parameters.values() if p.ndim >= 2]
        for params, decay in ((matrices, settings.weight_decay), (flat, 0.0)):
            if params:
                rate = group_rate(settings, group.name)
                groups.append({"name": group.name, "params": params, "lr": rate, "weight_decay": decay})
    return _adamw(groups, settings.optimizer)


def group_rate(settings: TrainSettings, group: str) -> float:
    """The peak learning rate of a parameter group.

    LoRA+ (Hayou et al., arXiv 2402.12354): B learns ``loraplus_lr_ratio`` times as fast as A, nothing else changes.
    """
    if group == "B" and settings.loraplus_lr_ratio is not None:
        return settings.rate("A") * settings.loraplus_lr_ratio
    return settings.learning_rate if group == "base" else settings.rate(group)


def _adamw(groups: list[dict[str, Any]], kind: str) -> torch.optim.Optimizer:
    if kind == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    import bitsandbytes

    if kind == "paged_adamw":
        return bitsandbytes.optim.PagedAdamW32bit(groups)

    class PagedAdamW8bit(bitsandbytes.optim.PagedAdamW8bit):
        """With the bits of a group where it names them."""

        def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
            config = super().get_config(gindex, pindex, group)
            return {**config, "optim_bits": group.get("optim_bits", config["optim_bits"])}

    for group in groups:  # embeddings' gradients vary by row too much for blocks of 8 bits (arXiv 2110.02861, 2.3)
        if group["name"] in ("embed", "head"):
            group["optim_bits"] = FULL_STATE
    return PagedAdamW8bit(groups)
