"""Context extension: the RoPE scaling of a model config, composed with what the model already has.

transformers 5 keeps it in one dictionary, ``config.rope_parameters``. Two traps are avoided here: assigning
the old ``config.rope_scaling`` drops ``rope_theta``, and LongLoRA's script replaces an existing factor
instead of multiplying it (a model taken from 4k to 16k and then to 32k got 2, not 8).

    config = extend(AutoConfig.from_pretrained(folder), 32768, "linear")
    model = AutoModelForCausalLM.from_pretrained(folder, config=config)   # the rotary tables are built here
"""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any, Literal, get_args

from longlora.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

log = logging.getLogger(__name__)

Method = Literal["linear", "dynamic", "yarn", "llama3"]
ORIGINAL = "original_max_position_embeddings"
DYNAMIC_WARNING = (
    "RoPE is dynamic: it is trained with the frequencies of the full context length, and used with milder ones on "
    "shorter texts; linear, yarn and llama3 train what they use"
)


def window(config: PretrainedConfig) -> int:
    """Tokens the model handles as configured now, its RoPE scaling counted.

    A scaled config comes in two conventions. Where the original window is written down and
    ``max_position_embeddings`` is above it, the latter is the extended length (ours; Llama 3.1; Phi-3).
    Otherwise it is still the original one and the factor extends it (LongLoRA, Vicuna-16k, Qwen 2.5, dynamic
    NTK).
    """
    rope = _parameters(config)
    length = int(config.max_position_embeddings)
    original = rope.get(ORIGINAL) or getattr(config, ORIGINAL, None)
    if rope["rope_type"] == "default" or (original and length > original):
        return length
    return round(length * rope.get("factor", 1.0))  # the factor is a rounded quotient: 500 * 2.002


def extend(config: PretrainedConfig, context_length: int, method: Method = "linear") -> PretrainedConfig:
    """A copy of ``config`` for ``context_length`` tokens. Call it before the model is built.

    The factor is exact, ``context_length / original window``; an existing factor is multiplied. A model
    whose window is long enough comes back unchanged. ``max_position_embeddings`` is raised to
    ``context_length``, except for ``dynamic``, whose formula in transformers needs the original value there.

    Args:
        config: of a model with RoPE.
        context_length: tokens.
        method: linear (position interpolation, Chen et al. 2306.15595; LongLoRA's choice), dynamic
            (NTK-aware), yarn (Peng et al. 2309.00071), llama3 (by wavelength, Llama 3.1).

    Raises:
        UserError: no RoPE, a scaling per layer type, or a scaling of another method already there.
    """
    new = copy.deepcopy(config)
    rope = _parameters(new)
    current = window(new)
    if context_length <= current:
        return new
    have = rope["rope_type"]
    if have not in ("default", method):
        raise UserError(
            f"this model's RoPE is already scaled by {have!r} (window {current:,} tokens), "
            f"and {method!r} cannot be put on top",
            f"set train.rope to {have}" if have in get_args(Method) else "use a base model without RoPE scaling",
        )
    original = rope.get(ORIGINAL) or getattr(new, ORIGINAL, None) or int(new.max_position_embeddings)
    factor = rope.get("factor", 1.0) * context_length / current
    rope = {key: value for key, value in rope.items() if key != "type"}  # the old name of rope_type
    if rope.pop("attention_factor", None) is not None:  # YaRN's, of the old factor; without it, it follows the new one
        log.warning("the RoPE config's attention_factor was of another factor; it is computed anew")
    rope |= {"rope_type": method, "factor": float(factor)}
    if method in ("yarn", "llama3"):
        rope[ORIGINAL] = original
    if method == "llama3":
        rope = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} | rope
    if method == "linear":  # transformers warns of unknown keys in the dictionary, not beside it
        setattr(new, ORIGINAL, original)
    new.rope_parameters = rope
    if method != "dynamic":
        new.max_position_embeddings = context_length
    new.standardize_rope_params()
    new.validate_rope()
    return new


def is_dynamic(config: PretrainedConfig) -> bool:
    """Whether the frequencies depend on the length of the text."""
    return bool(_parameters(config)["rope_type"] == "dynamic")


def hold_dynamic(model: nn.Module, context_length: int) -> bool:
    """Fix ``dynamic`` RoPE at the frequencies it has for ``context_length`` tokens, for training.

    transformers takes them from the longest document of a batch and keeps those of the longest batch so far. A row's
    result would depend on the documents packed beside it, and a resumed run on what it no longer knows. Inference
    uses these frequencies at ``context_length``, milder ones for shorter texts: that much training and use differ.

    Args:
        model: whose rotary embeddings follow transformers' layout; its config is left alone.
        context_length: tokens.

    Returns:
        Whether the model's RoPE is dynamic.
    """
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    held = [m for m in model.modules() if getattr(m, "rope_type", None) == "dynamic"]
    module: Any
    for module in held:
        old: Any = module.inv_freq
        frequencies, module.attention_scaling = ROPE_INIT_FUNCTIONS["dynamic"](
            module.config,
            torch.device("cpu"),
            seq_len=context_length,
        )
        module.register_buffer("inv_freq", frequencies.to(old.device), persistent=False)
        module.rope_type = "held"
    return bool(held)


def _parameters(config: PretrainedConfig) -> dict[str, Any]:
    """The flat RoPE dictionary of a config, with ``rope_type``."""
    rope = getattr(config, "rope_parameters", None)
    if not rope or not hasattr(config, "max_position_embeddings"):
        raise UserError(
            f"{config.model_type}: this architecture has no RoPE, its context cannot be extended",
            "leave train.context_length empty, or use a model with RoPE",
        )
    if "rope_theta" not in rope:
        raise UserError(
            f"{config.model_type}: RoPE is set per layer type here; extending that is not supported",
            "leave train.context_length empty",
        )
    return {"rope_type": rope.get("type", "default")} | dict(rope)
