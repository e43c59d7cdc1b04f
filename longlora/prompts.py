"""How an instruction and its answer become tokens. Datasets, training and evaluation all use this.

The prompt is tokenized as it is at inference, alone, and the answer is appended as tokens: no token spans
the boundary, so the label mask is exact (LongLoRA tokenizes both together and can be off by one;
supervised-fine-tune.py).

Special tokens come from the template alone. A document that prints one ("<|im_end|>" in a paper about chat
formats) is text: it ends no turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from longlora.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat", "inst", "plain"]
NO_EOS = "name its eos_token in the model's tokenizer_config.json"
MARK = "\ue0f5\ue0f6"  # private-use characters that stand for an answer, to see where a template puts it


@dataclass(frozen=True)
class Rendered:
    """``input_ids[:answer_start]`` is the prompt, the rest the answer and its end-of-turn tokens."""

    input_ids: list[int]
    answer_start: int


def prompt_text(tokenizer: PreTrainedTokenizerBase, template: Template, instruction: str) -> str:
    """The prompt as text, special tokens spelled out.

    chat: the tokenizer's chat template (its own, or a file's: `longlora.templates`), up to where the assistant speaks.
    inst: ``[INST]...[/INST]``, the format of the LongAlpaca models.
    plain: the instruction and a newline, for base models without a format.

    Raises:
        UserError: chat, and the tokenizer has no chat template.
    """
    if template == "chat":
        if not tokenizer.chat_template:
            raise UserError("this tokenizer has no chat template", "set the template to inst or plain")
        return _chat(tokenizer, [{"role": "user", "content": instruction}], True)
    bos = tokenizer.bos_token or ""
    return f"{bos}[INST]{instruction}[/INST]" if template == "inst" else f"{bos}{instruction}\n"


def answer_text(tokenizer: PreTrainedTokenizerBase, template: Template, output: str) -> str:
    """The answer as text, up to and with the token that ends the turn.

    chat: what the template adds to the prompt. Where it does not begin a finished conversation as it begins a
    generation (thinking tags that only the latter has), the answer is followed by what ends its turn there.

    Raises:
        UserError: chat, and the template does not print the answer; or no token ends it.
    """
    if template != "chat":
        return f"{output}{_eos(tokenizer)}"
    question = {"role": "user", "content": "?"}
    prefix = _chat(tokenizer, [question], True)
    whole = _chat(tokenizer, [question, {"role": "assistant", "content": output}])
    if whole.startswith(prefix):
        return _ended(tokenizer, whole[len(prefix) :])
    _, found, end = _chat(tokenizer, [question, {"role": "assistant", "content": MARK}]).rpartition(MARK)
    if not found:
        raise UserError("the chat template leaves out what the assistant says", "set the template to inst or plain")
    return _ended(tokenizer, output + end)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, template: Template, instruction: str) -> list[int]:
    """Token ids of the prompt alone, as generation starts from."""
    return _encode(tokenizer, instruction, lambda text: prompt_text(tokenizer, template, text))


def end_of_answer(tokenizer: PreTrainedTokenizerBase, template: Template) -> int:
    """The token that ends an answer in this format: what training teaches a model to stop with."""
    return _encode(tokenizer, "x", lambda text: answer_text(tokenizer, template, text))[-1]


def render(tokenizer: PreTrainedTokenizerBase, template: Template, instruction: str, output: str) -> Rendered:
    """Token ids of prompt + answer. Its length is *the* length of a row, everywhere."""
    prompt = encode_prompt(tokenizer, template, instruction)
    answer = _encode(tokenizer, output, lambda text: answer_text(tokenizer, template, text))
    return Rendered(prompt + answer, len(prompt))


def render_messages(
    tokenizer: PreTrainedTokenizerBase, template: Template, messages: Sequence[Mapping[str, str]]
) -> list[tuple[list[int], bool]]:
    """Token ids of a conversation in pieces; True marks what the assistant says, with the end of its turn.

    A turn's prompt is tokenized apart from its answer, as in `render`.

    Args:
        messages: ``role`` (system, user, assistant) and ``content`` of each; inst and plain know no system.

    Raises:
        UserError: no assistant turn, a role that the template does not know, or a chat template that prints a
            turn otherwise once another follows (it would teach text that inference never shows).
    """
    if not any(m["role"] == "assistant" for m in messages):
        raise UserError("no message is the assistant's", "give rows that have an answer")
    contents, back = _without_special(tokenizer, [m["content"] for m in messages])
    turns = [{"role": m["role"], "content": content} for m, content in zip(messages, contents, strict=True)]
    pieces: list[tuple[list[int], bool]] = []
    if template != "chat":
        if [t["role"] for t in turns] != ["user", "assistant"] * (len(turns) // 2):
            raise UserError(f"template {template}: user and assistant must take turns", "set the template to chat")
        for turn in turns:
            frame = prompt_text if turn["role"] == "user" else answer_text
            pieces.append((_parse(tokenizer, frame(tokenizer, template, turn["content"]), back), frame is answer_text))
        return pieces
    done = ""  # what has been tokenized
    for i, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        prompt, whole = _chat(tokenizer, turns[:i], True), _chat(tokenizer, turns[: i + 1])
        if not (prompt.startswith(done) and whole.startswith(prompt)):
            raise UserError(
                "the chat template prints earlier turns otherwise once others follow",
                "use rows of one turn, or a template file that does not",
            )
        answer = _ended(tokenizer, whole[len(prompt) :])
        pieces += [(_parse(tokenizer, prompt[len(done) :], back), False), (_parse(tokenizer, answer, back), True)]
        done = prompt + answer if whole.startswith(prompt + answer) else whole
    return pieces


def begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether this tokenizer begins a text with its BOS token (Llama, Mistral), so that its model expects one."""
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of raw text, without a template: what reads like a special token in it is text."""
    return plain_batch(tokenizer, [text])[0]


def plain_batch(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """`plain_ids` of several texts at once, on all cores where the tokenizer is a fast one."""
    encoded = tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False, return_attention_mask=False
    )
    return list(encoded["input_ids"])


def _chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], generate: bool = False) -> str:
    from jinja2 import TemplateError

    copies = [dict(m) for m in messages]
    try:
        return str(tokenizer.apply_chat_template(copies, tokenize=False, add_generation_prompt=generate))
    except TemplateError as error:
        raise UserError(
            f"the messages cannot be rendered by the chat template: {error}", "set the template to inst or plain"
        ) from error


def _ended(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """An assistant's turn without line breaks after its end, and with EOS where the template has no end at all."""
    text = text.rstrip("\n")
    return text if text.endswith(tuple(_special_tokens(tokenizer))) else f"{text}{_eos(tokenizer)}"


