"""Settings of the ``dataset`` section of a run file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from datasets_build.conversations import Turns
from datasets_build.gates.settings import GatesSettings
from datasets_build.recipes import RECIPES
from datasets_build.rows import DOCUMENTS, IMPORT_TASK
from datasets_build.teacher.recipes import TEACHER_RECIPES
from datasets_build.teacher.settings import TeacherSettings
from longlora.templates import TemplateSetting


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _record(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        counted = [name for name, field in fields.items() if field.json_schema_extra != {"digest": False}]
        return {name: _record(getattr(value, name)) for name in counted}
    if isinstance(value, tuple | list):
        return [_record(v) for v in value]
    return value.name if isinstance(value, Path) else value


class RecipeSettings(_Settings):
    """One recipe. A bare name is short for ``{name: NAME}``."""

    name: str = Field(description="Name of a recipe, for instance title, quote or caption.")
    per_document: int | None = Field(
        None, ge=1, description="Rows of this recipe per document at most; null takes dataset.per_document."
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        known = {**RECIPES, **TEACHER_RECIPES}
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown recipe {name!r}; {hint}known: {', '.join(sorted(known))}")
        return name


class FieldNames(_Settings):
    """What an imported file calls its columns."""

    instruction: str = Field("instruction", description="Column with the question or task.")
    input: str = Field(
        "input", description="Column appended to the instruction after a blank line; may be absent or empty."
    )
    output: str = Field("output", description="Column with the answer.")
    conversation: str = Field(
        "",
        description="Column with a conversation; empty: conversations (ShareGPT) or messages, where a row has one of "
        "them and no instruction.",
    )


class ImportSettings(_Settings):
    """Ready-made question-answer rows: a file, a folder or a dataset of the hub."""

    path: Path | None = Field(
        None,
        description="The file, or a folder that datasets.load_dataset opens. Its content, not its name, counts for "
        "caching.",
    )
    hub: str | None = Field(
        None, description="Id of a dataset on the Hugging Face hub, in place of path. It is fetched once."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id; null is main.")
    subset: str | None = Field(None, description="Configuration of a folder or hub dataset; null is its default.")
    split: str = Field("train", description="Split of a folder or hub dataset.")
    format: Literal["auto", "json", "jsonl", "parquet", "csv"] = Field(
        "auto",
        description="Of a file. json: one list of objects (Alpaca, LongAlpaca, ShareGPT); jsonl: one object per line; "
        "csv: a header line, cells apart by comma, semicolon or tab; auto: look.",
    )
    turns: Turns = Field(
        "first",
        description="Of a conversation. first: its first question and answer; each: every question with its answer, "
        "what was said before in front of it.",
    )
    kind: Literal["short", "long"] = Field(
        "short",
        description="Which share of dataset.mix the rows belong to. Short rows keep general abilities.",
    )
    license: str = Field(
        "unknown",
        description="Licence of the rows, recorded with each of them and in the card; unknown: what the dataset card "
        "of a folder or hub dataset says.",
    )
    fields: FieldNames = Field(FieldNames.model_validate({}), description="Column names where they are not Alpaca's.")

    @model_validator(mode="after")
    def _one_source(self) -> ImportSettings:
        if (self.path is None) == (self.hub is None):
            raise ValueError("an import has either path or hub")
        return self


class LengthSettings(_Settings):
    """One of the lengths that contexts are filled to."""

    tokens: int = Field(
        ge=64, description="Prompt and answer together, in tokens of the target model; at most dataset.max_tokens."
    )
    share: float = Field(1.0, gt=0, description="Weight of this length: 2 is drawn twice as often as 1.")


class MixSettings(_Settings):
    """How many rows of each kind, both splits together. LongAlpaca-12k: long 9000, short 3000."""

    long: int | None = Field(
        None, ge=0, description="Rows made from documents, and imports of kind long; null keeps all."
    )
    short: int | None = Field(None, ge=0, description="Rows of imports of kind short; null keeps all.")
    tasks: dict[str, int | float] = Field(
        {},
        description="At most so many rows of a task: a whole number counts rows, a fraction is a share of the rows of "
        "its kind. Tasks not named share what is left, each in turn.",
    )
    sources: dict[str, int | float] = Field(
        {},
        description="The same for sources: documents (all of them), import-0, import-1, ... (dataset.imports by "
        "number), or a doc_id.",
    )
    max_task_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="No task has more than this share of the rows of its kind, or than an equal one where there are "
        "too few tasks; null sets no bound. Imported rows are not bounded.",
    )

    @model_validator(mode="after")
    def _amounts(self) -> MixSettings:
        for name, amount in (*self.tasks.items(), *self.sources.items()):
            if amount < 0 or (isinstance(amount, float) and amount > 1):
                raise ValueError(f"{name}: {amount} is neither a count (0, 1, 2, ...) nor a share (0.0 to 1.0)")
        return self


class DatasetSettings(_Settings):
    """From documents to instruction rows."""

    max_tokens: int = Field(
        8192,
        ge=64,
        description="Window in tokens of the target model, prompt and answer together. Longer documents are "
        "windowed. Training memory and time grow with it.",
    )
    min_tokens: int = Field(
        0, ge=0, description="Rows from documents with fewer tokens are rejected; imports are as they are."
    )
    fill: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Windows of a long document are drawn between this share of max_tokens and all of it: "
        "lower gives more varied lengths and cheaper rows, 1 gives only full windows.",
    )
    lengths: tuple[LengthSettings, ...] = Field(
        (),
        description="Lengths to fill contexts to, each row drawing one by its share (dataset.fill applies to it). "
        "Short documents get others beside them until the length is reached. Empty: a context holds one document, "
        "as much as fits, but for recipes that need several.",
    )
    template: TemplateSetting = Field(
        "chat",
        description="How a row becomes a prompt: chat (the model's own), inst (LongAlpaca), plain, or a .jinja file in "
        "place of the model's chat template.",
    )
    seed: int = Field(1, description="Draws passages, phrasings, windows, split and sample. Same seed, same rows.")
    recipes: tuple[RecipeSettings, ...] | None = Field(
        None,
        description="Recipes to use, by name or with options; null uses all (those of a teacher where one is set).",
    )
    per_document: int = Field(
        6,
        ge=1,
        description="Rows of one recipe per document at most. More rows from few documents overlap more.",
    )
    license: str = Field("unknown", description="Licence of the documents, recorded with their rows.")
    teacher: TeacherSettings | None = Field(
        None, description="The model behind the recipes paper-qa, book-qa, comparison, review and summary."
    )
    imports: tuple[ImportSettings, ...] = Field((), description="Files with ready-made rows.")
    mix: MixSettings = Field(MixSettings.model_validate({}), description="Rows of each kind to sample.")
    validation_share: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of rows held out, whole documents at a time (one at least); 0 holds out none.",
    )
    min_rows: int = Field(1, ge=1, description="Fewer rows than this in all is an error.")
    min_validation_rows: int = Field(
        5, ge=1, description="Fewer held-out rows than this is an error: too few to measure anything."
    )
    exclude_duplicates: bool = Field(
        True,
        description="Drop rows with the same instruction and answer or nearly so, and documents with the same text. "
        "False keeps and reports them.",
    )
    decontaminate: tuple[Path, ...] = Field(
        (),
        description="Evaluation files (.txt, .md, .json, .jsonl, .parquet, .csv) and folders of them: rows that share "
        "dataset.gates.ngram words in a row with any text in them are left out. Their content counts for caching.",
    )
    gates: GatesSettings = Field(
        GatesSettings.model_validate({}), description="What rows have to pass before they are published."
    )
    workers: int = Field(
        1,
        ge=1,
        description="Processes that build rows. Each takes seconds to start: for hundreds of documents. "
        "A build that lacks the rows of a few documents starts none.",
        json_schema_extra={"digest": False},
    )

    @field_validator("recipes")
    @classmethod
    def _no_repeats(cls, recipes: tuple[RecipeSettings, ...] | None) -> tuple[RecipeSettings, ...] | None:
        names = [r.name for r in recipes or ()]
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise ValueError(f"recipe listed twice: {', '.join(repeated)}")
        return recipes

    @model_validator(mode="after")
    def _mix_names_what_there_is(self) -> DatasetSettings:
        places = [DOCUMENTS, *(f"import-{i}" for i in range(len(self.imports)))]
        for what, names, known in (
            ("tasks", self.mix.tasks, [*RECIPES, *TEACHER_RECIPES, IMPORT_TASK]),
            ("sources", self.mix.sources, places),
        ):
            for name in names:
                if name not in known and not (what == "sources" and re.fullmatch(r"[0-9a-f]{16}", name)):
                    raise ValueError(f"mix.{what}: no {name!r}; there are {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _min_below_max(self) -> DatasetSettings:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens}) is above max_tokens ({self.max_tokens})")
        longest = max((length.tokens for length in self.lengths), default=0)
        if longest > self.max_tokens:
            raise ValueError(f"lengths has {longest} tokens, above max_tokens ({self.max_tokens})")
        return self

    @model_validator(mode="after")
    def _teacher_for_its_recipes(self) -> DatasetSettings:
        named = [r.name for r in self.recipes or () if r.name in TEACHER_RECIPES]
        if named and self.teacher is None:
            raise ValueError(f"recipe {named[0]} needs a teacher: set dataset.teacher (base_url and model, or local)")
        return self

    def record(self) -> dict[str, Any]:
        """What decides the rows, for the published dataset: nothing of this machine but the names of files."""
        return _record(self)

    def chosen_recipes(self) -> dict[str, int]:
        """Recipe name -> rows per document, ordered by name: those without a teacher."""
        return self._chosen(RECIPES)

    def chosen_teacher_recipes(self) -> dict[str, int]:
        """The same for the recipes of a teacher; empty without one."""
        return self._chosen(TEACHER_RECIPES) if self.teacher is not None else {}

    def _chosen(self, registry: Collection[str]) -> dict[str, int]:
        recipes = (
            self.recipes if self.recipes is not None else tuple(RecipeSettings.model_validate(n) for n in registry)
        )
        known = sorted((r for r in recipes if r.name in registry), key=lambda r: r.name)
        return {r.name: r.per_document or self.per_document for r in known}
