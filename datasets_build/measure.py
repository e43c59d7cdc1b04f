"""Lengths in tokens of the target model, all through ``longlora.prompts.render``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from longlora.models import load_tokenizer
from longlora.prompts import Template, render
from longlora.templates import ChosenTemplate
from pdf2txt.errors import UserError

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip


def tokenizer_digest(model: Path) -> str:
    """sha256 over the tokenizer's files: the weights do not change a row's length."""
    total = hashlib.sha256()
    for name in _TOKENIZER_FILES:
        if (model / name).is_file():
            total.update(f"{name}\0".encode() + (model / name).read_bytes())
    return total.hexdigest()


class Measure:
    """The length of rows under one tokenizer and template."""

    def __init__(self, model: Path, template: Template | ChosenTemplate) -> None:
        chosen = template if isinstance(template, ChosenTemplate) else ChosenTemplate(template)
        try:
            self.tokenizer: Any = load_tokenizer(model)
        except (OSError, ValueError) as error:
            raise UserError(
                f"no tokenizer in {model}: {str(error).splitlines()[0]}",
                "point the model at a Hugging Face directory with tokenizer.json",
            ) from error
        self.template = chosen.put_on(self.tokenizer)
        if self.template == "chat" and not self.tokenizer.chat_template:
            raise UserError(
                f"dataset.template is chat, but the tokenizer in {model} has no chat template",
                "set dataset.template to inst or plain",
            )

    def row(self, instruction: str, output: str) -> int:
        """Tokens of prompt and answer, exactly as training will see them."""
        return len(render(self.tokenizer, self.template, instruction, output).input_ids)

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by itself."""
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
        return [len(ids) for ids in encoded["input_ids"]]

    def passages(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text with the blank line behind it."""
        return [n + self.separator for n in self.texts(texts)]

    @cached_property
    def separator(self) -> int:
        """Tokens of the blank line between passages."""
        return self.texts(["\n\n"])[0]
