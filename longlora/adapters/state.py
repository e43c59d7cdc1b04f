"""The trained tensors by their names in an adapter file: what checkpoints and adapters hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longlora.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


def stored_name(name: str) -> str:
    """A parameter's name in the file: as PEFT has it, without the adapter's name, and DoRA's vector bare."""
    name = name.replace(".default.", ".")
    return name.removesuffix(".weight") if name.endswith(".lora_magnitude_vector.weight") else name


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Every trainable tensor by its name in the adapter file, on the CPU, sorted."""
    state = {
        stored_name(name): parameter.detach().to("cpu").contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return dict(sorted(state.items()))


def load_trained_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy ``state`` (as of `trained_state`) into ``model``.

    Every trainable tensor of the model must be in it, and nothing that the model does not have. A copy under a tied
    tensor's other name is allowed.

    Raises:
        UserError: names or shapes do not fit this model.
    """
    import torch

    parameters = {stored_name(n): p for n, p in model.named_parameters(remove_duplicate=False)}
    wanted = {stored_name(n) for n, p in model.named_parameters() if p.requires_grad}
    wrong = [n for n in state if n not in parameters or parameters[n].shape != state[n].shape]
    wrong += sorted(wanted - set(state))
    if wrong:
        raise UserError(
            f"the adapter does not fit this base model: {wrong[0]}"
            + (f" and {len(wrong) - 1} more" * (len(wrong) > 1)),
            "load it on the model it was trained on (longfolio.json names it)",
        )
    with torch.no_grad():
        for name, tensor in state.items():
            parameters[name].copy_(tensor)