def _eos(tokenizer: PreTrainedTokenizerBase) -> str:
    if tokenizer.eos_token is None:
        raise UserError("the model's tokenizer has no EOS token to end an answer with", NO_EOS)
    return str(tokenizer.eos_token)


def _encode(tokenizer: PreTrainedTokenizerBase, content: str, frame: Callable[[str], str]) -> list[int]:
    """Token ids of ``frame(content)``, special tokens parsed in the frame and not in the content."""
    (content,), back = _without_special(tokenizer, [content])
    return _parse(tokenizer, frame(content), back)


def _without_special(tokenizer: PreTrainedTokenizerBase, contents: list[str]) -> tuple[list[str], dict[int, str]]:
    """The contents with a private-use character for each special token they print, and the way back.

    Nearly every content prints none and stays as it is; the way back is empty then.
    """
    printed = [t for t in _special_tokens(tokenizer) if any(t in content for content in contents)]
    if not printed:
        return contents, {}
    unused = (char for char in map(chr, range(0xF0000, 0xFFFFE)) if not any(char in content for content in contents))
    stands_for = dict(zip(unused, sorted(printed, key=len, reverse=True), strict=False))
    for char, token in stands_for.items():
        contents = [content.replace(token, char) for content in contents]
    return contents, str.maketrans(stands_for)


def _parse(tokenizer: PreTrainedTokenizerBase, text: str, back: dict[int, str]) -> list[int]:
    """Token ids of framed text: the special tokens in it are the frame's, those of ``back`` are text."""
    if not back:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    # A tokenizer too takes the special tokens out first, and tokenizes what lies between them piece by piece.
    strips = _special_tokens(tokenizer)
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
