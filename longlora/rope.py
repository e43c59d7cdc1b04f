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
import math
from typing import TYPE_CHECKING, Any, Literal, get_args

from longlora.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

log = logging.getLogger(__name__)

Method = Literal["linear", "dynamic", "yarn", "llama3"]
ORIGINAL = "original_max_position_embeddings"
SHORTEST = 2048  # tokens; models with RoPE were trained on no shorter texts (Llama 1, Pythia, GPT-J) before extension
DYNAMIC_WARNING = (
    "RoPE is dynamic: it is trained with the frequencies of the full context length, and used with milder ones on "
    "shorter texts; linear, yarn and llama3 train what they use"
)


def window(config: PretrainedConfig) -> int:
    """Tokens the model handles as configured now, its RoPE scaling counted.

    A scaled config comes in two conventions. Where the original window is written down and
    ``max_position_embeddings`` is above it, the latter is the extended length (ours; Llama 3.1; Phi-3).
    Otherwise it is still the original one and the factor extends it (Qwen 2.5, dynamic NTK).

    Linear scaling without an original window can be either: LongLoRA and Vicuna-16k leave 4,096 beside the factor,
    LLaMA-2-7B-32K and DeepSeek-Coder have the extended length there. Both compute the same, so nothing tells them
    apart but a quotient below `SHORTEST`, which no original window is.

    Raises:
        UserError: no RoPE, or it is open which of the two it is; `settled` takes the answer.
    """
    rope = _parameters(config)
    length, factor = int(config.max_position_embeddings), rope.get("factor", 1.0)
    original = _original(config, rope)
    if rope["rope_type"] == "default" or (original and length > original):
        return length
    if original is None and rope["rope_type"] == "linear" and factor > 1 and length / factor >= SHORTEST:
        raise UserError(
            f"this model's config has linear RoPE of factor {factor:g} and max_position_embeddings {length:,}, but not "
            f"the window before scaling: it handles {length:,} tokens if that was {round(length / factor):,}, "
            f"{round(length * factor):,} if it was {length:,}",
            f"set train.base_window to {round(length / factor)} or {length}, as the model's card says, or write "
            f"{ORIGINAL} into its config.json",
        )
    return round(length * factor)  # the factor is a rounded quotient: 500 * 2.002


def settled(config: PretrainedConfig, base_window: int | None) -> PretrainedConfig:
    """A copy of ``config`` that says which window its scaling began with: ``base_window``, or what it says itself.

    Raises:
        UserError: the config says another one, or no linear scaling leads from there to where it is.
    """
    new = copy.deepcopy(config)
    if base_window is None:
        return new
    rope = _parameters(new)
    length, factor = int(new.max_position_embeddings), rope.get("factor", 1.0)
    known = _original(new, rope) or (None if rope["rope_type"] == "linear" else length)
    if known is not None and base_window != known:
        raise UserError(
            f"train.base_window is {base_window:,}, but the model's config says {known:,}",
            "remove train.base_window: it is for configs that leave the window before scaling open",
        )
    ratio = length / base_window
    if (
        known is None
        and base_window != length
        and not (math.isclose(ratio, factor, rel_tol=1e-3) or math.ceil(ratio) == factor)
    ):
        raise UserError(
            f"train.base_window is {base_window:,}, but the model's config has factor {factor:g} and "
            f"max_position_embeddings {length:,}",
            f"set it to {round(length / factor)}, or to {length} if that is the window before scaling",
        )
    if known is None:
        setattr(new, ORIGINAL, base_window)
    return new


def _original(config: PretrainedConfig, rope: dict[str, Any]) -> int | None:
    found = rope.get(ORIGINAL) or getattr(config, ORIGINAL, None)
    return None if found is None else int(found)


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
        UserError: no RoPE, a scaling per layer type, a scaling of another method already there, or one that does not
            say from where it extends (see `window`).
    """
    new = copy.deepcopy(config)
    rope = _parameters(new)
    if context_length <= int(new.max_position_embeddings) or context_length <= (current := window(new)):
        return new
    have = rope["rope_type"]
    if have not in ("default", method):
        raise UserError(
            f"this model's RoPE is already scaled by {have!r} (window {current:,} tokens), "
            f"and {method!r} cannot be put on top",
            f"set train.rope to {have}" if have in get_args(Method) else "use a base model without RoPE scaling",
        )
    original = _original(new, rope) or int(new.max_position_embeddings)
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
