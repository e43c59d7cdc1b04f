"""LoRA together with fully trained embeddings and norms (LongLoRA, arXiv 2309.12307, section 3.3).

The paper calls that "improved LoRA": rank-8 matrices alone do not learn a longer context, with embeddings
and norms they nearly match full fine-tuning (its Table 3). (`loraplus_lr_ratio` of Hayou et al. is something
else.)

The trained embeddings and norms are the base model's own parameters, switched to ``requires_grad`` and fp32:
no second copy, and a tied output head *is* the trained embedding because it is the same tensor. PEFT does
not save such parameters by itself, so `save_adapter` writes them in the layout of PEFT's ``modules_to_save``.

Adapter folder (bytes depend on weights and settings only):

    adapter_config.json         PEFT's LoraConfig; ``modules_to_save`` names what was trained in full, by path
    adapter_model.safetensors   fp32; ``base_model.model.<path>.lora_A.weight``, ``...lora_B.weight``, with DoRA
                                ``...lora_magnitude_vector``, and ``base_model.model.<path>.weight`` for embeddings,
                                norms and head; a trained tied embedding stands twice, under the head's name as well
    config.json                 of the base model, extended: rope_parameters, max_position_embeddings
    longfolio.json              what it was trained on and how; ``trained`` lists the fully trained parameters

Full fine-tuning trains the base model itself (`train_whole`) and leaves a model folder (`save_model`).
"""

from __future__ import annotations

from longlora.adapters.files import (
    FORMAT_VERSION,
    PREFIX,
    clean_config,
    load_adapter,
    save_adapter,
    save_model,
    save_trained,
)
from longlora.adapters.groups import GROUPS, ParameterGroup, parameter_groups, parameter_report
from longlora.adapters.lora import add_adapters, train_whole
from longlora.adapters.precision import keep_compute_dtype
from longlora.adapters.roles import NORMS, Role, causal_lm, is_tied, role_modules
from longlora.adapters.settings import ALL_LINEAR, LoraSettings
from longlora.adapters.state import load_trained_state, trained_state

__all__ = [
    "ALL_LINEAR",
    "FORMAT_VERSION",
    "GROUPS",
    "NORMS",
    "PREFIX",
    "LoraSettings",
    "ParameterGroup",
    "Role",
    "add_adapters",
    "causal_lm",
    "clean_config",
    "is_tied",
    "keep_compute_dtype",
    "load_adapter",
    "load_trained_state",
    "parameter_groups",
    "parameter_report",
    "role_modules",
    "save_adapter",
    "save_model",
    "save_trained",
    "train_whole",
    "trained_state",
]
