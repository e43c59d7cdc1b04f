"""Settings of the ``dataset.teacher`` section of a run file."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from longlora.models import ModelSettings

_TOKENS = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kM]?)\s*tokens?\s*$", re.IGNORECASE)
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
SPEED: dict[str, JsonValue] = {"digest": False}  # does not change what a prompt's reply is


class TeacherSettings(BaseModel):
    """The model that writes questions and answers, and what it may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str | None = Field(
        None,
        description="OpenAI-compatible endpoint, such as https://HOST/v1. Not part of the rows' identity: the same "
        "model behind another address repeats no call. null: a local model (`local`).",
        json_schema_extra=SPEED,
    )
    model: str = Field("", description="Name of the model at the endpoint; empty with `local`.")
    local: ModelSettings | None = Field(
        None,
        description="A transformers model that runs in this process, one prompt at a time, instead of an endpoint: an "
        "embedded name, a hub id or {path: DIR}.",
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="Name of the environment variable that holds the key; the key itself is written nowhere. Unset or "
        "empty: requests go without a key, as servers of your own mostly want it.",
        json_schema_extra=SPEED,
    )
    temperature: float | None = Field(
        0.0,
        ge=0,
        le=2,
        description="0 for the likeliest reply; higher varies questions more. null: not sent, as models that think "
        "mostly want it.",
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="Share of probability that sampling draws from; null: not sent."
    )
    output_tokens: int = Field(
        1024, ge=16, description="Longest reply in the teacher's tokens, thinking included where the model thinks."
    )
    answer_tokens: int = Field(
        512,
        ge=8,
        description="Room that a window leaves for the answer, in tokens of the target model (a quarter of max_tokens "
        "at most). An answer that does not fit is rejected, never cut.",
    )
    limit_parameter: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the endpoint calls the limit of a reply; newer hosted models want the second."
    )
    reply_format: Literal["text", "json_object", "json_schema"] = Field(
        "text",
        description="text: the prompt alone asks for JSON, works everywhere; json_object, json_schema: the endpoint "
        "is told to produce nothing else, where it can. Small models need json_schema.",
    )
    extra: dict[str, Any] = Field(
        {}, description="More fields of the request body, such as {reasoning_effort: low}; part of the rows' identity."
    )
    license: str | None = Field(
        None, description="Licence of what the teacher writes, recorded with its rows beside the documents'."
    )
    closed_book: bool = Field(
        False,
        description="Ask every question without its text too, and reject what the teacher answers alike: it does not "
        "need the document. One more (short) call per row.",
    )
    junk_retries: int = Field(2, ge=0, description="How often a reply that is not the JSON asked for is asked again.")
    concurrency: int = Field(
        8, ge=1, description="Calls in flight at once. The rows do not depend on it.", json_schema_extra=SPEED
    )
    requests_per_minute: float | None = Field(
        None, gt=0, description="Rate limit of the endpoint; null: none.", json_schema_extra=SPEED
    )
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Rate limit of prompt and reply tokens; null: none.", json_schema_extra=SPEED
    )
    timeout_seconds: float = Field(
        300.0, gt=0, description="How long a reply may take before the call is given up.", json_schema_extra=SPEED
    )
    retries: int = Field(
        5,
        ge=0,
        description="How often a call is sent again after 429, 5xx, a timeout or a lost connection. Then its row is "
        "rejected with the reason, and tried again by the next run.",
        json_schema_extra=SPEED,
    )
    backoff_seconds: float = Field(
        2.0,
        ge=0,
        description="Wait before the first retry, doubled for each further one (a minute at most); the endpoint's "
        "Retry-After goes before.",
        json_schema_extra=SPEED,
    )
    price_input: float | None = Field(
        None, ge=0, description="Price per million prompt tokens, in any currency.", json_schema_extra=SPEED
    )
    price_output: float | None = Field(
        None, ge=0, description="Price per million reply tokens, in the same currency.", json_schema_extra=SPEED
    )
    budget: float | str | None = Field(
        None,
        description="What may be spent on this model, over all builds on the same store: an amount in the currency of "
        "the prices, or tokens (`500k tokens`, `2M tokens`). No call is sent that could exceed it; the build ends with "
        "the rows it has, and goes on where the budget is raised.",
        json_schema_extra=SPEED,
    )

    @field_validator("budget")
    @classmethod
    def _amount_or_tokens(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, str) and not _TOKENS.match(value):
            try:
                value = float(value)
            except ValueError:
                raise ValueError(
                    f"budget {value!r} is neither an amount (5 or 2.50) nor tokens (`500k tokens`)"
                ) from None
        if isinstance(value, float | int) and not 0 <= value < float("inf"):
            raise ValueError("budget must not be negative")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TeacherSettings:
        if (self.base_url is None) == (self.local is None):
            raise ValueError("give either teacher.base_url (an endpoint) or teacher.local (a model on this machine)")
        if self.base_url is not None and not self.model:
            raise ValueError("teacher.model is missing: the name of the model at teacher.base_url")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"teacher.base_url {self.base_url!r} must begin with http:// or https://")
        if self.base_url is not None and "@" in self.base_url.split("//", 1)[1].split("/", 1)[0]:
            raise ValueError("teacher.base_url must not hold a password: it is recorded; name teacher.api_key_env")
        if self.local is not None and self.model:
            raise ValueError("teacher.model names a model at an endpoint; with teacher.local leave it out")
        if self.budget_amount is not None and (self.price_input is None or self.price_output is None):
            raise ValueError(
                "a budget in currency needs teacher.price_input and teacher.price_output; "
                "or give it in tokens (`500k tokens`)"
            )
        return self

    @property
    def name(self) -> str:
        """What the model is called in rows, stores and reports."""
        if self.local is None:
            return self.model
        return self.local.name or (self.local.path.name if self.local.path else "")

    @property
    def budget_tokens(self) -> int | None:
        """The budget in tokens, if it was given so."""
        match = _TOKENS.match(self.budget) if isinstance(self.budget, str) else None
        return round(float(match[1]) * _UNITS[match[2].lower()]) if match else None

    @property
    def budget_amount(self) -> float | None:
        """The budget in currency, if it was given so."""
        return None if self.budget is None or self.budget_tokens is not None else float(self.budget)
