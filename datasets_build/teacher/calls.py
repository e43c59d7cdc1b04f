"""One call of the teacher: what is sent, what comes back, what can go wrong. And its identity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from datasets_build.teacher.settings import TeacherSettings
from pdf2txt.units import digest

RESPONSE_VERSION = 1  # raised when what is stored of a reply changes
FRAME_TOKENS = 64  # what a chat template adds to a prompt, generously

# passing: may pass (429, 5xx, no connection); unknown: likewise, but may have been paid (a timeout); refused: this
# prompt alone (400, 422); fatal: every prompt (wrong key, unknown model); exhausted: the account is empty
Trouble = Literal["passing", "unknown", "refused", "fatal", "exhausted"]


@dataclass(frozen=True)
class Call:
    """A prompt with everything that decides its reply. Where it is sent does not count."""

    model: str
    prompt: str  # the one message, the user's
    parameters: str  # JSON of the other fields of the request body
    attempt: int = 0  # of a junk reply's retries

    @cached_property
    def key(self) -> str:
        """The name of its reply in the store."""
        return digest("response", RESPONSE_VERSION, self.model, self.prompt, self.parameters, self.attempt)

    @property
    def prompt_bound(self) -> int:
        """Tokens that the prompt cannot exceed: byte-level vocabularies have no token shorter than a byte."""
        return len(self.prompt.encode()) + FRAME_TOKENS


@dataclass(frozen=True)
class Usage:
    """Tokens of calls; ``estimated`` counts replies that came without figures and were counted in bytes."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[int, int, int, int]:
        return self.calls, self.prompt_tokens, self.completion_tokens, self.estimated

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def cost(self, settings: TeacherSettings) -> float | None:
        """In the currency of the prices; None without prices."""
        if settings.price_input is None or settings.price_output is None:
            return None
        return (self.prompt_tokens * settings.price_input + self.completion_tokens * settings.price_output) / 1e6


@dataclass(frozen=True)
class Reply:
    """What the model wrote. ``whole`` is False where the limit cut it."""

    text: str
    whole: bool
    usage: Usage

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reply:
        return cls(data["text"], data["whole"], Usage(**data["usage"]))


@dataclass(frozen=True)
class Failure:
    """Why there is no reply. ``retry_after``: seconds that the endpoint asked to wait."""

    trouble: Trouble
    reason: str  # a short slug, as in rejects.parquet
    message: str
    retry_after: float | None = None


def parameters(settings: TeacherSettings, schema: Mapping[str, Any]) -> str:
    """The request body besides model and messages, as JSON. ``schema``: JSON Schema of the reply."""
    body: dict[str, Any] = {settings.limit_parameter: settings.output_tokens, **settings.extra}
    for name in ("temperature", "top_p"):
        if (value := getattr(settings, name)) is not None:
            body[name] = value
    if settings.reply_format == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif settings.reply_format == "json_schema":
        named = {"name": "reply", "strict": True, "schema": dict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return json.dumps(body, sort_keys=True)
