"""Folders: an adapter in PEFT's layout, a model that was trained as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.adapters.roles import causal_lm, is_tied, paths
from longlora.adapters.state import load_trained_state, trained_state
from longlora.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

FORMAT_VERSION = 1  # of the folders
PREFIX = "base_model.model."  # of every weight name, as PEFT has it
SHARD = "5GB"  # a file of a whole model, at most


def save_trained(model: Any, folder: Path, *, base_name: str, info: dict[str, Any]) -> None:
    """Write what was trained below ``folder``: ``adapter/`` of a PEFT model, else ``model/``; arguments as there."""
    from peft import PeftModel

    if isinstance(model, PeftModel):
        save_adapter(model, folder / "adapter", base_name=base_name, info=info)
    else:
        save_model(model, folder / "model", info=info)


def save_adapter(model: PeftModel, folder: Path, *, base_name: str = "", info: dict[str, Any] | None = None) -> None:
    """Write the adapter folder (see `longlora.adapters`).

    Args:
        model: from `add_adapters`.
        folder: created if missing; files of these names are overwritten.
        base_name: a name of the base model, not a path: bytes must not depend on where it lies.
        info: goes into longfolio.json.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    base: Any = causal_lm(model)
    state = trained_state(model)
    trained = [name for name in state if ".lora_" not in name]
    tied = is_tied(base) and base.get_input_embeddings().weight.requires_grad
    if tied:  # PEFT insists on a copy under the head's name
        (embed,), (head,) = (paths(base, m) for m in (base.get_input_embeddings(), base.get_output_embeddings()))
        state[f"{PREFIX}{head}.weight"] = state[f"{PREFIX}{embed}.weight"].clone()
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in model.peft_config["default"].to_dict().items()}
    targets = config["target_modules"]  # an expression, or names
    config |= {
        "base_model_name_or_path": base_name or Path(base.config._name_or_path).name,
        "inference_mode": True,
        "target_modules": targets if isinstance(targets, str) else sorted(targets),
        "modules_to_save": sorted({n.removeprefix(PREFIX).rpartition(".")[0] for n in trained}) or None,
        "ensure_weight_tying": tied,
    }
    save_file(dict(sorted(state.items())), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "adapter_config.json", config)
    _write_json(folder / "config.json", clean_config(base))
    _write_json(folder / "longfolio.json", {"format": FORMAT_VERSION, **(info or {}), "trained": trained})


def save_model(model: PreTrainedModel, folder: Path, *, info: dict[str, Any] | None = None) -> None:
    """Write a model that was trained as a whole: fp32 weights in shards, config.json, longfolio.json.

    No tokenizer: the merge stage makes the directory to be used, in the base's dtype.

    Args:
        model: from `train_whole`.
        folder: created if missing.
        info: goes into longfolio.json.
    """
    from transformers import GenerationConfig

    # save_pretrained refuses some published ones; the merge copies the base's
    model.generation_config = GenerationConfig()
    model.save_pretrained(str(folder), max_shard_size=SHARD)
    (folder / "generation_config.json").unlink(missing_ok=True)
    _write_json(folder / "config.json", clean_config(model) | {"dtype": "float32"})
    _write_json(folder / "longfolio.json", {"format": FORMAT_VERSION, **(info or {})})


def clean_config(model: PreTrainedModel) -> dict[str, Any]:
    """The base model's config without what only training needed (group size, no cache, 4 bits)."""
    config = json.loads(model.config.to_json_string(use_diff=True))
    for key in ("s2_group_size", "s2_backend", "quantization_config"):
        config.pop(key, None)
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
    load_trained_state(model, load_file(folder / "adapter_model.safetensors"))
    return model.requires_grad_(False).eval()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(getattr(value, "value", value))
