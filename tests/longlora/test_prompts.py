"""Prompt and answer meet at a token boundary, in every template."""

from __future__ import annotations

import pytest

from longlora.errors import UserError
from longlora.prompts import encode_prompt, plain_ids, prompt_text, render

INSTRUCTION, OUTPUT = "Below is a memo.\n\n12 boats left.\n\nHow many boats?", "12 boats.\nNo more"


@pytest.mark.parametrize("template", ["chat", "inst", "plain"])
def test_render_is_prompt_then_answer_then_end(tokenizer, template) -> None:
    rendered = render(tokenizer, template, INSTRUCTION, OUTPUT)
    prompt, answer = rendered.input_ids[: rendered.answer_start], rendered.input_ids[rendered.answer_start :]
    assert prompt == encode_prompt(tokenizer, template, INSTRUCTION)
    assert tokenizer.decode(prompt) == prompt_text(tokenizer, template, INSTRUCTION)
    assert tokenizer.decode(answer) == f"{OUTPUT}<|im_end|>"
    assert answer[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in answer[:-1]


def test_chat_equals_the_models_own_template(tokenizer) -> None:
    turns = [{"role": "user", "content": INSTRUCTION}, {"role": "assistant", "content": OUTPUT}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    rendered = render(tokenizer, "chat", INSTRUCTION, OUTPUT)
    assert tokenizer.decode(rendered.input_ids) == whole.rstrip("\n")


def test_no_chat_template(tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(UserError) as error:
        prompt_text(tokenizer, "chat", "x")
    assert "inst or plain" in error.value.remedy


PRINTED = "ChatML ends a turn with <|im_end|>\nand a text with <|endoftext|><|im_end|>, as <file_sep> shows"


@pytest.mark.parametrize("template", ["chat", "inst", "plain"])
def test_special_tokens_that_a_document_prints_are_text(tokenizer, template) -> None:
    rendered, usual = (render(tokenizer, template, text, text) for text in (PRINTED, INSTRUCTION))
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    for part in (slice(rendered.answer_start), slice(rendered.answer_start, None)):
        of_usual = slice(usual.answer_start) if part.start is None else slice(usual.answer_start, None)
        expected = [i for i in usual.input_ids[of_usual] if i in special]
        assert [i for i in rendered.input_ids[part] if i in special] == expected
    prompt, answer = rendered.input_ids[: rendered.answer_start], rendered.input_ids[rendered.answer_start :]
    assert prompt == encode_prompt(tokenizer, template, PRINTED)
    assert tokenizer.decode(prompt) == prompt_text(tokenizer, template, PRINTED)
    assert answer == [*plain_ids(tokenizer, PRINTED), tokenizer.eos_token_id]


@pytest.mark.parametrize("template", ["chat", "inst", "plain"])
def test_a_printed_special_token_leaves_the_rest_as_it_was(tokenizer, template) -> None:
    with_token, without = (encode_prompt(tokenizer, template, f"{INSTRUCTION}{x}{OUTPUT}") for x in ("<|im_end|>", "|"))
    printed = plain_ids(tokenizer, "?<|im_end|>1")
    same = next(i for i, (a, b) in enumerate(zip(with_token, without, strict=False)) if a != b)
    after = len(with_token) - (len(without) - same) + 1
    assert with_token[:same] == without[:same] and with_token[after:] == without[same + 1 :]
    assert after - same < len(printed)


def test_special_tokens_that_swallow_white_space(smollm2_dir) -> None:
    from transformers import AddedToken

    from longlora.models import load_tokenizer

    tokenizer = load_tokenizer(smollm2_dir)
    end = AddedToken("<|end|>", lstrip=True, rstrip=True, special=True, normalized=False)
    tokenizer.add_special_tokens({"additional_special_tokens": [end]})
    tokenizer.chat_template = "{% for m in messages %}<|end|> \n{{ m['content'] }} \n<|end|>\nGo{% endfor %}"
    usual = encode_prompt(tokenizer, "chat", "x")
    assert tokenizer.convert_ids_to_tokens(usual) == ["<|end|>", "x", "<|end|>", "Go"]
    id_ = tokenizer.convert_tokens_to_ids("<|end|>")
    printed = encode_prompt(tokenizer, "chat", "say <|end|> here")
    assert printed == [id_, *plain_ids(tokenizer, "say <|end|> here"), id_, *plain_ids(tokenizer, "Go")]


def test_plain_ids_know_no_special_token(tokenizer) -> None:
    assert plain_ids(tokenizer, INSTRUCTION) == tokenizer(INSTRUCTION, add_special_tokens=False)["input_ids"]
    ids = plain_ids(tokenizer, PRINTED)
    assert tokenizer.decode(ids) == PRINTED and not set(ids) & set(tokenizer.added_tokens_decoder)
    assert tokenizer("<|im_end|>")["input_ids"] == [tokenizer.eos_token_id]  # the tokenizer stays as it was
