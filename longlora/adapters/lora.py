"""A model made ready for training: with LoRA and fully trained roles, or trained as a whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from longlora.adapters.precision import keep_compute_dtype
from longlora.adapters.roles import Role, is_tied, role_modules
from longlora.adapters.settings import ALL_LINEAR, LoraSettings
from longlora.errors import UserError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

TARGETS: dict[str, tuple[str, ...]] = {
    "gpt_neox": ("query_key_value", "dense"),
    "phi3": ("qkv_proj", "o_proj"),
}
DEFAULT_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def add_adapters(
    model: PreTrainedModel,
    lora: LoraSettings,
    trainable: tuple[Role, ...] = ("embed", "norm"),
    *,
    seed: int = 0,
    compute_dtype: torch.dtype | None = None,
) -> PeftModel:
    """Put LoRA on ``model`` and have the parameters of ``trainable`` roles train as well, all in fp32.

    The rest is frozen and keeps its dtype (or its 4 bits). A model whose compute dtype is not float32 has to be run
    under ``torch.autocast``; its residual stream stays in that dtype.

    Args:
        model: a causal language model; changed in place.
        lora: rank and targets.
        trainable: roles trained in full.
        seed: of the initial A matrices (B starts at zero).
        compute_dtype: of the arithmetic; None is the embedding's as loaded.

    Raises:
        UserError: a target that is no linear layer of the model.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    targets = _targets(model, lora.targets)
    full = sorted({path for role in trainable for path in role_modules(model, role)})
    embedding: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    compute_dtype = compute_dtype or embedding.dtype
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        bias="none",
    )
    peft_model = get_peft_model(model, config, autocast_adapter_dtype=True)
    for path in full:
        for parameter in model.get_submodule(path).parameters(recurse=False):
            parameter.data = parameter.data.to(torch.float32)
            parameter.requires_grad_(True)
    keep_compute_dtype(peft_model, compute_dtype)
    return peft_model


def train_whole(model: PreTrainedModel, compute_dtype: torch.dtype) -> PreTrainedModel:
    """Have every parameter of ``model`` train, in fp32 (full fine-tuning): 16 bytes each with gradient and AdamW.

    Args:
        model: loaded in float32, or what its dtype lost is lost; changed in place.
        compute_dtype: of the arithmetic; to be run under ``torch.autocast`` unless float32.
    """
    model.float().requires_grad_(True)
    keep_compute_dtype(model, compute_dtype)
    return model


def _targets(model: PreTrainedModel, wanted: tuple[str, ...] | str | None) -> list[str] | str:
    """``target_modules`` as PEFT takes them.

    Raises:
        UserError: a name or an expression that fits no linear layer, or fits something else.
    """
    from torch import nn

    head = model.get_output_embeddings()
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head]
    names = ", ".join(sorted({n.rpartition(".")[2] for n in linear}))
    if wanted == ALL_LINEAR:
        return ALL_LINEAR
    if isinstance(wanted, str):
        _check_expression(model, wanted, linear, names)
        return wanted
    chosen = wanted or TARGETS.get(model.config.model_type, DEFAULT_TARGETS)
    unknown = [t for t in chosen if not any(n == t or n.endswith(f".{t}") for n in linear)]
    if unknown:
        raise UserError(
            f"train.lora.targets: no linear layer of this model is called {', '.join(unknown)}",
            f"choose from: {names}; or write {ALL_LINEAR}",
        )
    return list(chosen)


def _check_expression(model: PreTrainedModel, expression: str, linear: list[str], names: str) -> None:
    matched = [n for n, _ in model.named_modules() if re.fullmatch(expression, n)]
    if not matched:
        raise UserError(
            f"train.lora.targets: {expression!r} fits no module path of this model, such as {linear[0]}",
            f"a string is a regular expression for the whole path; for names write a list, of: {names}",
        )
    if wrong := [n for n in matched if n and n not in linear]:
        what = "the output head" if model.get_submodule(wrong[0]) is model.get_output_embeddings() else "not linear"
        raise UserError(
            f"train.lora.targets: {expression!r} also fits {wrong[0]}, which is {what}",
            "narrow the expression" + ("" if is_tied(model) else "; the head can be trained with trainable: [head]"),
        )
