"""LoRA together with fully trained embeddings and norms (LongLoRA, arXiv 2309.12307, section 3.3).

The paper calls that "improved LoRA": rank-8 matrices alone do not learn a longer context, with embeddings
and norms they nearly match full fine-tuning (its Table 3). (`loraplus_lr_ratio` of Hayou et al. is something
else.)

The trained embeddings and norms are the base model's own parameters, switched to ``requires_grad`` and fp32:
no second copy, and a tied output head *is* the trained embedding because it is the same tensor. PEFT does
not save such parameters by itself, so `save_adapter` writes them in the layout of PEFT's ``modules_to_save``.

Adapter folder (bytes depend on weights and settings only):

    adapter_config.json         PEFT's LoraConfig; ``modules_to_save`` names what was trained in full, by path
    adapter_model.safetensors   fp32; ``base_model.model.<path>.lora_A.weight``, ``...lora_B.weight``, and
                                ``base_model.model.<path>.weight`` for embeddings, norms and head; a trained
                                tied embedding stands twice, under the head's name as well
    config.json                 of the base model, extended: rope_parameters, max_position_embeddings
    longfolio.json              what it was trained on and how; ``trained`` lists the fully trained parameters
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from longlora.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

FORMAT_VERSION = 1  # of the folder
PREFIX = "base_model.model."  # of every weight name, as PEFT has it

Role = Literal["embed", "norm", "head"]
GROUPS = ("A", "B", "embed", "norm", "head")

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
TARGETS: dict[str, tuple[str, ...]] = {
    "gpt_neox": ("query_key_value", "dense"),
    "phi3": ("qkv_proj", "o_proj"),
}
DEFAULT_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


class LoraSettings(BaseModel):
    """Low-rank matrices beside frozen linear layers (Hu et al., arXiv 2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(8, ge=1, description="Rank. More learns more and costs memory; LongLoRA uses 8, LongQLoRA 64.")
    alpha: float = Field(16, gt=0, description="The update is scaled by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="On the input of A; above 0 it slows training a little.")
    targets: tuple[str, ...] | None = Field(
        None,
        description="Names of linear layers, e.g. [q_proj, v_proj]; null: those of attention (q, k, v, o). "
        "With the MLP's as well (gate_proj, up_proj, down_proj) a step learns more and takes longer.",
    )


@dataclass(frozen=True)
class ParameterGroup:
    """Trainable parameters of one kind: A, B, embed, norm or head."""

    name: str
    parameters: dict[str, nn.Parameter]  # by name in the PEFT model

    @property
    def count(self) -> int:
        return sum(p.numel() for p in self.parameters.values())


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
    return dict.fromkeys(_paths(model, wanted), wanted) if wanted is not None else {}


def _paths(model: nn.Module, wanted: Any) -> list[str]:
    return [name for name, module in model.named_modules() if module is wanted]


def is_tied(model: PreTrainedModel) -> bool:
    """Whether input embedding and output head are one tensor."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def add_adapters(
    model: PreTrainedModel,
    lora: LoraSettings,
    trainable: tuple[Role, ...] = ("embed", "norm"),
    *,
    seed: int = 0,
) -> PeftModel:
    """Put LoRA on ``model`` and have the parameters of ``trainable`` roles train as well, all in fp32.

    The rest is frozen and keeps its dtype, so a bf16 model is to be run under ``torch.autocast``.

    Args:
        model: a causal language model; changed in place.
        lora: rank and targets.
        trainable: roles trained in full.
        seed: of the initial A matrices (B starts at zero).

    Raises:
        UserError: a target name that is no linear layer of the model.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    targets = lora.targets or TARGETS.get(model.config.model_type, DEFAULT_TARGETS)
    _check_targets(model, targets)
    full = sorted({path for role in trainable for path in role_modules(model, role)})
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        bias="none",
    )
    peft_model = get_peft_model(model, config, autocast_adapter_dtype=True)
    for path in full:
        for parameter in model.get_submodule(path).parameters(recurse=False):
            parameter.data = parameter.data.to(torch.float32)
            parameter.requires_grad_(True)
    return peft_model


def _check_targets(model: PreTrainedModel, targets: tuple[str, ...]) -> None:
    from torch import nn

    head = model.get_output_embeddings()
    linear = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    unknown = [t for t in targets if t not in linear]
    if unknown:
        raise UserError(
            f"train.lora.targets: no linear layer of this model is called {', '.join(unknown)}",
            f"choose from: {', '.join(sorted(linear))}",
        )


def parameter_groups(model: PeftModel) -> list[ParameterGroup]:
    """All trainable parameters, each in one group, in the order of `GROUPS`; empty groups left out."""
    base: Any = model.get_base_model()
    owner = {}  # parameter -> group
    for role in ("head", "norm", "embed"):  # embed last: a tied matrix counts as embedding
        if role == "norm" and base.config.model_type not in NORMS:
            continue
        for module in role_modules(base, role).values():
            owner.update({id(p): role for p in module.parameters(recurse=False)})
    found: dict[str, dict[str, nn.Parameter]] = {group: {} for group in GROUPS}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = "A" if ".lora_A." in name else "B" if ".lora_B." in name else owner[id(parameter)]
            found[group][name] = parameter
    return [ParameterGroup(name, parameters) for name, parameters in found.items() if parameters]


def parameter_report(model: PeftModel) -> dict[str, Any]:
    """Counts: total, trainable, share, tied, and per group tensors, parameters, dtype."""
    base: Any = model.get_base_model()
    groups = parameter_groups(model)
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(g.count for g in groups)
    return {
        "total": total,
        "trainable": trainable,
        "share": trainable / total,
        "tied": is_tied(base),
        "groups": {
            g.name: {
                "tensors": len(g.parameters),
                "parameters": g.count,
                "dtype": str(next(iter(g.parameters.values())).dtype).removeprefix("torch."),
            }
            for g in groups
        },
    }


def trained_state(model: PeftModel) -> dict[str, Tensor]:
    """Every trainable tensor by its name in the adapter file, on the CPU, sorted."""
    state = {
        name.replace(".default.", "."): parameter.detach().to("cpu").contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return dict(sorted(state.items()))


def load_trained_state(model: PeftModel, state: dict[str, Tensor]) -> None:
    """Copy ``state`` (as of `trained_state`) into ``model``; nothing may be missing or left over.

    Raises:
        UserError: names or shapes do not fit this model.
    """
    import torch

    parameters = {n.replace(".default.", "."): p for n, p in model.named_parameters(remove_duplicate=False)}
    lora = {n for n in parameters if ".lora_A." in n or ".lora_B." in n}
    wrong = [n for n in state if n not in parameters or parameters[n].shape != state[n].shape]
    wrong += sorted(lora - set(state))
    if wrong:
        raise UserError(
            f"the adapter does not fit this base model: {wrong[0]}"
            + (f" and {len(wrong) - 1} more" * (len(wrong) > 1)),
            "load it on the model it was trained on (longfolio.json names it)",
        )
    with torch.no_grad():
        for name, tensor in state.items():
            parameters[name].copy_(tensor)


def save_adapter(model: PeftModel, folder: Path, *, base_name: str = "", info: dict[str, Any] | None = None) -> None:
    """Write the adapter folder (see the head of this module).

    Args:
        model: from `add_adapters`.
        folder: created if missing; files of these names are overwritten.
        base_name: a name of the base model, not a path: bytes must not depend on where it lies.
        info: goes into longfolio.json.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    base: Any = model.get_base_model()
    state = trained_state(model)
    trained = [name for name in state if ".lora_" not in name]
    tied = is_tied(base) and base.get_input_embeddings().weight.requires_grad
    if tied:  # PEFT insists on a copy under the head's name
        (embed,), (head,) = (_paths(base, m) for m in (base.get_input_embeddings(), base.get_output_embeddings()))
        state[f"{PREFIX}{head}.weight"] = state[f"{PREFIX}{embed}.weight"].clone()
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in model.peft_config["default"].to_dict().items()}
    config |= {
        "base_model_name_or_path": base_name or Path(base.config._name_or_path).name,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
        "modules_to_save": sorted({n.removeprefix(PREFIX).rpartition(".")[0] for n in trained}) or None,
        "ensure_weight_tying": tied,
    }
    save_file(dict(sorted(state.items())), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "adapter_config.json", config)
    _write_json(folder / "config.json", clean_config(base))
    _write_json(folder / "longfolio.json", {"format": FORMAT_VERSION, **(info or {}), "trained": trained})


def clean_config(model: PreTrainedModel) -> dict[str, Any]:
    """The base model's config without what only training needed (group size, no cache)."""
    config = json.loads(model.config.to_json_string(use_diff=True))
    config.pop("s2_group_size", None)
    return config | {"use_cache": True}


def load_adapter(base_model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on its base model; embeddings and norms are overwritten, in the base's dtype.

    Args:
        base_model: built with ``config=AutoConfig.from_pretrained(folder)``, the extended config.
        folder: from `save_adapter`, or of PEFT alone (no config.json, nothing extended).

    Returns:
        The model in eval mode, nothing requiring gradients.

    Raises:
        UserError: no adapter there, it does not fit, or the base was built without its RoPE scaling.
    """
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file

    if not (folder / "adapter_model.safetensors").is_file():
        raise UserError(f"{folder} holds no adapter_model.safetensors", "give the adapter/ folder of a training output")
    settings = json.loads((folder / "adapter_config.json").read_text())
    own = folder / "config.json"
    extended = json.loads(own.read_text()) if own.is_file() else {}  # a plain PEFT adapter extends nothing
    for key in ("rope_parameters", "max_position_embeddings"):
        if key in extended and getattr(base_model.config, key, None) != extended[key]:
            raise UserError(
                f"the base model was built with another {key} than the adapter was trained with",
                "pass config=AutoConfig.from_pretrained(adapter folder) to from_pretrained",
            )
    # The trained modules are written into the base below; PEFT need not wrap (and copy) them.
    config = LoraConfig(
        **{**settings, "modules_to_save": None, "ensure_weight_tying": False, "base_model_name_or_path": None}
    )
    model = get_peft_model(base_model, config, autocast_adapter_dtype=True)
    state = load_file(folder / "adapter_model.safetensors")
    vector = ".lora_magnitude_vector"  # of DoRA: PEFT leaves its ".weight" out of the file
    load_trained_state(model, {f"{n}.weight" if n.endswith(vector) else n: t for n, t in state.items()})
    return model.requires_grad_(False).eval()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(getattr(value, "value", value))
