"""The trainable parameters by kind: what the optimizer's rates and the parameter report go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longlora.adapters.roles import NORMS, causal_lm, is_tied, role_modules

if TYPE_CHECKING:
    from torch import nn

GROUPS = ("A", "B", "embed", "norm", "head", "base")


@dataclass(frozen=True)
class ParameterGroup:
    """Trainable parameters of one kind: A (with DoRA's magnitudes), B, embed, norm, head; base is all else."""

    name: str
    parameters: dict[str, nn.Parameter]  # by name in the model

    @property
    def count(self) -> int:
        return sum(size(p) for p in self.parameters.values())


def size(parameter: nn.Parameter) -> int:
    """Numbers in a parameter: of a 4-bit one as it was before, of one that ZeRO-3 shares out on all ranks."""
    if (quantized := getattr(parameter, "quant_state", None)) is not None:
        return int(quantized.shape.numel())
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def parameter_groups(model: nn.Module) -> list[ParameterGroup]:
    """All trainable parameters, each in one group, in the order of `GROUPS`; empty groups left out.

    Args:
        model: from `add_adapters` or `train_whole`.
    """
    base = causal_lm(model)
    owner: dict[int, str] = {}  # parameter -> group
    for role in ("head", "norm", "embed"):  # embed last: a tied matrix counts as embedding
        if role == "norm" and base.config.model_type not in NORMS:
            continue
        for module in role_modules(base, role).values():
            owner.update({id(p): role for p in module.parameters(recurse=False)})
    found: dict[str, dict[str, nn.Parameter]] = {group: {} for group in GROUPS}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[_lora_group(name) or owner.get(id(parameter), "base")][name] = parameter
    return [ParameterGroup(name, parameters) for name, parameters in found.items() if parameters]


def _lora_group(name: str) -> str | None:
    if ".lora_B." in name:
        return "B"
    return "A" if ".lora_A." in name or ".lora_magnitude_vector." in name else None


def parameter_report(model: nn.Module) -> dict[str, Any]:
    """Counts: total, trainable, share, tied, and per group tensors, parameters, dtype."""
    groups = parameter_groups(model)
    total = sum(size(p) for p in model.parameters())
    trainable = sum(g.count for g in groups)
    return {
        "total": total,
        "trainable": trainable,
        "share": trainable / total,
        "tied": is_tied(causal_lm(model)),
        "groups": {
            g.name: {
                "tensors": len(g.parameters),
                "parameters": g.count,
                "dtype": str(next(iter(g.parameters.values())).dtype).removeprefix("torch."),
            }
            for g in groups
        },
    }
