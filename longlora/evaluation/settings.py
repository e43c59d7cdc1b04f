"""What the user can choose about evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from longlora.templates import TemplateSetting

TaskName = Literal["answers", "written_answers", "perplexity", "text_perplexity", "passkey"]


class AnswersSettings(BaseModel):
    """Loss on the answers of the dataset's validation split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rows: int = Field(default=100, ge=1, description="Rows evaluated, drawn by seed; the time grows with it.")
    max_tokens: int | None = Field(
        default=None,
        ge=2,
        description="Rows longer than this (prompt + answer, tokens) are left out; null keeps all.",
    )


class WrittenSettings(BaseModel):
    """Answers that the model writes to questions of the dataset's validation split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rows: int = Field(default=60, ge=1, description="Questions asked, drawn by seed; the time grows with it.")
    max_tokens: int | None = Field(
        default=None, ge=2, description="Rows longer than this (prompt + answer, tokens) are left out; null keeps all."
    )
    max_answer_tokens: int = Field(
        default=64, ge=1, description="Rows whose answer is longer are left out, and the model may write no more."
    )


class PerplexitySettings(BaseModel):
    """Perplexity of raw text in disjoint windows from the beginning of each document.

    All documents give their first window before any gives its second, until ``max_windows`` are there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(
        default=1024,
        ge=2,
        description="Tokens per window. Longer windows show longer context, and cost more.",
    )
    max_windows: int = Field(
        default=40, ge=1, description="Windows in all; the interval narrows with their square root."
    )
    max_windows_per_document: int = Field(default=8, ge=1, description="Windows of one document, from its beginning.")


class PasskeySettings(BaseModel):
    """Finding a five-digit number in filler text: every length x depth x trial is one sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lengths: tuple[int, ...] = Field(
        default=(512, 1024), min_length=1, description="Prompt lengths in tokens (within 1 %)."
    )
    depths: tuple[float, ...] = Field(
        default=(0.1, 0.5, 0.9),
        min_length=1,
        description="Where the number stands: 0 is the beginning, 1 the end.",
    )
    trials: int = Field(
        default=2, ge=1, description="Samples per length and depth, each with its own number and filler."
    )
    max_new_tokens: int = Field(default=24, ge=1, description="Tokens the model may answer with.")


class EvaluateSettings(BaseModel):
    """What is measured on the base and the merged model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[TaskName, ...] = Field(
        default=("answers", "perplexity", "text_perplexity", "passkey"),
        min_length=1,
        description="What to measure. text_perplexity needs texts and is left out without them; written_answers "
        "takes seconds a question on a CPU and is left to be asked for.",
    )
    texts: tuple[Path, ...] = Field(
        default=(),
        description="Text files, or folders of .txt and .md files, for text_perplexity (by content).",
    )
    template: TemplateSetting | None = Field(
        default=None,
        description="Prompt format: chat, inst, plain or a .jinja file; null: as the dataset says, else chat.",
    )
    answers: AnswersSettings = Field(default_factory=AnswersSettings, description="Of the task answers.")
    written: WrittenSettings = Field(default_factory=WrittenSettings, description="Of the task written_answers.")
    perplexity: PerplexitySettings = Field(
        default_factory=PerplexitySettings, description="Of the tasks perplexity and text_perplexity."
    )
    passkey: PasskeySettings = Field(default_factory=PasskeySettings, description="Of the task passkey.")
    seed: int = Field(default=0, ge=0, description="Of the rows drawn, the passkeys and the bootstrap.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Level of all intervals.")
    resamples: int = Field(default=10_000, ge=100, description="Bootstrap resamples per interval.")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto",
        description="Precision of the computation; auto is bfloat16 where the hardware has it, else float32.",
    )
    device: str = Field(
        default="auto",
        description="auto (CUDA where present, else CPU), cpu, cuda or cuda:N.",
        json_schema_extra={"digest": False},
    )
    chunk: int = Field(
        default=1024,
        ge=1,
        description="Positions whose logits exist at once; memory is chunk x vocabulary x 4 bytes.",
        json_schema_extra={"digest": False},
    )
