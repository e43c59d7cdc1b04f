"""Answers from a model directory, as text, streamed if wished. Simple: one prompt at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.hardware import resolve_device, resolve_dtype
from longlora.models import load_model, load_tokenizer
from longlora.prompts import Template, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Stream = Callable[[str], None]


class _TextStream:
    """A streamer of ``generate``: text as soon as no later token can change it (whole words)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Stream) -> None:
        self.tokenizer, self.write = tokenizer, write
        self.ids: list[int] = []
        self.shown = 0
        self.prompt_seen = False

    def put(self, value: Any) -> None:
        if not self.prompt_seen:  # generate() hands over the prompt first
            self.prompt_seen = True
            return
        self.ids += value.reshape(-1).tolist()
        text = self._text()
        # Half of a character decodes as U+FFFD, and the last word may yet grow.
        end = len(text) if text.endswith("\n") else text.rfind(" ") + 1
        if end > self.shown and not text.endswith("�"):
            self.write(text[self.shown : end])
            self.shown = end

    def end(self) -> None:
        text = self._text()
        if len(text) > self.shown:
            self.write(text[self.shown :])

    def _text(self) -> str:
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True))


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    input_ids: list[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    stream: Stream | None = None,
) -> str:
    """The continuation of ``input_ids`` as text, without special tokens.

    temperature 0 is greedy; the model's own generation settings count only for its end-of-turn tokens.
    ``seed`` makes sampling repeatable. ``stream`` is called with each new piece of text.
    """
    import torch
    from transformers import GenerationConfig

    own = model.generation_config
    stop = own.eos_token_id if own is not None and own.eos_token_id is not None else tokenizer.eos_token_id
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        eos_token_id=stop,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **({"temperature": temperature, "top_p": top_p} if temperature > 0 else {}),
    )
    if seed is not None:
        torch.manual_seed(seed)
    ids = torch.tensor([input_ids], device=model.device)
    with torch.inference_mode(), _own_defaults_aside(model):
        out = model.generate(  # type: ignore[operator]
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            streamer=_TextStream(tokenizer, stream) if stream else None,
        )
    return str(tokenizer.decode(out[0, len(input_ids) :], skip_special_tokens=True))


class _own_defaults_aside:
    """generate() fills what a config leaves open from the model's own (temperature, penalties); not here."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def __enter__(self) -> None:
        from transformers import GenerationConfig

        self.saved, self.model.generation_config = self.model.generation_config, GenerationConfig()

    def __exit__(self, *exception: object) -> None:
        self.model.generation_config = self.saved


def answer(
    model_dir: Path,
    instruction: str,
    *,
    template: Template | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    dtype: str = "auto",
    device: str = "auto",
    stream: Stream | None = None,
) -> str:
    """Load a model directory (once for the same one again) and answer one instruction.

    template: prompt format; None is the one the model was trained with, else chat.

    Raises:
        UserError: the model or its tokenizer cannot be read, or the template is not there.
    """
    model, tokenizer = _loaded(model_dir, resolve_dtype(dtype), resolve_device(device))
    return generate(
        model,
        tokenizer,
        encode_prompt(tokenizer, template or _trained_template(model_dir), instruction),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stream=stream,
    )


@lru_cache(maxsize=1)
def _loaded(model_dir: Path, dtype: str, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model: Any = load_model(model_dir, dtype=dtype, attn_implementation="sdpa")
    return model.to(device).eval(), load_tokenizer(model_dir)


def _trained_template(model_dir: Path) -> Template:
    try:
        template = json.loads((model_dir / "longfolio.json").read_text()).get("template")
    except (OSError, ValueError):
        template = None
    return template if template in ("chat", "inst", "plain") else "chat"
