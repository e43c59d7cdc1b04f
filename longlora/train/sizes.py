"""How large a model is, and what of it is trained, from its ``config.json`` alone: no weights are read.

The model is built on torch's ``meta`` device with the same adapters as in training, so that the parameters are
counted and not guessed.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora import adapters, attention, models
from longlora.errors import UserError
from longlora.flops import Shape
from longlora.models import ModelSettings
from longlora.train import preflight
from longlora.train.model import make_config
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Sizes:
    """Of a model with its adapters. Parameters, unless said otherwise."""

    name: str
    shape: Shape
    window: int  # tokens
    total: int  # of the base model
    trained: dict[str, int]  # per group: A, B, embed, norm, head, ...
    frozen_linear: int  # of the linear layers of all layers: what 4-bit quantisation shrinks
    frozen_other: int
    tied: bool
    rms_norm: bool
    one_kind: bool  # all layers attend alike: they can share a checkpoint
    mlp_input_kept: bool  # LoRA on the MLP, or its weights trained: its inputs are needed in the backward pass

    @property
    def lora(self) -> int:
        return sum(count for group, count in self.trained.items() if group in ("A", "B"))

    @property
    def norms_trained(self) -> bool:
        return "norm" in self.trained or "base" in self.trained

    @property
    def head_trained(self) -> bool:
        return "head" in self.trained or "base" in self.trained or (self.tied and "embed" in self.trained)


def measure(model: ModelSettings, settings: TrainSettings, devices: int | None = None) -> Sizes:
    """The sizes of ``model`` as ``settings`` train it.

    Args:
        model: a folder or a name.
        settings: of the training.
        devices: that share a step; None: as ``settings`` say, auto as 1.

    Raises:
        UserError: its config is not to be had, the architecture is not counted, or training would refuse it.
    """
    config = read_config(model, settings)
    found = preflight.check(config, settings, devices or settings.stated_devices)
    try:
        shape = Shape.of(config)
    except ValueError as error:
        raise UserError(f"no estimate: {error}", "use a dense Llama, Mistral, Qwen or GPT-NeoX model") from error
    base = _on_meta(config)
    total = sum(p.numel() for p in base.parameters())
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    linears = _linear_weights(base, head)
    trained = _train(base, settings)
    frozen = [p for p in base.parameters() if not p.requires_grad]
    frozen_linear = sum(p.numel() for p in frozen if id(p) in linears)
    mlp_kept = settings.lora is None or any(
        ".lora_A" in name and ".mlp." in name for name, p in base.named_parameters() if p.requires_grad
    )
    name = model.name or model.path.name if model.path else str(model.name)
    return Sizes(
        name=name,
        shape=shape,
        window=found.context,
        total=total,
        trained=trained,
        frozen_linear=frozen_linear,
        frozen_other=sum(p.numel() for p in frozen) - frozen_linear,
        tied=head is not None and head.weight is embedding.weight,
        rms_norm=hasattr(config, "rms_norm_eps"),
        one_kind=len(set(getattr(config, "layer_types", None) or [])) < 2,
        mlp_input_kept=mlp_kept,
    )


def read_config(model: ModelSettings, settings: TrainSettings) -> PretrainedConfig:
    """The config of a model, extended to ``settings.context_length``; of a hub id, only config.json is fetched.

    Raises:
        UserError: it is not to be had, or not readable.
    """
    with tempfile.TemporaryDirectory() as aside:
        if model.name in models.EMBEDDED:
            from longlora.gguf import read_config as from_gguf

            folder = Path(aside)
            (folder / "config.json").write_text(json.dumps(from_gguf(models.embedded_file(model.name))))
        elif model.path is not None:
            folder = model.path
            if not (folder / "config.json").is_file():
                raise UserError(
                    f"model.path: {folder} " + ("has no config.json" if folder.exists() else "does not exist"),
                    "an estimate needs the model's config.json, nothing else",
                )
        else:
            folder = _from_hub(model)
        try:
            return make_config(folder, settings)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"model: {folder / 'config.json'} cannot be read: {str(error).strip().splitlines()[0]}",
                "repair the file, or use a newer transformers",
            ) from error


def _from_hub(model: ModelSettings) -> Path:
    from huggingface_hub import hf_hub_download

    assert model.name is not None
    repo = models.HUB_NAMES.get(model.name, model.name)
    try:
        return Path(hf_hub_download(repo, "config.json", revision=model.revision)).parent
    except Exception as error:
        raise UserError(
            f"the config of {repo} is not to be had from the hub or its cache: {type(error).__name__}",
            "connect to the hub, or put the model's config.json into a folder and set model.path to it",
        ) from error


def _on_meta(config: PretrainedConfig) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    attention.register()
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise UserError(
            f"{config.model_type} is no causal language model: {str(error).splitlines()[0]}",
            "use a Llama, Mistral, Qwen or GPT-NeoX model",
        ) from error


def _linear_weights(base: Any, head: Any) -> set[int]:
    from torch import nn

    return {id(m.weight) for m in base.modules() if isinstance(m, nn.Linear) and m is not head}


def _train(base: Any, settings: TrainSettings) -> dict[str, int]:
    """Mark on ``base`` what is trained; parameters per group."""
    import torch

    if settings.lora is None:
        return {"base": sum(p.numel() for p in base.parameters())}
    with torch.device("meta"):
        peft_model = adapters.add_adapters(base, settings.lora, settings.trainable, seed=settings.seed)
    return {group.name: group.count for group in adapters.parameter_groups(peft_model)}
