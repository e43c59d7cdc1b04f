"""Which prompt format a run uses: one of three names, or a Jinja file that takes the chat template's place.

Rendering knows names only (`longlora.prompts`): a template file becomes the tokenizer's own chat template, and
travels with the adapter's tokenizer from there on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import AfterValidator

from longlora.errors import UserError
from longlora.prompts import Template, answer_text, prompt_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMES = get_args(Template)
PROBE = "0f3a the question", "7c5e the answer"  # nothing that a template prints by itself


def _known(value: Template | Path) -> Template | Path:
    if isinstance(value, Path) and value.suffix != ".jinja":
        raise ValueError(f"{str(value)!r} is none of {', '.join(NAMES)}, nor a file that ends in .jinja")
    return value


TemplateSetting = Annotated[Template | Path, AfterValidator(_known)]
"""What a settings field takes: chat, inst, plain, or the path of a .jinja file (an external input, by content)."""


@dataclass(frozen=True)
class ChosenTemplate:
    """A template's name, and the text of the file that stands in for the tokenizer's chat template."""

    name: Template
    chat_template: str | None = None

    def record(self) -> dict[str, str]:
        """As JSON, for `choose_template` to read again."""
        return {"template": self.name} | ({"chat_template": self.chat_template} if self.chat_template else {})

    def put_on(self, tokenizer: PreTrainedTokenizerBase) -> Template:
        """Make a template file the tokenizer's chat template; returns the name that rendering takes.

        Raises:
            UserError: the file is not Jinja, or leaves out the question or the answer.
        """
        if self.chat_template is None:
            return self.name
        tokenizer.chat_template = self.chat_template
        question, answer = PROBE
        try:
            seen = question in prompt_text(tokenizer, "chat", question)
            seen &= answer in answer_text(tokenizer, "chat", answer)
        except Exception as error:  # whatever the template's expressions raise
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(
                f"the template file cannot be used: {reason}",
                "correct it; it gets messages (role, content), add_generation_prompt, bos_token and eos_token",
            ) from error
        if not seen:
            raise UserError(
                "the template file leaves out what the user or the assistant says",
                "have it print message['content'] of every message",
            )
        return self.name


CHAT = ChosenTemplate("chat")


def choose_template(setting: Template | Path | None, record: Path | None = None) -> ChosenTemplate:
    """The template of a setting; where it is None that of a record, and without one chat.

    Args:
        record: a JSON file with `ChosenTemplate.record` in it: a dataset's ``stats.json``.

    Raises:
        UserError: a template file cannot be read.
    """
    if isinstance(setting, Path):
        try:
            return ChosenTemplate("chat", setting.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the template file {setting} cannot be read: {error}", "correct its path") from error
    if setting is not None:
        return ChosenTemplate(setting)
    try:
        value: Any = json.loads(record.read_text()) if record else {}
        name, text = value.get("template"), value.get("chat_template")
    except (OSError, ValueError, AttributeError):
        name = text = None
    return ChosenTemplate(name, text) if name in NAMES else CHAT
