"""Base + adapter as it was trained, computed by PEFT: what the merge is judged by.

Nothing here goes through the merge's own arithmetic (`longlora.merge.weights`): PEFT puts its layers beside the base's,
with the scale and the variant (rsLoRA, DoRA) that it reads from ``adapter_config.json``, and x goes through W and
through B·A apart.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from longlora.errors import UserError
from longlora.merge.streaming import streamed_logits

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from longlora.merge.streaming import Fetch
    from longlora.merge.weights import Adapter

# What PEFT's versions put between a module's path and its parameter: in memory, in files, or in both.
BETWEEN = re.compile(r"\.(default|base_layer|modules_to_save)(?=\.|$)")


def adapted_logits(
    model: PreTrainedModel, base: Fetch, adapter: Adapter, tied: dict[str, str], ids: torch.Tensor, device: str
) -> torch.Tensor:
    """Logits (tokens, vocabulary), float64, of base + adapter.

    Args:
        model: a skeleton; PEFT's layers are put into it.
        base: the base's tensors.
        adapter: LoRA pairs, and tensors that stand in for the base's.
        tied: tensors that are one in this model, alias -> source.
        ids: (1, tokens).
        device: where to compute.

    Raises:
        UserError: a tensor of the adapter has no place in the model.
    """
    from peft import LoraConfig, get_peft_model

    ours = {"modules_to_save": None, "ensure_weight_tying": False, "base_model_name_or_path": None}
    # No weights to start from: they come from the file. (PiSSA and its like, which change the base, are refused
    # when the adapter is read.)
    with warnings.catch_warnings():  # PEFT remarks that the base has another path than in training
        warnings.simplefilter("ignore", UserWarning)
        config = LoraConfig(**{**adapter.config, **ours, "init_lora_weights": True})
        adapted: torch.nn.Module = (
            get_peft_model(model, config, autocast_adapter_dtype=False, low_cpu_mem_usage=True)
            if adapter.config
            else model  # trained as a whole: nothing stands beside its weights
        )
    keys = {_plain(key): key for key in adapter.tensors.files}
    unused = set(keys)

    def fetch(name: str) -> torch.Tensor:
        plain = _plain(name)
        found = [n for n in _names(tied, plain) if n in keys]
        unused.difference_update(found)
        return adapter.tensors.get(keys[found[0]]) if found else base(plain)

    logits = streamed_logits(adapted, fetch, ids, device)
    if unused:
        raise UserError(
            f"{adapter.folder}: {keys[min(unused)]} has no place in this model",
            "merge with the base model that the adapter was trained on",
        )
    return logits


def _plain(name: str) -> str:
    """A parameter's name in the model itself, or LoRA's beside it, of a name in PEFT's model or file."""
    return BETWEEN.sub("", name.removeprefix("base_model.model.")).replace(
        "lora_magnitude_vector.weight", "lora_magnitude_vector"
    )


def _names(tied: dict[str, str], name: str) -> list[str]:
    """``name`` first, then the other names of the same tensor."""
    source = tied.get(name, name)
    return [name, *sorted({source, *(alias for alias in tied if tied[alias] == source)} - {name})]
