"""How an instruction and its answer become tokens. Datasets, training and evaluation all use this.

The prompt is tokenized as it is at inference, alone, and the answer is appended as tokens: no token spans
the boundary, so the label mask is exact (LongLoRA tokenizes both together and can be off by one;
supervised-fine-tune.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from longlora.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat", "inst", "plain"]


@dataclass(frozen=True)
class Rendered:
    """``input_ids[:answer_start]`` is the prompt, the rest the answer and its end-of-turn tokens."""

    input_ids: list[int]
    answer_start: int


def prompt_text(tokenizer: PreTrainedTokenizerBase, template: Template, instruction: str) -> str:
    """The prompt as text, special tokens spelled out.

    chat: the tokenizer's own chat template, up to where the assistant speaks.
    inst: ``[INST]...[/INST]``, the format of the LongAlpaca models.
    plain: the instruction and a newline, for base models without a format.

    Raises:
        UserError: chat, and the tokenizer has no chat template.
    """
    if template == "chat":
        if not tokenizer.chat_template:
            raise UserError("this tokenizer has no chat template", "set the template to inst or plain")
        messages = [{"role": "user", "content": instruction}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    bos = tokenizer.bos_token or ""
    return f"{bos}[INST]{instruction}[/INST]" if template == "inst" else f"{bos}{instruction}\n"


def answer_text(tokenizer: PreTrainedTokenizerBase, template: Template, output: str) -> str:
    """The answer as text with the token that ends the turn."""
    if template == "chat":
        turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": output}]
        prefix = str(tokenizer.apply_chat_template(turn[:1], tokenize=False, add_generation_prompt=True))
        whole = str(tokenizer.apply_chat_template(turn, tokenize=False))
        if whole.startswith(prefix):
            return whole[len(prefix) :].rstrip("\n")
    return f"{output}{tokenizer.eos_token}"


def encode_prompt(tokenizer: PreTrainedTokenizerBase, template: Template, instruction: str) -> list[int]:
    """Token ids of the prompt alone, as generation starts from."""
    text = prompt_text(tokenizer, template, instruction)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def render(tokenizer: PreTrainedTokenizerBase, template: Template, instruction: str, output: str) -> Rendered:
    """Token ids of prompt + answer. Its length is *the* length of a row, everywhere."""
    prompt = encode_prompt(tokenizer, template, instruction)
    answer = tokenizer(answer_text(tokenizer, template, output), add_special_tokens=False)["input_ids"]
    return Rendered(prompt + list(answer), len(prompt))
