"""How an instruction and its answer become tokens. Datasets, training and evaluation all use this.

The prompt is tokenized as it is at inference, alone, and the answer is appended as tokens: no token spans
the boundary, so the label mask is exact (LongLoRA tokenizes both together and can be off by one;
supervised-fine-tune.py).

Special tokens come from the template alone. A document that prints one ("<|im_end|>" in a paper about chat
formats) is text: it ends no turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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
    return _encode(tokenizer, instruction, lambda text: prompt_text(tokenizer, template, text))


def render(tokenizer: PreTrainedTokenizerBase, template: Template, instruction: str, output: str) -> Rendered:
    """Token ids of prompt + answer. Its length is *the* length of a row, everywhere."""
    prompt = encode_prompt(tokenizer, template, instruction)
    answer = _encode(tokenizer, output, lambda text: answer_text(tokenizer, template, text))
    return Rendered(prompt + answer, len(prompt))


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of raw text, without a template: what reads like a special token in it is text."""
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
    return list(encoded["input_ids"])


def _encode(tokenizer: PreTrainedTokenizerBase, content: str, frame: Callable[[str], str]) -> list[int]:
    """Token ids of ``frame(content)``, special tokens parsed in the frame and not in the content.

    Nearly every content prints no special token, and the whole is tokenized at once. Otherwise a private-use
    character stands for each printed one while the frame is put round it; what is parsed then is the frame's.
    """
    strips = _special_tokens(tokenizer)
    printed = sorted((token for token in strips if token in content), key=len, reverse=True)
    if not printed:
        return list(tokenizer(frame(content), add_special_tokens=False)["input_ids"])
    unused = (char for char in map(chr, range(0xF0000, 0xFFFFE)) if char not in content)
    stands_for = dict(zip(unused, printed, strict=False))
    for char, token in stands_for.items():
        content = content.replace(token, char)
    text, back = frame(content), str.maketrans(stands_for)

    # A tokenizer too takes the special tokens out first, and tokenizes what lies between them piece by piece.
    space = r"\s*"
    pattern = "|".join(
        f"{space * strips[token][0]}({re.escape(token)}){space * strips[token][1]}"
        for token in sorted(strips, key=len, reverse=True)
    )
    ids: list[int] = []
    at = 0
    for match in re.finditer(pattern, text):
        ids += plain_ids(tokenizer, text[at : match.start()].translate(back))
        special = tokenizer.convert_tokens_to_ids(match.group(match.lastindex or 0))
        assert isinstance(special, int)
        ids.append(special)
        at = match.end()
    return ids + plain_ids(tokenizer, text[at:].translate(back))


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, tuple[bool, bool]]:
    """The special tokens, and whether each swallows the white space (before it, after it)."""
    added = tokenizer.added_tokens_decoder.values()
    tokens = dict.fromkeys(tokenizer.all_special_tokens, (False, False))
    tokens.update({t.content: (t.lstrip, t.rstrip) for t in added if t.special or t.content in tokens})
    return tokens
