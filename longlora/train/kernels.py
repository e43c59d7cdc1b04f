"""Liger's fused kernels (Hsu et al., arXiv 2410.10989) in place of transformers' RoPE, RMSNorm and SwiGLU.

They keep fewer tensors for the backward pass and read memory less often. Liger's loss is never used: ours knows
which positions are supervised.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from longlora.errors import UserError

KINDS = ("rope", "rms_norm", "swiglu")


def available(device: str = "auto") -> bool:
    """Whether the package is installed and training will be on a GPU."""
    import torch

    return device != "cpu" and torch.cuda.is_available() and find_spec("liger_kernel") is not None


def apply_liger(model: Any, mode: str = "auto", device: str = "auto") -> list[str]:
    """Give ``model`` Liger's kernels where there are some for its architecture.

    Only this model changes. Liger also replaces classes and functions in transformers' module, by which a later model
    on a CPU would fail; the classes are put back, and RoPE, a function that all models share, stays usable on a CPU.

    Args:
        model: a causal language model of transformers; changed in place. LoRA may come before or after.
        mode: the setting ``liger``.
        device: the setting ``device``.

    Returns:
        The kinds of kernels that are in use now, of rope, rms_norm, swiglu. Empty: off, not available, or not for
        this architecture (GPT-NeoX).

    Raises:
        UserError: the installed version of Liger does not work with the installed transformers.
    """
    if mode == "off" or not available(device):
        return []
    return patch(model)


def patch(model: Any) -> list[str]:
    """`apply_liger` without looking whether it makes sense here."""
    import inspect

    try:
        from liger_kernel.transformers import monkey_patch

        function = monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN.get(model.config.model_type)
        if function is None:
            return []
        kinds = [kind for kind in KINDS if kind in inspect.signature(function).parameters]
        losses = {"cross_entropy", "fused_linear_cross_entropy"} & inspect.signature(function).parameters.keys()
        module = importlib.import_module(type(model).__module__)
        before = dict(vars(module))
        function(model=model, **dict.fromkeys(kinds, True), **dict.fromkeys(losses, False))
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(
            f"train.liger: the installed liger-kernel does not work here ({error})", "set train.liger to off"
        ) from error
    for name, original in before.items():
        replaced = vars(module)[name]
        if replaced is not original:
            setattr(module, name, original if isinstance(original, type) else _on_gpu(replaced, original))
    return sorted(kinds)


def _on_gpu(fused: Any, original: Any) -> Any:
    """RoPE ``(q, k, cos, sin, ...)``: fused on a GPU, as it was elsewhere."""
    if hasattr(original, "fused"):  # patched for an earlier model
        original = original.original

    def rope(q: Any, k: Any, *args: Any, **kwargs: Any) -> Any:
        return (fused if q.is_cuda else original)(q, k, *args, **kwargs)

    rope.fused, rope.original = fused, original  # type: ignore[attr-defined]
    return rope
