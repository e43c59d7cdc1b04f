"""Settings of the ``dataset`` section of a run file."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from datasets_build.recipes import RECIPES
from datasets_build.teacher.recipes import TEACHER_RECIPES
from datasets_build.teacher.settings import TeacherSettings
from longlora.templates import TemplateSetting


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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


class ImportSettings(_Settings):
    """A file of ready-made question-answer rows."""

    path: Path = Field(description="The file. Its content, not its name, counts for caching.")
    format: Literal["auto", "json", "jsonl", "parquet"] = Field(
        "auto",
        description="json: one list of objects (Alpaca, LongAlpaca); jsonl: one object per line; auto: look.",
    )
    kind: Literal["short", "long"] = Field(
        "short",
        description="Which share of dataset.mix the rows belong to. Short rows keep general abilities.",
    )
    license: str = Field("unknown", description="Licence of the rows, recorded with each of them and in the card.")
    fields: FieldNames = Field(FieldNames.model_validate({}), description="Column names where they are not Alpaca's.")


class MixSettings(_Settings):
    """How many rows of each kind, both splits together. LongAlpaca-12k: long 9000, short 3000."""

    long: int | None = Field(
        None, ge=0, description="Rows made from documents, and imports of kind long; null keeps all."
    )
    short: int | None = Field(None, ge=0, description="Rows of imports of kind short; null keeps all.")


class DatasetSettings(_Settings):
    """From documents to instruction rows."""

    max_tokens: int = Field(
        8192,
        ge=64,
        description="Window in tokens of the target model, prompt and answer together. Longer documents are "
        "windowed. Training memory and time grow with it.",
    )
    min_tokens: int = Field(
        0, ge=0, description="Rows from documents with fewer tokens are rejected; short imports are exempt."
    )
    fill: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Windows of a long document are drawn between this share of max_tokens and all of it: "
        "lower gives more varied lengths and cheaper rows, 1 gives only full windows.",
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
        True, description="Drop rows with the same instruction and answer, and documents with the same text."
    )
    workers: int = Field(
        1,
        ge=1,
        description="Processes that build rows. Each takes seconds to start: for hundreds of documents.",
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
    def _min_below_max(self) -> DatasetSettings:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens}) is above max_tokens ({self.max_tokens})")
        return self

    @model_validator(mode="after")
    def _teacher_for_its_recipes(self) -> DatasetSettings:
        named = [r.name for r in self.recipes or () if r.name in TEACHER_RECIPES]
        if named and self.teacher is None:
            raise ValueError(f"recipe {named[0]} needs a teacher: set dataset.teacher (base_url and model, or local)")
        return self

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
