"""Prompt and answer meet at a token boundary, in every template."""

from __future__ import annotations

import json

import pytest

from longlora.errors import UserError
from longlora.prompts import (
    answer_text,
    begins_with_bos,
    encode_prompt,
    plain_batch,
    plain_ids,
    prompt_text,
    render,
    render_messages,
)
from longlora.templates import CHAT, ChosenTemplate, choose_template

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


# ------------------------------------------------------------------ templates that are not the model's own

VICUNA = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {{ m['content'] }}\n"
    "{% else %}ASSISTANT: {{ m['content'] }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)
FORGETS = (  # shows only the last two messages
    "{% for m in messages[-2:] %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def own(smollm2_dir):
    """A tokenizer whose template may be changed."""
    from longlora.models import load_tokenizer

    return load_tokenizer(smollm2_dir)


def test_a_template_file_takes_the_chat_templates_place(own, tmp_path) -> None:
    file = tmp_path / "vicuna.jinja"
    file.write_text(VICUNA)
    chosen = choose_template(file)
    assert chosen.put_on(own) == "chat"
    rendered = render(own, "chat", INSTRUCTION, OUTPUT)
    prompt, answer = rendered.input_ids[: rendered.answer_start], rendered.input_ids[rendered.answer_start :]
    assert own.decode(prompt) == f"USER: {INSTRUCTION}\nASSISTANT: "
    assert own.decode(answer) == f"{OUTPUT}{own.eos_token}"  # the template ends no turn: EOS does
    (tmp_path / "stats.json").write_text(json.dumps(chosen.record()))
    assert choose_template(None, tmp_path / "stats.json") == chosen
    assert choose_template("inst", tmp_path / "stats.json") == ChosenTemplate("inst")
    assert choose_template(None, tmp_path / "none.json") == CHAT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% for m in messages %}", "cannot be used"),
        ("{{ messages[0]['nothing'].x }}", "cannot be used"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "leaves out"),
        ("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}", "leaves out"),
    ],
)
def test_template_files_that_cannot_be_used(own, tmp_path, text, message) -> None:
    (tmp_path / "a.jinja").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        choose_template(tmp_path / "a.jinja").put_on(own)
    assert error.value.remedy
    with pytest.raises(UserError, match="cannot be read"):
        choose_template(tmp_path / "none.jinja")


def test_only_files_of_templates_are_a_setting() -> None:
    from longlora.train.settings import TrainSettings

    assert TrainSettings(template="inst").template == "inst"
    assert str(TrainSettings(template="a/b.jinja").template) == "a/b.jinja"
    with pytest.raises(ValueError, match=r"ends in \.jinja"):
        TrainSettings(template="chatt")


def test_answer_where_generation_begins_otherwise_than_a_finished_turn(own) -> None:
    """The answer follows the prompt of inference, and ends as the template ends turns."""
    own.chat_template = THINKS
    assert answer_text(own, "chat", OUTPUT) == f"{OUTPUT}<|im_end|>"
    rendered = render(own, "chat", INSTRUCTION, OUTPUT)
    assert own.decode(rendered.input_ids[: rendered.answer_start]).endswith("assistant\n<think>\n\n</think>\n\n")


TURNS = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Quote <|im_end|> twice"},
    {"role": "assistant", "content": "<|im_end|><|im_end|>"},
    {"role": "user", "content": "Again?"},
    {"role": "assistant", "content": "No.\n"},
]


def test_every_turn_of_a_conversation(own) -> None:
    pieces = render_messages(own, "chat", TURNS)
    assert "".join(own.decode(ids) for ids, _ in pieces) == own.apply_chat_template(TURNS, tokenize=False).rstrip("\n")
    learned = [ids for ids, learns in pieces if learns]
    assert [own.decode(ids) for ids in learned] == ["<|im_end|><|im_end|><|im_end|>", "No.\n<|im_end|>"]
    assert [ids.count(own.eos_token_id) for ids in learned] == [1, 1]  # what is quoted ends no turn
    single = render(own, "chat", INSTRUCTION, OUTPUT)
    turn = [{"role": "user", "content": INSTRUCTION}, {"role": "assistant", "content": OUTPUT}]
    assert [i for ids, _ in render_messages(own, "chat", turn) for i in ids] == single.input_ids


def test_conversations_of_the_plain_formats(own) -> None:
    pieces = render_messages(own, "inst", TURNS[1:])
    assert own.decode(pieces[2][0]) == f"{own.bos_token}[INST]Again?[/INST]"
    assert [learns for _, learns in pieces] == [False, True, False, True]
    with pytest.raises(UserError, match="take turns"):
        render_messages(own, "plain", TURNS)


def test_conversations_that_are_refused(own) -> None:
    with pytest.raises(UserError, match="no message is the assistant's"):
        render_messages(own, "chat", TURNS[:2])
    own.chat_template = FORGETS
    with pytest.raises(UserError, match="earlier turns otherwise"):
        render_messages(own, "chat", TURNS[1:])


@pytest.mark.parametrize("template", ["inst", "plain", "chat"])
def test_nothing_to_end_an_answer_with(own, template) -> None:
    own.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    own.eos_token = None
    with pytest.raises(UserError, match="no EOS token"):
        render(own, template, INSTRUCTION, OUTPUT)


def test_begins_with_bos(own) -> None:
    assert not begins_with_bos(own)

    class Llama:
        bos_token_id = 1

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [1, 7]}

    assert begins_with_bos(Llama())  # type: ignore[arg-type]


def test_a_batch_has_the_tokens_of_each(tokenizer) -> None:
    texts = [INSTRUCTION, "", PRINTED]
    assert plain_batch(tokenizer, texts) == [plain_ids(tokenizer, text) for text in texts]
