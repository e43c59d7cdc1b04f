"""Which modules of an architecture are its embedding, its norms and its output head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from longlora.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

Role = Literal["embed", "norm", "head"]

# The norms on the residual stream, by architecture: attribute names of the modules that count as `norm`.
# Norms inside attention (q_norm, k_norm) are not among them, as in the paper's Llama.
_LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm", "norm")
NORMS: dict[str, tuple[str, ...]] = {
    "llama": _LLAMA_NORMS,
    "mistral": _LLAMA_NORMS,
    "mixtral": _LLAMA_NORMS,
    "qwen2": _LLAMA_NORMS,
    "qwen3": _LLAMA_NORMS,
    "smollm3": _LLAMA_NORMS,
    "phi3": _LLAMA_NORMS,
    "gpt_neox": ("input_layernorm", "post_attention_layernorm", "final_layer_norm"),
}


def causal_lm(model: Any) -> PreTrainedModel:
    """The transformers model inside: of a PEFT model its base, with LoRA in its layers; else ``model`` itself."""
    from peft import PeftModel

    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return inner


def role_modules(model: PreTrainedModel, role: Role) -> dict[str, nn.Module]:
    """The modules of a role, by path in ``model``. For a tied head, ``head`` is the embedding.

    Raises:
        UserError: norms of an architecture that is not in `NORMS`.
    """
    if role == "norm":
        kind = model.config.model_type
        if kind not in NORMS:
            raise UserError(
                f"train.trainable: which norms of architecture {kind!r} to train is not known",
                f"leave norm out, or use one of: {', '.join(sorted(NORMS))}",
            )
        return {n: m for n, m in model.named_modules() if n.rpartition(".")[2] in NORMS[kind]}
    if role == "head" and is_tied(model):
        role = "embed"
    wanted = model.get_input_embeddings() if role == "embed" else model.get_output_embeddings()
    return dict.fromkeys(paths(model, wanted), wanted) if wanted is not None else {}


def paths(model: nn.Module, wanted: Any) -> list[str]:
    """Where in ``model`` a module stands."""
    return [name for name, module in model.named_modules() if module is wanted]


def is_tied(model: PreTrainedModel) -> bool:
    """Whether input embedding and output head are one tensor."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight
