"""Prompt and answer meet at a token boundary, in every template."""

from __future__ import annotations

import pytest

from longlora.errors import UserError
from longlora.prompts import encode_prompt, prompt_text, render

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
