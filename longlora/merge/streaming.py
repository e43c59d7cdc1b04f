"""A forward pass of a model that is never whole in memory: each module's weights are there while it runs.

The model is built without storage (meta tensors). Before a module runs, its parameters are fetched by name, cast
to float64 and moved; after it they are let go. Memory holds the largest module and the hidden states, whatever the
size of the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

Fetch = Callable[[str], "torch.Tensor"]  # a parameter's tensor by its name in the model


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The causal language model of ``config`` with parameters on meta; buffers (rotary tables) are real."""
    import torch
    from accelerate import init_empty_weights
    from torch import nn
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(config)
    config._experts_implementation = "eager"  # the kernel for mixtures of experts knows no float64
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    for module in model.modules():  # it matters to gradients only, and may lie outside a base with fewer tokens
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
    model.eval()
    return model


def streamed_logits(model: nn.Module, fetch: Fetch, ids: torch.Tensor, device: str) -> torch.Tensor:
    """Logits (tokens, vocabulary) in float64, on the CPU, of ``ids`` (1, tokens).

    Args:
        model: of `skeleton`, or PEFT's around one. Its parameters are on meta again afterwards.
        fetch: gives each parameter, on any device and in any precision.
        ids: tokens of one sequence.
        device: where to compute.
    """
    import torch

    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
    hooks = [hook for path, module, whole in _units(model) for hook in _stream(path, module, whole, fetch, device)]
    try:
        with torch.inference_mode():
            return model(input_ids=ids.to(device), use_cache=False).logits[0].to("cpu", torch.float64)
    finally:
        for hook in hooks:
            hook.remove()


def _units(model: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Path, module, and whether its children's parameters come with its own.

    They do in PEFT's layers: DoRA reads the base layer's weight from outside that layer.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    inside: str | None = None
    for path, module in model.named_modules():
        if inside is not None and path.startswith(inside):
            continue
        whole = isinstance(module, BaseTunerLayer)
        inside = f"{path}." if whole else None
        if next(module.parameters(recurse=whole), None) is not None:
            yield path, module, whole


def _stream(path: str, module: nn.Module, whole: bool, fetch: Fetch, device: str) -> tuple[Any, Any]:
    """Hook ``module`` so that its parameters are fetched before it runs and let go after it."""
    import torch
    from torch import nn

    empty = dict(module.named_parameters(recurse=whole))

    def put(values: dict[str, nn.Parameter]) -> None:
        for name, value in values.items():
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, value)

    def before(*_: Any) -> None:
        put(
            {
                name: nn.Parameter(fetch(f"{path}.{name}").to(device, torch.float64), requires_grad=False)
                for name in empty
            }
        )

    def after(*_: Any) -> None:
        put(empty)

    return module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True)
