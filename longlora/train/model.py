"""The model that is trained: base with its RoPE and attention, adapters on it, memory saved as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora import adapters, attention, rope
from longlora.errors import UserError
from longlora.hardware import resolve_device, resolve_dtype
from longlora.models import load_model
from longlora.quantize import check_bitsandbytes, load_nf4, norms_to_fp32
from longlora.train import launch, memory
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel


def make_config(folder: Path, settings: TrainSettings) -> PretrainedConfig:
    """The base model's config, extended to ``settings.context_length``.

    Raises:
        UserError: settings that do not go together, a config that is missing or of an unknown kind, or RoPE that
            cannot be scaled so.
    """
    from transformers import AutoConfig

    check_settings(settings)
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip() or type(error).__name__
        raise UserError(
            f"{folder / 'config.json'} cannot be used: {reason.splitlines()[0]}",
            f"{REMEDY}: a folder with config.json, tokenizer and weights",
        ) from error
    config = rope.settled(config, settings.base_window)
    if settings.context_length:
        config = rope.extend(config, settings.context_length, settings.rope)
    return config


def check_settings(settings: TrainSettings) -> None:
    """Refuse, before anything is read, combinations that cannot work, and what is not installed.

    Raises:
        UserError: with what to change.
    """
    check_together(settings)
    if settings.quantize:
        check_bitsandbytes(f"train.quantize: {settings.quantize}")
    if settings.optimizer != "adamw":
        check_bitsandbytes(f"train.optimizer: {settings.optimizer}")


def check_together(settings: TrainSettings) -> None:
    """Refuse combinations that cannot work on any machine.

    Raises:
        UserError: with what to change.
    """
    rates = settings.learning_rates
    if settings.lora is None:
        if settings.quantize:
            raise UserError(
                f"train.quantize: {settings.quantize} freezes the base, and train.lora: null leaves nothing else to "
                "train",
                "set train.lora, or train.quantize: null for full fine-tuning",
            )
        for name, value in (("learning_rates.A", rates.A), ("learning_rates.B", rates.B)):
            if value is not None:
                raise UserError(f"train.{name} is of LoRA's matrices, and train.lora is null", f"remove train.{name}")
        if settings.loraplus_lr_ratio is not None:
            raise UserError("train.loraplus_lr_ratio is of LoRA's matrices, and train.lora is null", "remove it")
    if settings.loraplus_lr_ratio is not None and rates.B is not None:
        raise UserError(
            "train.loraplus_lr_ratio and train.learning_rates.B both set the rate of B", "remove one of the two"
        )
    launch.check_zero(settings)
    memory.check(settings)


def build_model(folder: Path, config: PretrainedConfig, settings: TrainSettings) -> PeftModel | PreTrainedModel:
    """The base model of ``folder`` with what the settings train in fp32, computing in ``settings.dtype``.

    Args:
        config: from `make_config`, its attention group set.

    Returns:
        A PEFT model on a frozen base, or with ``lora: null`` the base itself, all of it trainable.

    Raises:
        UserError: the weights cannot be loaded, or the architecture cannot be trained so.
    """
    import torch

    check_config(config, settings)
    attention.register()
    dtype = resolve_dtype(settings.dtype)
    name = attention.WRAP_NAME if settings.attention == attention.WRAP_NAME else attention.NAME
    setattr(config, attention.BACKEND_ATTRIBUTE, settings.attention_backend)
    options: dict[str, Any] = {"config": config, "attn_implementation": name}
    if settings.quantize:
        base = load_nf4(folder, dtype=dtype, device=resolve_device(settings.device), **options)
    else:
        base = load_model(folder, dtype="float32" if settings.lora is None else dtype, **options)
    check_head(base)
    if config.model_type not in attention.TESTED:
        attention.selftest(base)
    rope.hold_dynamic(base, settings.context_length or rope.window(config))
    compute_dtype: torch.dtype = getattr(torch, dtype)
    model: PeftModel | PreTrainedModel
    if settings.lora is None:
        model = adapters.train_whole(base, compute_dtype)
    else:
        if settings.quantize:
            norms_to_fp32(base)
        model = adapters.add_adapters(
            base, settings.lora, settings.trainable, seed=settings.seed, compute_dtype=compute_dtype
        )
    memory.enable(base, settings)
    return model


def check_config(config: PretrainedConfig, settings: TrainSettings) -> None:
    """Refuse a model that cannot be trained right, by its config alone.

    Raises:
        UserError: its attention, or what is done to its logits.
    """
    attention.check(config, settings.row_tokens or settings.context_length)
    check_head_config(config)


REMEDY = "use a Llama, Mistral, Qwen or GPT-NeoX model"


def check_head_config(config: PretrainedConfig) -> None:
    """Refuse, before its weights are loaded, a model whose logits are known to be more than the output head.

    Raises:
        UserError: one of the known settings is there.
    """
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(config, name, None):
            raise UserError(f"{config.model_type}: {name} of this model is not supported in training", REMEDY)


def check_head(model: PreTrainedModel) -> None:
    """Refuse a model that does more to its last hidden states than call the output head: the loss here does no more.

    A probe of four tokens tells. Skipped where ZeRO-3 has shared out the weights already.

    Raises:
        UserError: logits are not head(hidden states).
    """
    import torch

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if hasattr(embedding.weight, "ds_id"):
        return
    seen: dict[str, Any] = {}
    hooks = [
        model.base_model.register_forward_hook(lambda module, args, output: seen.update(states=output[0])),
        head.register_forward_hook(lambda module, args, output: seen.update(read=args[0], logits=output)),
    ]
    ids = torch.tensor([[3, 1, 4, 1]], device=embedding.weight.device)
    try:
        # With gradients: without, bitsandbytes repacks 4-bit weights on some CPUs for inference
        logits = model.eval()(input_ids=ids, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    same = "read" in seen and torch.equal(seen["read"], seen["states"])
    if not same or not torch.equal(seen["logits"].float(), logits.float()):
        raise UserError(
            f"{model.config.model_type}: this model's logits are not its output head's alone (they are scaled, capped "
            "or computed otherwise), which is not supported in training",
            REMEDY,
        )
