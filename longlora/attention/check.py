"""Which models S²-Attn can train: refusals with their reason, and a trial on those that nobody has tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from longlora.attention.hf import GROUP_ATTRIBUTE, WRAP_NAME
from longlora.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

TESTED = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt_neox"})  # model types, in the tests
REMEDY = "use a Llama, Mistral, Qwen2, Qwen3 or GPT-NeoX model"
SINKS = frozenset({"gpt_oss", "granite_swa", "granitemoe_swa", "mimo_v2_flash", "deepseek_v4"})  # model types


def check(config: PretrainedConfig, length: int | None = None) -> None:
    """Refuse a model whose attention is more than causal attention; needs no weights.

    Args:
        config: of the model, its group (`GROUP_ATTRIBUTE`) set if it has one.
        length: tokens of the longest row; None is the model's window.

    Raises:
        UserError: with the reason.
    """
    for reason in _reasons(config, length):
        raise UserError(f"{config.model_type}: S²-Attn cannot train this model: {reason}", REMEDY)


def _reasons(config: PretrainedConfig, length: int | None) -> Iterator[str]:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    text: Any = config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        yield "it is an encoder-decoder"
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model is None:
        yield "transformers has no causal language model of this type"
        return
    model = model[0] if isinstance(model, (tuple, list)) else model
    if not model._can_set_attn_implementation():
        yield "transformers computes its attention in the model's own code, where it cannot be replaced"
    if getattr(text, "attn_logit_softcapping", None):
        yield f"its attention scores are capped (attn_logit_softcapping: {text.attn_logit_softcapping})"
    if text.model_type in SINKS:
        yield "its attention has sinks"
    if getattr(text, "alibi", False) or getattr(text, "position_embedding_type", None) == "alibi":
        yield "its positions are biases on the attention scores (ALiBi)"
    if getattr(text, "use_bidirectional_attention", None):
        yield "its attention is not causal"
    kinds = list(getattr(text, "layer_types", None) or ())
    if other := sorted(set(kinds) - {"full_attention", "sliding_attention"}):
        yield f"it has layers of another kind ({', '.join(other)})"
    if getattr(text, "attention_chunk_size", None):
        yield f"it attends in chunks of {text.attention_chunk_size} tokens"
    window = sliding_window(text)
    longest: Any = getattr(text, GROUP_ATTRIBUTE, None) or length or getattr(text, "max_position_embeddings", 0)
    if window is not None and window < longest:
        yield f"its sliding window of {window:,} tokens is shorter than the {longest:,} that attend to each other"


def sliding_window(config: Any) -> int | None:
    """The window in tokens that at least one layer has, or None."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    used = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    return int(window) if window is not None and used else None


TRIAL_TOKENS, TRIAL_GROUP = 32, 8
TRIAL_FIRST = 13  # tokens of the first of two packed documents: inside a group, so that one layer would mix them


def selftest(model: PreTrainedModel) -> None:
    """Try a model that is not in `TESTED` on 32 tokens, with S²-Attn already set.

    In evaluation the logits must be those of transformers' plain attention. In training no logit may change with
    a later token or with another packed document, and the group must matter. The random state is left as it was.

    Raises:
        UserError: one of these does not hold, or the model cannot run at all.
    """
    import torch

    name = model.config._attn_implementation
    generator = torch.Generator().manual_seed(0)
    embedding: Any = model.get_input_embeddings()
    vocabulary: int = embedding.weight.shape[0]
    ids = torch.randint(0, vocabulary, (1, TRIAL_TOKENS), generator=generator).to(model.device)
    packed = torch.cat([torch.arange(TRIAL_FIRST), torch.arange(TRIAL_TOKENS - TRIAL_FIRST)])[None].to(model.device)
    exact = model.dtype in (torch.float32, torch.float64)
    tolerance = 1e-4 if exact else 5e-2  # of the largest logit: two kernels round differently

    def changed(index: int) -> Tensor:
        other = ids.clone()
        other[:, index] = (other[:, index] + 1) % vocabulary
        return other

    def logits(tokens: Tensor, **kwargs: Any) -> Tensor:
        torch.manual_seed(0)  # the same dropout each time
        return model(input_ids=tokens, use_cache=False, **kwargs).logits.float()

    def far(a: Tensor, b: Tensor, tolerance: float = tolerance) -> bool:
        return bool((a - b).abs().max() > tolerance * b.abs().max())

    def run() -> Iterator[str]:
        model.eval()
        ours = logits(ids)
        with _attention(model, "eager"):
            if far(ours, logits(ids)):
                yield "in evaluation its logits are not those of plain attention"
        model.train()
        before = logits(ids)
        leaks = name == WRAP_NAME  # and is known to
        if not leaks and far(logits(changed(-1))[:, :-1], before[:, :-1], 1e-6):
            yield "its tokens see later ones"
        together = logits(ids, position_ids=packed)
        apart = logits(changed(TRIAL_FIRST - 1), position_ids=packed)
        if far(apart[:, TRIAL_FIRST:], together[:, TRIAL_FIRST:], 1e-6):
            yield "packed documents see each other"
        with _group(model, None):
            if not far(before, logits(ids), 1e-6):
                yield "the group changes nothing"

    _judge(model, run)


def _judge(model: PreTrainedModel, run: Callable[[], Iterator[str]]) -> None:
    import torch

    training = model.training
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices), _group(model, TRIAL_GROUP):
            reason = next(run(), None)
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    finally:
        model.train(training)
    if reason:
        raise UserError(f"{model.config.model_type}: S²-Attn fails its trial on this model: {reason}", REMEDY)


@contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    before = model.config._attn_implementation
    assert before is not None
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _group(model: PreTrainedModel, group: int | None) -> Iterator[None]:
    config: Any = model.config.get_text_config()
    missing = object()
    before = getattr(config, GROUP_ATTRIBUTE, missing)
    setattr(config, GROUP_ATTRIBUTE, group)
    try:
        yield
    finally:
        if before is missing:
            delattr(config, GROUP_ATTRIBUTE)
        else:
            setattr(config, GROUP_ATTRIBUTE, before)
