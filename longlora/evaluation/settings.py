"""What the user can choose about evaluation."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from longlora.evaluation.gate import GateSettings
from longlora.templates import TemplateSetting

TaskName = Literal[
    "answers", "written_answers", "perplexity", "text_perplexity", "passkey", "needle", "multi_needle",
    "variable_tracking", "common_words", "frequent_words", "leval", "longbench", "longchat", "lm_eval",
]  # fmt: skip


class AnswersSettings(BaseModel):
    """Loss on the answers of the dataset's validation split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rows: int = Field(default=64, ge=1, description="Rows evaluated, drawn by seed; the time grows with it.")
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
    """Perplexity of raw text.

    All documents give their first window before any gives its second, until ``max_windows`` are there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["disjoint", "strided", "longlora"] = Field(
        default="disjoint",
        description="disjoint: windows side by side, every token but a window's first is scored. strided: each window "
        "scores its last stride tokens only, so that all of them have a long context; costs window / stride times as "
        "much. longlora: as its eval.py, for comparison with published figures: windows overlap, all of a window is "
        "scored, the last window is dropped.",
    )
    window: int = Field(
        default=1024, ge=2, description="Context in tokens. Longer windows show longer context, and cost more."
    )
    shorter: tuple[int, ...] = Field(
        default=(),
        description="Shorter contexts for the curve by length: the same text, cut finer (disjoint) or with less before "
        "what is scored (strided). Each costs about as much as the window itself.",
    )
    stride: int = Field(default=256, ge=1, description="Tokens from one window to the next, of strided and longlora.")
    max_windows: int | None = Field(
        default=40, ge=1, description="Windows in all; the interval narrows with their square root. null: all."
    )
    max_document_tokens: int = Field(
        default=65_536, ge=2, description="What is used of a document, from its beginning. longlora takes all."
    )

    @model_validator(mode="after")
    def _fits(self) -> PerplexitySettings:
        if self.shorter and self.method == "longlora":
            raise ValueError("shorter: longlora measures one length, set method to disjoint or strided")
        if any(not 2 <= n < self.window for n in self.shorter):
            raise ValueError(f"shorter: each must be from 2 to below window ({self.window:,})")
        if self.method == "disjoint" and any(self.window % n for n in self.shorter):
            raise ValueError(f"shorter: each must divide window ({self.window:,}), so that the same text is measured")
        if self.method == "strided" and self.stride >= min((self.window, *self.shorter)):
            raise ValueError("stride: must be below window and each of shorter")
        return self


class PasskeySettings(BaseModel):
    """Finding a five-digit number in filler text: every length x depth x trial is one sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["exact", "longlora"] = Field(
        default="exact",
        description="exact: prompts of exactly these lengths in the run's prompt format, the number at these depths. "
        "longlora: the structure, length rule and seeds of its passkey_retrivial.py, as raw text.",
    )
    lengths: tuple[int, ...] = Field(
        default=(512, 1024), min_length=1, description="Prompt lengths in tokens (within 1 %), of exact."
    )
    depths: tuple[float, ...] = Field(
        default=(0.1, 0.5, 0.9),
        min_length=1,
        description="Where the number stands: 0 is the beginning, 1 the end; of exact.",
    )
    trials: int = Field(
        default=2, ge=1, description="Samples per length (and depth), each with its own number and place."
    )
    interval: int = Field(default=1000, ge=300, description="Step of the lengths in tokens, of longlora.")
    max_tokens: int = Field(default=32_000, ge=300, description="Longest of them, of longlora.")
    wording: Path | None = Field(
        default=None,
        description="A YAML file with opening, filler (a list of sentences), needle (with {key}), question and ending, "
        "in place of ours.",
    )
    max_new_tokens: int = Field(default=24, ge=1, description="Tokens the model may answer with.")


