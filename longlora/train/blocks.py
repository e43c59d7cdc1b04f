"""Checkpoints of several layers together: one kept state per block, recomputed in two levels.

The first layer of a block runs the whole block inside one `torch.utils.checkpoint`, the others hand its result on.
So nothing is renamed or wrapped: adapters, optimizers and checkpoints see the model they know. While a block is
recomputed, its layers but the last are checkpointed once more, so that only one layer's activations exist at a time.
(transformers' ``every_n_layers`` is the opposite: the layers between keep all of their activations.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

Saving = Callable[[], contextlib.AbstractContextManager[Any]]


def checkpoint_blocks(model: Any, layers_per_checkpoint: int, saving: Saving | None = None) -> None:
    """Have the layers of ``model`` recomputed in blocks in the backward pass. Gradients stay the same to the bit.

    Args:
        model: a causal language model of transformers; its own checkpointing must be off.
        layers_per_checkpoint: layers in a block; the last block may be shorter.
        saving: makes the context in which a block's input is saved, e.g. `HostOffload.saving`.

    Raises:
        UserError: the layers cannot be found, or take turns in the attention they use.
    """
    layers = decoder_layers(model)
    check_kinds(model.config, layers_per_checkpoint)
    for start in range(0, len(layers), layers_per_checkpoint):
        Block(layers[start : start + layers_per_checkpoint], saving or contextlib.nullcontext)


def check_kinds(config: Any, layers_per_checkpoint: int) -> None:
    """Refuse, by the config alone, layers that cannot share a checkpoint.

    Raises:
        UserError: they take turns in the attention they use.
    """
    kinds = sorted(set(getattr(config, "layer_types", None) or []))
    if layers_per_checkpoint > 1 and len(kinds) > 1:
        raise UserError(
            f"{config.model_type}: its layers use different kinds of attention ({', '.join(kinds)}) "
            "and cannot share a checkpoint",
            "set train.layers_per_checkpoint to 1",
        )


def decoder_layers(model: Any) -> list[nn.Module]:
    """The layers of a causal language model, in order.

    Raises:
        UserError: they are not built the way transformers builds layers that can be checkpointed.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[nn.Module] = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if len(layers) != model.config.num_hidden_layers:
        raise UserError(
            f"{model.config.model_type}: found {len(layers)} layers that can be checkpointed, expected "
            f"{model.config.num_hidden_layers}",
            "set train.layers_per_checkpoint to 1, train.offload to false and train.tile_mlp to null",
        )
    return layers


class Block:
    """Consecutive layers with one checkpoint; takes over their ``forward`` while training.

    Args:
        layers: modules with the signature ``(hidden_states, ...) -> hidden_states``.
        saving: makes the context in which the block's input is saved.
    """

    def __init__(self, layers: Sequence[Any], saving: Saving) -> None:
        self.forwards = [layer.forward for layer in layers]
        self.saving = saving
        self.arguments: dict[str, Any] = {}  # of the forward pass under way
        for i, layer in enumerate(layers):
            layer.forward = partial(self._forward, i, layer)

    def _forward(self, i: int, layer: nn.Module, hidden_states: Tensor, **arguments: Any) -> Tensor:
        import torch
        from torch.utils.checkpoint import checkpoint

        if not (layer.training and torch.is_grad_enabled()):
            return self.forwards[i](hidden_states, **arguments)
        arguments |= dict.fromkeys(arguments.keys() & {"past_key_values", "layer_past"})  # recomputation adds twice
        arguments |= dict.fromkeys(arguments.keys() & {"use_cache"}, False)
        if i == 0:
            self.arguments = arguments if len(self.forwards) > 1 else {}
            with self.saving():
                return checkpoint(partial(self._run, arguments), hidden_states, use_reentrant=False)
        if arguments.keys() != self.arguments.keys() or any(v is not self.arguments[k] for k, v in arguments.items()):
            raise RuntimeError("layers of one checkpoint were called with different arguments")
        if i == len(self.forwards) - 1:
            self.arguments = {}
        return hidden_states  # of the whole block already

    def _run(self, arguments: dict[str, Any], hidden_states: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        for forward in self.forwards[:-1]:
            hidden_states = checkpoint(partial(forward, **arguments), hidden_states, use_reentrant=False)
        return self.forwards[-1](hidden_states, **arguments)
