"""fp32 for what is trained, the compute dtype for what flows through it.

Embeddings and norms trained in fp32 return fp32, which autocast does not take back: embedding lookup and RMSNorm are
none of its operations. Every layer would then add to an fp32 residual stream, and each kept state (of a checkpoint,
of an offload) would be twice its size: 16 instead of 8 GB a layer at a million tokens of width 4,096.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


class _Cast:
    """A forward hook that brings a module's output to ``dtype``."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        import torch

        if isinstance(output, torch.Tensor) and output.is_floating_point():
            return output.to(self.dtype)
        return output


def keep_compute_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """Have activations stay in ``dtype`` around fp32 parameters; for a model that runs under ``torch.autocast``.

    Linear layers are autocast's own. Everything else with fp32 parameters (embedding, norms, DoRA's magnitudes) casts
    its output; and PEFT's layers no longer cast their input to A's fp32, only for autocast to take it back.

    Args:
        model: parameters to be trained are in fp32 already; changed in place.
        dtype: of the arithmetic; float32 changes nothing.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    if dtype == torch.float32:
        return
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]
        own = module.parameters(recurse=False)
        if not isinstance(module, nn.Linear) and any(p.dtype == torch.float32 for p in own):
            module.register_forward_hook(_Cast(dtype))