class GridSettings(BaseModel):
    """A fact planted in a text, asked for at the end: every length x depth x trial is one sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lengths: tuple[int, ...] = Field(
        default=(1024, 2048, 4096), min_length=1, description="Prompt lengths in tokens (within 1 %)."
    )
    depths: tuple[float, ...] = Field(
        default=(0.0, 0.25, 0.5, 0.75, 1.0), min_length=1, description="Where the fact stands, from 0 to 1."
    )
    trials: int = Field(default=1, ge=1, description="Samples per length and depth.")
    max_new_tokens: int = Field(default=24, ge=1, description="Tokens the model may answer with.")


class SyntheticSettings(BaseModel):
    """The forms of RULER (Hsieh et al. 2024): every length x trial is one sample of each such task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lengths: tuple[int, ...] = Field(
        default=(1024, 2048, 4096), min_length=1, description="Prompt lengths in tokens (within 1 %)."
    )
    trials: int = Field(default=5, ge=1, description="Samples per length.")
    needles: int = Field(default=4, ge=1, description="multi_needle: names that have numbers in the text.")
    values: int = Field(default=1, ge=1, description="multi_needle: numbers that each of them has.")
    queries: int = Field(default=2, ge=1, description="multi_needle: names that are asked for.")
    hops: int = Field(default=4, ge=1, description="variable_tracking: assignments after the first.")
    chains: int = Field(default=1, ge=1, description="variable_tracking: chains, of which one is asked for.")

    @model_validator(mode="after")
    def _enough(self) -> SyntheticSettings:
        if self.queries > self.needles:
            raise ValueError(f"queries: only {self.needles} needles to ask for")
        return self


class LocalFilesSettings(BaseModel):
    """A published suite whose data files are at hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = Field(default=None, description="Folder of its .jsonl files, as published (by content).")
    subsets: tuple[str, ...] = Field(default=(), description="Names of the files to use; empty: all that are there.")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Tokens the model may answer with; null: as published for each subset."
    )


class LmEvalSettings(BaseModel):
    """Standard short tasks through lm-evaluation-harness; their data must be at hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = Field(default=(), description="Names of its tasks.")
    include_path: Path | None = Field(default=None, description="Folder with task files of your own (by content).")


