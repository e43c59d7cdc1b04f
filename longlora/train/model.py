"""The model that is trained: base with its RoPE and attention, adapters on it, memory saved as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from longlora import adapters, attention, rope
from longlora.errors import UserError
from longlora.models import load_model
from longlora.train import memory
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig


def make_config(folder: Path, settings: TrainSettings) -> PretrainedConfig:
    """The base model's config, extended to ``settings.context_length``."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    if settings.context_length:
        config = rope.extend(config, settings.context_length, settings.rope)
    return config


def build_model(folder: Path, config: PretrainedConfig, settings: TrainSettings) -> PeftModel:
    """The base model of ``folder``, frozen in ``settings.dtype``, with trainable parts in fp32.

    Args:
        config: from `make_config`, its attention group set.

    Raises:
        UserError: the weights cannot be loaded, or the architecture cannot be trained so.
    """
    attention.check(config, settings.row_tokens or settings.context_length)
    attention.register()
    name = attention.WRAP_NAME if settings.attention == attention.WRAP_NAME else attention.NAME
    setattr(config, attention.BACKEND_ATTRIBUTE, settings.attention_backend)
    base = load_model(folder, dtype=settings.dtype, config=config, attn_implementation=name)
    check_head(base.config)
    if config.model_type not in attention.TESTED:
        attention.selftest(base)
    if settings.lora is None:
        raise UserError("train.lora: null (full fine-tuning) is not supported yet", "set train.lora.r")
    model = adapters.add_adapters(base, settings.lora, settings.trainable, seed=settings.seed)
    memory.enable(base, settings)
    return model


def check_head(config: PretrainedConfig) -> None:
    """Refuse models whose logits are more than the output head: the loss here calls the head alone."""
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(config, name, None):
            raise UserError(
                f"{config.model_type}: {name} of this model is not supported in training",
                "use a Llama, Mistral, Qwen or GPT-NeoX model",
            )
