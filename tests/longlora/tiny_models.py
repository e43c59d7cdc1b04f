"""Models of every architecture, a few kilobytes each, with a tokenizer of 65 tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

WORDS = 65
SIZES = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": None},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gpt_neox": {"rotary_pct": 0.5},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 2, "sliding_window": None},
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Three special tokens and the bytes of printable ASCII below ``^``; no pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    symbols = ["<unk>", "<s>", "</s>", "Ġ", *map(chr, range(33, 33 + WORDS - 4))]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", model_max_length=64
    )


def save_base(folder: Path, kind: str, **changes: Any) -> Path:
    """A random bfloat16 model in ``folder``; ``changes`` go into its config."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **MORE[kind], **changes})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms begin at 0 and 1, where a mistake would not show
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def shake(model: torch.nn.Module, scale: float = 0.1) -> None:
    """Change every parameter that is trained."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * scale)


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(ids).logits


def silent(event: str, **fields: object) -> None:
    pass