class EvaluateSettings(BaseModel):
    """What is measured on the base and the merged model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[TaskName, ...] = Field(
        default=("answers", "perplexity", "text_perplexity", "passkey"),
        min_length=1,
        description="What to measure. text_perplexity needs texts and is left out without them; tasks in which a model "
        "writes much take seconds a question on a CPU and are left to be asked for.",
    )
    texts: tuple[Path, ...] = Field(
        default=(),
        description="For text_perplexity and needle, by content: .txt, .md, .jsonl and .parquet files (key or column "
        "text), LongLoRA's .bin (token numbers; two bytes each, four where the vocabulary is larger), or folders.",
    )
    template: TemplateSetting | None = Field(
        default=None,
        description="Prompt format: chat, inst, plain or a .jinja file; null: as the dataset says, else chat.",
    )
    answers: AnswersSettings = Field(default_factory=AnswersSettings, description="Of the task answers.")
    written_answers: WrittenSettings = Field(
        default_factory=WrittenSettings, description="Of the task written_answers."
    )
    perplexity: PerplexitySettings = Field(
        default_factory=PerplexitySettings, description="Of the tasks perplexity and text_perplexity."
    )
    passkey: PasskeySettings = Field(default_factory=PasskeySettings, description="Of the task passkey.")
    needle: GridSettings = Field(default_factory=GridSettings, description="Of the task needle.")
    synthetic: SyntheticSettings = Field(
        default_factory=SyntheticSettings,
        description="Of the tasks multi_needle, variable_tracking, common_words and frequent_words.",
    )
    leval: LocalFilesSettings = Field(default_factory=LocalFilesSettings, description="Of the task leval.")
    longbench: LocalFilesSettings = Field(default_factory=LocalFilesSettings, description="Of the task longbench.")
    longchat: LocalFilesSettings = Field(default_factory=LocalFilesSettings, description="Of the task longchat.")
    lm_eval: LmEvalSettings = Field(default_factory=LmEvalSettings, description="Of the task lm_eval.")
    suite: str = Field(
        default="default",
        description="A name for this choice of tasks, in the history.",
        json_schema_extra={"digest": False},
    )
    limit: int | None = Field(
        default=None, ge=1, description="At most so many samples per task and subset, drawn by seed; null: all."
    )
    max_prompt_tokens: int | None = Field(
        default=None,
        ge=64,
        description="Longest prompt of a question about a document: its middle is left out as far as needed, which is "
        "reported. null: the models' own context length.",
    )
    gate: GateSettings = Field(
        default_factory=GateSettings,
        description="When a model is worse than the champion (`longfolio promote`).",
        json_schema_extra={"digest": False},
    )
    seed: int = Field(default=0, ge=0, description="Of the rows drawn, the passkeys and the bootstrap.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Level of all intervals.")
    resamples: int = Field(default=10_000, ge=100, description="Bootstrap resamples per interval.")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto",
        description="Precision of the computation; auto is bfloat16 where the hardware has it, else float32.",
    )
    engine: Literal["transformers", "vllm"] = Field(
        default="transformers",
        description="What computes: transformers, or vLLM where it is installed (faster with many questions on a GPU).",
    )
    load_in_4bit: bool = Field(
        default=False,
        description="Weights in NF4: a quarter of the memory, and other numbers than in 16 bits. Needs bitsandbytes.",
    )
    batch_size: int = Field(
        default=8, ge=1, description="Answers written at once; on a GPU more is faster. They are kept batch by batch."
    )
    batch_tokens: int = Field(
        default=32_768, ge=1, description="Prompt tokens in such a batch: bounds the memory of keys and values."
    )
    device: str = Field(
        default="auto",
        description="auto (CUDA where present, else CPU), cpu, cuda, cuda:N, or several with commas: each holds the "
        "model and takes its share of the samples.",
        json_schema_extra={"digest": False},
    )
    chunk: int = Field(
        default=1024,
        ge=1,
        description="Positions whose logits exist at once; memory is chunk x vocabulary x 4 bytes.",
        json_schema_extra={"digest": False},
    )

    @model_validator(mode="after")
    def _names_in_the_gate(self) -> EvaluateSettings:
        named = [
            *(("headline", name) for name in (self.gate.headline,) if name),
            *(("floors", n) for n in self.gate.floors),
        ]
        for key, name in named:
            if name not in get_args(TaskName):
                near = difflib.get_close_matches(name, get_args(TaskName), n=1)
                hint = f", did you mean {near[0]!r}?" if near else f" (there are {', '.join(get_args(TaskName))})"
                raise ValueError(f"gate.{key}: no task {name!r}{hint}")
        return self

    @field_validator("device")
    @classmethod
    def _known_devices(cls, value: str) -> str:
        for device in value.split(","):
            if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device.strip()):
                raise ValueError(f"{device.strip()!r} is none of auto, cpu, cuda and cuda:N")
        return value


FILES = ("leval", "longbench", "longchat")  # suites whose files are an input of that name


def evaluation_paths(settings: EvaluateSettings) -> list[tuple[str, Path, str]]:
    """External inputs of the tasks that are chosen, besides texts and template: input name, path, key."""
    found: list[tuple[str, Path | None, str]] = [
        (name, getattr(settings, name).path, f"evaluate.{name}.path") for name in FILES if name in settings.tasks
    ]
    if "passkey" in settings.tasks:
        found.append(("wording", settings.passkey.wording, "evaluate.passkey.wording"))
    if "lm_eval" in settings.tasks:
        found.append(("lm_eval", settings.lm_eval.include_path, "evaluate.lm_eval.include_path"))
    return [(name, path, key) for name, path, key in found if path is not None]
